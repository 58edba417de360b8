package host

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// tapHistory is a tap bridge with one mirror as its counters see it, and who counts them. Packets are counted as they come, and it is
// written down what can be known of them: all but what a flow or a meter takes with it that nobody has read.
type tapHistory struct {
	t       *testing.T
	dir     string
	now     time.Time
	mirror  *policy.Mirror
	plan    map[string]tap.Info
	flows   map[flow.Key]*tapFlow
	dropped uint64 // by the meter that limits
	cut     uint64 // by the one that counts these

	droppedRead, cutRead uint64 // as read last
	counts               *mirrorCounts
	book                 *book
	want                 map[stage]uint64
}

type tapFlow struct {
	deed      tap.Deed
	made      time.Time
	n, unread uint64
}

const tapNumber = 96

func newTapHistory(t *testing.T, targets int) *tapHistory {
	h := &tapHistory{t: t, dir: t.TempDir(), now: time.Now(), flows: map[flow.Key]*tapFlow{}, want: map[stage]uint64{},
		mirror: &policy.Mirror{Meta: policy.Meta{Name: "m", UID: "u"}}}
	var sends []tap.Send
	for i := range targets {
		sends = append(sends, tap.Send{Target: i, Bridge: "tw-tap", Port: fmt.Sprint("p", i)})
	}
	h.plan = map[string]tap.Info{"m": {Sends: sends}}
	h.begin()
	return h
}

func (h *tapHistory) mirrors() map[string]*policy.Mirror {
	return map[string]*policy.Mirror{h.mirror.Name: h.mirror}
}

func (h *tapHistory) cookie(d tap.Deed) flow.Cookie {
	return pipeline.NewCookie(pipeline.CookieSample, tapNumber|uint32(d))
}

// begin starts a process: it takes up what the last one has written, and reads the switch.
func (h *tapHistory) begin() {
	var err error
	if h.counts, err = newMirrorCounts(h.dir); err != nil {
		h.t.Fatal(err)
	}
	h.book = newBook()
	h.book.account.clock = func() time.Time { return h.now }
	h.book.first = h.readings()
	h.book.countMirrors(map[uint32]string{tapNumber: h.mirror.UID}, map[uint32]string{1: h.mirror.UID},
		map[uint32]string{2: h.mirror.UID},
		func() (map[policy.RuleRef]counter, time.Time) { return h.counts.earlier("tw-tap") })
	h.read()
}

func (h *tapHistory) readings() (out []reading) {
	for place, f := range h.flows {
		if f.n > 0 {
			out = append(out, reading{place: place, cookie: h.cookie(f.deed), counter: counter{f.n, 60 * f.n},
				age: uint32(h.now.Sub(f.made).Milliseconds())})
		}
		f.unread = 0
	}
	return out
}

// read is what is done now and then: all is read and written down.
func (h *tapHistory) read() {
	h.book.account.read(h.readings(), true)
	h.counts.readMeters("tw-tap", []ofp.MeterStats{{ID: 1, Bands: []ofp.Counter{{Packets: h.dropped}}}, {ID: 2, Packets: h.cut}},
		h.book.meters, h.mirrors(), h.plan)
	h.droppedRead, h.cutRead = h.dropped, h.cut
	h.counts.readFlows("tw-tap", h.book, h.mirrors(), h.plan)
	h.counts.kept.Read["tw-tap"] = h.now
	if err := h.counts.save(true); err != nil {
		h.t.Fatal(err)
	}
}

// traffic counts packets, of which, if they are for the targets, every third is dropped by the meter and every second is cut.
func (h *tapHistory) traffic(n uint64) {
	for _, f := range h.flows {
		f.n += n
		f.unread += n
		switch f.deed {
		case tap.Accepted:
			h.want[accepted] += n
		case tap.Rejected:
			h.want[rejected] += n
		case tap.ToTargets:
			h.want[allToTargets] += n
			h.dropped += n / 3
			h.want[rateDropped] += n / 3
			h.cut += n / 2
			h.want[cut] += n / 2
		}
	}
}

func (h *tapHistory) place(key flow.Key, d tap.Deed) {
	h.flows[key] = &tapFlow{deed: d, made: h.now}
}

// change replaces the flows of the filter, having read those that go, and writes that down: see taps.before and after.
func (h *tapHistory) change(rules int) {
	h.book.account.read(h.readings(), false)
	gone := maps.Clone(h.flows)
	for key, f := range h.flows {
		if f.deed != tap.ToTargets {
			delete(h.flows, key)
		}
	}
	maps.DeleteFunc(gone, func(key flow.Key, _ *tapFlow) bool { return h.flows[key] != nil })
	h.book.account.change(scope{}, maps.Keys(gone))
	for i := range rules {
		h.place(flow.Key(fmt.Sprint("rule", i)), tap.Deed(i%2))
	}
	if h.flows["to"] == nil {
		h.place("to", tap.ToTargets)
	}
	h.read()
}

// switchRestarts: the flows are gone, and a new ones count from 0; so does the meter. What was not read is lost.
func (h *tapHistory) switchRestarts() {
	for key, f := range h.flows {
		h.want[map[tap.Deed]stage{tap.Accepted: accepted, tap.Rejected: rejected, tap.ToTargets: allToTargets}[f.deed]] -= f.unread
		h.flows[key] = &tapFlow{deed: f.deed, made: h.now}
	}
	h.want[rateDropped] -= h.dropped - h.droppedRead
	h.want[cut] -= h.cut - h.cutRead
	h.dropped, h.cut, h.droppedRead, h.cutRead = 0, 0, 0, 0
}

func (h *tapHistory) check(when string, last map[string]int64) map[string]int64 {
	h.t.Helper()
	now := h.counts.status(h.mirror.UID)
	for key, n := range now {
		if n < last[key] {
			h.t.Fatalf("%s: %s went back from %d to %d", when, key, last[key], n)
		}
	}
	return now
}

// Totals are what was counted, whatever begins anew in between, and never go back.
func TestMirrorCountsOverHistories(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		h := newTapHistory(t, 1+r.IntN(3))
		h.change(2)
		last := map[string]int64{}
		var story []string
		for range 40 {
			h.now = h.now.Add(time.Duration(10+r.IntN(3000)) * time.Millisecond)
			var what string
			switch r.IntN(8) {
			case 0:
				h.change(1 + r.IntN(5))
				what = "change"
			case 1:
				h.begin() // a kill: nothing is written before
				what = "process"
			case 2:
				h.switchRestarts()
				h.book.account.read(h.readings(), true) // as the new connection does
				h.read()
				what = "switch"
			case 3:
				h.switchRestarts()
				h.now = h.now.Add(time.Second)
				h.traffic(uint64(r.IntN(1000)))
				h.begin()
				what = "both"
			case 4, 5:
				h.traffic(uint64(r.IntN(1000)))
				what = "traffic"
			default:
				h.read()
				what = "read"
			}
			story = append(story, what)
			last = h.check(fmt.Sprintf("seed %d, %v", seed, story), last)
		}
		h.read()
		got := h.check(fmt.Sprint("seed ", seed), last)
		// A meter may have counted as much again since the switch's restart as before, which nobody can tell from nothing: it may say less.
		if got["acceptedPackets"] != int64(h.want[accepted]) || got["rejectedPackets"] != int64(h.want[rejected]) ||
			got["acceptedBytes"] != 60*int64(h.want[accepted]) || got["rateDroppedPackets"] > int64(h.want[rateDropped]) ||
			got["cutPackets"] > int64(h.want[cut]) {
			t.Fatalf("seed %d, %v: %v, want %v", seed, story, got, h.want)
		}
	}
}

// What is sent counts each copy, less what the limit drops of it, and stays when targets go.
func TestMirrorCountsSent(t *testing.T) {
	h := newTapHistory(t, 2)
	h.change(1)
	h.traffic(90)
	h.read()
	x := h.counts.totals("u")
	if got := h.counts.status("u"); got["sentPackets"] != 120 || x[sent.at("p0")].packets != 60 || got["rateDroppedPackets"] != 30 ||
		got["cutPackets"] != 45 {
		t.Errorf("%v, %v", got, x)
	}
	h.plan = map[string]tap.Info{"m": {Sends: h.plan["m"].Sends[:1]}}
	h.traffic(30)
	h.read()
	x = h.counts.totals("u")
	if got := h.counts.status("u"); got["sentPackets"] != 140 || x[sent.at("p0")].packets != 80 || x[sent.at("p1")].packets != 60 {
		t.Errorf("%v, %v", got, x)
	}
	// Made anew it is another mirror, and nothing is kept of the old one.
	h.mirror = &policy.Mirror{Meta: policy.Meta{Name: "m", UID: "v"}}
	h.counts.forget(h.mirrors(), nil)
	if got := h.counts.totals("u"); got != nil {
		t.Errorf("what is gone is kept: %v", got)
	}
	if got := h.counts.status("v"); got["sentPackets"] != 0 || got["acceptedPackets"] != 0 {
		t.Errorf("made anew: %v", got)
	}
}

// Rows count for the mirror that they are for: over a restart of the switch, of the process, and from where another of the name left off.
func TestMirrorCountsRows(t *testing.T) {
	dir := t.TempDir()
	m := &policy.Mirror{Meta: policy.Meta{Name: "m", UID: "u"}}
	plan := &tap.Plan{Info: map[string]tap.Info{"m": {Sends: []tap.Send{{Port: "ids0"}}}}}
	c, err := newMirrorCounts(dir)
	if err != nil {
		t.Fatal(err)
	}
	read := func(row string, n int64) {
		mirror := &vswitch.Mirror{UUID: row, ExternalIDs: map[string]string{vswitch.MarkOwner: vswitch.OwnerValue, vswitch.MarkMirror: "m"}}
		if n >= 0 {
			mirror.Statistics = map[string]int64{"tx_packets": n, "tx_bytes": 100 * n}
		}
		topo := &vswitch.Topology{Bridges: map[string]*vswitch.Bridge{"br0": {Name: "br0", Mirrors: []*vswitch.Mirror{mirror}}}}
		c.readRows(topo, map[string]*policy.Mirror{"m": m}, plan)
		c.forget(map[string]*policy.Mirror{"m": m}, map[string]bool{row: true})
	}
	expect := func(when string, n int64) {
		t.Helper()
		got := c.status(m.UID)
		if got["selectedPackets"] != n || got["acceptedBytes"] != 100*n || got["sentPackets"] != n {
			t.Errorf("%s: %v, want %d packets", when, got, n)
		}
	}
	read("a", 5)
	read("a", 7)
	expect("at first", 7)
	read("a", -1)
	read("a", 8)
	expect("statistics away for a time", 8)
	read("a", 3)
	expect("the switch restarts", 11)
	read("b", 2)
	expect("another row", 13)
	if err := c.save(true); err != nil {
		t.Fatal(err)
	}
	if c, err = newMirrorCounts(dir); err != nil {
		t.Fatal(err)
	}
	read("b", 6)
	expect("the process restarts", 17)
	m = &policy.Mirror{Meta: policy.Meta{Name: "m", UID: "v"}}
	read("b", 10)
	expect("made anew while the row stays", 4)
}
