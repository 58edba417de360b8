package client

import (
	"fmt"
	"os"
	"os/user"
	"syscall"
)

// socketGroup names the group that may open the socket.
func socketGroup(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "the group of the socket"
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "the group of the socket"
	}
	if g, err := user.LookupGroupId(fmt.Sprint(st.Gid)); err == nil {
		return "group " + g.Name
	}
	return fmt.Sprintf("group %d", st.Gid)
}
