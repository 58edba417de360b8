package wall_test

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

// sameVerdict sends the first packet of a connection through the flows and compares verdict, deciding ids, records and what was
// committed with the reference.
func (w *world) sameVerdict(x talk) {
	w.t.Helper()
	w.sw.Forget()
	p := w.packet(x, false, syn)
	got, want := w.sw.Process(p), w.evaluate(x)
	if w.local(x.from.key) == nil && (w.local(x.to.key) == nil || w.local(x.to.key).MAC == "") {
		if !got.Normal {
			w.t.Fatalf("%v: traffic between strangers was dropped: tables %v", x, got.Tables)
		}
		return
	}
	if got.Normal != want.Effect.Passes() {
		w.t.Fatalf("%v: passed %v, reference says %+v; tables %v", x, got.Normal, want, got.Tables)
	}
	w.sameSide(x, policy.Egress, register(got, pipeline.EgressRule), want.Egress)
	w.sameSide(x, policy.Ingress, register(got, pipeline.IngressRule), want.Ingress)

	w.sameAudit(x, policy.Egress, register(got, pipeline.EgressAudit), want.Egress)
	w.sameAudit(x, policy.Ingress, register(got, pipeline.IngressAudit), want.Ingress)

	log, audited := want.Egress.Log || want.Ingress.Log, isAudited(want.Egress) || isAudited(want.Ingress)
	sampled, said := false, false
	switch {
	case want.Effect.Passes():
		quiet, judged := want.Egress.Quiet || want.Ingress.Quiet, want.Egress.Judged || want.Ingress.Judged
		sampled = w.drawn(x, want.Egress.OneOf) || w.drawn(x, want.Ingress.OneOf)
		said = (want.Egress.L7 || want.Ingress.L7) && x.tuple.Proto == policy.ProtoTCP
		log = log || sampled || w.record.Connections == policy.RecordAll && judged && !quiet
	case want.Egress.Effect == want.Effect:
		log, audited = want.Egress.Log, isAudited(want.Egress)
	default:
		log = want.Ingress.Log
	}
	log = log || audited
	copies := map[pipeline.CopyReason]int{}
	for _, c := range got.Copies {
		r, _ := pipeline.ParseUserData([]byte(c.UserData))
		copies[r]++
	}
	answers := 0
	if want.Effect == policy.Reject {
		answers = 1
	}
	records := len(got.Copies) - copies[pipeline.CopyReject] - copies[pipeline.CopySample]
	if copies[pipeline.CopyReject] != answers || (records == 1) != log || records > 1 ||
		copies[pipeline.CopySample] != number(sampled) {
		w.t.Fatalf("%v: copies %v, reference says %+v", x, copies, want)
	}
	if (got.Committed != nil) != want.Effect.Passes() {
		w.t.Fatalf("%v: committed %v, allowed %v", x, got.Committed, want.Effect.Passes())
	}
	if c := got.Committed; c != nil {
		if e, i := bits(c.Label, pipeline.LabelEgress), bits(c.Label, pipeline.LabelIngress); e != register(got, pipeline.EgressRule) ||
			i != register(got, pipeline.IngressRule) {
			w.t.Fatalf("%v: label %#x/%#x is not what decided", x, e, i)
		}
		if logged := c.Mark&2 != 0; logged != log || c.Mark&1 == 0 || c.Mark&4 != 0 || (c.Mark&8 != 0) != audited ||
			(c.Mark&0x100 != 0) != sampled || (c.Mark>>9&0x3f == 0x3f) != said || (c.Mark>>9&0x3f == 0) == said {
			w.t.Fatalf("%v: mark %#x, logged %v, audited %v, sampled %v, asked for messages %v", x, c.Mark, log, audited, sampled, said)
		}
		w.secondPacket(x, want, sampled, said)
	}
}

// drawn reports whether the connection is of the sample of a rule that draws one of n; 0 = it draws none.
func (w *world) drawn(x talk, n int) bool {
	w.t.Helper()
	if n < 2 {
		return n == 1
	}
	var p tables.Fields
	for f, v := range w.packet(x, false, syn) {
		p[f] = v
	}
	draw := pipeline.Draw(n)[1].(flow.Multipath)
	return tables.SessionHash(&p, draw.Basis, true) < math.MaxUint32/uint32(n)+1
}

func number(is bool) int {
	if is {
		return 1
	}
	return 0
}

// secondPacket checks that an established connection passes by its gates alone, and that a sender who is not answered gets no
// second record. What passes by an endpoint in mode audit alone is judged each time. All packets of a sample are copied, and what may be
// said first if that is asked for (said), which is noted.
func (w *world) secondPacket(x talk, d policy.Decision, sampled, said bool) {
	w.t.Helper()
	copies := number(sampled)
	if again := w.sw.Process(w.packet(x, false, syn)); !again.Normal || len(again.Copies) != copies {
		w.t.Fatalf("%v: repeated first packet: passed %v, %d copies", x, again.Normal, len(again.Copies))
	}
	if to := w.local(x.to.key); to != nil && to.MAC == "" {
		return // its answers come from an endpoint that the first packet did not go to
	}
	for _, reply := range []bool{true, false} {
		r := w.sw.Process(w.packet(x, reply, ack))
		if heldByMode(d) && r.Normal && len(r.Copies) == copies {
			continue
		}
		judged := r.Visited(pipeline.TableEgress) || r.Visited(pipeline.TableRecheck) || (r.Committed != nil) != said
		copies := copies + number(said)
		if judged && x.tuple.Proto == policy.ProtoSCTP && len(r.Copies) == copies { // see pipeline.JudgeSCTP
			judged = false
		}
		if !r.Normal || judged || len(r.Copies) != copies {
			w.t.Fatalf("%v: established, reply %v: passed %v by tables %v; %d copies, committed %+v, messages %v", x, reply, r.Normal, r.Tables,
				len(r.Copies), r.Committed, said)
		}
	}
}

func (w *world) sameSide(x talk, d policy.Direction, id uint32, want policy.SideDecision) {
	w.t.Helper()
	info, ok := w.fw.Rule(id)
	if !ok || info.Removed {
		w.t.Fatalf("%v: id %#x of %s stands for nothing (%+v)", x, id, d, info)
	}
	if !want.Judged {
		if id != pipeline.IDNoEndpoint {
			w.t.Fatalf("%v: %s has no endpoint, but %#x decided", x, d, id)
		}
		return
	}
	effect, log := want.Effect, want.Log
	if effect == policy.Audit && !info.Action.Passes() {
		effect, log = info.Action, info.Log
	}
	if info.Ref != want.Ref || info.Action != effect || info.Log != log || info.Audit {
		w.t.Fatalf("%v: %s was decided by %+v, reference says %+v", x, d, info, want)
	}
}

// sameAudit compares what is noted of what would have denied a side.
func (w *world) sameAudit(x talk, d policy.Direction, noted uint32, want policy.SideDecision) {
	w.t.Helper()
	id := noted &^ pipeline.AuditNoted
	info, ok := w.fw.Rule(id)
	switch {
	case (noted != 0) != isAudited(want), noted != 0 && noted&pipeline.AuditNoted == 0:
		w.t.Fatalf("%v: %s: %#x (%+v) is noted, reference says %+v", x, d, noted, info, want)
	case noted != 0 && (!ok || info.Removed || info.Ref != want.Audited || info.Action.Passes() || info.Audit == (want.Audited == want.Ref)):
		w.t.Fatalf("%v: %s: %+v is noted, reference says %+v", x, d, info, want)
	}
}

func isAudited(d policy.SideDecision) bool { return d.Audited != (policy.RuleRef{}) }

// heldByMode reports whether an endpoint in mode audit is why a packet passes.
func heldByMode(d policy.Decision) bool {
	return d.Egress.Effect == policy.Audit || d.Ingress.Effect == policy.Audit
}

func TestVerdictsAreThoseOfTheReference(t *testing.T) {
	check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.record = genRecord(t)
		w.start(nil)
		w.randomize(t, true)
		for range 12 {
			if x, ok := w.genTalk(drawn(t)); ok {
				w.sameVerdict(x)
			}
		}
	})
}

// TestPickup holds the pickup window to its order of decisions: who is remembered as the initiator is; else explicit rules before defaults,
// the sender as initiator before the sender as responder; and where one orientation is denied, nothing passes by a default.
func TestPickup(t *testing.T) {
	check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.randomize(t, false)
		for range 12 {
			x, ok := w.genTalk(drawn(t))
			if !ok {
				return
			}
			x.tuple.Proto, x.tuple.Type = 6, 0
			back := talk{from: x.to, to: x.from, vlan: x.vlan, tuple: x.tuple.Reversed()}
			forward, reversed := w.evaluate(x), w.evaluate(back)
			open := rapid.SampledFrom([]string{"", "the bridge", "sender", "receiver", "others"}).Draw(t, "open")
			w.pickup = open == "the bridge"
			memory := "nobody"
			if w.pickup {
				memory = rapid.SampledFrom([]string{"nobody", "sender", "receiver"}).Draw(t, "memory")
			}
			var arrivals []string
			switch open {
			case "sender":
				arrivals = []string{x.from.key}
			case "receiver":
				arrivals = []string{x.to.key}
			case "others":
				arrivals = slices.DeleteFunc(w.locals(), func(key string) bool { return key == x.from.key || key == x.to.key })
			}
			isOpen := w.pickup || open != "others" && slices.ContainsFunc(arrivals, func(key string) bool { return w.local(key) != nil })
			var remembered []pipeline.Connection
			switch memory {
			case "sender":
				remembered = append(remembered, w.connection(x))
			case "receiver":
				remembered = append(remembered, w.connection(back))
			}
			w.fw.SetPickup(w.pickup, remembered)
			w.fw.SetArrivals(arrivals)
			w.compile()
			w.sw.Forget()
			sent := w.packet(x, false, ack)
			got := w.sw.Process(sent)
			for field, v := range sent {
				if got.Normal && got.Fields[field] != v {
					t.Fatalf("%v: %s left as %v, was %v", x, field, got.Fields[field], v)
				}
			}
			pass, commit := false, false
			switch {
			case !isOpen:
			case memory == "sender":
				pass, commit = forward.Effect.Passes(), forward.Effect.Passes()
			case memory == "receiver":
				pass = reversed.Effect.Passes()
			case explicit(forward):
				pass, commit = true, true
			case explicit(reversed):
				pass = true
			default:
				pass = forward.Effect.Passes() && reversed.Effect.Passes()
				commit = pass
			}
			if got.Normal != pass || (got.Committed != nil) != commit {
				t.Fatalf("%v: window open %q, memory %s: passed %v, want %v; committed %v, want %v\nforward %+v\nreversed %+v\ntables %v", x,
					open, memory,
					got.Normal, pass, got.Committed != nil, commit, forward, reversed, got.Tables)
			}
			if commit {
				if got.Committed.Mark&4 == 0 || got.Committed.Orig != withZone(x, got.Committed.Orig.Zone) {
					t.Fatalf("%v: committed as %+v", x, got.Committed)
				}
				w.sameSide(x, policy.Egress, register(got, pipeline.EgressRule), forward.Egress)
				w.sameSide(x, policy.Ingress, register(got, pipeline.IngressRule), forward.Ingress)
			}
			if !isOpen {
				if last := got.Cookies[len(got.Cookies)-1]; last != pipeline.DropOutOfState.Cookie() {
					t.Fatalf("%v: the last flow was %#x", x, last)
				}
			}
		}
	})
}

// TestSamePort holds UDP that both sides send from the same port, opened under one policy, to another: what it denies passes as an answer
// only where a rule allows the answerer to open it, who is then the initiator. What comes from other ports is an answer and stays one.
func TestSamePort(t *testing.T) {
	var turned, kept, cut int
	one := func(t *rapid.T) {
		w := newWorld(t)
		w.randomize(t, false)
		x, ok := w.genTalk(drawn(t))
		if !ok {
			return
		}
		x.tuple.Proto, x.tuple.SrcPort, x.tuple.DstPort, x.tuple.Type = policy.ProtoUDP, 443, 443, 0
		same := rapid.Bool().Draw(t, "same port")
		if !same {
			x.tuple.SrcPort = 40000
		}
		back := talk{from: x.to, to: x.from, vlan: x.vlan, tuple: x.tuple.Reversed()}
		if first := w.sw.Process(w.packet(x, false, 0)); !first.Normal {
			return
		}
		w.sw.Process(w.packet(x, true, 0))
		for _, name := range slices.Sorted(maps.Keys(w.policies)) {
			w.policies[name] = genPolicy(t, name)
			w.fw.SetPolicy(w.policies[name])
		}
		w.compile()
		forward, reversed := w.evaluate(x), w.evaluate(back)
		got := w.sw.Process(w.packet(x, true, 0))
		turns := same && !forward.Effect.Passes() && explicit(reversed)
		isTurned := got.Committed != nil && got.Committed.Orig == withZone(back, got.Committed.Orig.Zone)
		if got.Normal != (forward.Effect.Passes() || turns) || isTurned != turns {
			t.Fatalf("%v: passed %v, committed %+v; turns %v\nforward %+v\nreversed %+v\ntables %v", x, got.Normal, got.Committed, turns, forward,
				reversed, got.Tables)
		}
		switch {
		case turns:
			turned++
			w.sameSide(back, policy.Egress, bits(got.Committed.Label, pipeline.LabelEgress), reversed.Egress)
			w.sameSide(back, policy.Ingress, bits(got.Committed.Label, pipeline.LabelIngress), reversed.Ingress)
			if r := w.sw.Process(w.packet(x, false, 0)); !r.Normal || r.Committed != nil && !heldByMode(reversed) {
				t.Fatalf("%v: not an answer now: passed %v, committed %+v, tables %v", x, r.Normal, r.Committed, r.Tables)
			}
		case got.Normal:
			kept++
		default:
			cut++
		}
	}
	for range 60 { // a turn takes some luck
		if check(t, one); turned > 0 && kept > 0 && cut > 0 {
			return
		}
	}
	t.Errorf("turned %d, kept %d, cut %d: too one-sided to mean anything", turned, kept, cut)
}

// connection is a talk as tapwall remembers it.
func (w *world) connection(x talk) pipeline.Connection {
	id := func(s station) uint32 {
		if w.local(s.key) == nil {
			return 0
		}
		return w.assignments.Endpoints[s.key].ID
	}
	zone, err := pipeline.Zone(0, x.vlan)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return pipeline.Connection{
		Zone: zone, ReplyZone: zone, Src: netip.AddrPortFrom(x.tuple.Src, x.tuple.SrcPort), Dst: netip.AddrPortFrom(x.tuple.Dst, x.tuple.DstPort),
		Initiator: id(x.from), Responder: id(x.to),
	}
}

// withZone returns the packet's tuple as conntrack knows it: it has no ports of SCTP.
func withZone(x talk, zone uint16) tables.Tuple {
	if x.tuple.Zone = zone; x.tuple.Proto == policy.ProtoSCTP {
		x.tuple.SrcPort, x.tuple.DstPort = 0, 0
	}
	return x.tuple
}

// TestEffects holds every effect to its verdict. What the pipeline cannot do yet drops, should validation ever let it through.
func TestEffects(t *testing.T) {
	for effect, want := range map[policy.Effect]pipeline.Verdict{
		policy.Allow: pipeline.VerdictAllow, policy.Deny: pipeline.VerdictDrop, policy.Reject: pipeline.VerdictReject,
		policy.Audit: pipeline.VerdictNone,
	} {
		l := newLab(t, "b", "a")
		l.put("p", func(s *policy.PolicySpec) { s.Ingress = []policy.Rule{{Name: "x", Action: effect}} })
		x := talk{from: station{"w0"}, to: station{"w1"}, tuple: tables.Tuple{
			Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: policy.ProtoTCP, SrcPort: 40000, DstPort: 80,
		}}
		got := l.sw.Process(l.packet(x, false, syn))
		if v := pipeline.Verdict(register(got, pipeline.IngressVerdict)); v != want || got.Normal != (effect == policy.Allow) {
			t.Errorf("%s: verdict %s, passed %v; want %s", effect, v, got.Normal, want)
		}
		if info, ok := l.fw.Rule(register(got, pipeline.IngressRule)); !ok || info.Action != effect {
			t.Errorf("%s: the rule that decided is %+v", effect, info)
		}
	}
}
