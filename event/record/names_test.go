package record_test

import (
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// Names are a map that keeps every version of itself.
func TestNames(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type version struct {
			names *record.Names
			rules map[uint32]*event.Rule
		}
		id := rapid.OneOf(rapid.Uint32Range(0, 600), rapid.SampledFrom([]uint32{1 << 30, 1<<31 | 5, 1<<32 - 1}))
		versions := []version{{}}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			from := versions[rapid.IntRange(0, len(versions)-1).Draw(rt, "from")]
			changed, want := map[uint32]*event.Rule{}, maps.Clone(from.rules)
			if want == nil {
				want = map[uint32]*event.Rule{}
			}
			for _, id := range rapid.SliceOfN(id, 0, 20).Draw(rt, "ids") {
				if changed[id] = nil; rapid.Bool().Draw(rt, "set") {
					changed[id] = &event.Rule{Name: rapid.StringN(1, 3, -1).Draw(rt, "name")}
				}
				want[id] = changed[id]
			}
			versions = append(versions, version{from.names.WithRules(changed), want})
		}
		for i, v := range versions {
			for id, want := range v.rules {
				if got := v.names.Rule(id); got != want {
					rt.Errorf("version %d: %d is %v, want %v", i, id, got, want)
				}
			}
			if v.names.Rule(12345) != nil || v.names.Endpoint(1) != nil {
				rt.Errorf("version %d knows what nobody named", i)
			}
		}
	})
	eps := map[uint32]*event.Endpoint{1: {Name: "a"}}
	n := (*record.Names)(nil).WithRules(map[uint32]*event.Rule{7: {Name: "r"}}).WithEndpoints(eps)
	if m := n.WithEndpoints(map[uint32]*event.Endpoint{1: nil}); m.Endpoint(1) != nil || m.Rule(7) == nil || n.Endpoint(1) == nil {
		t.Errorf("%+v became %+v", n, m)
	}
	var d *record.Directory
	if d.Names().Rule(1) != nil || new(record.Directory).Names().Endpoint(1) != nil {
		t.Error("an empty directory names something")
	}
}

// What a change of one rule costs among 60,000 ids.
func BenchmarkNames(b *testing.B) {
	all := map[uint32]*event.Rule{}
	for id := range uint32(60_000) {
		all[id] = &event.Rule{}
	}
	n := (*record.Names)(nil).WithRules(all)
	one := map[uint32]*event.Rule{31_000: {}, 60_001: {}}
	b.ReportAllocs()
	for b.Loop() {
		n.WithRules(one)
	}
}
