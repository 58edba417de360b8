//go:build unix

package jsonl

import (
	"os"
	"syscall"
)

// links is the number of names a file has; 0 means that it was deleted.
func links(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // the type differs between systems
	}
	return 1
}
