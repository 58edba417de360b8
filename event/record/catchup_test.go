package record_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
)

// fillSpool makes n events, every tenth a denial, of which memory keeps the last 512.
func fillSpool(t *testing.T, r *record.Recorder, n int) {
	t.Helper()
	for i := range n {
		side := egressAllow
		if i%10 == 0 {
			side = ingressDrop
		}
		r.HandlePacketIn("br0", newSYN(side))
		if i%200 == 199 {
			settle(t, r)
		}
	}
	settle(t, r)
}

// TestCatchUp: who goes on from where memory does not reach gets all from the spool, once each and in order, while new events come, also
// over a restart, also when it reads slowly, and by any filter.
func TestCatchUp(t *testing.T) {
	dir := t.TempDir()
	options := func() record.Options {
		return record.Options{DataDir: dir, RingLen: 512, QueueLen: 10_000, StreamLen: 64,
			Spool: openSpool(t, spool.Options{Dir: filepath.Join(dir, "spool"), SegmentBytes: 100_000})}
	}
	one, stop := start(t, options())
	fillSpool(t, one, 3000)
	stop()
	two, _ := start(t, options())
	fillSpool(t, two, 3000)
	denied := event.Filter{Verdict: []string{"DENIED"}}
	for name, tt := range map[string]struct {
		filter event.Filter
		slow   bool
	}{"everything": {}, "denials": {filter: denied}, "slowly": {slow: true}, "since": {filter: event.Filter{Since: noon.Add(-time.Hour)}}} {
		t.Run(name, func(t *testing.T) {
			f := tt.filter
			f.Limit = 1000
			before := all(t, two, f)
			after := before[10]
			if !f.Since.IsZero() {
				after = ""
			}
			f.Limit = 0
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ch, err := two.Subscribe(ctx, f, after)
			if err != nil {
				t.Fatal(err)
			}
			if after != "" {
				before = before[11:]
			}
			var got []*event.Event
			if tt.slow { // meanwhile the ring overtakes it more than once
				got = receive(t, ch, 100)
				fillSpool(t, two, 1500)
				got = append(got, receive(t, ch, len(before)+1000-100)...)
				fillSpool(t, two, 1000)
			} else {
				fillSpool(t, two, 20)
			}
			want := all(t, two, event.Filter{Limit: 1000, Verdict: f.Verdict, Since: f.Since})
			want = want[slices.Index(want, before[0]):]
			got = append(got, receive(t, ch, len(want)-len(got))...)
			if !slices.Equal(ids(got), want) {
				for i := range want {
					if got[i].Event.ID != want[i] {
						t.Fatalf("event %d of %d is %s (%s), want %s", i, len(want), got[i].Event.ID, got[i].Event.Action, want[i])
					}
				}
			}
		})
	}
}

// TestCatchUpPruned: what the spool does not have any more is a gap, and how many events it is, is known.
func TestCatchUpPruned(t *testing.T) {
	dir := t.TempDir()
	r, _ := start(t, record.Options{DataDir: dir, RingLen: 512, QueueLen: 10_000,
		Spool: openSpool(t, spool.Options{Dir: filepath.Join(dir, "spool"), SegmentBytes: 50_000, MaxBytes: 500_000})})
	fillSpool(t, r, 1)
	first := r.Recent(event.Filter{}).Items[0]
	fillSpool(t, r, 5000)
	page := ask(t, r, event.Filter{First: true, Limit: 1})
	missed := page.Items[0].Event.Sequence - first.Event.Sequence - 1
	if missed < 1000 {
		t.Fatalf("the spool keeps all but %d", missed)
	}
	ch, err := r.Subscribe(t.Context(), event.Filter{}, first.Event.ID)
	if err != nil {
		t.Fatal(err)
	}
	got := receive(t, ch, 2)
	l := got[0].Tapwall.Loss
	if l == nil || l.Count < missed || l.Stage != string(event.StageRingOverwrite) || got[1].Event.Sequence != first.Event.Sequence+l.Count+1 {
		t.Errorf("%+v, then %d after %d; want %d missed", l, got[1].Event.Sequence, first.Event.Sequence, missed)
	}
}

// TestPageAt: following from Page.At misses nothing, whatever the page holds, also where there is nothing yet.
func TestPageAt(t *testing.T) {
	r, _ := start(t, record.Options{})
	denied := event.Filter{Verdict: []string{"DENIED"}}
	for i := range 3 {
		at := ask(t, r, denied).At
		r.HandlePacketIn("br0", newSYN(egressAllow))
		r.HandlePacketIn("br0", newSYN(ingressDrop))
		settle(t, r)
		ch, err := r.Subscribe(t.Context(), event.Filter{}, at)
		if err != nil {
			t.Fatal(err)
		}
		got := receive(t, ch, 2)
		if want := ids(r.Recent(event.Filter{Limit: 2}).Items); !slices.Equal(ids(got), want) {
			t.Errorf("after %d: got %v, want %v", i, ids(got), want)
		}
	}
}
