package record_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
)

// first is the first packet of a connection of web to db from a port, at a time, whose end somebody looks for.
func first(at time.Time, zone uint16, port int, sides ...record.VerdictSide) record.PacketIn {
	pi := newSYN(sides...)
	pi.Time, pi.CtZone, pi.CtTpSrc, pi.Watched = at, zone, uint16(port), true
	return pi
}

func tupleFrom(port int) record.Tuple { return record.NewTuple(6, web, db, uint16(port), 5432) }

// life is a connection as it was in truth.
type life struct {
	start time.Time // no two are the same
	end   time.Time // of its last packet, or when the switch forgot it; zero = it goes on
	how   string
	until time.Time // when the switch forgets it, of one that was closed
}

// ended lists the events of ends, by that of the start.
func ended(t *testing.T, r *record.Recorder) map[string]*event.Event {
	t.Helper()
	out := map[string]*event.Event{}
	for _, e := range r.Recent(event.Filter{Action: []string{event.ActionEnded}, Limit: event.MaxLimit}).Items {
		if out[e.Tapwall.Ended.StartID] != nil {
			t.Errorf("%s has ended twice", e.Tapwall.Ended.StartID)
		}
		out[e.Tapwall.Ended.StartID] = e
	}
	return out
}

// Whatever begins, ends, is cut, comes back in the same place and is looked for, in whatever order: each start has one end, never before
// the connection has ended, and what the end says of when that was is true.
func TestConnectionEndsOnce(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 11))
			r, _ := start(t, record.Options{Host: "node1", RingLen: 20_000})
			type at struct {
				zone uint16
				port int
			}
			live, all := map[at]*life{}, []*life{}
			now, n := noon, 0
			begin := func(x at) {
				if old := live[x]; old != nil && old.end.IsZero() {
					old.end, old.how = now, event.EndReplaced // the switch had forgotten it by now
				}
				r.HandlePacketIn("br0", first(now, x.zone, x.port, egressAllow))
				l := &life{start: now}
				live[x], all = l, append(all, l)
			}
			look := func(zones []uint16) {
				l := &record.Look{Host: "node1", Bridge: "br0", Zones: zones, Began: now, Ended: now.Add(10 * time.Millisecond),
					Found: map[uint16]map[record.Tuple]record.Tracked{1: {}, 2: {}}}
				for x, c := range live {
					switch {
					case c.end.IsZero():
						l.Found[x.zone][tupleFrom(x.port)] = record.Tracked{}
					case now.Before(c.until):
						c := record.Tracked{Closed: true, Last: c.end.Truncate(time.Second)}
						if rng.IntN(3) == 0 {
							c.Last = time.Time{}
						}
						l.Found[x.zone][tupleFrom(x.port)] = c
					}
				}
				settle(t, r)
				r.ConnectionsSeen(l)
				for _, e := range ended(t, r) {
					i := slices.IndexFunc(all, func(l *life) bool { return l.start.Equal(e.Event.Start) })
					if i < 0 || all[i].end.IsZero() {
						t.Fatalf("an end before the end: %+v", e.Event)
					}
				}
			}
			for range 400 {
				now = now.Add(time.Duration(1+rng.IntN(3000)) * time.Millisecond)
				x := at{uint16(1 + rng.IntN(2)), rng.IntN(20)}
				c := live[x]
				open := c != nil && c.end.IsZero()
				switch k := rng.IntN(10); {
				case k < 4:
					begin(x)
				case k == 4 && open:
					c.end, c.how = now, event.EndGone
				case k == 5 && open:
					c.end, c.how, c.until = now, event.EndClosed, now.Add(30*time.Second)
				case k == 6 && open:
					pi := first(now, x.zone, x.port, ingressDrop)
					pi.CtState = 0x22
					r.HandlePacketIn("br0", pi)
					c.end, c.how = now, event.EndCut
				case k == 7 && rng.IntN(3) == 0:
					look([]uint16{x.zone})
				case k == 8 && rng.IntN(3) == 0:
					look(nil)
				}
			}
			for _, c := range live {
				if c.end.IsZero() {
					c.end, c.how = now, event.EndGone
				}
			}
			now = now.Add(time.Minute)
			look(nil)
			settle(t, r)
			for end := time.Now().Add(5 * time.Second); r.Counters().Open > 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			settle(t, r)
			ends, exact := map[int64]*event.Event{}, 0
			for _, e := range ended(t, r) {
				ends[e.Event.Start.UnixNano()] = e
			}
			for _, c := range all {
				e := ends[c.start.UnixNano()]
				if e == nil {
					t.Fatalf("no end of %+v", c)
				}
				x := e.Tapwall.Ended
				switch d := c.end.Sub(e.Event.End); {
				case !e.Event.Start.Equal(c.start) || e.Event.End.Before(c.start) || *e.Event.Duration != int64(e.Event.End.Sub(c.start)):
					t.Errorf("%+v: %+v", c, e.Event)
				case e.Event.Reason == event.EndExact && (d.Abs() > time.Second || x.How != c.how):
					t.Errorf("%+v: exact, and wrong by %v: %+v", c, d, x)
				case e.Event.Reason == event.EndBounded && (d > 0 || x.Seen.After(c.end)):
					t.Errorf("%+v: not between %v and %v", c, x.Seen, e.Event.End)
				}
				if e.Event.Reason == event.EndExact {
					exact++
				}
				n++
			}
			if len(ends) != n || exact == 0 || exact == n {
				t.Errorf("%d ends of %d connections, %d exact", len(ends), n, exact)
			}
			c := r.Counters()
			if c.Open != 0 || c.Observed != c.Accepted+lost(c) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// What the event of an end says.
func TestConnectionEndDocument(t *testing.T) {
	r, _ := start(t, record.Options{Host: "node1"})
	r.HandlePacketIn("br0", first(noon, 11, 40108, egressAllow))
	settle(t, r)
	r.ConnectionsSeen(&record.Look{Host: "node1", Bridge: "br0", Began: noon.Add(5 * time.Second), Ended: noon.Add(6 * time.Second),
		Found: map[uint16]map[record.Tuple]record.Tracked{11: {tupleFrom(40108): {Closed: true, Last: noon.Add(2 * time.Second),
			Sent: record.Traffic{Packets: 5, Bytes: 400}, Returned: record.Traffic{Packets: 4, Bytes: 4000}}}}})
	for end := time.Now().Add(5 * time.Second); r.Counters().Open > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	settle(t, r)
	all := r.Recent(event.Filter{})
	if len(all.Items) != 2 {
		t.Fatalf("%d events", len(all.Items))
	}
	a, z := all.Items[0], all.Items[1]
	if z.Event.Duration == nil || *z.Event.Duration != int64(2*time.Second) || z.Event.Reason != event.EndExact || z.Event.Start != noon ||
		z.Event.Action != event.ActionEnded || !slices.Equal(z.Event.Type, []string{"connection", "end"}) ||
		z.Event.Dataset != event.DatasetFlow || z.Event.Provider != "conntrack" || z.Class() != event.P1 {
		t.Errorf("%+v", z.Event)
	}
	if z.Tapwall.Ended.How != event.EndClosed || z.Tapwall.Ended.StartID != a.Event.ID || z.Tapwall.Verdict != event.Forwarded ||
		z.Tapwall.TCP != nil || z.Tapwall.CT.Zone != 11 || z.Tapwall.CT.State != nil {
		t.Errorf("%+v", z.Tapwall)
	}
	if z.Rule != a.Rule || z.Network.CommunityID != a.Network.CommunityID || z.Source.IP != a.Source.IP || z.Source.MAC != a.Source.MAC ||
		z.Tapwall.Source != a.Tapwall.Source || z.Observer != a.Observer {
		t.Errorf("the end %+v is not of the start %+v", z, a)
	}
	if z.Source.Packets != 5 || z.Source.Bytes != 400 || z.Destination.Packets != 4 || z.Destination.Bytes != 4000 ||
		z.Network.Packets != 9 || z.Network.Bytes != 4400 || a.Source.Packets != 0 || a.Network.Packets != 1 {
		t.Errorf("%+v %+v %+v", z.Source, z.Destination, z.Network)
	}
	line := event.Compact(z, event.PrintOptions{Location: time.UTC})
	want := "Nov 20 12:00:02.123: web1(10.0.0.5):40108 -> db1(10.0.0.9):5432 connection-ended:web/to-db EGRESS ALLOWED (closed after 2s)"
	if line != want {
		t.Errorf("%s, want\n%s", line, want)
	}
	for f, want := range map[string]int{"end": 1, "start": 1, "connection": 2, "allow": 1} {
		if got := len(r.Recent(event.Filter{Type: []string{f}}).Items); got != want {
			t.Errorf("type %s: %d events", f, got)
		}
	}
	sums, err := event.NewAggregator([]string{"src"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	sums.Add(a)
	sums.Add(z)
	if got := sums.Summary(1); got.Total.Events != 1 {
		t.Errorf("a connection with an end counts as %d", got.Total.Events)
	}
}

// What says nothing of a connection ends none: packets in its name, errors about it, and connections whose end nobody looks for.
func TestConnectionNotEnded(t *testing.T) {
	r, _ := start(t, record.Options{Host: "node1"})
	begin := first(noon, 1, 1, egressAllow)
	r.HandlePacketIn("br0", begin)
	late := noon.Add(time.Minute)
	for _, change := range []func(*record.PacketIn){
		func(pi *record.PacketIn) { pi.Verdicts[0].Guard = "ip" },
		func(pi *record.PacketIn) { pi.Verdicts[0].OutOfState = "out-of-state-reset" },
		func(pi *record.PacketIn) { pi.CtState = 0x24 },                              // related
		func(pi *record.PacketIn) { pi.CtState = 0x30 },                              // invalid
		func(pi *record.PacketIn) { pi.CtSrc = netip.Addr{} },                        // not tracked
		func(pi *record.PacketIn) { pi.Watched = false },                             //
		func(pi *record.PacketIn) { pi.CtZone = 2 },                                  // another connection
		func(pi *record.PacketIn) { pi.Host = "node2" },                              // likewise
		func(pi *record.PacketIn) { *pi = begin },                                    // the same packet
		func(pi *record.PacketIn) { pi.Verdicts[0].Drop = false; pi.CtState = 0x22 }, // judged anew, and told again
	} {
		pi := first(late, 1, 1, ingressDrop)
		pi.CtState = 0x22
		change(&pi)
		r.HandlePacketIn("br0", pi)
	}
	unwatched := first(noon, 1, 2, egressAllow)
	unwatched.Watched = false
	r.HandlePacketIn("br0", unwatched)
	settle(t, r)
	open := map[uint16]map[record.Tuple]record.Tracked{1: {tupleFrom(1): {}}}
	r.ConnectionsSeen(&record.Look{Host: "node1", Bridge: "br0", Began: late, Ended: late, Found: open})
	r.ConnectionsSeen(&record.Look{Host: "node1", Bridge: "br1", Began: late, Ended: late})
	r.ConnectionsSeen(&record.Look{Host: "node1", Bridge: "br0", Zones: []uint16{2}, Began: late, Ended: late})
	r.ConnectionsSeen(&record.Look{Host: "node1", Bridge: "br0", Began: noon.Add(time.Second / 2), Ended: late}) // too early to tell
	settle(t, r)
	if c := r.Counters(); c.Open != 1 || len(ended(t, r)) != 0 {
		t.Errorf("%d open, ended: %v", c.Open, ended(t, r))
	}
	if got := r.OpenConnections("node1"); got["br0"][1] != 1 || len(got) != 1 {
		t.Errorf("%v", got)
	}
	r.ConnectionsSeen(&record.Look{Host: "node1", Bridge: "br0", Began: late, Ended: late, Unwatched: true})
	for end := time.Now().Add(5 * time.Second); r.Counters().Open > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	settle(t, r)
	if all := ended(t, r); len(all) != 1 {
		t.Errorf("ended: %v", all)
	}
}

// A process takes up what an earlier one had not seen end, however that one ended, and tells each end once.
func TestConnectionEndsAfterRestart(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash %v", crash), func(t *testing.T) {
			dir := t.TempDir()
			run := func() (*record.Recorder, func()) {
				t.Helper()
				s, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool"), MaxAge: 100 * 365 * 24 * time.Hour})
				if err != nil {
					t.Fatal(err)
				}
				return start(t, record.Options{Host: "node1", DataDir: dir, Spool: s})
			}
			noted := filepath.Join(dir, "open-connections")
			r, stop := run()
			for port := range 4 {
				r.HandlePacketIn("br0", first(noon, 1, port, egressAllow))
			}
			settle(t, r)
			stop()
			before, err := os.ReadFile(noted)
			if err != nil {
				t.Fatal(err)
			}
			r, stop = run()
			lab := func(what string, ok func() bool) {
				t.Helper()
				for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%s: %+v", what, r.Counters())
					}
				}
			}
			lab("the open ones are taken up", func() bool { return r.OpenConnections("node1")["br0"][1] == 4 })
			r.HandlePacketIn("br0", first(noon.Add(time.Minute), 1, 4, egressAllow))
			settle(t, r)
			look := func(at time.Time, ports ...int) {
				found := map[record.Tuple]record.Tracked{}
				for _, p := range ports {
					found[tupleFrom(p)] = record.Tracked{}
				}
				r.ConnectionsSeen(&record.Look{Host: "node1", Bridge: "br0", Began: at, Ended: at,
					Found: map[uint16]map[record.Tuple]record.Tracked{1: found}})
			}
			look(noon.Add(2*time.Minute), 1, 2, 3, 4)
			look(noon.Add(3*time.Minute), 2, 3, 4)
			lab("two have ended", func() bool { return len(ended(t, r)) == 2 })
			settle(t, r)
			stop()
			if crash { // what it noted at its end never got there
				if err := os.WriteFile(noted, before, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r, stop = run()
			lab("the open ones are taken up", func() bool { return r.OpenConnections("node1")["br0"][1] == 3 })
			look(noon.Add(4*time.Minute), 4)
			lab("two more have ended", func() bool { return len(ended(t, r)) == 4 })
			look(noon.Add(5 * time.Minute))
			lab("all have ended", func() bool { return len(ended(t, r)) == 5 })
			reasons := map[int]string{}
			for _, e := range ended(t, r) {
				reasons[e.Source.Port] = e.Event.Reason
				if e.Tapwall.Ended.Seen.After(e.Event.End) || e.Tapwall.Source.Name != "web1" || e.Rule.ID != "web/egress/to-db" {
					t.Errorf("%+v", e)
				}
			}
			want := map[int]string{0: event.EndRestarted, 1: event.EndBounded, 2: event.EndRestarted, 3: event.EndRestarted, 4: event.EndBounded}
			for port, reason := range want {
				if reasons[port] != reason {
					t.Errorf("port %d: %q, want %q", port, reasons[port], reason)
				}
			}
			stop()
			var left struct{ Open [][2]int64 }
			text, err := os.ReadFile(noted)
			if err != nil || json.Unmarshal(text, &left) != nil || len(left.Open) != 0 {
				t.Errorf("%s (%v)", text, err)
			}
		})
	}
}

// What finds no room has no end, and is counted as a loss.
func TestConnectionEndsBounded(t *testing.T) {
	r, _ := start(t, record.Options{Host: "node1"})
	r.HoldAtMost(10)
	for port := range 15 {
		r.HandlePacketIn("br0", first(noon, 1, port, egressAllow))
	}
	c := settle(t, r)
	if c.Open != 10 || c.Lost["connections"] != 5 || c.Observed != c.Accepted+lost(c) {
		t.Errorf("%+v", c)
	}
}
