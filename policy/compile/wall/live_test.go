package wall_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

// live is a connection that was established in an earlier state of the world.
type live struct {
	talk
	conn *tables.Conn
	// passed: it passed when it was last looked at, in the state before this one.
	passed bool
	// turned: another connection, in the other direction, has taken its place.
	turned bool
}

// history is a world with a past.
type history struct {
	*world
	live []*live
	// judged counts the packets of live connections by what became of them.
	judged struct{ passed, moved, cut int }
}

// connect opens some connections; those that are refused leave nothing.
func (h *history) connect(t *rapid.T) {
	for range 4 {
		x, ok := h.genTalk(drawn(t))
		if !ok {
			return
		}
		if l := h.local(x.to.key); l != nil && l.MAC == "" {
			continue
		}
		zone, _ := pipeline.Zone(0, x.vlan)
		if slices.ContainsFunc(h.sw.Conns(), func(c *tables.Conn) bool {
			return c.Orig == withZone(x, zone) || c.Orig.Reversed() == withZone(x, zone)
		}) {
			continue // it would be the same connection
		}
		if r := h.sw.Process(h.packet(x, false, syn)); r.Committed != nil {
			if r := h.sw.Process(h.packet(x, true, syn|ack)); !r.Normal {
				t.Fatalf("%v: the answer was dropped in %v", x, r.Tables)
			}
			h.live = append(h.live, &live{talk: x, conn: r.Committed, passed: true})
		}
	}
}

// step is a change of the world. untouched tells of the ids, as they stand in ct_label of connections of an endpoint ("" or one that is not
// here = of nobody), that it gives no reason to renew.
type step struct {
	name      string
	untouched func(id uint32, key string) bool
}

// change does something to the world.
func (h *history) change(t *rapid.T) step {
	switch rapid.IntRange(0, 11).Draw(t, "change") {
	case 0:
		h.pickup = !h.pickup
		h.fw.SetPickup(h.pickup, nil)
		return step{fmt.Sprint("pickup ", h.pickup), func(uint32, string) bool { return true }}
	case 1:
		h.restart(t)
		return step{"restart", func(uint32, string) bool { return true }}
	}
	return h.edit(t)
}

// edit changes what is wanted or who is there.
func (h *history) edit(t *rapid.T) step {
	none := func(uint32, string) bool { return false }
	what := rapid.IntRange(0, 12).Draw(t, "edit")
	if what < 8 {
		return h.restate(t)
	}
	if what == 12 {
		h.host = genAddresses(t)
		h.tell()
		return step{"addresses of the host", none}
	}
	key := rapid.SampledFrom(keys).Draw(t, "workload")
	before := h.workloads[key]
	switch {
	case what == 8:
		delete(h.workloads, key)
		h.tell()
		return step{"no workload " + key, none}
	case what == 9 && before != nil:
		after := *before
		if after.Addresses = genAddresses(t); rapid.Bool().Draw(t, "learned") {
			after.Addresses, after.Learned = before.Addresses, genAddresses(t)
		}
		h.workloads[key] = &after
		h.tell()
		return step{"addresses of " + key, none}
	}
	h.workloads[key] = genWorkload(t, key, false)
	h.tell()
	return step{"workload " + key, none}
}

// restate changes policies, groups and labels. Endpoints of one kind part and come together.
func (h *history) restate(t *rapid.T) step {
	none := func(uint32, string) bool { return false }
	switch rapid.IntRange(0, 8).Draw(t, "restate") {
	case 4:
		g := genGroup(t, rapid.SampledFrom(groupList).Draw(t, "group"))
		h.groups[g.Name] = g
		h.tell()
		return step{"group " + g.Name, none}
	case 5:
		name := rapid.SampledFrom(groupList).Draw(t, "group")
		delete(h.groups, name)
		h.tell()
		return step{"no group " + name, none}
	case 6, 7, 8:
		key := rapid.SampledFrom(keys).Draw(t, "workload")
		before := h.workloads[key]
		if before == nil {
			break
		}
		after := *before
		after.Labels = genLabels(t)
		h.workloads[key] = &after
		h.tell()
		return step{"labels of " + key, none}
	}
	return h.changePolicy(t)
}

func (h *history) changePolicy(t *rapid.T) step {
	name := fmt.Sprint("p", rapid.IntRange(0, 4).Draw(t, "policy"))
	before := h.policies[name]
	switch how := rapid.IntRange(0, 5).Draw(t, "how"); how {
	case 0:
		delete(h.policies, name)
		h.fw.DeletePolicy(name)
		return step{"no policy " + name, h.beside(before, nil)}
	case 1:
		if before == nil {
			break
		}
		p := *before
		p.Labels = map[string]string{"note": "changed"}
		for _, rules := range []*[]policy.Rule{&p.Spec.Ingress, &p.Spec.Egress} {
			*rules = slices.Clone(*rules)
			for i := range *rules {
				(*rules)[i].Name, (*rules)[i].Log.All = fmt.Sprint("n", i), !(*rules)[i].Log.All
			}
		}
		p.Spec.Record = new(genRecord(t))
		h.policies[name] = &p
		h.fw.SetPolicy(&p)
		return step{"policy " + name + " reworded", func(uint32, string) bool { return true }}
	case 2, 3:
		if before == nil {
			break
		}
		p := *before
		if how == 2 {
			n := rapid.IntRange(98, 102).Draw(t, "priority")
			p.Spec.Priority = &n
		} else {
			mutateRule(t, &p)
		}
		h.policies[name] = &p
		h.fw.SetPolicy(&p)
		return step{"policy " + name + " revised", h.beside(before, &p)}
	}
	p := genPolicy(t, name)
	h.policies[name] = p
	h.fw.SetPolicy(p)
	return step{"policy " + name, h.beside(before, p)}
}

// mutateRule changes what one rule matches.
func mutateRule(t *rapid.T, p *policy.Policy) {
	rules, d := &p.Spec.Ingress, policy.Ingress
	if rapid.Bool().Draw(t, "egress") {
		rules, d = &p.Spec.Egress, policy.Egress
	}
	if len(*rules) == 0 {
		return
	}
	*rules = slices.Clone(*rules)
	r := &(*rules)[rapid.IntRange(0, len(*rules)-1).Draw(t, "rule")]
	if rapid.Bool().Draw(t, "service") {
		r.Services = append(slices.Clip(r.Services), genService(t))
		return
	}
	peers := &r.From
	if d == policy.Egress {
		peers = &r.To
	}
	*peers = append(slices.Clip(*peers), genPeer(t, true))
	if len(*peers) > 2 {
		*peers = (*peers)[1:]
	}
}

// beside tells of the ids of other policies that apply to none of the endpoints that these policies, versions of one, apply to.
func (h *history) beside(versions ...*policy.Policy) func(uint32, string) bool {
	// An endpoint that a rule no longer names as a peer has another id, too.
	concerned := func(key string) bool {
		return slices.ContainsFunc(versions, func(p *policy.Policy) bool {
			if p == nil {
				return false
			}
			named := slices.Clone(p.Spec.AppliesTo)
			for _, r := range slices.Concat(p.Spec.Ingress, p.Spec.Egress) {
				named = append(append(named, r.From...), r.To...)
			}
			return policy.AnyMatches(named, h.groups, h.local(key)) ||
				slices.ContainsFunc(named, func(s policy.Selector) bool { return s.Entity == policy.EntitySameNetwork })
		})
	}
	return func(id uint32, key string) bool {
		info, ok := h.fw.Rule(id)
		switch {
		case !ok, h.local(key) != nil && concerned(key):
			return false
		case info.Ref.Policy == "":
			return !info.Removed // a class that is no more took its default along
		}
		other := h.policies[info.Ref.Policy]
		return other != nil && !slices.Contains(versions, other) && !slices.ContainsFunc(h.locals(), func(key string) bool {
			return policy.AnyMatches(other.Spec.AppliesTo, h.groups, h.local(key)) && concerned(key)
		})
	}
}

// restart replaces the firewall by one that starts from what was persisted: nothing may have to be sent.
func (h *history) restart(t *rapid.T) {
	is := *h.fw.Assignments()
	is.Resting = nil // for this run
	if diff := cmp.Diff(is, h.assignments); diff != "" {
		t.Fatalf("what was to be persisted is not what there is (-is +persisted):\n%s", diff)
	}
	before, states := texts(h.flows()), h.states
	a := h.assignments
	h.start(&a)
	if diff := cmp.Diff(before, texts(h.flows())); diff != "" {
		t.Fatalf("a restart changed flows (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(states, h.states); diff != "" {
		t.Fatalf("a restart changed states (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(a, h.assignments); diff != "" {
		t.Fatalf("a restart changed assignments (-before +after):\n%s", diff)
	}
}

func texts(flows []flow.Flow) []string {
	out := make([]string, 0, len(flows))
	for _, f := range flows {
		out = append(out, f.String())
	}
	slices.Sort(out)
	return out
}

// judge sends packets of each live connection: what is no longer allowed must not pass, in either direction, what is must, and what
// the change did not concern must pass by its gates, its conntrack entry as it was.
func (h *history) judge(t *rapid.T, s step) {
	for _, l := range h.live {
		passed := l.passed
		l.passed = false
		if !h.fits(l.from, l.vlan) || !h.fits(l.to, l.vlan) || h.local(l.from.key) == nil && h.local(l.to.key) == nil {
			continue
		}
		want, label := h.evaluate(l.talk), l.conn.Label
		// Of SCTP, each packet may be judged; see pipeline.JudgeSCTP.
		untouched := passed && !heldByMode(want) && l.tuple.Proto != policy.ProtoSCTP &&
			s.untouched(bits(label, pipeline.LabelEgress), l.from.key) &&
			s.untouched(bits(label, pipeline.LabelIngress), l.to.key)
		reply := rapid.Bool().Draw(t, "reply")
		// Who was no endpoint when he opened the connection and is one now has to speak first: anybody could have spoken for him then.
		if bits(label, pipeline.LabelInitiator) == pipeline.IDNoEndpoint && h.local(l.from.key) != nil {
			reply = false
		}
		for range 2 {
			if reply && !want.Effect.Passes() {
				back := h.evaluate(talk{from: l.to, to: l.from, vlan: l.vlan, tuple: l.tuple.Reversed()})
				if h.wrongEnd(l, back.Effect.Passes()) || explicit(back) && h.samePort(l, back) {
					break
				}
			}
			r := h.sw.Process(h.packet(l.talk, reply, ack))
			rechecked := r.Visited(pipeline.TableRecheck)
			switch {
			case r.Normal != want.Effect.Passes():
				t.Fatalf("after %s: live %v, reply %v: passed %v, reference says %+v; label %#x; tables %v", s.name, l.talk, reply, r.Normal, want,
					label, r.Tables)
			case untouched && (rechecked || l.conn.Label != label):
				t.Fatalf("after %s: live %v was judged again without need; label %#x; tables %v", s.name, l.talk, label, r.Tables)
			case rechecked && want.Effect.Passes():
				h.sameSide(l.talk, policy.Egress, bits(l.conn.Label, pipeline.LabelEgress), want.Egress)
				h.sameSide(l.talk, policy.Ingress, bits(l.conn.Label, pipeline.LabelIngress), want.Ingress)
			}
			switch {
			case !r.Normal:
				h.judged.cut++
			case rechecked:
				h.judged.moved++
			default:
				h.judged.passed++
			}
			reply = !reply
		}
		l.passed = want.Effect.Passes()
	}
	h.live = slices.DeleteFunc(h.live, func(l *live) bool { return l.turned })
}

// wrongEnd sends an answer on a connection that is not its receiver's, if l is one, and checks that it is judged as the sender's own. It
// reports whether the connection is thereby another.
func (h *history) wrongEnd(l *live, own bool) bool {
	h.t.Helper()
	if bits(l.conn.Label, pipeline.LabelInitiator) != pipeline.IDNoEndpoint || h.local(l.from.key) == nil {
		return false
	}
	before := l.conn
	r := h.sw.Process(h.packet(l.talk, true, ack))
	passes := own && l.tuple.Proto != 6        // TCP begins with a SYN
	answer := register(r, pipeline.Stray) == 1 // from whom it was opened to: nothing is committed
	turned := r.Committed != nil && r.Committed != before && r.Committed.Orig != before.Orig
	if !answer && !r.Visited(pipeline.TableWrongEnd) || r.Normal != passes || turned != (passes && !answer) || answer && r.Committed != nil {
		h.t.Fatalf("answer to one who was no endpoint: passed %v, as its sender's own %v, committed %+v; tables %v", r.Normal, own, r.Committed,
			r.Tables)
	}
	l.turned = turned
	return true
}

// samePort sends an answer on a connection that is denied, if both of its ports are the same, and checks that it is now the answerer's,
// whom a rule allows that. It reports whether it is.
func (h *history) samePort(l *live, back policy.Decision) bool {
	h.t.Helper()
	if l.tuple.Proto != policy.ProtoUDP || l.tuple.SrcPort != l.tuple.DstPort {
		return false
	}
	before := l.conn
	r := h.sw.Process(h.packet(l.talk, true, 0))
	if !r.Normal || r.Committed == nil || r.Committed.Orig != before.Orig.Reversed() {
		h.t.Fatalf("answer from the same port, allowed by %+v: passed %v, committed %+v; tables %v", back, r.Normal, r.Committed, r.Tables)
	}
	x := talk{from: l.to, to: l.from, vlan: l.vlan, tuple: l.tuple.Reversed()}
	h.sameSide(x, policy.Egress, bits(r.Committed.Label, pipeline.LabelEgress), back.Egress)
	h.sameSide(x, policy.Ingress, bits(r.Committed.Label, pipeline.LabelIngress), back.Ingress)
	if r = h.sw.Process(h.packet(l.talk, false, 0)); !r.Normal || r.Visited(pipeline.TableRecheck) && !heldByMode(back) {
		h.t.Fatalf("the former initiator's packet, an answer now: passed %v; tables %v", r.Normal, r.Tables)
	}
	l.turned = true
	return true
}

// explicit reports whether a rule, and not only defaults, allows the packet.
func explicit(d policy.Decision) bool {
	is := func(s policy.SideDecision) bool { return s.Judged && s.Ref.Rule[0] != '(' }
	return d.Effect.Passes() && (is(d.Egress) || is(d.Ingress))
}

// inForce checks that gates and registry agree on which ids live, and that their names were told.
func (h *history) inForce(t *rapid.T) {
	for _, f := range h.flows() {
		if f.Table != pipeline.TableLiveEgress && f.Table != pipeline.TableLiveIngress || f.Priority == 0 {
			continue
		}
		if kind, id, ok := pipeline.ParseCookie(f.Cookie); ok && kind != pipeline.CookieDrop && kind != pipeline.CookieSystem {
			if info, ok := h.fw.Rule(id); !ok || info.Removed || info.Action != policy.Allow {
				t.Fatalf("the gate of %#x is open, which is %+v", id, info)
			} else if told := h.names[id]; told == nil || told.Ref != info.Ref {
				t.Fatalf("%#x is %+v, and was told to be %+v", id, info, told)
			}
		}
	}
}

func TestHistory(t *testing.T) {
	check(t, func(t *rapid.T) {
		h := &history{world: newWorld(t)}
		h.record = genRecord(t)
		h.start(nil)
		h.randomize(t, false)
		h.connect(t)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			s := h.change(t)
			h.compile()
			h.judge(t, s)
			h.inForce(t)
			h.connect(t)
		}
		// What grew step by step means the same as what is built at once.
		for range 6 {
			if x, ok := h.genTalk(drawn(t)); ok {
				h.sameVerdict(x)
			}
		}
	})
}

// TestCompileIsDeterministic builds one world twice.
func TestCompileIsDeterministic(t *testing.T) {
	check(t, func(t *rapid.T) {
		a := newWorld(t)
		a.randomize(t, true)
		for range 5 {
			b := newWorld(t)
			b.workloads, b.groups, b.policies = maps.Clone(a.workloads), a.groups, a.policies
			b.start(nil)
			c := newWorld(t)
			c.workloads, c.groups, c.policies = b.workloads, b.groups, b.policies
			c.start(nil)
			if diff := cmp.Diff(texts(b.flows()), texts(c.flows())); diff != "" {
				t.Fatalf("same input, other flows:\n%s", diff)
			}
		}
	})
}

// TestNothingChangedIsNothing compiles again without a change and with changes that mean nothing.
func TestNothingChangedIsNothing(t *testing.T) {
	check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.randomize(t, true)
		if c := w.fw.Compile(); !c.Empty() {
			t.Fatalf("changes without a change: %+v", c)
		}
		copies := map[string]*policy.Workload{}
		for k, x := range w.workloads {
			y := *x
			copies[k] = &y
		}
		w.workloads = copies
		w.tell()
		for _, p := range w.policies {
			q := *p
			w.fw.SetPolicy(&q)
		}
		if c := w.fw.Compile(); len(c.Owners) != 0 || !c.Assignments.Empty() {
			t.Fatalf("equal input changed owners %v, assignments %+v", slices.Sorted(maps.Keys(c.Owners)), c.Assignments)
		}
	})
}
