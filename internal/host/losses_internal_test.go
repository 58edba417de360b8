package host

import "testing"

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
			{c: copyCounters{370, 10, 10}, at: progress{turn: 1, done: 0}},
			{c: copyCounters{370, 10, 10}, at: progress{turn: 1, done: 0}},
			{c: copyCounters{370, 10, 10}, at: progress{turn: 1, done: 0}},
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
