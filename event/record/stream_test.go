package record_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// send records n denials, a settled few at a time so that the recorder's queue is never what loses them.
func send(t testing.TB, r *record.Recorder, n int) {
	t.Helper()
	for i := range n {
		if i%1000 == 999 {
			settle(t, r)
		}
		r.HandlePacketIn("br0", newSYN(ingressDrop))
	}
	settle(t, r)
}

func ids(events []*event.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Event.ID)
	}
	return out
}

// receive reads n events.
func receive(t testing.TB, ch <-chan *event.Event, n int) []*event.Event {
	t.Helper()
	var out []*event.Event
	for len(out) < n {
		select {
		case e, ok := <-ch:
			if !ok {
				t.Fatalf("the stream ended after %d of %d events", len(out), n)
			}
			out = append(out, e)
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d events came", len(out), n)
		}
	}
	return out
}

func TestSubscribeBegins(t *testing.T) {
	const none = -1
	for _, tc := range []struct {
		name   string
		filter event.Filter
		after  int // of 50
		from   int
	}{
		{"now", event.Filter{}, none, 50},
		{"after an id", event.Filter{}, 29, 30},
		{"after the newest", event.Filter{}, 49, 50},
		{"since", event.Filter{Since: noon.Add(-time.Second)}, none, 0},
		{"since later", event.Filter{Since: noon.Add(time.Second)}, none, 50},
		{"the last five", event.Filter{Limit: 5}, none, 45},
		{"the last matches", event.Filter{Limit: 5, Policy: []string{"other"}}, none, 50},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := start(t, record.Options{})
			send(t, r, 50)
			all := ids(r.Recent(event.Filter{Limit: 100}).Items)
			after, want := "", all[tc.from:]
			if tc.after != none {
				after = all[tc.after]
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ch, err := r.Subscribe(ctx, tc.filter, after)
			if err != nil {
				t.Fatal(err)
			}
			got := ids(receive(t, ch, len(want)))
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(tc.filter.Policy) > 0 || !tc.filter.Since.IsZero() {
				return
			}
			r.HandlePacketIn("br0", newSYN(ingressDrop))
			next := receive(t, ch, 1)[0]
			settle(t, r)
			if want := r.Recent(event.Filter{Limit: 1}).Items[0]; next != want {
				t.Errorf("then came %s, want %s", next.Event.ID, want.Event.ID)
			}
			cancel()
			for range ch { // closes
			}
		})
	}
}

// TestReplayThenFollow subscribes again and again while events are being recorded: every reader gets every event after its id once.
func TestReplayThenFollow(t *testing.T) {
	r, _ := start(t, record.Options{})
	send(t, r, 100)
	const total, readers = 3000, 30
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	begin := make(chan struct{})
	type result struct{ after, got []string }
	results := make([]result, readers)
	for i := range readers {
		wg.Go(func() {
			<-begin
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			newest := r.Recent(event.Filter{Limit: 60}).Items
			after := newest[rand.IntN(len(newest))].Event.ID
			ch, err := r.Subscribe(ctx, event.Filter{}, after)
			if err != nil {
				t.Error(err)
				return
			}
			results[i].after = []string{after}
			for e := range ch {
				results[i].got = append(results[i].got, e.Event.ID)
				if e.Network != nil && e.Network.Bytes == 9999 {
					return
				}
			}
		})
	}
	wg.Go(func() {
		close(begin)
		for i := range total {
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
			r.HandlePacketIn("br0", newSYN(ingressDrop))
		}
		last := newSYN(ingressDrop)
		last.TotalLen = 9999
		settle(t, r)
		r.HandlePacketIn("br0", last)
	})
	wg.Wait()
	var all []string
	for f := (event.Filter{First: true, Limit: 1000}); ; {
		p := r.Recent(f)
		all = append(all, ids(p.Items)...)
		if f.After = p.Next; f.After == "" {
			break
		}
	}
	if len(all) != 100+total+1 {
		t.Fatalf("the ring holds %d events", len(all))
	}
	for i, res := range results {
		var want []string
		for j, id := range all {
			if len(res.after) == 1 && id == res.after[0] {
				want = all[j+1:]
			}
		}
		if diff := cmp.Diff(want, res.got); diff != "" {
			t.Fatalf("reader %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestSlowReader checks that what a reader got and what it was told it lost are all events, that resuming by the id of a gap repeats
// nothing, and that another reader loses nothing. The sender waits for the fast reader, so that it is fast on any machine; the slow
// reader stops until it has lost something.
func TestSlowReader(t *testing.T) {
	const queue, total = 100, 20_000
	r, _ := start(t, record.Options{StreamLen: queue, LossEvery: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slow, err := r.Subscribe(ctx, event.Filter{Verdict: []string{"DROPPED"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	fast, err := r.Subscribe(ctx, event.Filter{}, "")
	if err != nil {
		t.Fatal(err)
	}
	send(t, r, 1) // both have caught up: from here on they lose what they leave
	receive(t, slow, 1)
	receive(t, fast, 1)
	sendDone := make(chan string, 1)
	go func() {
		for range total / (queue / 2) {
			for range queue / 2 {
				r.HandlePacketIn("br0", newSYN(ingressDrop))
			}
			for n := range queue / 2 {
				select {
				case e := <-fast:
					if e.Tapwall.Loss == nil {
						continue
					}
					sendDone <- fmt.Sprintf("a loss: %+v", e.Tapwall.Loss)
				case <-time.After(10 * time.Second):
					sendDone <- fmt.Sprintf("%d of %d events of a batch", n, queue/2)
				}
				return
			}
		}
		sendDone <- ""
	}()
	var got, told, gaps, stop int64
	var last string
	for got+told < total {
		if got == stop && stop < 3*queue {
			stop += queue
			waitFor(t, func() bool { return r.Counters().Lost["stream_client"] > told || len(sendDone) > 0 })
		}
		e := receive(t, slow, 1)[0]
		if l := e.Tapwall.Loss; l != nil {
			gaps++
			told += l.Count
			if l.Stage != "stream_client" || l.Class != "P0" || l.Count <= 0 || !strings.HasSuffix(e.Event.ID, "-lost") {
				t.Fatalf("bad gap %+v %s", l, e.Event.ID)
			}
		} else {
			got++
		}
		if e.Event.ID < last {
			t.Fatalf("%s came after %s", e.Event.ID, last)
		}
		last = e.Event.ID
	}
	if text := <-sendDone; text != "" {
		t.Errorf("the fast reader got %s", text)
	}
	c := settle(t, r)
	if got+told != total || c.Lost["stream_client"] != told || c.StreamGaps != gaps || gaps == 0 {
		t.Errorf("got %d, told of %d in %d gaps; %+v", got, told, gaps, c)
	}
	if c.Accepted != 1+total || c.Observed != 1+total {
		t.Errorf("a slow reader changes the record: %+v", c)
	}
}

func TestResumeBehindGap(t *testing.T) {
	r, _ := start(t, record.Options{StreamLen: 10})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := r.Subscribe(ctx, event.Filter{}, "")
	if err != nil {
		t.Fatal(err)
	}
	send(t, r, 1)
	receive(t, ch, 1) // caught up
	send(t, r, 100)
	waitFor(t, func() bool { return r.Counters().Lost["stream_client"] == 90 })
	gap := receive(t, ch, 1)[0]
	if gap.Tapwall.Loss == nil || gap.Tapwall.Loss.Count != 90 {
		t.Fatalf("got %+v", gap.Tapwall.Loss)
	}
	want := ids(receive(t, ch, 10))
	again, err := r.Subscribe(ctx, event.Filter{}, gap.Event.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, ids(receive(t, again, 10))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 10 s")
		}
	}
}

func TestOverwrittenRing(t *testing.T) {
	r, _ := start(t, record.Options{RingLen: 1000})
	send(t, r, 1)
	first := r.Recent(event.Filter{}).Items[0].Event.ID
	send(t, r, 5000)
	page := r.Recent(event.Filter{Limit: event.MaxLimit})
	if len(page.Items) != 1000 {
		t.Fatalf("the ring holds %d", len(page.Items))
	}
	if c := r.Counters(); c.Lost["ring_overwrite"] != 0 || c.RingEntries != 1000 {
		t.Errorf("nobody asked: %+v", c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch, err := r.Subscribe(ctx, event.Filter{}, first)
	if err != nil {
		t.Fatal(err)
	}
	got := receive(t, ch, 1001)
	if l := got[0].Tapwall.Loss; l == nil || l.Stage != "ring_overwrite" || l.Count != 4000 {
		t.Errorf("first came %+v", got[0])
	}
	if diff := cmp.Diff(ids(page.Items), ids(got[1:])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c := r.Counters(); c.Lost["ring_overwrite"] != 4000 || c.StreamGaps != 1 || c.Clients != 1 {
		t.Errorf("%+v", c)
	}
}

// TestOtherRun resumes with an id of an earlier run: what is kept comes, behind a gap of unknown size.
func TestOtherRun(t *testing.T) {
	dir := t.TempDir()
	one, stop := start(t, record.Options{DataDir: dir})
	send(t, one, 3)
	old := one.Recent(event.Filter{}).Items
	stop()
	two, _ := start(t, record.Options{DataDir: dir})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	early, err := two.Subscribe(ctx, event.Filter{}, old[2].Event.ID)
	if err != nil {
		t.Fatal(err)
	}
	send(t, two, 2)
	late, err := two.Subscribe(ctx, event.Filter{}, old[0].Event.ID)
	if err != nil {
		t.Fatal(err)
	}
	kept := two.Recent(event.Filter{}).Items
	for name, ch := range map[string]<-chan *event.Event{"before the first event": early, "after it": late} {
		got := receive(t, ch, 3)
		if l := got[0].Tapwall.Loss; l == nil || l.Count != 0 || l.Reason != "other_run" {
			t.Errorf("%s: first came %+v", name, got[0].Event)
		}
		if diff := cmp.Diff(ids(kept), ids(got[1:])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if kept[0].Event.Sequence <= old[2].Event.Sequence || kept[0].Event.ID <= old[2].Event.ID {
		t.Errorf("after a restart %s (%d) follows %s (%d)", kept[0].Event.ID, kept[0].Event.Sequence, old[2].Event.ID, old[2].Event.Sequence)
	}
	if old[1].Event.Sequence != old[0].Event.Sequence+1 {
		t.Errorf("sequences %d, %d", old[0].Event.Sequence, old[1].Event.Sequence)
	}
}

func TestSubscribeErrors(t *testing.T) {
	r, stop := start(t, record.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := r.Subscribe(ctx, event.Filter{}, "yesterday"); err == nil || event.ParamErrors(err)[0].Param != "after" {
		t.Errorf("a bad id: %v", err)
	}
	if _, err := r.Subscribe(ctx, event.Filter{IP: []string{"x"}}, ""); err == nil {
		t.Error("a bad filter is accepted")
	}
	ch, err := r.Subscribe(ctx, event.Filter{}, "")
	if err != nil {
		t.Fatal(err)
	}
	stop() // with a reader that does not read: no hang
	if _, ok := <-ch; ok {
		t.Error("an event came from nowhere")
	}
	if _, err := r.Subscribe(ctx, event.Filter{}, ""); !errors.Is(err, record.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

// TestLossPassesFilters: a reader who follows one policy or action is told of losses that may have been of it.
func TestLossPassesFilters(t *testing.T) {
	r, _ := start(t, record.Options{LossEvery: time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	all, err := r.Subscribe(ctx, event.Filter{Policy: []string{"web"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := r.Subscribe(ctx, event.Filter{Action: []string{event.ActionVerdict}}, "")
	if err != nil {
		t.Fatal(err)
	}
	r.AddLoss(event.StagePacketInMeter, event.NoClass, "rate", 5)
	for _, reader := range []<-chan *event.Event{all, verdicts} {
		if e := receive(t, reader, 1)[0]; e.Tapwall.Loss == nil || e.Tapwall.Loss.Count != 5 {
			t.Errorf("got %+v", e)
		}
	}
	r.HandlePacketIn("br0", newSYN(ingressDrop))
	if e := receive(t, verdicts, 1)[0]; e.Event.Action != event.ActionVerdict {
		t.Errorf("got %+v", e)
	}
	if got := r.Recent(event.Filter{Policy: []string{"web"}}).Items; len(got) != 0 {
		t.Errorf("a query of a policy returns %v", ids(got))
	}
	if got := r.Recent(event.Filter{Action: []string{event.ActionLost}}).Items; len(got) != 1 {
		t.Errorf("a query of losses returns %v", ids(got))
	}
}

func TestLastEventsReachReaders(t *testing.T) {
	r, stop := start(t, record.Options{})
	ch, err := r.Subscribe(context.Background(), event.Filter{}, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		r.HandlePacketIn("br0", newSYN(ingressDrop))
	}
	got := make(chan int)
	go func() {
		n := 0
		for range ch {
			n++
		}
		got <- n
	}()
	stop()
	if n := <-got; n != 300 {
		t.Errorf("%d events came, want 300", n)
	}
	if n := len(r.Recent(event.Filter{Limit: 1000}).Items); n != 300 {
		t.Errorf("%d events can be queried after the end", n)
	}
}

func ExampleRecorder_Subscribe() {
	r, err := record.NewRecorder(record.Options{})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	events, err := r.Subscribe(ctx, event.Filter{Verdict: []string{"DROPPED"}}, "")
	if err != nil {
		panic(err)
	}
	r.HandlePacketIn("br0", newSYN(egressAllow, ingressDrop))
	fmt.Println(event.Compact(<-events, event.PrintOptions{Location: time.UTC}))
	cancel()
	<-done
	// Output: Nov 20 12:00:00.123: web1(10.0.0.5):40108 -> db1(10.0.0.9):5432 policy-verdict:db/deny-all INGRESS DENIED (TCP Flags: SYN)
}
