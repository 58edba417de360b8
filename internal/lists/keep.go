package lists

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// A list is kept in a file that bears the name of its group: a line of JSON, then an address range on each. The time of the file is that
// at which the list was last seen to be the newest.
type head struct {
	Key string `json:"key"` // of the source
	Sum string `json:"sum"` // of the text that it was read from
	validators
	Entries int   `json:"entries"`
	Skipped int   `json:"skipped,omitempty"`
	Lines   []int `json:"lines,omitempty"`
}

func (k *Keeper) path(group string) string { return filepath.Join(k.o.StateDir, group) }

// recall returns what is kept of the list of a group.
func (k *Keeper) recall(group string) *list {
	l := &list{}
	if k.o.StateDir == "" {
		return l
	}
	kept, err := readKept(k.path(group))
	if errors.Is(err, os.ErrNotExist) {
		return l
	}
	if err != nil {
		k.o.Logger.Warn("a list that was kept is lost", "group", group, "err", err)
		return l
	}
	kept.members = kept.content.members(group, nil)
	kept.tell()
	return kept
}

func readKept(path string) (*list, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 64<<10)
	var h head
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &h) != nil {
		return nil, errKept
	}
	l := &list{ofKey: h.Key, known: h.validators, fetched: info.ModTime(), content: content{skipped: h.Skipped, lines: h.Lines}}
	if n, err := hex.Decode(l.sum[:], []byte(h.Sum)); err != nil || n != len(l.sum) {
		return nil, errKept
	}
	for lines.Scan() {
		p, err := netip.ParsePrefix(lines.Text())
		if err != nil {
			return nil, errKept
		}
		l.content.prefixes = append(l.content.prefixes, p)
	}
	if lines.Err() != nil || len(l.content.prefixes) != h.Entries {
		return nil, errKept
	}
	return l, nil
}

// keep writes down a list, or where it is the same as is kept, when that was seen.
func (k *Keeper) keep(group string, l *list, changed bool) error {
	if k.o.StateDir == "" {
		return nil
	}
	path := k.path(group)
	if !changed {
		if err := os.Chtimes(path, time.Time{}, l.fetched); err == nil {
			return nil
		}
	}
	var b bytes.Buffer
	first, err := json.Marshal(head{Key: l.ofKey, Sum: hex.EncodeToString(l.sum[:]), validators: l.known, Entries: len(l.content.prefixes),
		Skipped: l.content.skipped, Lines: l.content.lines})
	if err != nil {
		return err
	}
	b.Write(append(first, '\n'))
	for _, p := range l.content.prefixes {
		b.WriteString(p.String())
		b.WriteByte('\n')
	}
	if err := os.MkdirAll(k.o.StateDir, 0o700); err != nil {
		return err
	}
	return replace(path, b.Bytes(), l.fetched)
}

// replace puts a file in the place of another so that there is always one of them, whole.
func replace(path string, text []byte, at time.Time) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chtimes(f.Name(), at, at)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// forget removes what is kept of a list.
func (k *Keeper) forget(group string) {
	if k.o.StateDir == "" {
		return
	}
	if err := os.Remove(k.path(group)); err != nil && !errors.Is(err, os.ErrNotExist) {
		k.o.Logger.Warn("a list that is not needed any more could not be removed", "group", group, "err", fmt.Sprint(reason(err)))
	}
}
