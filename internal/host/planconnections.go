package host

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

const (
	// maxPlanTime bounds how long connections are judged for a plan: the evaluator is not made for haste.
	maxPlanTime = 5 * time.Second
	// deniedFor is for how long back denials are looked at.
	deniedFor = 10 * time.Minute
)

// forecast judges connections by what is and by what would be.
type forecast struct {
	was, now *policy.Set
	// kept is now, with the members that groups with onMemberRemoved: keep would lose; nil = there are none.
	kept  *policy.Set
	ends  map[string]*policy.Workload // of now, by key
	known map[policy.Packet]outlook
	until time.Time
}

// outlook is what becomes of connections with a tuple.
type outlook struct {
	before, after policy.Decision
	goesOn        bool
}

// PlanConnections says what changes would do to the connections of this host; nil where they decide about none. The switch is waited for as
// long as ctx allows.
func (e *Engine) PlanConnections(ctx context.Context, changes []backend.Change) *wire.ConnectionPlan {
	now := e.view.Load()
	judging := slices.ContainsFunc(changes, func(c backend.Change) bool {
		return c.Kind == policy.KindPolicy || c.Kind == policy.KindGroup || c.Kind == policy.KindEndpoint
	})
	if now.topo == nil || !judging || len(now.walls) == 0 {
		return nil
	}
	then := now.with(changes)
	if slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == policy.KindEndpoint }) {
		then.resolve()
	}
	f := newForecast(now.set(), then.set())
	out := &wire.ConnectionPlan{}
	if slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == policy.KindQuarantine }) {
		out.Problems = append(out.Problems, "what a quarantine would cut is not among them")
	}
	e.forecastLive(ctx, now, f, out)
	e.forecastDenied(now, f, out)
	return out
}

func newForecast(was, now *policy.Set) *forecast {
	f := &forecast{was: was, now: now, ends: map[string]*policy.Workload{}, known: map[policy.Packet]outlook{},
		until: time.Now().Add(maxPlanTime)}
	for _, w := range now.Workloads {
		if !w.Remote {
			f.ends[w.Key] = w
		}
	}
	groups := maps.Clone(now.Groups)
	for name, g := range now.Groups {
		if old := was.Groups[name]; old != nil && old != g && g.Spec.Keeps() {
			with := *g
			with.Spec.Members, with.Spec.Change = slices.Concat(g.Spec.Members, old.Spec.Members), nil
			groups[name] = &with
			f.kept = &policy.Set{Policies: now.Policies, Groups: groups, Workloads: now.Workloads, HostAddresses: now.HostAddresses}
		}
	}
	return f
}

// of judges a connection whose packet is between endpoints as they are. ok is false when the time is up.
func (f *forecast) of(p policy.Packet) (o outlook, ok bool) {
	if o, ok := f.known[p]; ok {
		return o, true
	}
	if time.Now().After(f.until) {
		return o, false
	}
	o.before = policy.Evaluate(f.was, p)
	if !o.before.Effect.Passes() {
		o.before = f.turned(f.was, p, o.before)
	}
	next := f.later(p)
	o.after = policy.Evaluate(f.now, next)
	if !o.after.Effect.Passes() {
		o.after = f.turned(f.now, next, o.after)
	}
	o.goesOn = o.after.Effect.Passes() || f.kept != nil && policy.Evaluate(f.kept, next).Effect.Passes()
	f.known[p] = o
	return o, true
}

// later is the packet between the endpoints as they would be.
func (f *forecast) later(p policy.Packet) policy.Packet {
	for _, end := range []**policy.Workload{&p.Src, &p.Dst} {
		if *end != nil {
			*end = f.ends[(*end).Key] // nil = no endpoint any more
		}
	}
	return p
}

// turned is the decision about a connection whose own direction is denied: where both sides send from the same port, or without ports, a
// rule that allows the other direction makes it that one's (see pipeline.samePort).
func (f *forecast) turned(s *policy.Set, p policy.Packet, denied policy.Decision) policy.Decision {
	switch {
	case p.Proto == policy.ProtoUDP && p.SrcPort == p.DstPort:
	case slices.Contains([]uint8{4, 41, 47, 50, 51}, p.Proto):
	default:
		return denied
	}
	p.Src, p.Dst, p.SrcIP, p.DstIP = p.Dst, p.Src, p.DstIP, p.SrcIP
	d := policy.Evaluate(s, p)
	byRule := func(x policy.SideDecision) bool { return x.Judged && x.Ref.Rule != policy.RuleDefaultAllow }
	if d.Effect.Passes() && (byRule(d.Egress) || byRule(d.Ingress)) {
		return d
	}
	return denied
}

// forecastLive looks at what conntrack tracks, within the bounds of a listing and for as long as ctx allows.
func (e *Engine) forecastLive(ctx context.Context, v *view, f *forecast, out *wire.ConnectionPlan) {
	done, err := e.turn(ctx)
	if err != nil {
		out.Problems = append(out.Problems, "live connections were not looked at: other listings are under way")
		return
	}
	defer done()
	for i := range v.walls {
		b := &v.walls[i]
		match, err := event.Filter{}.Compile()
		s := search{v: v, b: b, match: match, directory: newDirectory(v, b)}
		if err == nil {
			err = e.search(ctx, &s)
		}
		for _, err := range append(s.refused, err) {
			if err != nil {
				out.Problems = append(out.Problems, fmt.Sprintf("not looked at: bridge %s: %v", b.cfg.Name, err))
			}
		}
		late := 0
		for j := range s.out {
			if late += f.live(&s.out[j], s.directory, out); late > 0 {
				late = len(s.out) - j
				break
			}
		}
		if late > 0 {
			out.Problems = append(out.Problems, fmt.Sprintf("not looked at: bridge %s: %d connections, because judging them took longer than %v",
				b.cfg.Name, late, maxPlanTime))
		}
	}
}

// live judges one connection. It returns 1 if there was no time for it.
func (f *forecast) live(x *tracked, d *directory, out *wire.ConnectionPlan) (late int) {
	p, ok := packetOf(x, d)
	if !ok {
		out.Untold++
		return 0
	}
	o, ok := f.of(p)
	switch {
	case !ok:
		return 1
	case !o.before.Effect.Passes(): // its next packet is dropped anyway
	case o.goesOn:
		out.Kept++
		if o.after.Effect.Passes() && (o.before.Egress.Ref != o.after.Egress.Ref || o.before.Ingress.Ref != o.after.Ingress.Ref) {
			out.Moved++
		}
	default:
		if out.Cut++; len(out.Cuts) < wire.MaxPlanned {
			c := wire.PlannedConnection{Host: x.Host, Bridge: x.Bridge, Protocol: x.Protocol, Source: x.Source, Destination: x.Destination}
			c.Side, c.Rule = decidedBy(o.after)
			out.Cuts = append(out.Cuts, c)
		}
	}
	return 0
}

// packetOf is the first packet of a connection, between the ends that its label names. ok is false where that says nothing.
func packetOf(x *tracked, d *directory) (p policy.Packet, ok bool) {
	if !x.Ours || x.Proto == policy.ProtoSCTP { // the datapath does not know its ports
		return p, false
	}
	p = policy.Packet{Bridge: d.b.cfg.Name, SrcIP: x.Orig.Src, DstIP: x.Orig.Dst, Proto: x.Proto, SrcPort: x.Orig.SrcPort,
		DstPort: x.Orig.DstPort, ICMPType: x.Orig.ICMPType, ICMPCode: x.Orig.ICMPCode}
	for end, f := range map[**policy.Workload]pipeline.Field{&p.Src: pipeline.LabelInitiator, &p.Dst: pipeline.LabelResponder} {
		switch id := labelled(x.Entry, f); {
		case id == pipeline.IDNoEndpoint:
		case id == 0 || d.endpoints[pipeline.EndpointBase(id)] == nil:
			return p, false
		default:
			*end = d.endpoints[pipeline.EndpointBase(id)]
		}
	}
	return p, true
}

// decidedBy names what decides: on the side that denies or, where both allow, on that of a rule.
func decidedBy(d policy.Decision) (side, rule string) {
	x, dir := d.Ingress, policy.Ingress
	switch {
	case d.Egress.Judged && !d.Egress.Effect.Passes(), !d.Ingress.Judged:
		x, dir = d.Egress, policy.Egress
	case d.Ingress.Effect.Passes() && d.Ingress.Ref.Rule == policy.RuleDefaultAllow && d.Egress.Judged:
		x, dir = d.Egress, policy.Egress
	}
	return string(dir), strings.TrimLeft(ruleName(x.Ref).ID, "/")
}

// forecastDenied looks at what the record has of denials, newest first.
func (e *Engine) forecastDenied(v *view, f *forecast, out *wire.ConnectionPlan) {
	page := e.opt.Recorder.Recent(event.Filter{Verdict: []string{string(event.Dropped)}, Action: []string{event.ActionVerdict},
		Since: time.Now().Add(-deniedFor), Limit: event.MaxLimit})
	type attempt struct {
		src, dst netip.Addr
		proto    uint8
		port     uint16
		bridge   string
	}
	seen := map[attempt]bool{}
	for _, x := range slices.Backward(page.Items) {
		if x.Observer == nil || x.Observer.Name != v.host {
			continue
		}
		p, ok := v.deniedPacket(x)
		a := attempt{p.SrcIP, p.DstIP, p.Proto, p.DstPort, p.Bridge}
		if !ok || seen[a] {
			continue
		}
		seen[a] = true
		o, ok := f.of(p)
		if !ok {
			out.Problems = append(out.Problems, fmt.Sprintf("not all of the denials in the record were looked at: it took longer than %v",
				maxPlanTime))
			return
		}
		if o.before.Effect.Passes() || !o.after.Effect.Passes() {
			continue
		}
		if out.Allowed++; len(out.Allows) == wire.MaxPlanned {
			continue
		}
		c := wire.PlannedConnection{Host: v.host, Bridge: p.Bridge, Protocol: transportOf(p.Proto),
			Source:      wire.ConnectionEnd{IP: p.SrcIP.String(), Endpoint: endpointOf(p.Src), InForce: true},
			Destination: wire.ConnectionEnd{IP: p.DstIP.String(), Port: int(p.DstPort), Endpoint: endpointOf(p.Dst), InForce: true},
			Last:        x.Timestamp}
		c.Side, c.Rule = decidedBy(o.after)
		out.Allows = append(out.Allows, c)
	}
}

func endpointOf(w *policy.Workload) string {
	if w == nil {
		return ""
	}
	return orElse(w.Endpoint, w.Port)
}

// deniedPacket reads the packet out of an event, between the endpoints at the ports that it names.
func (v *view) deniedPacket(x *event.Event) (p policy.Packet, ok bool) {
	facts := event.FactsOf(x)
	p = policy.Packet{Bridge: facts.Bridge, SrcIP: facts.Src, DstIP: facts.Dst, SrcPort: facts.SrcPort, DstPort: facts.DstPort}
	for n := range 256 {
		if transportOf(uint8(n)) == facts.Transport {
			p.Proto, ok = uint8(n), true
		}
	}
	if !ok || !p.SrcIP.IsValid() || !p.DstIP.IsValid() {
		return p, false
	}
	if i := x.Tapwall.ICMP; i != nil {
		p.ICMPType, p.ICMPCode = uint8(i.Type), uint8(i.Code)
	}
	for end, at := range map[**policy.Workload]*event.Endpoint{&p.Src: facts.SrcEndpoint, &p.Dst: facts.DstEndpoint} {
		if at == nil {
			continue
		}
		i := slices.IndexFunc(v.inventory.Workloads, func(w *policy.Workload) bool {
			return w.Bridge == p.Bridge && w.Port == at.PortName && !w.Remote
		})
		if i < 0 {
			return p, false
		}
		*end = v.inventory.Workloads[i]
	}
	return p, true
}
