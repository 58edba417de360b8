package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

const (
	defaultReserve = 96 << 20
	// newMemberBytes is what a new member allocates on top of the reserve: two log segments of 64 MB.
	newMemberBytes = 128 << 20
	// ballastBytes are held by a file that is given up piece by piece, for what takes access away: on a disk that others fill to the last
	// byte, who has all of it at once has none the next time.
	ballastBytes = 16 << 20
	ballastPiece = 4 << 20
	// urgentBytes are enough for a deletion or a quarantine: etcd's log is allocated ahead, its database grows by pages.
	urgentBytes = 2 << 20
	ballastName = "reserve"
)

// space watches the free space of the file system below the embedded member. etcd ends its process when a write to its log or database
// fails, so tapwall refuses writes while there is still room for what etcd itself may allocate.
type space struct {
	dir     string
	reserve int64

	mu      sync.Mutex // guards what follows
	ballast int64      // bytes of the file
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

// urgent is check for what may use all the space that there is, the ballast included.
func (sp *space) urgent() error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for {
		free, err := sp.free()
		if err != nil || free >= min(urgentBytes, max(sp.reserve, 0)) {
			return err
		}
		if sp.ballast == 0 {
			return sp.need(0)
		}
		sp.ballast = max(0, sp.ballast-ballastPiece)
		if err := os.Truncate(filepath.Join(sp.dir, ballastName), sp.ballast); err != nil {
			return fmt.Errorf("store: the reserved space is not given up: %w", err)
		}
	}
}

// stock brings the ballast up to its size where there is space for it beyond the reserve. Without it what is urgent has what is free.
func (sp *space) stock() error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	name := filepath.Join(sp.dir, ballastName)
	if st, err := os.Stat(name); err == nil {
		sp.ballast = st.Size() // of an earlier process
	}
	if sp.ballast >= ballastBytes || sp.need(ballastBytes-sp.ballast) != nil {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("store: space for deletions is not reserved: %w", err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, ballastBytes)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.WriteAt(make([]byte, ballastBytes), 0)
	}
	if err != nil {
		return fmt.Errorf("store: space for deletions is not reserved: %w", err)
	}
	sp.ballast = ballastBytes
	return nil
}

// urgent reports whether all of the changes take access away: deletions, and quarantines.
func urgent(changes []backend.Change) bool {
	for _, c := range changes {
		if c.Resource != nil && c.Kind != policy.KindQuarantine {
			return false
		}
	}
	return true
}

// isNoSpace also looks at the text, because etcd's log entries carry causes as text.
func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) ||
		strings.Contains(err.Error(), unix.ENOSPC.Error()) || strings.Contains(err.Error(), unix.EDQUOT.Error())
}
