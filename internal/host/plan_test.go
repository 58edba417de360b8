package host_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// change draws one document or deletion over a small world of names, so that changes meet.
func drawChange(t *rapid.T) (yaml string, kind policy.Kind, name string) {
	port := rapid.SampledFrom([]string{"vm1", "vm2", "vm3"})
	peer := rapid.SampledFrom([]string{"{port: vm1}", "{port: vm2}", "{group: g1}", "{group: g2}", "{cidr: 10.0.0.0/8}",
		"{cidr: 10.1.0.0/16}", "{labels: {app: web}}", "{entity: any}"})
	index := rapid.IntRange(1, 3)
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1, 2, 3, 4:
		name = fmt.Sprintf("p%d", index.Draw(t, "policy"))
		var b strings.Builder
		fmt.Fprintf(&b, "kind: Policy\nname: %s\nspec:\n  priority: %d\n  appliesTo: [{port: %s}]\n", name, rapid.IntRange(99, 101).Draw(t,
			"priority"), port.Draw(t, "subject"))
		for _, side := range []struct{ direction, peers string }{{"ingress", "from"}, {"egress", "to"}} {
			if n := rapid.IntRange(0, 2).Draw(t, side.direction); n > 0 {
				fmt.Fprintf(&b, "  %s:\n", side.direction)
				for i := range n {
					fmt.Fprintf(&b, "  - {name: r%d, action: %s, %s: [%s], services: [{protocol: tcp, ports: ['%d']}], log: %v}\n", i,
						rapid.SampledFrom([]string{"allow", "deny"}).Draw(t, "action"), side.peers, peer.Draw(t, "peer"), rapid.IntRange(80, 82).Draw(t,
							"port"), rapid.Bool().Draw(t, "log"))
				}
			}
		}
		if !strings.Contains(b.String(), "- {name") {
			b.WriteString("  defaultDeny: {ingress: true}\n")
		}
		return b.String(), policy.KindPolicy, name
	case 5:
		return "", policy.KindPolicy, fmt.Sprintf("p%d", index.Draw(t, "gone"))
	case 6:
		name = fmt.Sprintf("g%d", rapid.IntRange(1, 2).Draw(t, "group"))
		return fmt.Sprintf("kind: Group\nname: %s\nspec: {members: [{port: %s}, {cidr: 192.0.2.%d/32}]}\n", name, port.Draw(t, "member"),
			index.Draw(t, "address")), policy.KindGroup, name
	case 7:
		name = fmt.Sprintf("e%d", index.Draw(t, "endpoint"))
		return fmt.Sprintf("kind: Endpoint\nname: %s\nspec: {match: {port: vm%s}, labels: {app: %s}, addresses: [10.7.0.%s]}\n", name, name[1:],
			rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app"), name[1:]), policy.KindEndpoint, name
	case 8:
		name = fmt.Sprintf("m%d", rapid.IntRange(1, 2).Draw(t, "mirror"))
		return fmt.Sprintf(
			"kind: Mirror\nname: %s\nspec: {enabled: %v, sources: [{port: %s}], targets: [{port: {name: out%s, create: true}}]}\n", name,
			rapid.Bool().Draw(t, "enabled"),
			port.Draw(t, "source"), name[1:]), policy.KindMirror, name
	}
	return "", policy.KindMirror, fmt.Sprintf("m%d", rapid.IntRange(1, 2).Draw(t, "gone"))
}

// What a dry run says is what then happens: flow by flow, with the very ids, and mirror by mirror. It changes nothing itself.
func TestPlanComesTrue(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2", "vm3")...)
	h.put("kind: Group\nname: g1\nspec: {members: [{port: vm1}]}\n---\nkind: Group\nname: g2\nspec: {members: [{cidr: 192.0.2.0/24}]}\n")
	r := h.ready(settings{})
	there := map[policy.Kind]map[string]bool{policy.KindPolicy: {}, policy.KindMirror: {}}
	wrote, planned := 0, 0
	enough, last := time.Now().Add(6*time.Second), time.Now().Add(time.Minute) // a loaded machine takes longer for the same
	rapid.Check(t, func(rt *rapid.T) {
		if now := time.Now(); now.After(enough) && wrote >= 10 || now.After(last) {
			return
		}
		var changes []backend.Change
		seen := map[string]bool{}
		for range rapid.IntRange(1, 3).Draw(rt, "changes") {
			yaml, kind, name := drawChange(rt)
			if seen[string(kind)+name] || yaml == "" && !there[kind][name] {
				continue
			}
			seen[string(kind)+name] = true
			if yaml == "" {
				changes = append(changes, backend.Change{Kind: kind, Name: name})
				continue
			}
			parsed, err := parse(yaml)
			if err != nil {
				rt.Fatalf("%s: %v", yaml, err)
			}
			changes = append(changes, parsed...)
		}
		if len(changes) == 0 {
			return
		}
		r.saved()
		marks, err := r.Flows(context.Background(), backend.FlowQuery{Owner: "unsaved"}) // they may go meanwhile, which is no plan's doing
		if err != nil {
			rt.Fatal(err)
		}
		before, rows, sent := r.flows(backend.FlowQuery{}), mirrorRows(h), r.health("br0").FlowMods
		plan, err := r.Plan(context.Background(), changes)
		if err != nil {
			rt.Fatal(err)
		}
		planned++
		if diff := diff(before, r.flows(backend.FlowQuery{})); diff != "" || len(marks) == 0 && r.health("br0").FlowMods != sent {
			rt.Fatalf("the dry run changed flows (-before +after):\n%s", diff)
		}
		p := plan.Bridges[0]
		want := apply(rt, before, p.AddFlows, p.RemoveFlows)

		out, err := h.st.Commit(context.Background(), changes)
		if err != nil {
			rt.Fatal(err)
		}
		wrote++
		for i, c := range changes {
			revision := int64(0)
			if c.Resource != nil {
				revision = out[i].GetMeta().Revision
			}
			r.wait(c.Kind, c.Name, revision)
			if byName := there[c.Kind]; byName != nil {
				byName[c.Name] = c.Resource != nil
			}
		}
		if diff := diff(want, r.flows(backend.FlowQuery{})); diff != "" {
			rt.Fatalf("changes %s\nflows (-planned +installed):\n%s", describe(changes), diff)
		}
		after := mirrorRows(h)
		for _, m := range p.AddMirrors {
			if !after[mirrorName(m)] {
				rt.Fatalf("planned and not there: %s; rows %v", m, after)
			}
		}
		for _, m := range p.RemoveMirrors {
			if !rows[mirrorName(m)] {
				rt.Fatalf("planned to go and was not there: %s", m)
			}
		}
		if (len(p.AddMirrors) > 0 || len(p.RemoveMirrors) > 0) == (fmt.Sprint(rows) == fmt.Sprint(after)) && !sameNames(p) {
			rt.Fatalf("changes %s\nrows before %v, after %v, plan +%v -%v", describe(changes), rows, after, p.AddMirrors, p.RemoveMirrors)
		}
	})
	t.Logf("%d plans, %d came true", planned, wrote)
	if wrote < 10 {
		t.Errorf("only %d changes were made", wrote)
	}
	r.matchesScratch("br0")
}

// sameNames: a mirror changes and keeps its row.
func sameNames(p wire.BridgePlan) bool {
	names := func(in []string) []string {
		var out []string
		for _, m := range in {
			out = append(out, mirrorName(m))
		}
		return sortedStrings(out)
	}
	return slices.Equal(names(p.AddMirrors), names(p.RemoveMirrors))
}

// apply does to the flows before what a plan says.
func apply(t *rapid.T, before, add, remove []string) []string {
	var out []string
	for _, f := range before {
		if !slices.Contains(remove, f) {
			out = append(out, f)
		}
	}
	for _, f := range remove {
		if !slices.Contains(before, f) {
			t.Fatalf("planned to go and not installed: %s", f)
		}
	}
	return sortedStrings(append(out, add...))
}

func describe(changes []backend.Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "\n  %s %s %+v", c.Kind, c.Name, c.Resource)
	}
	return b.String()
}

// mirrorRows are the names of the Mirror rows in the database.
func mirrorRows(h *machine) map[string]bool {
	out := map[string]bool{}
	for name := range strings.FieldsSeq(h.ovs.Vsctl("--bare", "--columns=name", "list", "Mirror")) {
		out[name] = true
	}
	return out
}

// mirrorName is the row's name in a line of a plan.
func mirrorName(line string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(line, "mirror "), " ")
	return name
}

// A plan made while the pickup window is open speaks of the change, not of the window.
func TestPlanDuringPickup(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	h.put(allow("p", "vm1", "{port: vm2}", "80"))
	r := h.start(settings{window: time.Minute})
	r.eventually("ready", r.Ready)
	if !r.health("br0").Pickup {
		t.Fatal("no pickup window")
	}
	plan, err := r.Plan(context.Background(), h.changes(allow("p", "vm1", "{port: vm2}", "80")))
	if err != nil || len(plan.Bridges) != 1 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if p := plan.Bridges[0]; len(p.AddFlows)+len(p.RemoveFlows)+len(p.RejudgedRules) != 0 {
		t.Errorf("writing the same again: %+v", p)
	}
	before := r.flows(backend.FlowQuery{})
	plan, err = r.Plan(context.Background(), h.changes(allow("p", "vm1", "{port: vm2}", "81")))
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Bridges[0]
	if diff := diff([]string{"p/ingress/in"}, p.RejudgedRules); diff != "" {
		t.Errorf("rules that are cut (-want +got):\n%s", diff)
	}
	r.apply(allow("p", "vm1", "{port: vm2}", "81"))
	var want []string
	for _, f := range before {
		if !slices.Contains(p.RemoveFlows, f) {
			want = append(want, f)
		}
	}
	if diff := diff(sortedStrings(append(want, p.AddFlows...)), r.flows(backend.FlowQuery{})); diff != "" {
		t.Errorf("flows (-planned +installed):\n%s", diff)
	}
}

// Before the topology is known a plan is empty, not wrong.
func TestPlanWithoutTopology(t *testing.T) {
	t.Parallel()
	h := newMachine(t)
	h.ovs.KillOVSDB()
	r := h.start(settings{})
	plan, err := r.Plan(context.Background(), h.changes(allow("p", "vm1", "{port: vm2}", "80")))
	if err != nil || len(plan.Bridges) != 0 {
		t.Errorf("%+v, %v", plan, err)
	}
	if err := r.Admit(h.changes(localTap)); err != nil {
		t.Errorf("Admit: %v", err)
	}
}

// The words of a change are the same before and after it is in force, and speak of owned bridges only.
func TestFault_F22_EffectsOfRealEndpoints(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "br1")
	h.plug("br0", vms("vm1", "vm2")...)
	h.plug("br1", vms("vm3")...)
	r := h.ready(settings{bridges: append(owned("br0"), host.BridgeConfig{Name: "br1", Mode: host.Guest})})
	words := func(changes []backend.Change, before ...policy.Resource) string {
		t.Helper()
		var out []string
		for _, e := range r.Consequences(changes, before) {
			out = append(out, e.Message)
		}
		return strings.Join(out, "; ")
	}
	const everywhere = "kind: Policy\nname: p\nspec: {appliesTo: [{port: vm1}, {port: vm2}, {port: vm3}], defaultDeny: {ingress: true}}\n"
	const isolated = "2 endpoints become default-deny for ingress: vm1, vm2"
	changes := h.changes(everywhere)
	if got := words(changes, nil); got != isolated {
		t.Errorf("before: %s", got)
	}
	r.apply(everywhere)
	if got := words(changes, nil); got != isolated {
		t.Errorf("afterwards: %s", got)
	}
	if got := words(changes, changes[0].Resource); got != "" {
		t.Errorf("no change: %s", got)
	}
	if got := words([]backend.Change{{Kind: policy.KindPolicy, Name: "p"}},
		changes[0].Resource); got != "2 endpoints are no longer default-deny for ingress: vm1, vm2" {
		t.Errorf("deletion: %s", got)
	}
	// An Endpoint resource renames what it matches, and its labels select.
	both := h.changes("kind: Endpoint\nname: db\nspec: {match: {port: vm2}, labels: {app: db}}\n---\n" +
		"kind: Policy\nname: open\nspec: {appliesTo: [{labels: {app: db}}], ingress: [{name: all, action: allow}]}\n")
	if got := words(both, nil, nil); got != "ingress of 1 endpoint opens to everybody: db (by open/all)" {
		t.Errorf("endpoint and policy: %s", got)
	}
	if got := words(h.changes(localTap), nil); got != "" {
		t.Errorf("a mirror: %s", got)
	}
}
