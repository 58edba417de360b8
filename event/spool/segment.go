package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/event"
)

// A segment is a file of records behind a header, all numbers little-endian. Its name is the number of its first record, counted since the
// spool was made.
//
//	header:  "twspool1"  number of the first record (8)  CRC-32C of both (4)
//	record:  length of the document (4)  CRC-32C of all behind it (4)  sequence (8)  time in ns (8)  class (1)  0 (3)  document
//	footer:  a record of the class footerClass, as the last one: records (8)  oldest (8)  newest (8)  first (8) and last sequence (8)
const (
	magic     = "twspool1"
	headerLen = len(magic) + 8 + 4
	recordLen = 4 + 4 + 8 + 8 + 1 + 3
	footerLen = 5 * 8
	maxRecord = 1 << 20 // bytes of a document

	suffix = ".events"

	footerClass = 0xff
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Record is one event as it is kept. JSON is good until the function that got it returns.
type Record struct {
	Sequence int64
	Time     int64 // ns, @timestamp
	Class    event.Class
	JSON     []byte
}

// segment is what is known of one. It is guarded by Spool.mu, but for first and path, which do not change.
type segment struct {
	path  string
	first uint64 // number of its first record
	size  int64  // of whole records, and the header
	count int64  // records that can be read
	// Of the records.
	oldest, newest    int64
	firstSeq, lastSeq int64

	spoilt bool // told of
}

var classes = [...]event.Class{event.P0, event.P1, event.P2}

func classByte(c event.Class) byte { return byte(max(slices.Index(classes[:], c), 0)) }

// seal fills in the head of a record whose document is there already.
func seal(b []byte, h head) {
	le.PutUint32(b, uint32(len(b)-recordLen))
	le.PutUint64(b[8:], uint64(h.seq))
	le.PutUint64(b[16:], uint64(h.time))
	b[24] = classByte(h.class)
	sum(b)
}

func sum(b []byte) { le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli)) }

// cut takes the first record from b. ok is false if b does not begin with a whole one.
func cut(b []byte) (record, rest []byte, ok bool) {
	if len(b) < recordLen {
		return nil, b, false
	}
	n := le.Uint32(b)
	if n > maxRecord || int(n) > len(b)-recordLen {
		return nil, b, false
	}
	record = b[:recordLen+int(n)]
	return record, b[len(record):], le.Uint32(record[4:]) == crc32.Checksum(record[8:], castagnoli)
}

// parse reads a record that cut has found; footer = it is none.
func parse(b []byte) (r Record, footer bool) {
	if b[24] == footerClass {
		return Record{}, true
	}
	return Record{
		Sequence: int64(le.Uint64(b[8:])), Time: int64(le.Uint64(b[16:])), Class: classes[min(int(b[24]), len(classes)-1)], JSON: b[recordLen:],
	}, false
}

func appendHeader(b []byte, first uint64) []byte {
	start := len(b)
	b = le.AppendUint64(append(b, magic...), first)
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// appendFooter sums up a segment, so that it need not be read to know what it has.
func (g *segment) appendFooter(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, recordLen)...)
	for _, n := range [...]int64{g.count, g.oldest, g.newest, g.firstSeq, g.lastSeq} {
		b = le.AppendUint64(b, uint64(n))
	}
	seal(b[start:], head{})
	b[start+24] = footerClass
	sum(b[start:])
	return b
}

// note takes a record into account.
func (g *segment) note(seq, time int64) {
	if g.count == 0 {
		g.oldest, g.newest, g.firstSeq, g.lastSeq = time, time, seq, seq
	}
	g.oldest, g.newest = min(g.oldest, time), max(g.newest, time)
	g.firstSeq, g.lastSeq = min(g.firstSeq, seq), max(g.lastSeq, seq)
	g.count++
}

func pathOf(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", first, suffix))
}

// read reads what a segment has now from off on, up to size bytes. Another one may be written or deleted meanwhile.
func read(path string, buf []byte, off, size int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // path is the operator's
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	buf = slices.Grow(buf[:0], int(size))[:size]
	n, err := f.ReadAt(buf, off)
	if err == io.EOF {
		err = nil // shorter than it was: what is missing is found to be spoilt
	}
	return buf[:n], err
}

// body is the records of a segment.
func body(data []byte, first uint64) ([]byte, bool) {
	if len(data) < headerLen || !bytes.Equal(data[:headerLen], appendHeader(nil, first)) {
		return nil, false
	}
	return data[headerLen:], true
}

// otherVersion reports whether data begins as the segment of another version of tapwall.
func otherVersion(data []byte) bool {
	return len(data) >= len(magic) && bytes.HasPrefix(data, []byte("twspool")) && !bytes.HasPrefix(data, []byte(magic))
}

// load finds the segments of earlier runs. Only the newest, and those of which a crash has left no footer, are read.
func (s *Spool) load() error {
	entries, err := os.ReadDir(s.o.Dir) // sorted by name, which is by age
	if err != nil {
		return err
	}
	for _, e := range entries {
		first, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), suffix), 10, 64)
		path := pathOf(s.o.Dir, first)
		if err != nil || filepath.Base(path) != e.Name() || !e.Type().IsRegular() || first > math.MaxInt64 {
			continue // not ours
		}
		g := &segment{path: path, first: first}
		closed, err := g.summary()
		if err == nil && !closed {
			err = s.recover(g)
		}
		if err != nil {
			return err
		}
		if g.count == 0 {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		s.segments = append(s.segments, g)
		s.w.next = first + uint64(g.count)
		s.w.sealed = closed
	}
	return nil
}

// summary reads the footer, if there is one.
func (g *segment) summary() (closed bool, err error) {
	f, err := os.Open(g.path)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	g.size = info.Size()
	var b [recordLen + footerLen]byte
	if g.size < int64(headerLen+len(b)) {
		return false, nil
	}
	if _, err := f.ReadAt(b[:], g.size-int64(len(b))); err != nil {
		return false, err
	}
	r, rest, ok := cut(b[:])
	if !ok || len(rest) > 0 || r[24] != footerClass {
		return false, nil
	}
	for i, n := range [...]*int64{&g.count, &g.oldest, &g.newest, &g.firstSeq, &g.lastSeq} {
		*n = int64(le.Uint64(r[recordLen+8*i:]))
	}
	return true, nil
}

// recover reads a segment that was being written when the process or the machine went down, and cuts off what is not whole. One of another
// version, such as before a downgrade, is put aside as it is, and g has no records.
func (s *Spool) recover(g *segment) error {
	data, err := read(g.path, nil, 0, g.size)
	if err != nil {
		return err
	}
	if otherVersion(data) {
		aside := g.path + ".other-version"
		s.log.Warn("a segment is of another version of tapwall: it is left aside, and not read", "file", aside)
		return os.Rename(g.path, aside)
	}
	whole := int64(0)
	if rest, ok := body(data, g.first); ok {
		for whole = int64(headerLen); len(rest) > 0; {
			var b []byte
			if b, rest, ok = cut(rest); !ok {
				break
			}
			r, _ := parse(b)
			g.note(r.Sequence, r.Time)
			whole += int64(len(b))
		}
	}
	if whole < g.size {
		s.log.Warn("the end of a segment is not whole and was cut off", "file", g.path, "bytes", g.size-whole)
		s.status.Spoilt++
		s.torn++
		if err := os.Truncate(g.path, whole); err != nil {
			return err
		}
	}
	g.size = whole
	return nil
}
