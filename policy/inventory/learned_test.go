package inventory_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// Addresses that were learned stay over changes of resources and rows, but for those that somebody declares; what they do not touch stays
// the same pointer.
func TestLearn(t *testing.T) {
	plugs := []plug{on("h", port("br0", "a", ids("iface-id", "a"))), on("h", port("br0", "b", ids("iface-id", "b"))),
		on("h", port("br0", "c", ids("iface-id", "c")))}
	say := func(inv inventory.Inventory) string {
		out := ""
		for _, w := range inv.Workloads {
			out += fmt.Sprintf("%s%v%v ", w.Key, w.Addresses, w.Learned)
			if p := inv.Port("h", w.Bridge, w.Port); p != nil && p.Workload != w {
				t.Errorf("port %s has another workload", p.Name)
			}
		}
		return out
	}
	check := func(what string, inv inventory.Inventory, want string) {
		t.Helper()
		if got := say(inv); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	same := func(what string, a, b inventory.Inventory, others ...string) {
		t.Helper()
		for i, w := range a.Workloads {
			other := false
			for _, key := range others {
				other = other || w.Key == key
			}
			if (w == b.Workloads[i]) == other {
				t.Errorf("%s: workload %s stays the same: %v", what, w.Key, w == b.Workloads[i])
			}
		}
	}
	list := func(s ...string) (out []netip.Addr) {
		for _, a := range s {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	hosts := hostsOf(plugs)
	none := inventory.Build(hosts, nil)
	by := map[string][]netip.Addr{"a": list("10.0.0.1", "10.0.0.9"), "b": list("10.0.0.2"), "gone": list("10.0.0.3")}
	inv := none.Learn("h", by)
	check("learned", inv, "a[][10.0.0.1 10.0.0.9] b[][10.0.0.2] c[][] ")
	check("before", none, "a[][] b[][] c[][] ")
	same("learned", none, inv, "a", "b")
	if !inv.Learned("h", map[string][]netip.Addr{"a": list("10.0.0.1", "10.0.0.9"), "b": list("10.0.0.2"), "gone": list("10.0.0.3")}) ||
		inv.Learned("h", nil) || inv.Learned("i", by) || !none.Learned("h", nil) || none.Learned("h", by) {
		t.Error("what is known of an inventory is something else")
	}
	declared := []*policy.Endpoint{endpoint("e", policy.Selector{Port: "c"}, withAddresses("10.0.0.9"))}
	with := inv.Rebuild(hosts, declared)
	check("declared by another", with, "a[][10.0.0.1] b[][10.0.0.2] c[10.0.0.9][] ")
	same("declared by another", inv, with, "a", "c")
	labelled := with.Rebuild(hosts, []*policy.Endpoint{endpoint("e", policy.Selector{Port: "c"}, withAddresses("10.0.0.9"),
		withLabels("app", "web"))})
	check("with another label", labelled, "a[][10.0.0.1] b[][10.0.0.2] c[10.0.0.9][] ")
	same("with another label", with, labelled, "c")
	again := labelled.Rebuild(hosts, nil)
	check("declared no more", again, "a[][10.0.0.1 10.0.0.9] b[][10.0.0.2] c[][] ")
	check("unplugged", again.Rebuild(hostsOf(plugs[1:]), nil), "b[][10.0.0.2] c[][] ")
	less := again.Learn("h", map[string][]netip.Addr{"b": list("10.0.0.2")})
	same("less", again, less, "a")
	check("nothing", less.Learn("h", nil), "a[][] b[][] c[][] ")
	same("nothing", again.Learn("h", nil), less.Learn("h", nil).Rebuild(hosts, nil))
}
