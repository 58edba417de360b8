package main

import (
	"encoding/json"
	"io"
	"os"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
)

// line is what is printed of an event, or of several that say the same.
type line struct {
	e    *event.Event // the first
	raw  []byte
	n    int
	last time.Time
}

// foldMore is how many times as many events are asked for where some say the same.
const foldMore = 10

// lines puts denials together that say the same of the same connection, one behind the other: a sender tries again and again.
func (x *observer) lines(events []*event.Event, raws []json.RawMessage) []line {
	out := make([]line, 0, len(events))
	for i, e := range events {
		if n := len(out); x.folds && n > 0 && sameDenial(out[n-1].e, e) {
			out[n-1].n++
			out[n-1].last = e.Timestamp
			continue
		}
		out = append(out, line{e, raws[i], 1, e.Timestamp})
	}
	return out
}

// sameDenial reports whether two events say the same of the same connection.
func sameDenial(a, b *event.Event) bool {
	if !slices.Contains(a.Event.Type, "denied") || !slices.Contains(b.Event.Type, "denied") || a.Network == nil || b.Network == nil ||
		a.Network.CommunityID == "" || a.Rule == nil || b.Rule == nil || a.Observer == nil || b.Observer == nil {
		return false
	}
	x, y := &a.Tapwall, &b.Tapwall
	return a.Network.CommunityID == b.Network.CommunityID && *a.Rule == *b.Rule &&
		a.Observer.Name == b.Observer.Name && x.Bridge == y.Bridge && x.Direction == y.Direction && x.Verdict == y.Verdict &&
		x.DropReason == y.DropReason && slices.Equal(flags(x.TCP), flags(y.TCP)) && a.Source != nil && b.Source != nil && *a.Source == *b.Source
}

func flags(t *event.TCP) []string {
	if t == nil {
		return nil
	}
	return t.Flags
}

// terminal reports whether somebody reads what is written.
func terminal(w io.Writer) bool {
	f, ok := unscreened(w).(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
