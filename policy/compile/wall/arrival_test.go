package wall_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestArrived holds who arrives: whose port was not there, and nobody else.
func TestArrived(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(l lab)
		want   []string
	}{
		{"a new port", func(l lab) { l.vm(2, "c"); l.vm(3, "c"); l.tell() }, []string{"w2", "w3"}},
		{"a port that became an endpoint's", func(l lab) {
			l.fw.SetWorkloads(slices.Collect(maps.Values(l.workloads)), []wall.Port{{Name: "tap-w2", OFPort: 3}})
			l.compile()
			l.vm(2, "c")
			l.tell()
		}, []string{"w2"}},
		{"a port without a number", func(l lab) { l.vm(2, "c"); l.edit(2, func(w *policy.Workload) { w.OFPort = 0 }) }, nil},
		{"a port that got its number", func(l lab) {
			l.vm(2, "c")
			l.edit(2, func(w *policy.Workload) { w.OFPort = 0 })
			l.compile()
			l.edit(2, func(w *policy.Workload) { w.OFPort = 3 })
		}, []string{"w2"}},
		{"one of another host", func(l lab) { l.vm(2, "c"); l.edit(2, func(w *policy.Workload) { w.Remote = true }) }, nil},
		{"one of another host comes here", func(l lab) {
			l.vm(2, "c")
			l.edit(2, func(w *policy.Workload) { w.Remote = true })
			l.compile()
			l.edit(2, func(w *policy.Workload) { w.Remote = false })
		}, []string{"w2"}},
		{"it left again", func(l lab) { l.vm(2, "c"); l.tell(); delete(l.workloads, "w2"); l.tell() }, nil},
		{"a relabel", func(l lab) { l.edit(0, func(w *policy.Workload) { w.Labels = map[string]string{"app": "z"} }) }, nil},
		{"another address", func(l lab) { l.edit(0, func(w *policy.Workload) { w.MAC = "52:54:00:00:00:99" }) }, nil},
		{"another number of the port", func(l lab) { l.edit(0, func(w *policy.Workload) { w.OFPort = 17 }) }, nil},
		{"another key", func(l lab) {
			w := *l.workloads["w0"]
			w.Key = "renamed"
			delete(l.workloads, "w0")
			l.workloads["renamed"] = &w
			l.tell()
		}, nil},
		{"a restart", func(l lab) { l.restart(&l.assignments) }, nil},
		{"a restart during which one came", func(l lab) { l.vm(2, "c"); l.restart(&l.assignments) }, []string{"w2"}},
		{"a restart that knows nothing", func(l lab) { l.restart(nil) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "b", "a")
			l.compile()
			c.change(l)
			if diff := cmp.Diff(c.want, l.compile().Arrived); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := l.compile().Arrived; got != nil {
				t.Errorf("told again: %v", got)
			}
		})
	}
}

// restart has a new firewall go on with what an earlier run left.
func (l lab) restart(a *wall.Assignments) {
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0", Assignments: a})
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	l.world.fw = fw
	l.tell()
}
