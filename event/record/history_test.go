package record_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
)

func openSpool(t testing.TB, o spool.Options) *spool.Spool {
	t.Helper()
	o.MaxAge = 100 * 365 * 24 * time.Hour // the events are of noon
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func ask(t *testing.T, r *record.Recorder, f event.Filter) event.Page {
	t.Helper()
	p, err := r.Query(context.Background(), f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// all is every event that f chooses, page after page.
func all(t *testing.T, r *record.Recorder, f event.Filter) (got []string) {
	t.Helper()
	f.First = true
	for page := 0; page == 0 || f.After != ""; page++ {
		p := ask(t, r, f)
		got = append(got, ids(p.Items)...)
		f.After = p.Next
	}
	return got
}

// TestHistory asks for more than memory holds, over a restart: one answer from both places, each event once and as it was written.
func TestHistory(t *testing.T) {
	dir := t.TempDir()
	options := func() record.Options {
		return record.Options{DataDir: dir, RingLen: 512, QueueLen: 10_000,
			Spool: openSpool(t, spool.Options{Dir: filepath.Join(dir, "spool"), SegmentBytes: 100_000})}
	}
	one, stop := start(t, options())
	for range 40 { // a denied one among fifty allowed
		send(t, one, 50)
		one.HandlePacketIn("br1", newSYN(ingressDrop))
	}
	settle(t, one)
	denied := event.Filter{Verdict: []string{"DENIED"}, Bridge: []string{"br1"}, Limit: 1000}
	before := all(t, one, event.Filter{Limit: 300})
	if len(before) != 2040 || !slices.IsSorted(before) {
		t.Fatalf("%d events of 2040, in order: %v", len(before), slices.IsSorted(before))
	}
	wanted := ids(ask(t, one, denied).Items)
	if len(wanted) != 40 || len(one.Recent(denied).Items) > 12 {
		t.Errorf("%d denied, %d of them in memory", len(wanted), len(one.Recent(denied).Items))
	}
	p := ask(t, one, event.Filter{Limit: 1})
	if len(p.Coverage) != 1 || p.Coverage[0].Source != event.SourceMemory {
		t.Errorf("what memory has was looked for elsewhere: %+v", p.Coverage)
	}
	stop()

	two, stop := start(t, options())
	if n := len(two.Recent(event.Filter{Limit: 1000}).Items); n < 512 || n > 768 {
		t.Errorf("%d events in memory after a restart", n)
	}
	send(t, two, 7)
	settle(t, two)
	after := all(t, two, event.Filter{Limit: 300})
	if diff := cmp.Diff(before, after[:min(len(after), 2040)]); diff != "" || len(after) != 2047 {
		t.Errorf("%d events (-want +got):\n%s", len(after), diff)
	}
	if diff := cmp.Diff(wanted, ids(ask(t, two, denied).Items)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	p = ask(t, two, event.Filter{Limit: 1500})
	if len(p.Coverage) != 2 || p.Coverage[1].Source != event.SourceSpool || !p.Oldest.Equal(p.Coverage[1].Since) || p.Oldest.IsZero() {
		t.Errorf("%+v", p.Coverage)
	}
	if got := ids(p.Items); !slices.Equal(got, after[len(after)-1500:]) {
		t.Errorf("the newest 1500 begin with %s", got[0])
	}

	// A reader goes on where it was before the restart.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := two.Subscribe(ctx, event.Filter{}, before[2035])
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(receive(t, ch, 11)); !slices.Equal(got, after[2036:]) {
		t.Errorf("went on with %v, want %v", got, after[2036:])
	}

	// A disk that cannot be read takes nothing from what memory has, and the answer says so.
	if err := os.Rename(filepath.Join(dir, "spool"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p = ask(t, two, event.Filter{Limit: 1500})
	if len(p.Items) < 512 || len(p.Coverage) != 2 || p.Coverage[1].Error == "" {
		t.Errorf("%d events, %+v", len(p.Items), p.Coverage)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := two.Query(gone, event.Filter{Limit: 1500}); !errors.Is(err, context.Canceled) {
		t.Errorf("a query that nobody waits for: %v", err)
	}
	_ = os.Remove(filepath.Join(dir, "spool"))
	stop()
}

// TestHistoryOfEveryFilter: what memory answers the spool answers, for filters of every kind.
func TestHistoryOfEveryFilter(t *testing.T) {
	dir := t.TempDir()
	r, _ := start(t, record.Options{DataDir: dir, RingLen: 256, Spool: openSpool(t, spool.Options{Dir: dir})})
	r.HandlePacketIn("br \"1\" <é>", newSYN(egressAllow, ingressDrop))
	settle(t, r)
	filters := []event.Filter{
		{}, {Verdict: []string{"DENIED"}}, {Verdict: []string{"ALLOWED"}}, {Action: []string{event.ActionVerdict}},
		{Bridge: []string{"br \"1\" <é>"}},
		{Policy: []string{"web"}}, {Policy: []string{"nobody"}}, {Rule: []string{"deny-all"}}, {Rule: []string{"db/ingress/deny-all", "x"}},
		{Protocol: []string{"tcp"}}, {Protocol: []string{"6"}}, {Protocol: []string{"UDP"}}, {IP: []string{"10.0.0.9"}},
		{FromIP: []string{"10.0.0.9"}},
		{ToIP: []string{"10.0.0.0/29", "10.0.0.8/29"}}, {IP: []string{"10.0.0.0/8", "192.0.2.1"}}, {Port: []string{"5432"}},
		{FromPort: []string{"5432"}},
		{ToPort: []string{"543"}}, {Endpoint: []string{"web1"}}, {FromName: []string{"tap1"}}, {ToName: []string{"tap1"}},
		{Since: noon, Until: noon}, {Since: noon.Add(1)}, {Until: noon.Add(-1)}, {Verdict: []string{"DENIED"}, Policy: []string{"web"}},
	}
	want := make([][]string, len(filters))
	some := 0
	for i, f := range filters {
		want[i] = ids(r.Recent(f).Items)
		some += len(want[i])
	}
	for range 20 { // out of memory
		send(t, r, 100)
		settle(t, r)
	}
	last := r.Recent(event.Filter{Limit: 1, First: true}).Items[0].Event.Sequence
	for i, f := range filters {
		f.First, f.Limit = true, 2
		var got []string
		for _, e := range ask(t, r, f).Items {
			if e.Event.Sequence < last && e.Tapwall.Bridge != "br0" {
				got = append(got, e.Event.ID)
			}
		}
		if len(got)+len(want[i]) > 0 && !slices.Equal(got, want[i]) {
			t.Errorf("%+v: %v, want %v", f, got, want[i])
		}
	}
	if some < 20 {
		t.Errorf("only %d events were chosen", some)
	}
}

// TestSpoolFull: with a disk that takes nothing for a while every event is shown, every one that is not kept is counted, once, and the
// loss of what tells of losses is not told of for ever.
func TestSpoolFull(t *testing.T) {
	var full atomic.Bool
	dir := t.TempDir()
	r, _ := start(t, record.Options{DataDir: dir, LossEvery: 5 * time.Millisecond, QueueLen: 20_000, Spool: openSpool(t, spool.Options{
		Dir: filepath.Join(dir, "spool"), RetryEvery: time.Millisecond,
		Free: func(string) (int64, int64, error) {
			if full.Load() {
				return 0, 1000, nil
			}
			return 1000, 1000, nil
		},
		OpenFile: func(path string) (spool.File, error) {
			if full.Load() {
				return nil, syscall.ENOSPC
			}
			return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		}})})
	send(t, r, 100)
	if c := settle(t, r); c.Accepted != 100 || c.Observed != 100 {
		t.Fatalf("%+v", c)
	}
	full.Store(true)
	send(t, r, 300)
	settle(t, r)
	if n := len(r.Recent(event.Filter{Limit: 1000, Action: []string{event.ActionVerdict}}).Items); n != 400 {
		t.Errorf("%d events are shown of 400", n)
	}
	time.Sleep(100 * time.Millisecond) // twenty chances to tell of the loss of a loss
	c := settle(t, r)
	if c.Lost["spool_shed"] < 300 || c.Lost["spool_shed"] > 303 || c.Observed != c.Accepted+lost(c) {
		t.Errorf("%+v", c)
	}
	full.Store(false)
	send(t, r, 50)
	c = settle(t, r)
	if c.Observed != c.Accepted+lost(c) || c.Accepted < 150 || c.Spool.Written != c.Accepted || c.Spool.Error != "" {
		t.Errorf("%+v, %+v", c, c.Spool)
	}
	var told int64
	for _, e := range r.Recent(event.Filter{Limit: 1000, Action: []string{event.ActionLost}}).Items {
		told += e.Tapwall.Loss.Count
	}
	if told != 300 {
		t.Errorf("%d of 300 were told of", told)
	}
}
