package event

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrBadID says that a text is no event id; match with errors.Is.
var ErrBadID = errors.New("not an event id, like 9f3a21c4-0001-000000004qk7v")

const (
	base32hex = "0123456789abcdefghijklmnopqrstuv"
	idLen     = 8 + 1 + 4 + 1 + 13
	gapSuffix = "-lost"
)

// ID is the place of an event in the record: <install 8 hex>-<epoch 4 hex>-<sequence 13 base32hex>. Ids of one installation sort
// as text in the order of acceptance.
type ID struct {
	Install  uint32
	Epoch    uint16 // counts the starts of the recorder; from 1
	Sequence int64  // event.sequence; grows by one per event within an epoch, and never falls over restarts
}

// String is the text form.
func (id ID) String() string { return string(id.AppendTo(make([]byte, 0, idLen))) }

// Gap is the id of a loss that is told to one stream only: the place up to which that stream has been served.
func (id ID) Gap() string { return id.String() + gapSuffix }

// AppendTo appends the text form.
func (id ID) AppendTo(b []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[id.Install>>shift&15])
	}
	b = append(b, '-')
	for shift := 12; shift >= 0; shift -= 4 {
		b = append(b, digits[id.Epoch>>shift&15])
	}
	b = append(b, '-')
	for shift := 60; shift >= 0; shift -= 5 {
		b = append(b, base32hex[uint64(id.Sequence)>>shift&31])
	}
	return b
}

// ParseID reads an id, also one that Gap made; errors match ErrBadID.
func ParseID(s string) (ID, error) {
	t := strings.TrimSuffix(s, gapSuffix)
	bad := func() (ID, error) { return ID{}, fmt.Errorf("%q: %w", s, ErrBadID) }
	if len(t) != idLen || t[8] != '-' || t[13] != '-' {
		return bad()
	}
	install, err1 := strconv.ParseUint(t[:8], 16, 32)
	epoch, err2 := strconv.ParseUint(t[9:13], 16, 16)
	if err1 != nil || err2 != nil {
		return bad()
	}
	var seq uint64
	for _, c := range []byte(t[14:]) {
		v := strings.IndexByte(base32hex, c)
		if v < 0 || seq>>58 != 0 {
			return bad()
		}
		seq = seq<<5 | uint64(v)
	}
	if seq>>63 != 0 {
		return bad()
	}
	return ID{Install: uint32(install), Epoch: uint16(epoch), Sequence: int64(seq)}, nil
}
