package wall_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

const keptGroup = "kept"

// keeper is a history in which allows of some policies name a group that keeps connections of members that leave.
type keeper struct {
	*history
	ever []policy.Selector // all that has ever been a member
}

func (k *keeper) genKeptPolicy(t *rapid.T, name string) *policy.Policy {
	p := genPolicy(t, name)
	for i := range p.Spec.Ingress {
		p.Spec.Ingress[i].Action, p.Spec.Ingress[i].From = policy.Allow, []policy.Selector{{Group: keptGroup}}
	}
	for i := range p.Spec.Egress {
		p.Spec.Egress[i].Action, p.Spec.Egress[i].To = policy.Allow, []policy.Selector{{Group: keptGroup}}
	}
	return p
}

// note remembers who is a member now.
func (k *keeper) note() {
	for _, s := range k.groups[keptGroup].Spec.Members {
		if s.CIDR != "" {
			k.ever = append(k.ever, s)
			continue
		}
		for _, w := range k.workloads {
			if !s.MatchesWorkload(w) {
				continue
			}
			k.ever = append(k.ever, policy.Selector{Port: w.Port})
			w.EachAddress(func(a netip.Addr) {
				k.ever = append(k.ever, policy.Selector{CIDR: netip.PrefixFrom(a, a.BitLen()).String()})
			})
		}
	}
}

// atMost asks the reference as if nobody had ever left the group.
func (k *keeper) atMost(x talk) policy.Decision {
	now := k.groups
	defer func() { k.groups = now }()
	k.groups = maps.Clone(now)
	k.groups[keptGroup] = &policy.Group{Meta: policy.Meta{Name: keptGroup}, Spec: policy.GroupSpec{Members: k.ever}}
	return k.evaluate(x)
}

// TestKept holds groups that keep connections to what they promise: a connection that a rule allowed may pass although the policy denies
// it now, while it would allow it if no member had left, and unseen by any rule; nothing else may, and none that was cut comes back. What
// the policy allows passes.
func TestKept(t *testing.T) {
	t.Parallel()
	kept, cut := 0, 0
	check(t, func(t *rapid.T) {
		k := &keeper{history: &history{world: newWorld(t)}}
		group := func() {
			g := genGroup(t, keptGroup)
			g.Spec.OnMemberRemoved = policy.OnMemberRemovedKeep
			k.groups[keptGroup] = g
		}
		for _, key := range keys[:6] {
			w := genWorkload(t, key, false)
			w.MAC = macOf(key)
			k.workloads[key] = w
		}
		group()
		set := func(p *policy.Policy) {
			k.policies[p.Name] = p
			k.fw.SetPolicy(p)
		}
		set(k.genKeptPolicy(t, "k0"))
		set(k.genKeptPolicy(t, "k1"))
		set(genPolicy(t, "p0"))
		k.note()
		k.tell()
		k.compile()
		for range rapid.IntRange(2, 10).Draw(t, "steps") {
			k.connect(t)
			// Where the ports are the same, an answer may be judged as its sender's own: see TestSamePort.
			k.live = slices.DeleteFunc(k.live, func(l *live) bool {
				return l.tuple.Proto != 6 && l.tuple.Proto != 17 || l.tuple.SrcPort == l.tuple.DstPort
			})
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0:
				set(k.genKeptPolicy(t, rapid.SampledFrom([]string{"k0", "k1"}).Draw(t, "which")))
			case 1:
				set(genPolicy(t, "p0"))
			case 2:
				k.restart(t)
			case 3, 4:
				w := *k.workloads[rapid.SampledFrom(keys[:6]).Draw(t, "workload")]
				w.Labels = genLabels(t)
				k.workloads[w.Key] = &w
			default:
				group()
			}
			k.note()
			k.tell()
			k.compile()
			for _, l := range k.live {
				want, most := k.evaluate(l.talk), k.atMost(l.talk)
				for _, reply := range []bool{rapid.Bool().Draw(t, "reply"), false} {
					if r := k.sw.Process(k.packet(l.talk, reply, ack)); r.Normal != want.Effect.Passes() {
						if !r.Normal || !l.passed || !most.Effect.Passes() || r.Visited(pipeline.TableRecheck) {
							t.Fatalf("%v, reply %v: passed %v, before %v; reference says %+v, %+v with all who have left; tables %v", l.talk, reply,
								r.Normal, l.passed, want, most, r.Tables)
						}
						kept++
					} else if l.passed = r.Normal; !r.Normal {
						cut++
					}
				}
			}
			aside := k.sw
			k.sw = aside.Fresh()
			for range 6 {
				if x, ok := k.genTalk(drawn(t)); ok {
					k.sameVerdict(x)
				}
			}
			k.sw = aside
		}
	})
	t.Logf("packets of live connections that are denied: %d passed, %d did not", kept, cut)
	if kept == 0 || cut == 0 {
		t.Error("hardly tested")
	}
}

// TestOtherFamilyComes adds addresses of the other IP version to a group whose addresses have one number: its rules match that version
// from then on, also by services that are matched raw.
func TestOtherFamilyComes(t *testing.T) {
	w := newWorld(t)
	w.workloads["w0"] = &policy.Workload{Key: "w0", Bridge: "br0", Port: "tap-w0", OFPort: 1, MAC: macOf("w0"),
		Labels: map[string]string{"app": "a"}}
	group := func(cidrs ...string) {
		g := &policy.Group{Meta: policy.Meta{Name: "g"}}
		for _, c := range cidrs {
			g.Spec.Members = append(g.Spec.Members, policy.Selector{CIDR: c})
		}
		w.groups["g"] = g
		w.tell()
	}
	feed := []string{"fd00:1::/32", "fd00:3::/32", "fd00:5::/32", "fd00:7::/32", "fd00:9::/32"}
	group(feed...)
	w.policies["p"] = &policy.Policy{Meta: policy.Meta{Name: "p"}, Spec: policy.PolicySpec{
		AppliesTo: []policy.Selector{app("a")}, DefaultDeny: &policy.DefaultDeny{Ingress: new(false)},
		Ingress: []policy.Rule{{Name: "no", Action: policy.Deny, From: []policy.Selector{{Group: "g"}}, Services: tcp("22")}}}}
	w.start(nil)
	from := talk{from: station{outside}, to: station{"w0"}, tuple: tables.Tuple{Src: netip.MustParseAddr("10.0.0.1"),
		Dst: netip.MustParseAddr("10.0.0.2"), Proto: 6, SrcPort: 1000, DstPort: 22}}
	w.sameVerdict(from)
	group(append(feed, "10.0.0.0/8")...)
	w.compile()
	w.sw = w.sw.Fresh()
	w.sameVerdict(from)
	if r := w.sw.Process(w.packet(from, false, syn)); r.Normal {
		t.Errorf("what the group's new member sends passes: tables %v", r.Tables)
	}
}
