package host

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLossAccount(t *testing.T) {
	type reading struct {
		c                     copyCounters
		made                  bool
		before                uint64
		at                    progress
		meter, queue, unknown int64
	}
	for name, readings := range map[string][]reading{
		"nothing lost": {
			{c: copyCounters{10, 4, 6}, made: true, meter: 4},
			{c: copyCounters{20, 8, 12}, meter: 4},
		},
		"flow counters lag behind": {
			{c: copyCounters{0, 4, 6}, made: true, meter: 4},
			{c: copyCounters{10, 4, 6}},
		},
		"packets on their way are not lost": {
			{c: copyCounters{10, 0, 10}, made: true},
			{c: copyCounters{30, 0, 25}},
			{c: copyCounters{30, 0, 30}},
			{c: copyCounters{30, 0, 30}},
			{c: copyCounters{30, 0, 30}},
		},
		"an overflow is told once it lasts": {
			{c: copyCounters{100, 20, 73}, made: true, meter: 20},
			{c: copyCounters{100, 20, 73}},
			{c: copyCounters{100, 20, 73}, queue: 7},
			{c: copyCounters{100, 20, 73}},
			{c: copyCounters{110, 20, 80}},
			{c: copyCounters{110, 20, 80}},
			{c: copyCounters{110, 20, 80}, queue: 3},
		},
		"what an earlier process lost is not ours": {
			{c: copyCounters{100, 20, 0}},
			{c: copyCounters{110, 22, 8}, meter: 2},
		},
		"a restarted switch counts anew": {
			{c: copyCounters{100, 20, 80}, made: true, meter: 20},
			{c: copyCounters{10, 3, 87}, made: true, before: 80, meter: 3},
			{c: copyCounters{12, 3, 89}},
		},
		"wiped flows": {
			{c: copyCounters{100, 20, 80}, made: true, meter: 20},
			{c: copyCounters{5, 21, 84}},
			{c: copyCounters{6, 22, 84}, meter: 1},
		},
		"what cached flows passed before a change was not lost": {
			{c: copyCounters{100, 0, 100}, made: true},
			{c: copyCounters{467, 0, 100}, at: progress{turn: 1, doubt: true}},
			{c: copyCounters{500, 3, 130}, at: progress{turn: 1, doubt: true}, meter: 3},
			{c: copyCounters{500, 3, 130}, at: progress{turn: 1, done: 133}, unknown: 367},
			{c: copyCounters{500, 3, 130}, at: progress{turn: 1, done: 133}},
			{c: copyCounters{500, 3, 130}, at: progress{turn: 1, done: 133}},
			{c: copyCounters{509, 3, 130}, at: progress{turn: 1, done: 133}},
			{c: copyCounters{509, 3, 130}, at: progress{turn: 1, done: 133}},
			{c: copyCounters{509, 3, 130}, at: progress{turn: 1, done: 133}, queue: 9},
		},
		"what a flow has not counted yet hides none of what it must not have counted": {
			{c: copyCounters{0, 0, 0}, made: true},
			{c: copyCounters{350, 10, 10}, at: progress{turn: 1, done: 0}, meter: 10, unknown: 330},
			{c: copyCounters{370, 10, 10}, at: progress{turn: 1, done: 0}, unknown: 20},
			{c: copyCounters{370, 10, 10}, at: progress{turn: 1, done: 0}},
			{c: copyCounters{370, 10, 10}, at: progress{turn: 1, done: 0}},
		},
		"what is lost in the shadow of a change is told of as unknown, and what is lost later as lost": {
			{c: copyCounters{0, 0, 0}, made: true},
			{c: copyCounters{1000, 0, 1000}, at: progress{turn: 1, done: 0}}, // 1,000 may not be counted yet
			{c: copyCounters{2000, 0, 1500}, at: progress{turn: 1, done: 0}},
			{c: copyCounters{2000, 0, 1500}, at: progress{turn: 1, done: 0}, unknown: 500},
			{c: copyCounters{2100, 0, 1560}, at: progress{turn: 1, done: 0}},
			{c: copyCounters{2100, 0, 1560}, at: progress{turn: 1, done: 0}},
			{c: copyCounters{2100, 0, 1560}, at: progress{turn: 1, done: 0}, queue: 40},
		},
		"a pipeline made anew counts what was dropped before it stood": {
			{c: copyCounters{100, 20, 80}, made: true, meter: 20},
			{c: copyCounters{73, 0, 80}, made: true, before: 80, at: progress{turn: 2, doubt: true}},
			{c: copyCounters{83, 0, 90}, at: progress{turn: 2, done: 80}, unknown: 73},
			{c: copyCounters{83, 0, 90}, at: progress{turn: 2, done: 80}},
			{c: copyCounters{83, 0, 90}, at: progress{turn: 2, done: 80}},
			{c: copyCounters{83, 0, 90}, at: progress{turn: 2, done: 80}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var a lossAccount
			for i, r := range readings {
				meter, queue, unknown := a.add(r.c, r.made, r.before, r.at)
				if meter != r.meter || queue != r.queue || unknown != r.unknown {
					t.Errorf("reading %d: meter %d, queue %d, unknown %d, want %d, %d, %d", i, meter, queue, unknown, r.meter, r.queue, r.unknown)
				}
			}
		})
	}
}

// Whatever is lost, withheld or counted late, behind a change or not: once it is quiet, every copy is received, withheld, lost or unknown.
func TestLossAccountAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a lossAccount
		var c copyCounters
		var late, phantom, meter, queue, unknown, turn, done uint64
		take := func(at progress, made bool) {
			m, q, u := a.add(c, made, 0, at)
			if m < 0 || q < 0 || u < 0 {
				t.Fatalf("told %d, %d, %d", m, q, u)
			}
			meter, queue, unknown = meter+uint64(m), queue+uint64(q), unknown+uint64(u)
		}
		take(progress{}, true)
		for range rapid.IntRange(1, 30).Draw(t, "readings") {
			c.copied, late = c.copied+late, 0 // what came before the last reading is counted
			done := done
			if rapid.IntRange(0, 5).Draw(t, "change") == 0 {
				turn++
				n := rapid.Uint64Range(0, 300).Draw(t, "never made")
				c.copied, phantom = c.copied+n, phantom+n
				done = c.received + c.metered
				take(progress{turn: turn, doubt: true, done: done}, false)
			}
			sent := rapid.Uint64Range(0, 500).Draw(t, "sent")
			dropped := rapid.Uint64Range(0, sent).Draw(t, "withheld")
			lost := rapid.Uint64Range(0, sent-dropped).Draw(t, "lost")
			late = rapid.Uint64Range(0, sent).Draw(t, "not counted yet")
			c.copied, c.metered, c.received = c.copied+sent-late, c.metered+dropped, c.received+sent-dropped-lost
			take(progress{turn: turn, done: done}, false)
		}
		c.copied += late
		for range 5 {
			take(progress{turn: turn, done: done}, false)
		}
		if c.copied != c.received+meter+queue+unknown || meter != c.metered || unknown > phantom+c.copied {
			t.Fatalf("%+v: withheld %d, lost %d, unknown %d", c, meter, queue, unknown)
		}
	})
}

func TestMetersSet(t *testing.T) {
	for name, x := range map[string]struct {
		then, now metersSet
		some, all bool
	}{
		"nothing":                   {metersSet{1, 1, 1}, metersSet{1, 1, 1}, false, false},
		"none is there":             {},
		"all at the start":          {metersSet{}, metersSet{1, 1, 1}, true, true},
		"without that of messages":  {metersSet{}, metersSet{1, 1, 0}, true, true},
		"somebody deleted them all": {metersSet{1, 1, 1}, metersSet{2, 2, 2}, true, true},
		"somebody changed one":      {metersSet{1, 1, 1}, metersSet{1, 2, 1}, true, false},
	} {
		if some, all := x.now.since(x.then); some != x.some || all != x.all {
			t.Errorf("%s: %v %v", name, some, all)
		}
	}
}
