package spool_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event/spool"
)

// A document that is larger than any that is read back is refused, or what is behind it in its segment would be lost with it.
func TestTooLarge(t *testing.T) {
	var out outcomes
	s := open(t, spool.Options{Dir: t.TempDir()}, &out)
	b := s.Batch()
	for i := 1; i <= 5; i++ {
		e := newEvent(i)
		if i == 3 {
			e.Tapwall.Mirror = strings.Repeat("x", 1<<20)
		}
		if err := b.Add(e); (err != nil) != (i == 3) {
			t.Errorf("%d: %v", i, err)
		}
	}
	s.Append(b)
	settle(t, s)
	if got, want := read(t, s, spool.Query{}), []int{1, 2, 4, 5}; !slices.Equal(got, want) || out.spoilt != 0 || out.kept != 4 {
		t.Errorf("%v, want %v: %+v", got, want, &out)
	}
}

// Whatever others do to the file that is written, what comes after that is kept, and what they spoilt is counted.
func TestMeddledWith(t *testing.T) {
	for name, meddle := range map[string]func(path string, data []byte) error{
		"emptied":   func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"cut short": func(path string, data []byte) error { return os.Truncate(path, int64(len(data)-7)) },
		"added to":  func(path string, data []byte) error { return os.WriteFile(path, append(data, "junk"...), 0o600) },
		"replaced": func(path string, _ []byte) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, nil, 0o600))
		},
		"a link now": func(path string, _ []byte) error {
			return errors.Join(os.Remove(path), os.Symlink("/dev/null", path))
		},
	} {
		dir := t.TempDir()
		var out outcomes
		s := open(t, spool.Options{Dir: dir}, &out)
		add(t, s, 1, 10)
		settle(t, s)
		path := segments(t, dir)[0]
		data, err := os.ReadFile(path)
		if err == nil {
			err = meddle(path, data)
		}
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, 20, 5)
		settle(t, s)
		got := read(t, s, spool.Query{})
		if n := len(got); n < 5 || !slices.Equal(got[n-5:], numbers(20, 24)) || out.spoilt != int64(15-n) {
			t.Errorf("%s: %v, %d spoilt", name, got, out.spoilt)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A segment that another version of tapwall has left is not destroyed.
func TestOtherVersion(t *testing.T) {
	dir := t.TempDir()
	s := open(t, spool.Options{Dir: dir})
	add(t, s, 1, 10)
	settle(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := segments(t, dir)[0]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(data, "twspool2")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, spool.Options{Dir: dir})
	add(t, s, 20, 5)
	settle(t, s)
	if got := read(t, s, spool.Query{}); !slices.Equal(got, numbers(20, 24)) {
		t.Errorf("%v", got)
	}
	aside, _ := filepath.Glob(filepath.Join(dir, "*.other-version"))
	if len(aside) != 1 {
		t.Fatalf("%d files are aside", len(aside))
	}
	if kept, err := os.ReadFile(aside[0]); err != nil || string(kept) != string(data) {
		t.Errorf("%d bytes of %d: %v", len(kept), len(data), err)
	}
}

// A segment that the disk does not read any more holds up its reader for ten minutes, not for as long as it is kept, and is counted.
func TestUnreadableSegment(t *testing.T) {
	dir := t.TempDir()
	var late atomic.Int64
	s := open(t, spool.Options{Dir: dir, SegmentBytes: 8 << 10, Now: func() time.Time { return begin.Add(time.Duration(late.Load())) }})
	c := cursor(t, s)
	for i := range 10 {
		add(t, s, 20*i, 20)
		settle(t, s)
	}
	bad := segments(t, dir)[2]
	if err := errors.Join(os.Remove(bad), os.Mkdir(bad, 0o750)); err != nil {
		t.Fatal(err)
	}
	got, failures := 0, 0
	for _, pending := whole(t, c); pending > 0; _, pending = whole(t, c) {
		ch, err := c.Read(t.Context(), 7, 1<<20, 0)
		if err != nil {
			failures++
			late.Add(int64(4 * time.Minute))
			continue
		}
		got += len(ch.Records)
		c.Done(ch, spool.Done{Created: int64(len(ch.Records))})
	}
	cp, _ := whole(t, c)
	if cp.Corrupt < 10 || cp.Corrupt > 60 || cp.Created != int64(got) || cp.Total() != 200 || s.Status().Spoilt != cp.Corrupt {
		t.Errorf("%d came: %+v", got, cp)
	}
	if failures != 3 {
		t.Errorf("it was tried %d times", failures)
	}
}
