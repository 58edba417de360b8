package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/proto"
)

// maxCheckBytes bounds the check of every page of the database: it reads the file once.
const maxCheckBytes = 64 << 20

// inspect reads the files of the embedded member before etcd does. etcd repairs what it cannot read by cutting the log there, and may then
// come up without writes that were acknowledged, or hang, or end the process. inspect changes nothing and returns an error for
// everything but a new directory, a healthy one, and one whose last, never acknowledged write was torn by a crash.
func inspect(dir string) error {
	database := filepath.Join(dir, "member", "snap", "db")
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal")) // sorted; names are sequence and first index in hexadecimal
	if err != nil {
		return err
	}
	info, err := os.Stat(database)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(logs) == 0:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the log is there but the database %s is not", database)
	case err != nil:
		return err
	}
	applied, err := inspectDatabase(database, info.Size())
	if err != nil {
		return fmt.Errorf("the database %s: %w", database, err)
	}
	if len(logs) == 0 {
		if applied > 0 {
			return fmt.Errorf("the database is there but the log in %s is not", filepath.Join(dir, "member", "wal"))
		}
		return nil // a first start that was interrupted
	}
	logged, err := inspectLog(logs)
	if err != nil {
		return fmt.Errorf("the log %s: %w", filepath.Join(dir, "member", "wal"), err)
	}
	if logged < applied {
		return fmt.Errorf("the log %s ends at entry %d, but the database has entry %d already", filepath.Join(dir, "member", "wal"), logged,
			applied)
	}
	return nil
}

// recoverTo makes an error of the panic of a decoder.
func recoverTo(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("it cannot be read: %v", p)
	}
}

// inspectDatabase returns the index of the last log entry that the database holds, 0 for none. bbolt's own check panics in a goroutine that
// nobody can recover, so the pages are visited by reading every key here; damaged pages panic here, too.
func inspectDatabase(path string, size int64) (applied uint64, err error) {
	defer recoverTo(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a mapped page that the file does not have is a fault
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		if size <= maxCheckBytes {
			err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
				return b.ForEach(func(_, _ []byte) error { return nil })
			})
			if err != nil {
				return err
			}
		}
		// The layout of etcd's schema: bucket meta, key consistent_index, 8 bytes big endian.
		if b := tx.Bucket([]byte("meta")); b != nil {
			if v := b.Get([]byte("consistent_index")); len(v) == 8 {
				applied = binary.BigEndian.Uint64(v)
			}
		}
		return nil
	})
	return applied, err
}

// inspectLog returns the index of the last entry that can be read. Every record is checksummed, and each file begins with the checksum of
// those before it.
func inspectLog(files []string) (last uint64, err error) {
	defer recoverTo(&err)
	var crc uint32
	for i, name := range files {
		l := logFile{last: last, first: i == 0, crc: crc}
		if err := l.read(name, i == len(files)-1); err != nil {
			return 0, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
		last, crc = l.last, l.crc
	}
	return last, nil
}

type logFile struct {
	first bool   // the first that is left: what its checksum goes on from is not known
	crc   uint32 // of the files before, then of this one, too
	last  uint64 // index of the last entry
}

func (l *logFile) read(name string, newest bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	dec := wal.NewDecoder(fileutil.NewFileReader(f))
	identified := false
	for {
		var rec walpb.Record
		err := dec.Decode(&rec)
		switch {
		case errors.Is(err, io.EOF), newest && errors.Is(err, io.ErrUnexpectedEOF): // the end, or a last record that a crash has torn
			if !identified {
				return errors.New("its beginning cannot be read")
			}
			l.crc = dec.LastCRC()
			return nil
		case err != nil:
			return err
		}
		switch rec.GetType() {
		case wal.MetadataType:
			identified = true
		case wal.EntryType:
			l.last = wal.MustUnmarshalEntry(rec.Data).GetIndex()
		case wal.SnapshotType:
			var snap walpb.Snapshot
			if err := proto.Unmarshal(rec.Data, &snap); err != nil {
				return err
			}
			l.last = max(l.last, snap.GetIndex()) // entries before a snapshot may have gone with their files
		case wal.CrcType:
			if want := dec.LastCRC(); want != 0 && rec.Validate(want) != nil || want == 0 && !l.first && rec.GetCrc() != l.crc {
				return wal.ErrCRCMismatch
			}
			dec.UpdateCRC(rec.GetCrc())
		}
	}
}
