package host

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// inForce is what the flows of a bridge were compiled from when they were last all installed.
type inForce struct {
	revision  int64 // of the store
	resources catalog
	force     shelf[policy.Resource]
	inventory inventory.Inventory
}

// judgedBy is the world as the bridge judges by it; nil = nothing is installed yet.
func (v *view) judgedBy(b *wallView) *policy.Set {
	if b.inForce == nil {
		return nil
	}
	then := *v
	then.resources, then.force, then.inventory = b.inForce.resources, b.inForce.force, b.inForce.inventory
	return then.set()
}

// Ends finds the endpoints that go by a name: any that selectors would find them by, their key or place, or an address that they have.
// Remote ones are among them.
func (e *Engine) Ends(name string) []*policy.Workload {
	v := e.view.Load()
	addr, err := netip.ParseAddr(name)
	var out []*policy.Workload
	for _, w := range v.inventory.Workloads {
		if goesBy(w, name) || err == nil && w.HasAddress(addr.Unmap()) {
			out = append(out, w)
		}
	}
	return out
}

// crossing is one question to a bridge, on its way to an answer.
type crossing struct {
	backend.Crossing
	e   *Engine
	v   *view
	b   *wallView
	set *policy.Set

	packet   policy.Packet
	decision policy.Decision
	// expected is what the flows should say: they cannot recognise a receiver whose MAC is not known.
	expected policy.Decision
	excuses  []string // why the switch may rightly say something else
	out      wire.TraceCrossing
}

// Trace says what becomes of a packet on one bridge. Errors match backend.ErrUnavailable, or backend.ErrUnable
// where the bridge has no wall.
func (e *Engine) Trace(ctx context.Context, q backend.Crossing) (wire.TraceCrossing, error) {
	x, err := e.cross(q)
	if err != nil {
		return wire.TraceCrossing{}, err
	}
	w := x.walk()
	if q.Probe {
		x.probe(ctx, w)
		if p := x.out.Probe; p != nil && !p.Agrees && len(x.excuses) == 0 && ctx.Err() == nil {
			// Something may have changed meanwhile, or the switch has not followed yet.
			e.awaitCaches(ctx, x.b.link)
			again, err := e.cross(q)
			if err != nil {
				return wire.TraceCrossing{}, err
			}
			before := x.b.inForce
			x = again
			x.probe(ctx, x.walk())
			x.doubt(before)
		}
	}
	return x.out, nil
}

// cross asks the policies that are installed.
func (e *Engine) cross(q backend.Crossing) (*crossing, error) {
	v := e.view.Load()
	x := &crossing{Crossing: q, e: e, v: v, b: v.wallOf(q.Bridge)}
	if x.b == nil {
		return nil, fmt.Errorf("%w: bridge %s of host %s has no wall", backend.ErrUnable, q.Bridge, v.host)
	}
	if x.set = v.judgedBy(x.b); x.set == nil {
		return nil, fmt.Errorf("%w: bridge %s: nothing is installed yet", backend.ErrUnavailable, q.Bridge)
	}
	x.packet = policy.Packet{Bridge: q.Bridge, SrcIP: q.SrcIP, DstIP: q.DstIP, Proto: q.Proto, SrcPort: q.SrcPort, DstPort: q.DstPort,
		ICMPType: q.Type, ICMPCode: q.Code}
	for _, end := range []struct {
		key string
		w   **policy.Workload
		out *wire.TraceEnd
	}{{q.Src, &x.packet.Src, &x.out.Source}, {q.Dst, &x.packet.Dst, &x.out.Destination}} {
		if end.key == "" {
			continue
		}
		if *end.w = workload(x.set.Workloads, end.key); *end.w == nil {
			return nil, fmt.Errorf("%w: bridge %s: the policies for %s are not installed yet", backend.ErrUnavailable, q.Bridge, end.key)
		}
		*end.out = wire.TraceEnd{Endpoint: orElse((*end.w).Endpoint, (*end.w).Port), PortName: (*end.w).Port}
	}
	x.decision = policy.Evaluate(x.set, x.packet)
	x.expected = x.decision
	if dst := x.packet.Dst; dst != nil && dst.MAC == "" {
		seen := x.packet
		seen.Dst = nil
		x.expected = policy.Evaluate(x.set, seen)
		x.note("the MAC address of %s is not known, so the switch does not enforce its ingress: declare it (Endpoint.spec.mac)",
			x.out.Destination.Endpoint)
	}
	x.out.Host, x.out.Bridge, x.out.VLAN, x.out.Revision = v.host, q.Bridge, q.VLAN, x.b.inForce.revision
	x.out.Verdict = string(x.decision.Effect)
	x.out.Egress = x.side(policy.Egress, x.decision.Egress)
	x.out.Ingress = x.side(policy.Ingress, x.decision.Ingress)
	x.excuse()
	return x, nil
}

func (x *crossing) note(format string, args ...any) {
	x.out.Notes = append(x.out.Notes, fmt.Sprintf(format, args...))
}

// excuse finds why the flows may not be what the policies make of them.
func (x *crossing) excuse() {
	add := func(format string, args ...any) { x.excuses = append(x.excuses, fmt.Sprintf(format, args...)) }
	st := x.b.sw.State()
	if why := linkTrouble(st); why != "" {
		add("the switch cannot be asked: %s", why)
	} else if st.Missing > 0 {
		add("%d flows of the bridge are not as they should be", st.Missing)
	}
	for owner, r := range x.b.refused {
		add("the switch refuses %s: %v", owner, r.err)
	}
	for name, ps := range each(x.b.policies) {
		if ps.Err != nil {
			add("policy %s is not in force: %v", name, ps.Err)
		}
	}
	if x.b.inForce.resources[policy.KindPolicy] != x.v.resources[policy.KindPolicy] ||
		x.b.inForce.resources[policy.KindGroup] != x.v.resources[policy.KindGroup] {
		x.note("revision %d of the store has changes that are not installed yet: this is about revision %d", x.v.revision, x.b.inForce.revision)
	}
	x.out.Notes = append(x.out.Notes, x.excuses...)
}

// Bounds of the lists of a side.
const (
	maxTracePolicies = 50
	maxTraceRules    = 20
)

// side says how one side was judged.
func (x *crossing) side(dir policy.Direction, d policy.SideDecision) wire.TraceSide {
	if !d.Judged {
		return wire.TraceSide{}
	}
	spell := func(ref policy.RuleRef) string {
		if ref == (policy.RuleRef{}) {
			return ""
		}
		return strings.TrimLeft(ruleName(ref).ID, "/")
	}
	out := wire.TraceSide{Judged: true, Effect: string(d.Effect), Rule: spell(d.Ref), Audited: spell(d.Audited), Passed: spell(d.Passed)}
	why := x.set.Why(dir, x.packet)
	out.PolicyCount = len(why.Applying)
	for _, p := range why.Applying[:min(len(why.Applying), maxTracePolicies)] {
		out.Policies = append(out.Policies, wire.TracePolicy{Name: p.Name, Tier: string(p.EffectiveTier()), Priority: p.EffectivePriority(),
			Audit: p.Audits(), Isolates: p.Isolates(dir)})
	}
	for _, m := range why.Matching[:min(len(why.Matching), maxTraceRules)] {
		out.Matching = append(out.Matching, wire.TraceRule{Rule: spell(m.Ref), Action: string(m.Rule.Action),
			Tier: string(m.Policy.EffectiveTier()), Priority: m.Policy.EffectivePriority(), Audit: m.Policy.Audits(), Decides: m.Ref == d.Ref})
	}
	if !d.Effect.Passes() {
		x.out.Change = append(x.out.Change, x.remedy(dir, d, why)...)
	}
	return out
}
