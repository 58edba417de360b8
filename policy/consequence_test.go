package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// worldOf makes a set of documents and of ports vm1… of bridge br0, of which the odd ones are labelled app=web.
func worldOf(t testing.TB, ports int, docs string) *policy.Set {
	t.Helper()
	s := &policy.Set{Groups: map[string]*policy.Group{}}
	parsed, err := policy.Load(strings.NewReader(docs))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	var endpoints []*policy.Endpoint
	for _, d := range parsed {
		switch r := d.Resource.(type) {
		case *policy.Policy:
			s.Policies = append(s.Policies, r)
		case *policy.Group:
			s.Groups[r.Name] = r
		case *policy.Endpoint:
			endpoints = append(endpoints, r)
		}
	}
	var machines []*vswitch.Port
	for i := range ports {
		m := machine(fmt.Sprintf("vm%d", i+1), fmt.Sprint(i+1))
		if m.Interfaces[0].OFPort = int64(i + 1); i%2 == 0 {
			m.Interfaces[0].ExternalIDs["app"] = "web"
		}
		machines = append(machines, m)
	}
	s.Workloads = workloads(map[string][]*vswitch.Port{"br0": machines}, endpoints)
	return s
}

// Two hosts with equal ports: both are counted, and each is named with its host.
func TestConsequences_EqualPortsOfTwoHosts(t *testing.T) {
	t.Parallel()
	const isolate = "{kind: Policy, name: base, spec: {appliesTo: [{bridge: br0}], defaultDeny: {ingress: true}}}"
	both := func(docs string) *policy.Set {
		s := worldOf(t, 1, docs)
		for _, w := range worldOf(t, 2, docs).Workloads {
			w.Host = "rack2"
			s.Workloads = append(s.Workloads, w)
		}
		s.Workloads[0].Host = "rack1"
		return s
	}
	var got []string
	for _, e := range policy.Consequences(both(""), both(isolate)) {
		got = append(got, e.Message)
	}
	if diff := cmp.Diff([]string{"3 endpoints become default-deny for ingress: vm1 on rack1, vm1 on rack2, vm2"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFault_F22_EffectsInWords(t *testing.T) {
	const (
		all     = "appliesTo: [{bridge: br0}]"
		web     = "appliesTo: [{labels: {app: web}}]"
		isolate = "{kind: Policy, name: base, spec: {" + all + ", defaultDeny: {ingress: true}}}\n---\n"
		ssh     = "{kind: Policy, name: ssh, spec: {" + web +
			", ingress: [{name: ssh, action: allow, services: [{protocol: tcp, ports: ['22']}]}]}}\n---\n"
	)
	watch := func(from string) string {
		return "{kind: Policy, name: watch, spec: {" + web + ", ingress: [{name: see, action: allow, log: true" + from +
			"}], defaultDeny: {ingress: false}}}\n---\n"
	}
	for _, tt := range []struct {
		name          string
		ports         int
		before, after string
		want          []string
	}{
		{"an allow isolates", 5, "", ssh, []string{"3 endpoints become default-deny for ingress: vm1, vm3, vm5"}},
		{"one alone", 1, "", ssh, []string{"1 endpoint becomes default-deny for ingress: vm1"}},
		{"and back", 5, ssh, "", []string{"3 endpoints are no longer default-deny for ingress: vm1, vm3, vm5"}},
		{"others isolate it still", 5, isolate + ssh, isolate, nil},
		{"some are isolated already", 5, ssh, ssh + isolate, []string{"2 endpoints become default-deny for ingress: vm2, vm4"}},
		{"many", 214, "", ssh, []string{
			"107 endpoints become default-deny for ingress: vm1, vm101, vm103, vm105, vm107, vm109, vm11, vm111, vm113, vm115 and 97 more"}},
		{"both directions", 1, "", "{kind: Policy, name: p, spec: {" + all + ", defaultDeny: {ingress: true, egress: true}}}",
			[]string{"1 endpoint becomes default-deny for ingress: vm1", "1 endpoint becomes default-deny for egress: vm1"}},

		{"a record opens", 3, isolate, isolate + watch(""), []string{"ingress of 2 endpoints opens to everybody: vm1, vm3 (by watch/see)"}},
		{"from any", 1, isolate, isolate + watch(", from: [{entity: any}]"),
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by watch/see)"}},
		{"from the world", 1, isolate, isolate + watch(", from: [{entity: world}]"),
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by watch/see)"}},
		{"from everywhere", 1, isolate, isolate + watch(", from: [{cidr: 0.0.0.0/0}]"),
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by watch/see)"}},
		{"from everywhere in halves", 1, isolate, isolate + watch(", from: [{cidr: 0.0.0.0/1}, {cidr: 128.0.0.0/1}]"),
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by watch/see)"}},
		{"from everywhere but here", 1, isolate, isolate + watch(", from: [{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}]"),
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by watch/see)"}},
		{"from everywhere, IPv6", 1, isolate, isolate + watch(", from: [{cidr: '2000::/3'}]"),
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by watch/see)"}},
		{"from a group of everywhere", 1, isolate + "{kind: Group, name: g, spec: {members: []}}\n---\n" + watch(", from: [{group: g}]"),
			isolate + "{kind: Group, name: g, spec: {members: [{cidr: 0.0.0.0/0}]}}\n---\n" + watch(", from: [{group: g}]"),
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by watch/see)"}},
		{"from a net", 1, isolate, isolate + watch(", from: [{cidr: 10.0.0.0/8}]"), nil},
		{"from endpoints", 1, isolate, isolate + watch(", from: [{bridge: br0}]"), nil},
		{"what is open already", 1, isolate + watch(""), isolate + watch("") + ssh, nil},
		{"what is not isolated", 1, "", watch(""), nil},
		{"a second port", 1, ssh, "{kind: Policy, name: ssh, spec: {" + web +
			", ingress: [{name: ssh, action: allow, services: [{protocol: tcp, ports: ['22', '23']}]}]}}",
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (by ssh/ssh)"}},
		{"covered by a deny", 1, isolate + "{kind: Policy, name: no, spec: {tier: security, " + all +
			", ingress: [{name: no, action: deny}]}}\n---\n",
			isolate + "{kind: Policy, name: no, spec: {tier: security, " + all + ", ingress: [{name: no, action: deny}]}}\n---\n" + watch(""), nil},
		{"the deny goes", 1, "{kind: Policy, name: no, spec: {" + all +
			", ingress: [{name: no, action: deny, services: [{protocol: udp}]}], defaultDeny: {ingress: false}}}", "",
			[]string{"ingress of 1 endpoint opens to everybody: vm1 (nothing denies it any more)"}},
		{"outwards", 1, "{kind: Policy, name: p, spec: {" + all + ", defaultDeny: {egress: true}}}",
			"{kind: Policy, name: p, spec: {" + all + ", egress: [{name: dns, action: allow, services: [{protocol: udp, ports: ['53']}]}]}}",
			[]string{"egress of 1 endpoint opens to everybody: vm1 (by p/dns)"}},

		{"a label isolates", 2, ssh, ssh + "{kind: Endpoint, name: db, spec: {match: {port: vm2}, labels: {app: web}}}",
			[]string{"1 endpoint becomes default-deny for ingress: db"}},
		{"a label opens", 2, isolate + watch(""), isolate + watch("") +
			"{kind: Endpoint, name: db, spec: {match: {port: vm2}, labels: {app: web}}}",
			[]string{"ingress of 1 endpoint opens to everybody: db (by watch/see)"}},
		{"nothing changes", 3, isolate + ssh + watch(""), isolate + ssh + watch(""), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range policy.Consequences(worldOf(t, tt.ports, tt.before), worldOf(t, tt.ports, tt.after)) {
				got = append(got, e.Message)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// consequencesByEvaluate is Consequences by its definition: packet by packet, from every stranger, from and to every port that the universe
// knows.
func consequencesByEvaluate(before, after *policy.Set, w func(*policy.Set) *policy.Workload, dir policy.Direction) (isolated, released,
	opened bool) {
	v4, v6, strangers := policy.Strangers()
	isolates := func(s *policy.Set) bool {
		on := w(s)
		return on != nil && !on.Audit && slices.ContainsFunc(s.Policies, func(p *policy.Policy) bool {
			return p.Shuts(dir) && policy.AnyMatches(p.Spec.AppliesTo, s.Groups, on)
		})
	}
	// everybody tells for each family whether most strangers may.
	everybody := func(s *policy.Set, proto uint8, src, dst uint16) (four, six bool) {
		on := w(s)
		var n4, n6 int
		for _, a := range strangers {
			allow := true
			if on != nil {
				p := policy.Packet{Bridge: on.Bridge, Proto: proto, SrcPort: src, DstPort: dst, ICMPType: uint8(src), ICMPCode: uint8(dst)}
				if dir == policy.Ingress {
					p.Dst, p.SrcIP = on, a
				} else {
					p.Src, p.DstIP = on, a
				}
				allow = policy.Evaluate(s, p).Effect.Passes()
			}
			switch {
			case allow && a.Is4():
				n4++
			case allow:
				n6++
			}
		}
		return n4 > v4/2, n6 > v6/2
	}
	was, is := isolates(before), isolates(after)
	for _, proto := range []uint8{policy.ProtoTCP, policy.ProtoUDP, policy.ProtoICMP, policy.ProtoICMPv6, policy.ProtoSCTP, 47, 112, 253} {
		for src := range uint16(7) {
			for dst := range uint16(7) {
				b4, b6 := everybody(before, proto, src, dst)
				a4, a6 := everybody(after, proto, src, dst)
				opened = opened || a4 && !b4 || a6 && !b6
			}
		}
	}
	return !was && is, was && !is, opened
}

// Whoever the words name changes as they say, and whoever they do not name does not.
func TestFault_F22_EffectsAreTheEvaluators(t *testing.T) {
	seen := map[policy.Code]int{}
	rapid.Check(t, func(t *rapid.T) {
		before := drawSet(t)
		after := &policy.Set{Policies: slices.Clone(before.Policies), Groups: map[string]*policy.Group{},
			Workloads: slices.Clone(before.Workloads)}
		for name, g := range before.Groups {
			after.Groups[name] = g
		}
		for range rapid.IntRange(1, 2).Draw(t, "changes") {
			i := rapid.IntRange(0, len(after.Policies)).Draw(t, "which")
			switch rapid.IntRange(0, 4).Draw(t, "change") {
			case 0, 1:
				p := drawPolicy(t, fmt.Sprintf("p%d", i))
				if i < len(after.Policies) {
					after.Policies[i] = p
				} else {
					after.Policies = append(after.Policies, p)
				}
			case 2:
				if i < len(after.Policies) && len(after.Policies) > 1 {
					after.Policies = slices.Delete(after.Policies, i, i+1)
					continue // the names of the others are theirs
				}
			case 3:
				g := &policy.Group{Meta: policy.Meta{Name: "g1"}}
				if m := drawPeer(t, false); m.Entity == "" {
					g.Spec.Members = append(g.Spec.Members, m)
				}
				after.Groups["g1"] = g
			case 4:
				j := rapid.IntRange(0, len(after.Workloads)-1).Draw(t, "workload")
				w := *after.Workloads[j]
				w.Labels = drawLabels(t)
				after.Workloads[j] = &w
			}
		}
		// The names of policies are unique, also after deletions.
		names := map[string]bool{}
		after.Policies = slices.DeleteFunc(after.Policies, func(p *policy.Policy) bool { dup := names[p.Name]; names[p.Name] = true; return dup })

		named := map[string]bool{}
		for _, e := range policy.Consequences(before, after) {
			seen[e.Code]++
			for _, n := range e.Endpoints {
				named[string(e.Code)+" "+string(e.Direction)+" "+n] = true
			}
		}
		for i, w := range after.Workloads {
			if w.Remote {
				continue
			}
			at := func(s *policy.Set) *policy.Workload { return s.Workloads[i] }
			for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
				isolated, released, opened := consequencesByEvaluate(before, after, at, dir)
				for code, want := range map[policy.Code]bool{policy.ConsequenceIsolated: isolated, policy.ConsequenceReleased: released,
					policy.ConsequenceOpened: opened && !released} {
					if got := named[string(code)+" "+string(dir)+" "+w.Key]; got != want {
						t.Fatalf("%s %s of %s: the words say %v, the evaluator %v", code, dir, w.Key, got, want)
					}
				}
			}
		}
	})
	for _, code := range []policy.Code{policy.ConsequenceIsolated, policy.ConsequenceReleased, policy.ConsequenceOpened} {
		if seen[code] == 0 && !testing.Short() { // a short run draws too few cases to meet every kind
			t.Errorf("no case with %s was drawn", code)
		}
	}
}
