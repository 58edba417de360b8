package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockedError says who holds a lock file. It matches ErrLocked.
type LockedError struct {
	Path string
	PID  int // 0 = not known
}

// Error implements error.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is %v", e.Path, ErrLocked)
	}
	return fmt.Sprintf("%s is %v (pid %d)", e.Path, ErrLocked, e.PID)
}

// Unwrap makes errors.Is match ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// LockFile takes an exclusive advisory lock (flock(2)) on path, creating it with mode 0600, and writes the process id into it. It does not
// wait: a lock that somebody else holds, also in this process, is a *LockedError. The kernel drops the lock when the process ends in
// any way. release may be called more than once; it leaves the file where it is, since removing it would let two processes lock two
// files of one name.
func LockFile(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 while the holder has not written it yet
		return nil, &LockedError{Path: path, PID: pid}
	}
	// The id is for the message only, so a full disk must not keep the lock from being taken.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return func() { _ = f.Close() }, nil
}
