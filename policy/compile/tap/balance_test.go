package tap_test

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// bySessions reports whether what becomes of a packet depends on its session.
func bySessions(m *policy.Mirror) bool { return m.Spec.Balance != nil || m.Spec.Sample.OneOf() > 1 }

// drawSessions makes some mirrors sample or balance, to targets of their own.
func drawSessions(t *rapid.T, m *policy.Mirror) {
	share := rapid.SampledFrom([]string{"", "", "1/1", "1/2", "1/4"}).Draw(t, m.Name+" share")
	if share != "" {
		if m.Spec.Sample == nil {
			m.Spec.Sample = &policy.MirrorSample{}
		}
		m.Spec.Sample.Sessions = share
	}
	balances := rapid.IntRange(0, 3).Draw(t, m.Name+" balances") == 0
	if balances {
		m.Spec.Balance = &policy.MirrorBalance{Hash: policy.BalanceSymmetric}
	}
	if !bySessions(m) {
		return
	}
	m.Spec.Targets = nil
	for i := range rapid.IntRange(1, 3).Draw(t, m.Name+" targets") + 1 {
		m.Spec.Targets = append(m.Spec.Targets, toNewPort(fmt.Sprintf("%s-%d", m.Name, i)))
	}
}

// fates is what became of sessions: which targets got their packets.
type fates map[string]map[policy.Session]string

// check fails if a mirror that samples or balances does with a packet what it may not, or other than it did with one of its session.
func (k fates) check(x *tables, in tap.Input, passed passage) {
	seen := passed.Sighting
	for _, m := range in.Mirrors {
		n := passed.copies(m)
		if !bySessions(m) || n == 0 {
			continue
		}
		var got []string
		for _, target := range m.Spec.Targets {
			switch sent := x.sent[number(in, target.Port.Name)]; len(sent) {
			case 0:
			case n:
				got = append(got, target.Port.Name)
			default:
				x.t.Fatalf("%s sends %d copies of %+v to %s, want %d or none", m.Name, len(sent), seen, target.Port.Name, n)
			}
		}
		most, least := len(m.Spec.Targets), len(m.Spec.Targets)
		if m.Spec.Balance != nil {
			most, least = 1, 1
		}
		if m.Spec.Sample.OneOf() > 1 && len(got) == 0 && seen.Src.IsValid() {
			least = 0
		}
		if len(got) > most || len(got) < least {
			x.t.Fatalf("%s sends %+v to %v of %d targets", m.Name, seen, got, len(m.Spec.Targets))
		}
		if k[m.Name] == nil {
			k[m.Name] = map[policy.Session]string{}
		}
		now := fmt.Sprint(got)
		if before, met := k[m.Name][seen.Session()]; met && before != now {
			x.t.Fatalf("%s sends %+v to %s, and another packet of its session to %s", m.Name, seen, now, before)
		}
		k[m.Name][seen.Session()] = now
	}
}

// balanced is a mirror over so many ports, and the world that it is in.
func balanced(targets int, change func(*policy.MirrorSpec)) tap.Input {
	in := mirrorWorld()
	m := mirror("m", toNewPort("sink0"), policy.Selector{Port: "vm1"})
	for i := 1; i < targets; i++ {
		m.Spec.Targets = append(m.Spec.Targets, toNewPort(fmt.Sprintf("sink%d", i)))
	}
	if targets > 1 {
		m.Spec.Balance = &policy.MirrorBalance{Hash: policy.BalanceSymmetric}
	}
	if change != nil {
		change(&m.Spec)
	}
	in.Mirrors = []*policy.Mirror{m}
	return in
}

// deal runs so many sessions through the flows, and returns which target each went to; "" = none.
func deal(t *testing.T, in tap.Input, plan tap.Plan, sessions int) map[policy.Session]string {
	t.Helper()
	x := tables{t: t}
	for _, owned := range plan.Flows[tapBridge].Owners {
		x.flows = append(x.flows, owned...)
	}
	out := map[policy.Session]string{}
	for i := range sessions {
		x.sent = map[uint32][]packet{}
		seen := policy.Sighting{EtherType: policy.EtherIPv4, Proto: policy.ProtoTCP, Src: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}),
			Dst: netip.MustParseAddr("10.9.0.1"), SrcPort: uint16(30000 + i), DstPort: 443}
		x.pass(in, plan.Specs, passage{Sighting: seen, bridge: "br0", from: "vm1", to: []string{"eth0"}})
		out[seen.Session()] = ""
		for _, target := range in.Mirrors[0].Spec.Targets {
			name := fmt.Sprint(target.Port, target.VXLAN)
			port := ""
			if target.Port != nil {
				name, port = target.Port.Name, target.Port.Name
			}
			if port != "" && len(x.sent[number(in, port)]) > 0 {
				out[seen.Session()] += name
			}
		}
	}
	return out
}

func tally(dealt map[policy.Session]string) map[string]int {
	out := map[string]int{}
	for _, target := range dealt {
		out[target]++
	}
	return out
}

// The shares are as even as chance has it: sessions of a sample, and what each of several targets gets, of that too.
func TestSharesAreEven(t *testing.T) {
	even := func(what string, got map[string]int, want map[string]float64) {
		t.Helper()
		chi := 0.0
		for name, n := range want {
			chi += math.Pow(float64(got[name])-n, 2) / n
		}
		// What exceeds this comes by chance once in 10^6 (16 degrees of freedom); and nothing here is by chance but the names.
		if chi > 60 || len(got) > len(want) {
			t.Errorf("%s: %v, want about %v (chi² %.1f)", what, got, want, chi)
		}
	}
	const sessions = 4000
	for _, share := range []int{2, 4, 10, 64} {
		in := balanced(1, func(s *policy.MirrorSpec) { s.Sample = &policy.MirrorSample{Sessions: fmt.Sprintf("1/%d", share)} })
		taken := sessions / float64(share)
		even(fmt.Sprintf("1/%d", share), tally(deal(t, in, stagedWorld(in), sessions)), map[string]float64{"sink0": taken, "": sessions - taken})
	}
	for _, targets := range []int{2, 3, 5, 16} {
		in := balanced(targets, nil)
		want := map[string]float64{}
		for i := range targets {
			want[fmt.Sprintf("sink%d", i)] = sessions / float64(targets)
		}
		got := tally(deal(t, in, stagedWorld(in), sessions))
		for name, n := range got { // 64 buckets cannot be given evenly to 3, 5 or 16
			if share := float64(n) / (sessions / float64(targets)); share < 0.75 || share > 1.3 {
				t.Errorf("%d targets: %s has %d of %d", targets, name, n, sessions)
			}
		}
		if len(got) != targets || got[""] > 0 {
			t.Errorf("%d targets: %v", targets, got)
		}
	}
	in := balanced(2, func(s *policy.MirrorSpec) { s.Sample = &policy.MirrorSample{Sessions: "1/8"} })
	even("an eighth to two", tally(deal(t, in, stagedWorld(in), sessions)), map[string]float64{"sink0": 250, "sink1": 250, "": 3500})
}

// When a target is sick, its sessions move and no others; when it is well again it gets the same ones back.
func TestBalanceMovesOnlyTheSick(t *testing.T) {
	in := balanced(5, nil)
	well := deal(t, in, stagedWorld(in), 2000)
	sink := in.Topology.Bridges[tapBridge].Ports["sink2"].Interfaces[0]
	sink.LinkState, sink.MACInUse = "down", "52:54:00:00:00:99"
	plan := compile(in)
	sick := deal(t, in, plan, 2000)
	if got := codes(plan.Info["m"]); got != "TargetDown" || !strings.Contains(plan.Info["m"].Problems[0].Message, "sink2") {
		t.Errorf("problems %q: %+v", got, plan.Info["m"].Problems)
	}
	to := map[string]int{}
	for session, target := range well {
		switch {
		case target != "sink2" && sick[session] != target:
			t.Fatalf("a session of %s moved to %s", target, sick[session])
		case target == "sink2":
			to[sick[session]]++
		}
	}
	if to["sink2"] > 0 || to[""] > 0 || len(to) != 4 {
		t.Errorf("the sessions of the sick one went to %v", to)
	}
	sink.LinkState = "up"
	if diff := cmp.Diff(well, deal(t, in, compile(in), 2000)); diff != "" {
		t.Errorf("with all well again (-before +after):\n%s", diff)
	}
	for _, name := range []string{"sink0", "sink1", "sink2", "sink3", "sink4"} {
		i := in.Topology.Bridges[tapBridge].Ports[name].Interfaces[0]
		i.LinkState, i.MACInUse = "down", "52:54:00:00:00:99"
	}
	plan = compile(in)
	if diff := cmp.Diff(well, deal(t, in, plan, 2000)); diff != "" {
		t.Errorf("with all sick all are used (-well +sick):\n%s", diff)
	}
	if p := plan.Info["m"].Problems[0]; p.Reason != policy.ReasonTargetDown || !strings.Contains(p.Message, "no target is well") {
		t.Errorf("all sick: %+v", p)
	}
}

// Collectors of tunnels are asked as the mirror says, and one that does not answer is named, and gets nothing.
func TestBalanceProbes(t *testing.T) {
	far, near := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.10")
	probed := func(how string) tap.Input {
		return balanced(2, func(s *policy.MirrorSpec) {
			s.Targets = []policy.MirrorTarget{toVXLAN(far.String(), 7), toVXLAN(near.String(), 7), toNewPort("sink0")}
			s.Balance.Probe = how
		})
	}
	for how, want := range map[string]tap.Probe{"icmp": {Kind: "icmp"}, "arp": {Kind: "arp"}, "tcp:22": {Port: 22}} {
		in := probed(how)
		plan := stagedWorld(in)
		var asked []string
		for _, p := range plan.Probes {
			asked = append(asked, p.String())
		}
		silent := want
		silent.Remote = far
		other := want
		other.Remote = near
		if want := []string{silent.String(), other.String()}; !slices.Equal(asked, want) {
			t.Errorf("%s asks %v, want %v", how, asked, want)
		}
		in.Silent = map[tap.Probe]string{silent: "no answer for 3 s"}
		sick := compile(in)
		if m := sick.Info["m"].Problems; codes(sick.Info["m"]) != "TargetDown" || !strings.Contains(m[0].Message, "192.0.2.9") ||
			!strings.Contains(m[0].Message, "no answer for 3 s") {
			t.Errorf("%s, one silent: %+v", how, m)
		}
		if used := bucketsOf(sick); used[0] != 0 || used[1]+used[2] != 64 || used[1] == 0 || used[2] == 0 {
			t.Errorf("%s, one silent: buckets by target %v", how, used)
		}
		if used := bucketsOf(plan); used[0] < 21 || used[1] < 21 || used[2] < 21 {
			t.Errorf("%s, all well: buckets by target %v", how, used)
		}
	}
	in := probed("icmp")
	in.NoDevices = true
	in.Mirrors[0].Spec.Targets = in.Mirrors[0].Spec.Targets[:2]
	if plan := stagedWorld(in); len(plan.Probes) > 0 || plan.Info["m"].Warnings[0].Code != tap.WarnNotProbed {
		t.Errorf("on a host that is far: %v, %+v", plan.Probes, plan.Info["m"].Warnings)
	}
	if plan := stagedWorld(probed("none")); len(plan.Probes) > 0 {
		t.Errorf("probe: none asks %v", plan.Probes)
	}
}

// bucketsOf counts the buckets of each target of the mirror m, by index.
func bucketsOf(plan tap.Plan) map[int]int {
	out := map[int]int{}
	for _, f := range plan.Flows[tapBridge].Owners[tap.MirrorOwner("m")] {
		for _, a := range f.Actions {
			if l, ok := a.(flow.Load); ok && f.Table == tap.TableBalance {
				out[int(l.Value)-1]++
			}
		}
	}
	return out
}

// A mirror that neither samples nor balances has none of it, so that its sessions share datapath flows.
func TestNoHashUnlessAsked(t *testing.T) {
	for what, change := range map[string]func(*policy.MirrorSpec){
		"nothing":       func(s *policy.MirrorSpec) { s.Filter = &policy.MirrorFilter{Default: "accept"} },
		"one of one":    func(s *policy.MirrorSpec) { s.Sample = &policy.MirrorSample{Sessions: "1/1"} },
		"a limit":       func(s *policy.MirrorSpec) { s.Sample = &policy.MirrorSample{MaxPacketsPerSecond: 9} },
		"two targets":   func(s *policy.MirrorSpec) { s.Targets = append(s.Targets, toNewPort("sink1")) },
		"(one of two)":  func(s *policy.MirrorSpec) { s.Sample = &policy.MirrorSample{Sessions: "1/2"} },
		"(two balance)": func(s *policy.MirrorSpec) { *s = balanced(2, nil).Mirrors[0].Spec },
	} {
		in := balanced(1, change)
		hashed := 0
		for _, owned := range maps.All(stagedWorld(in).Flows[tapBridge].Owners) {
			for _, f := range owned {
				if strings.Contains(f.String(), "multipath") {
					hashed++
				}
			}
		}
		if want := map[bool]int{true: 1}[what[0] == '(']; hashed != want {
			t.Errorf("%s: %d flows hash, want %d", what, hashed, want)
		}
	}
}
