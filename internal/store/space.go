package store

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	defaultReserve = 96 << 20
	// newMemberBytes is what a new member allocates on top of the reserve: two log segments of 64 MB.
	newMemberBytes = 128 << 20
)

// space watches the free space of the file system below the embedded member. etcd ends its process when a write to its log or database
// fails, so tapwall refuses writes while there is still room for what etcd itself may allocate.
type space struct {
	dir     string
	reserve int64
}

// free is what an unprivileged process may still use. statfs(2) takes about a microsecond, so it is asked before every write.
func (sp *space) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(sp.dir, &st); err != nil {
		return 0, fmt.Errorf("store: %s: %w", sp.dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// check returns an error that matches ErrNoSpace and backend.ErrUnavailable when there is less than the reserve.
func (sp *space) check() error { return sp.need(0) }

func (sp *space) need(extra int64) error {
	free, err := sp.free()
	if err != nil {
		return &unavailable{text: "the free space is not known", cause: err}
	}
	if free >= sp.reserve+extra {
		return nil
	}
	return &unavailable{reason: ErrNoSpace,
		text: fmt.Sprintf("no space left on the file system of %s: %d MiB free, %d MiB needed to write safely",
			sp.dir, free>>20, (sp.reserve+extra)>>20)}
}

// isNoSpace also looks at the text, because etcd's log entries carry causes as text.
func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) ||
		strings.Contains(err.Error(), unix.ENOSPC.Error()) || strings.Contains(err.Error(), unix.EDQUOT.Error())
}
