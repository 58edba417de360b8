package pipeline_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// No set makes packets be looked at for all that another one does, so that nothing that was cached under one stays under another.
func TestRenewalSets(t *testing.T) {
	masks := func(n uint16) uint64 {
		f := pipeline.RenewalFlows(n, pipeline.RenewalTables...)
		if got, ok := pipeline.RenewalNumber(&f[0]); !ok || got != n || len(f) != len(pipeline.RenewalTables) {
			t.Fatalf("set %d is taken for %d, %v", n, got, ok)
		}
		m, _ := f[0].Match.Get(flow.PktMark)
		return m.Mask.Lo
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint16().Draw(t, "a"), rapid.Uint16().Draw(t, "b")
		if a != b && masks(a)&^masks(b) == 0 {
			t.Errorf("%d asks for nothing that %d does not", a, b)
		}
	})
	if _, ok := pipeline.RenewalNumber(&flow.Flow{Priority: 65535}); ok {
		t.Error("another flow is taken for one of a set")
	}
}
