package host_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// Figures are gathered while everything changes; a registry that checks what it gets finds nothing wrong, and no label is an address.
func TestMetricsDuringChange(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := r.reg.Gather(); err != nil {
				t.Errorf("gather: %v", err)
				return
			}
		}
	})
	for i := range 10 {
		r.apply(allow(fmt.Sprintf("p%d", i%3), "vm1", "{cidr: 10.0.0.0/8}", fmt.Sprint(80+i)))
		r.apply(localTap)
	}
	close(stop)
	wg.Wait()
	r.saved()
	r.settled()

	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^tapwall_[a-z_]+$`)
	seen := map[string]float64{}
	for _, f := range families {
		if !name.MatchString(f.GetName()) || f.GetHelp() == "" {
			t.Errorf("metric %s: help %q", f.GetName(), f.GetHelp())
		}
		if counter := f.GetType().String() == "COUNTER"; counter != strings.HasSuffix(f.GetName(), "_total") {
			t.Errorf("metric %s is a %s", f.GetName(), f.GetType())
		}
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetName() + "=" + l.GetValue()
				if _, err := netip.ParseAddr(l.GetValue()); err == nil {
					t.Errorf("metric %s has an address for a label", key)
				}
			}
			seen[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	b := r.health("br0")
	for key, want := range map[string]float64{
		"tapwall_openflow_connected bridge=br0":                          1,
		"tapwall_ovsdb_connected":                                        1,
		"tapwall_flows_desired bridge=br0":                               float64(b.DesiredFlows),
		"tapwall_flows_installed bridge=br0":                             float64(b.InstalledFlows),
		"tapwall_flow_mods_total bridge=br0":                             float64(b.FlowMods),
		"tapwall_flows_lost_total bridge=br0":                            0,
		"tapwall_resources kind=Policy":                                  3,
		"tapwall_resources kind=Mirror":                                  1,
		"tapwall_resources kind=Group":                                   0,
		"tapwall_mirror_packets_total mirror=tap":                        0,
		"tapwall_mirror_bytes_total mirror=tap":                          0,
		"tapwall_mirror_phase mirror=tap phase=Active reason=":           1,
		"tapwall_rule_packets_total direction=ingress policy=p0 rule=in": 0,
		"tapwall_rule_bytes_total direction=ingress policy=p1 rule=in":   0,
		"tapwall_revision state=installed":                               seen["tapwall_revision state=desired"],
	} {
		if got, ok := seen[key]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", key, got, ok, want)
		}
	}
}

// A rule's counter is what its flows count, and does not go back when the switch begins anew or the rule's flows change. What comes so
// soon after a change that it could be an older packet that is counted late has its own name.
func TestRuleCounters(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	deny := func(action string) string {
		return fmt.Sprintf("kind: Policy\nname: p\nspec:\n  appliesTo: [{port: vm1}]\n  ingress: [{name: in, action: %s, from: [{port: vm2}],"+
			" services: [{protocol: tcp, ports: ['80']}]}]\n", action)
	}
	r.apply(deny("deny"))
	next := uint16(40000)
	counted := func(want uint64) {
		t.Helper()
		r.eventually(fmt.Sprintf("%d packets counted", want), func() error {
			if got := r.packets("p"); got != want {
				return fmt.Errorf("%d packets", got)
			}
			return nil
		})
	}
	send := func(n int) {
		for range n {
			next++
			h.ovs.InjectPacket("vm2", syn(t, macOf("vm2"), macOf("vm1"), "10.0.0.2", "10.0.0.1", next, 80))
		}
	}
	send(3)
	counted(3)
	r.apply(strings.Replace(deny("deny"), "'80'", "'80','81'", 1))
	send(2)
	counted(5)
	h.ovs.KillVswitchd()
	h.ovs.StartVswitchd()
	r.settled()
	counted(5)
	send(1)
	counted(6)
	// Behind the change packets are the rule's, and denied by it.
	r.eventually("packets that the rule denied", func() error {
		send(1)
		packets, denied := r.ruleMetric("tapwall_rule_packets_total", "in"), r.ruleMetric("tapwall_rule_denied_packets_total", "in")
		if denied == 0 || denied != packets {
			return fmt.Errorf("the rule denied %v of %v packets", denied, packets)
		}
		return nil
	})
}

// ruleMetric is a metric of a rule; 0 = it has none.
func (r *run) ruleMetric(name, rule string) (out float64) {
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == "rule" && l.GetValue() == rule {
					out = m.GetCounter().GetValue()
				}
			}
		}
	}
	return out
}

// packets is what the rules of a policy count, and what is not attributed.
func (r *run) packets(name string) uint64 {
	r.Refresh(context.Background(), policy.KindPolicy)
	var sum uint64
	for _, h := range r.Status(policy.KindPolicy, name).Hosts {
		for _, rule := range h.Rules {
			sum += rule.Packets
		}
		sum += uint64(h.Counters["unattributedIngressPackets"])
	}
	return sum
}
