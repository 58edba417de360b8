package ofctrl

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// unpolled is a connection by a Unix socket that Go's poller does not watch: who reads waits in the system call. The poller is woken by
// each message that comes, whether somebody waits for it or not, which is most of what a copy of a packet costs where many come and are
// read together.
type unpolled struct {
	net.Conn // closed: it says between whom the connection is
	file     *os.File
}

// unpoll takes c over.
func unpoll(c *net.UnixConn) (net.Conn, error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	control := raw.Control(func(polled uintptr) { fd, err = unix.FcntlInt(polled, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(control, err); err != nil {
		return nil, fmt.Errorf("copy the socket: %w", err)
	}
	if err := unix.SetNonblock(fd, false); err != nil { // of both, and the other is closed unused
		unix.Close(fd)
		return nil, fmt.Errorf("wait for the socket: %w", err)
	}
	return &unpolled{c, os.NewFile(uintptr(fd), c.RemoteAddr().String())}, nil
}

func (u *unpolled) Read(b []byte) (int, error) { return u.file.Read(b) }

// Write returns os.ErrDeadlineExceeded when the peer has taken nothing for as long as SetWriteDeadline gave it.
func (u *unpolled) Write(b []byte) (int, error) {
	n, err := u.file.Write(b)
	if errors.Is(err, unix.EAGAIN) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// SetWriteDeadline bounds how long each of the following writes waits for the peer to take something.
func (u *unpolled) SetWriteDeadline(t time.Time) error {
	return u.socket(func(fd int) error {
		tv := unix.NsecToTimeval(max(time.Until(t), time.Microsecond).Nanoseconds())
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	})
}

// Close ends a Read and a Write that wait.
func (u *unpolled) Close() error {
	return errors.Join(u.socket(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) }), u.file.Close())
}

func (u *unpolled) socket(do func(fd int) error) error {
	raw, err := u.file.SyscallConn()
	if err != nil {
		return err
	}
	control := raw.Control(func(fd uintptr) { err = do(int(fd)) })
	return errors.Join(control, err)
}
