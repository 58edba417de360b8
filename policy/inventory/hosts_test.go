package inventory_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// Two hosts with the same names for everything are two hosts.
func TestTwoHosts(t *testing.T) {
	mac := "52:54:00:00:00:01"
	near := policy.Selector{Port: "tap1", Host: "h1"}
	ports := []plug{
		on("h1", port("br0", "tap1", tag(7), ids("iface-id", "i", "attached-mac", mac))),
		on("h2", port("br0", "tap1", tag(7), ids("iface-id", "i", "attached-mac", mac))),
		on("h1", port("br0", "tap2", without, ids("iface-id", "j"))), on("h2", port("br0", "tap2", ids("iface-id", "j"))),
		on("h1", port("br0", "eth0")), on("h2", port("br0", "eth0")), on("h2", port("br0", "tap3")),
	}
	inv := inventory.Build(hostsOf(ports), []*policy.Endpoint{
		endpoint("near", near, withAddresses("10.0.0.1")), endpoint("other", policy.Selector{Port: "tap3"}, withAddresses("10.0.0.3")),
		endpoint("moved", policy.Selector{NeutronPort: "j"}, withAddresses("10.0.0.2")),
		endpoint("far", policy.Selector{Port: "tap9", Host: "h9"}), endpoint("both", policy.Selector{Port: "eth0"}, withAddresses("10.0.0.4")),
	})
	got := []string{}
	for _, w := range inv.Workloads {
		got = append(got, fmt.Sprintf("%s %s %s %v", w.Key, w.Host, w.Endpoint, w.Addresses))
	}
	want := []string{
		"br0/eth0 h1 both []", "br0/eth0 h2 both []", "br0/tap3 h2 other [10.0.0.3]", "endpoint/far  far []", "i h1 near [10.0.0.1]", "i h2  []",
		"j h1 moved []", "j h2 moved [10.0.0.2]", // the port of h1 has no device: the machine is on h2 now
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ENDPOINT_AMBIGUOUS both"}, codes(inv.Warnings)); diff != "" {
		t.Errorf("warnings (-want +got)\n%s", diff)
	}
	if a, b := inv.Port("h1", "br0", "tap1"), inv.Port("h2", "br0", "tap1"); a.Workload.Host != "h1" || b.Workload.Host != "h2" {
		t.Errorf("%+v, %+v", a, b)
	}
	if n := len(inv.On("h2", "br0")); n != 4 {
		t.Errorf("%d ports on br0 of h2", n)
	}
}

// Warnings know their host, and one address on two hosts is one address.
func TestWarningsOfHosts(t *testing.T) {
	inv := inventory.Build(hostsOf([]plug{
		on("h1", port("br0", "a", ids("iface-id", "i"))), on("h1", port("br0", "b", ids("iface-id", "i"))),
		on("h2", port("br0", "a", ids("attached-mac", "x"))),
	}), []*policy.Endpoint{
		endpoint("e", policy.Selector{Port: "a", Host: "h1"}, withAddresses("10.0.0.1")),
		endpoint("f", policy.Selector{Port: "a", Host: "h2"}, withAddresses("10.0.0.1")),
	})
	of := func(host string) (out []string) {
		for _, w := range inv.About(host) {
			out = append(out, string(w.Code)+" "+w.Endpoint+": "+w.Message)
		}
		return out
	}
	twice := "DUPLICATE_IFACE_ID %s: ports br0/a and br0/b have the same external_ids:iface-id i"
	address := "DUPLICATE_ADDRESS %s: endpoints %s and %s both have the address 10.0.0.1, so rules that know them by it take one for the other"
	for host, want := range map[string][]string{
		"h1": {fmt.Sprintf(twice, "i"), fmt.Sprintf(twice, "br0/b"), fmt.Sprintf(address, "i", "i", "br0/a of host h2")},
		"h2": {`BAD_MAC br0/a: external_ids:attached-mac "x" of port a of bridge br0 must be a MAC address like "52:54:00:12:34:56"`,
			fmt.Sprintf(address, "br0/a", "br0/a", "i of host h1")},
	} {
		if diff := cmp.Diff(want, of(host)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", host, diff)
		}
	}
}

var same = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}),
	cmpopts.IgnoreUnexported(inventory.Inventory{})}

func few[T any](t *rapid.T, name string, vs ...T) T { return rapid.SampledFrom(vs).Draw(t, name) }

// drawPorts plugs things in on a host, or on one of several.
func drawPorts(t *rapid.T, hosts ...string) []plug {
	var ports []plug
	for i := range rapid.IntRange(0, 8).Draw(t, "ports") {
		marks := ids("iface-id", few(t, "iface-id", "", "i1", "i2", "br0/pb"), "vm-id", few(t, "vm-id", "", "v1"),
			"attached-mac", few(t, "mac", "", "52:54:00:00:00:01", "52:54:00:00:00:02"))
		p := on(few(t, "host", hosts...), port(few(t, "bridge", "br0", "br1"), "p"+string(rune('a'+i)), marks))
		if rapid.IntRange(0, 3).Draw(t, "dead") == 0 {
			p.Interfaces[0].OFPort = -1
		}
		ports = append(ports, p)
	}
	return ports
}

// Whatever is plugged and however it is ordered: on a host, keys are unique and in order, each marked port is an endpoint once, and the
// answer is the same.
func TestBuildIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ports := drawPorts(t, few(t, "second host", "", "h2"), "")
		var endpoints []*policy.Endpoint
		for i := range rapid.IntRange(0, 4).Draw(t, "endpoints") {
			match := few(t, "match", policy.Selector{Port: "pa"}, policy.Selector{Port: "px"}, policy.Selector{NeutronPort: "i1"},
				policy.Selector{VM: "v1"}, policy.Selector{MAC: "52:54:00:00:00:01"}, policy.Selector{VM: "v1", Host: "h2"})
			endpoints = append(endpoints, endpoint("e"+string(rune('a'+i)), match, withAddresses("10.0.0.1")))
		}
		inv := inventory.Build(hostsOf(ports), endpoints)
		got := inv.Workloads
		for i := 1; i < len(got); i++ {
			if a, b := got[i-1], got[i]; a.Key > b.Key || a.Key == b.Key && (a.Host >= b.Host || a.Remote || b.Remote) {
				t.Fatalf("keys %q of %q, %q of %q", a.Key, a.Host, b.Key, b.Host)
			}
		}
		seen := map[string]bool{}
		for _, w := range got {
			if !w.Remote && seen[w.Port] {
				t.Fatalf("port %s twice", w.Port)
			}
			seen[w.Port] = true
		}
		for _, p := range ports {
			marks := p.Interfaces[0].ExternalIDs
			if (marks["iface-id"] != "" || marks["vm-id"] != "" || marks["attached-mac"] != "") && !seen[p.Name] && p.Interfaces[0].OFPort > 0 {
				t.Fatalf("port %s is no endpoint", p.Name)
			}
		}
		shuffled := hostsOf(ports)
		for i := range shuffled {
			if len(shuffled[i].Bridges) > 0 {
				shuffled[i].Bridges = rapid.Permutation(shuffled[i].Bridges).Draw(t, "bridges in another order")
			}
		}
		shuffled = rapid.Permutation(shuffled).Draw(t, "hosts in another order")
		again := inventory.Build(shuffled, rapid.Permutation(endpoints).Draw(t, "endpoints in another order"))
		if diff := cmp.Diff(inv, again, same...); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
}

// What is found on two hosts together is what is found on each alone, as far as no Endpoint resource finds something on both and no
// address is on both.
func TestHostsDoNotMix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hosts []inventory.Host
		var endpoints []*policy.Endpoint
		for _, host := range []string{"h1", "h2"} {
			h := hostsOf(drawPorts(t, host))
			if len(h) == 0 {
				h = []inventory.Host{{Topology: &vswitch.Topology{Host: host}}}
			}
			hosts = append(hosts, h...)
			for i := range rapid.IntRange(0, 3).Draw(t, "endpoints") {
				match := few(t, "match", policy.Selector{Port: "pa"}, policy.Selector{NeutronPort: "i1"}, policy.Selector{VM: "v1"},
					policy.Selector{MAC: "52:54:00:00:00:01"})
				match.Host = host
				name := fmt.Sprintf("%s-%d", host, i)
				endpoints = append(endpoints, endpoint(name, match, withLabels("app", name), withMACs("00:00:5e:00:01:01"),
					withAddresses(fmt.Sprintf("10.0.%s.%d", host[1:], few(t, "address", 1, 2)))))
			}
		}
		together := inventory.Build(hosts, endpoints)
		var ports []inventory.Port
		var warnings []inventory.Warning
		var workloads []*policy.Workload
		remote := map[string]int{} // by how many hosts
		for _, h := range hosts {
			alone := inventory.Build([]inventory.Host{h}, endpoints)
			ports = append(ports, alone.Ports...)
			for _, w := range alone.Workloads {
				if remote[w.Key]++; !w.Remote || remote[w.Key] == len(hosts) {
					workloads = append(workloads, w)
				}
			}
			for _, w := range alone.Warnings {
				if about := w.Host == h.Topology.Host; about || w.AboutResource {
					warnings = append(warnings, w)
				}
			}
		}
		slices.SortFunc(workloads, func(a, b *policy.Workload) int { return strings.Compare(a.Key+"\x00"+a.Host, b.Key+"\x00"+b.Host) })
		byText := cmpopts.SortSlices(func(a, b inventory.Warning) bool { return fmt.Sprint(a) < fmt.Sprint(b) })
		if diff := cmp.Diff(ports, together.Ports, append(same, cmpopts.EquateEmpty())...); diff != "" {
			t.Fatalf("ports (-alone +together)\n%s", diff)
		}
		if diff := cmp.Diff(workloads, together.Workloads, append(same, cmpopts.EquateEmpty())...); diff != "" {
			t.Fatalf("workloads (-alone +together)\n%s", diff)
		}
		ofRemote := func(w inventory.Warning) bool { return w.Host == "" && !w.AboutResource } // each host has them
		if diff := cmp.Diff(warnings, slices.DeleteFunc(slices.Clone(together.Warnings), ofRemote), byText, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("warnings (-alone +together)\n%s", diff)
		}
	})
}
