package record

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/wholefile"
)

const (
	// A sequence number is epoch<<seqBits | counter: larger after every restart without a write per event, and exact in the
	// 53 bits a JavaScript number has.
	seqBits = 36
	seqMask = 1<<seqBits - 1

	identityFile = "event-identity"
)

// identity hands out ids. It belongs to the recorder's goroutine.
type identity struct {
	dir     string // "" = not kept
	install uint32
	epoch   uint16
	n       int64 // ids given in this epoch
}

// openIdentity begins a new epoch and writes it down before any id of it exists, so that no id is ever given twice. With a
// directory that cannot be read or written it takes a random installation id instead and returns why: ids stay unique, but are
// not ordered after those of earlier runs.
func openIdentity(dir string) (*identity, error) {
	id := &identity{dir: dir}
	err := id.advance()
	if err != nil {
		id.dir = ""
		id.install, id.epoch = randomInstall(), 1
	}
	return id, err
}

// advance begins the next epoch.
func (id *identity) advance() error {
	if id.dir == "" {
		if id.install == 0 || id.epoch == 0xffff {
			id.install, id.epoch = randomInstall(), 0
		}
		id.epoch++
		id.n = 0
		return nil
	}
	install, epoch, err := readIdentity(filepath.Join(id.dir, identityFile))
	if err != nil {
		return err
	}
	if install == 0 || epoch == 0xffff { // first start, an unreadable file, or 65,535 starts: a name never used before
		install, epoch = randomInstall(), 0
	}
	epoch++
	if err := writeIdentity(filepath.Join(id.dir, identityFile), install, epoch); err != nil {
		return err
	}
	id.install, id.epoch, id.n = install, epoch, 0
	return nil
}

// next gives the next id.
func (id *identity) next() event.ID {
	if id.n == seqMask {
		if err := id.advance(); err != nil {
			id.dir = ""
			id.install, id.epoch, id.n = randomInstall(), 1, 0
		}
	}
	id.n++
	return event.ID{Install: id.install, Epoch: id.epoch, Sequence: int64(id.epoch)<<seqBits | id.n}
}

// last is the sequence number that was given last.
func (id *identity) last() int64 { return int64(id.epoch)<<seqBits | id.n }

// readIdentity returns zeros for a file that is absent or makes no sense.
func readIdentity(path string) (install uint32, epoch uint16, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("event identity: %w", err)
	}
	var i, e uint64
	f := strings.Fields(string(data))
	if len(f) == 2 {
		var err1, err2 error
		i, err1 = strconv.ParseUint(f[0], 16, 32)
		e, err2 = strconv.ParseUint(f[1], 16, 16)
		if err1 != nil || err2 != nil {
			i, e = 0, 0
		}
	}
	return uint32(i), uint16(e), nil
}

// writeIdentity replaces the file; it is on disk when it returns.
func writeIdentity(path string, install uint32, epoch uint16) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("event identity: %w", err)
		}
	}()
	if err := wholefile.Write(path, fmt.Appendf(nil, "%08x %04x\n", install, epoch), 0o600); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func randomInstall() uint32 {
	var b [4]byte
	for {
		rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
		if v := binary.BigEndian.Uint32(b[:]); v != 0 {
			return v
		}
	}
}
