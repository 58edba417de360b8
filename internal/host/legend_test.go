package host_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// Flows say beside their text what their numbers stand for: endpoints, addresses, services, ends of connections.
func TestFlowsNameWhatNumbersStandFor(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2", "vm3", "vm4", "vm5", "vm6")...)
	r := h.ready(settings{})
	for _, vm := range []string{"vm2", "vm3", "vm4", "vm5", "vm6"} {
		role := "client"
		if vm == "vm6" {
			role = "gone"
		}
		r.apply(fmt.Sprintf("kind: Endpoint\nname: e-%s\nspec: {match: {port: %[1]s}, labels: {role: %s}}", vm, role))
	}
	r.apply(`
kind: Group
name: feed
spec:
  members: [{cidr: 10.1.0.0/16}, {cidr: 10.3.0.0/16}, {cidr: 10.5.0.0/16}, {cidr: 10.7.0.0/16}, {cidr: 10.9.0.0/16},
    {labels: {role: client}}]`)
	r.apply(`
kind: Policy
name: p
spec:
  appliesTo: [{port: vm1}]
  ingress:
  - {name: few, action: allow, from: [{group: feed}], services: [{protocol: tcp, ports: ["80", "8000-8099"]}]}
  - {name: many, action: allow, from: [{group: feed}, {labels: {role: gone}}],
     services: [{protocol: tcp, ports: ["80", "8000-8099"]}, {protocol: udp, ports: ["53"]}]}
  - {name: long, action: deny, from: [{cidr: 172.16.0.0/16}, {cidr: 172.18.0.0/16}, {cidr: 172.20.0.0/16}, {cidr: 172.22.0.0/16}],
     services: [{protocol: udp, ports: ["1", "3", "5", "7", "9"]}, {protocol: icmp}]}`)
	flows := func() []wire.FlowEntry {
		got, err := r.Flows(context.Background(), backend.FlowQuery{})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	// some returns what is said of a field in a table.
	some := func(all []wire.FlowEntry, table int, field string) (out []string) {
		for _, f := range all {
			for _, n := range f.Names {
				if f.Table == table && n.Field == field {
					out = append(out, n.Name)
				}
				if number, _, _ := strings.Cut(n.Number, "-"); number == "" || n.Name == "" {
					t.Errorf("%+v of %s", n, f.Text)
				}
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	all := flows()
	for _, c := range []struct {
		table int
		field string
		want  string
	}{
		{206, "source class", "e-vm2, e-vm3 and 2 more|e-vm6"},
		{206, "destination class", "e-vm2, e-vm3 and 2 more|e-vm6|vm1"},
		{206, "source address", "10.1.0.0/16, 10.3.0.0/16 and 3 more (group feed)"},
		{206, "service", "icmp; udp 1, 3, 5, 7, 9|tcp 80, 8000-8099; udp 53"},
		{214, "source address", "group feed"},
		{220, "service", "icmp; udp 1, 3, 5, 7, 9|tcp 80, 8000-8099; udp 53"},
		{200, "source endpoint", "e-vm2|e-vm3|e-vm4|e-vm5|e-vm6|vm1"},
		{218, "source endpoint", "e-vm2|e-vm3|e-vm4|e-vm5|e-vm6|vm1"},
	} {
		if got := strings.Join(some(all, c.table, c.field), "|"); got != c.want {
			t.Errorf("table %d names its %s %q, want %q", c.table, c.field, got, c.want)
		}
	}
	for _, f := range all {
		switch clause := f.Table == int(pipeline.TableIngress) && strings.Contains(f.Text, "conjunction("); {
		case clause && f.Rule != "p/ingress/long":
			t.Errorf("rule %q of a clause: %s", f.Rule, f.Text)
		case f.Owner == "system" && len(f.Names) > 0:
			t.Errorf("a fixed flow has names: %+v", f)
		}
	}

	// Classes, and what names them.
	classes := r.Classes(backend.ClassQuery{Bridge: "br0"})
	of := func(name string) wire.Class {
		i := slices.IndexFunc(classes, func(c wire.Class) bool { return slices.Contains(c.Endpoints, name) })
		if i < 0 {
			t.Fatalf("%s is in no class: %+v", name, classes)
		}
		return classes[i]
	}
	if c := of("e-vm3"); strings.Join(c.Endpoints, " ") != "e-vm2 e-vm3 e-vm4 e-vm5" || strings.Join(c.ChosenBy, "|") != "group feed" ||
		len(c.Policies) != 0 || fmt.Sprint(c.Rules) != "[{p/ingress/few peer} {p/ingress/many peer}]" {
		t.Errorf("class of vm3: %+v", c)
	}
	if c := of("vm1"); len(c.Endpoints) != 1 || strings.Join(c.ChosenBy, "|") != "port vm1" || strings.Join(c.Policies, " ") != "p" ||
		len(c.Rules) != 3 || c.Rules[0].As != "subject" {
		t.Errorf("class of vm1: %+v", c)
	}
	if got := r.Classes(backend.ClassQuery{Endpoint: "vm1"}); len(got) != 1 || got[0].Number != of("vm1").Number {
		t.Errorf("by endpoint: %+v", got)
	}
	r.apply(allow("q", "vm2", "{port: vm3}", "80"))
	if got := r.Classes(backend.ClassQuery{Policy: "q"}); len(got) != 2 || len(got[0].Rules)+len(got[1].Rules) != 2 {
		t.Errorf("by policy: %+v", got)
	}
	if got := append(r.Classes(backend.ClassQuery{Endpoint: "vm9"}), r.Classes(backend.ClassQuery{Bridge: "br9"})...); len(got) != 0 {
		t.Errorf("of nobody: %+v", got)
	}

	// An address that leaves is not named any more.
	r.apply("kind: Group\nname: feed\nspec: {members: [{cidr: 10.1.0.0/16}, {cidr: 10.3.0.0/16}, {labels: {role: client}}]}")
	r.becomes(policy.KindPolicy, "p", policy.PhaseActive, "")
	if got := strings.Join(some(flows(), 206, "source address"), "|"); strings.Contains(got, "more") {
		t.Errorf("after three addresses left: %s", got)
	}
}
