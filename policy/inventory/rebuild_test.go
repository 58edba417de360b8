package inventory_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// However ports and resources change: what is found on top of what was known is what is found from nothing, and a workload that no change
// touches stays the same pointer.
func TestRebuildIsBuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ports := map[string]plug{}
		endpoints := map[string]*policy.Endpoint{}
		known := []inventory.Inventory{{}}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch few(t, "step", "ports", "port", "endpoint", "relabel", "relabel", "delete") {
			case "ports":
				clear(ports)
				for _, p := range drawPorts(t, few(t, "second host", "", "h2"), "") {
					ports[p.host+p.Name] = p
				}
			case "port":
				for _, p := range drawPorts(t, "", "h2") {
					ports[p.host+p.Name] = p
				}
			case "endpoint":
				name := few(t, "name", "ea", "eb", "ec")
				match := few(t, "match", policy.Selector{Port: "pa"}, policy.Selector{Port: "px"}, policy.Selector{NeutronPort: "i1"},
					policy.Selector{VM: "v1"}, policy.Selector{MAC: "52:54:00:00:00:01"}, policy.Selector{VM: "v1", Host: "h2"})
				endpoints[name] = endpoint(name, match, withAddresses(few(t, "address", "10.0.0.1", "10.0.0.2")),
					withMAC(few(t, "mac", "", "52:54:00:00:00:01")))
			case "relabel":
				for _, name := range slices.Sorted(maps.Keys(endpoints)) {
					e := endpoints[name]
					if rapid.Bool().Draw(t, "this one") {
						spec := e.Spec
						withLabels("app", few(t, "label", "a", "b", "c"))(&spec)
						spec.Forwards = rapid.Bool().Draw(t, "forwards")
						endpoints[name] = &policy.Endpoint{Meta: e.Meta, Spec: spec}
					}
				}
			case "delete":
				delete(endpoints, few(t, "name", "ea", "eb", "ec"))
			}
			hosts := hostsOf(slices.Collect(maps.Values(ports)))
			if len(hosts) > 0 && rapid.IntRange(0, 5).Draw(t, "unmanaged") == 0 {
				hosts[0].Bridges = nil
			}
			for i := range hosts {
				slices.Sort(hosts[i].Bridges)
			}
			resources := slices.Collect(maps.Values(endpoints))
			want := inventory.Build(hosts, resources)
			got := few(t, "on top of", known...).Rebuild(hosts, resources)
			if diff := cmp.Diff(want, got, append(same, cmpopts.EquateEmpty())...); diff != "" {
				t.Fatalf("(-want +got)\n%s", diff)
			}
			stranger := endpoint("zz", policy.Selector{Port: "nowhere"})
			more := got.Rebuild(hosts, append(slices.Clip(resources), stranger))
			for _, w := range got.Workloads {
				if !slices.Contains(more.Workloads, w) {
					t.Fatalf("workload %s is another one", w.Key)
				}
			}
			for i := range more.Ports {
				if p := &more.Ports[i]; p.Workload != got.Ports[i].Workload {
					t.Fatalf("port %s has another workload", p)
				}
			}
			known = append(known, got, more)
		}
	})
}

// BenchmarkBuild: ten times the ports and endpoints take ten times as long; what is known already costs a fraction, and another label next
// to nothing.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		var ports []plug
		var endpoints []*policy.Endpoint
		for i := range n {
			host := fmt.Sprintf("h%d", i%20)
			ports = append(ports, on(host, port("br0", fmt.Sprintf("tap%d", i/20), ids("iface-id", fmt.Sprint(i)))))
			endpoints = append(endpoints, endpoint(fmt.Sprint(i), policy.Selector{Port: fmt.Sprintf("tap%d", i/20), Host: host},
				withAddresses(fmt.Sprintf("10.0.%d.%d", i>>8, i&255))))
		}
		hosts := hostsOf(ports)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				inventory.Build(hosts, endpoints)
			}
		})
		known := inventory.Build(hosts, endpoints)
		for name, other := range map[string]func(*policy.EndpointSpec){
			"another port": func(s *policy.EndpointSpec) { s.Match.Port = "elsewhere" },
			"relabelled":   withLabels("app", "other"),
		} {
			changed := slices.Clone(endpoints)
			changed[7] = endpoint("7", endpoints[7].Spec.Match, withAddresses(endpoints[7].Spec.Addresses...), other)
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					known.Rebuild(hosts, changed)
				}
			})
		}
	}
}
