package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// Trace implements api.Engine. Whom names mean is looked up on all hosts; each bridge that the packet crosses is then asked.
func (f *Fleet) Trace(ctx context.Context, q backend.TraceQuestion) (wire.Trace, error) {
	out := wire.Trace{Crossings: []wire.TraceCrossing{}, Problems: f.Unknown()}
	src, err := f.end("from", q.From, q.SrcIP, &q)
	if err != nil {
		return out, err
	}
	dst, err := f.end("to", q.To, q.DstIP, &q)
	if err != nil {
		return out, err
	}
	family, err := familyOf(&q, src, dst)
	if err != nil {
		return out, err
	}
	src.choose(family, 1)
	dst.choose(family, 2)
	hasPorts := q.Proto == policy.ProtoTCP || q.Proto == policy.ProtoUDP || q.Proto == policy.ProtoSCTP
	if hasPorts && q.SrcPort == 0 {
		q.SrcPort = uint16(49152 + rand.IntN(16384)) // of those that clients take
	}
	out.Packet = wire.TracePacket{Protocol: policy.ProtocolName(q.Proto),
		Source:      wire.TraceAddress{IP: src.ip.String(), Port: int(q.SrcPort), Assumed: src.assumed},
		Destination: wire.TraceAddress{IP: dst.ip.String(), Port: int(q.DstPort), Assumed: dst.assumed}}
	if q.Proto == policy.ProtoICMP || q.Proto == policy.ProtoICMPv6 {
		out.Packet.Type, out.Packet.Code = new(int(q.Type)), new(int(q.Code))
	}
	plan := crossings(&q, src, dst)
	if len(plan) == 0 {
		return out, backend.BadQuestion("from", "neither %q nor %q is an endpoint of a bridge with a wall, so no policy is asked", q.From, q.To)
	}
	for _, c := range plan {
		got, err := f.crossing(ctx, c)
		if errors.Is(err, backend.ErrUnable) && len(plan) > 1 {
			out.Problems = append(out.Problems, err.Error())
			continue
		}
		if err != nil {
			return out, err
		}
		for _, e := range []*traced{src, dst} {
			if e.assumed && c.has(e) {
				got.Notes = append(got.Notes, fmt.Sprintf("the address of %s is not known, so %v was taken: rules by address may say something "+
					"else. Name it, or declare it (Endpoint.spec.addresses)", e.name, e.ip))
			}
		}
		if len(plan) == 2 && plan[0].at.Host == plan[1].at.Host && plan[0].at.Bridge == plan[1].at.Bridge {
			got.Notes = append(got.Notes, "sender and receiver are in different VLANs, so what forwards between them stands on the other side")
		}
		if out.Crossings = append(out.Crossings, got); out.Verdict == "" || policy.Effect(out.Verdict).Passes() &&
			(got.Verdict != string(policy.Allow)) {
			out.Verdict = got.Verdict
		}
	}
	return out, nil
}

// traced is one end of a traced packet.
type traced struct {
	name    string
	w       *policy.Workload // nil = a stranger
	ip      netip.Addr       // invalid = not said
	assumed bool
}

// end finds who a name means; ip is the address that was said beside it.
func (f *Fleet) end(parameter, name string, ip netip.Addr, q *backend.TraceQuestion) (*traced, error) {
	out := &traced{name: name, ip: ip.Unmap()}
	var found []*policy.Workload
	for _, e := range f.hosts {
		for _, w := range e.Ends(name) {
			if (q.Host == "" || w.Host == q.Host || w.Remote) && (q.Bridge == "" || w.Bridge == q.Bridge || w.Remote) {
				found = append(found, w)
			}
		}
	}
	if here := slices.DeleteFunc(slices.Clone(found), func(w *policy.Workload) bool { return w.Remote }); len(here) > 0 {
		found = here
	} else if len(found) > 1 {
		found = found[:1] // each host has it for itself
	}
	addr, err := netip.ParseAddr(name)
	isAddr := err == nil
	if isAddr && !out.ip.IsValid() {
		out.ip = addr.Unmap().WithZone("")
	}
	switch {
	case len(found) > 1:
		var places []string
		for _, w := range found[:min(len(found), 5)] {
			places = append(places, fmt.Sprintf("%s/%s on %s", w.Bridge, w.Port, w.Host))
		}
		return nil, backend.BadQuestion(parameter, "several endpoints go by %q: %s; say which by bridge/port, or by host and bridge", name,
			strings.Join(places, ", "))
	case len(found) == 0 && !isAddr:
		return nil, backend.BadQuestion(parameter, "%q is no endpoint's name, port, VM, Neutron port or MAC, and no address", name)
	case len(found) == 0:
		return out, nil
	}
	w := found[0]
	out.name = cmp.Or(w.Endpoint, w.Port)
	if !w.Remote {
		out.w = w
		return out, nil
	}
	if !out.ip.IsValid() && len(w.Addresses) == 0 {
		return nil, backend.BadQuestion(parameter, "%q is on no host of this process, and has no addresses", name)
	}
	out.w = w
	return out, nil
}

// local reports whether the end is an endpoint of a bridge.
func (e *traced) local() bool { return e.w != nil && !e.w.Remote }

// of returns an address of a family that the end has; invalid = none is known.
func (e *traced) of(family int) netip.Addr {
	if e.ip.IsValid() || e.w == nil {
		return e.ip
	}
	known := slices.Concat(e.w.Addresses, e.w.Learned)
	i := slices.IndexFunc(known, func(a netip.Addr) bool { return a.Is4() == (family == 4) })
	if i < 0 {
		return netip.Addr{}
	}
	return known[i]
}

// choose settles the address. n tells addresses that are made up apart (RFC 5737, RFC 3849).
func (e *traced) choose(family int, n byte) {
	if e.ip = e.of(family); e.ip.IsValid() {
		return
	}
	e.assumed = true
	if e.ip = netip.AddrFrom4([4]byte{192, 0, 2, n}); family == 6 {
		e.ip = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: n})
	}
}

// familyOf finds the family of the packet: that which is said, or which both ends have an address of, IPv4 first.
func familyOf(q *backend.TraceQuestion, src, dst *traced) (int, error) {
	family := q.Family
	is := func(what string, n int) error {
		if family != 0 && family != n {
			return backend.BadQuestion("family", "%s is of IPv%d, and not of IPv%d", what, n, family)
		}
		family = n
		return nil
	}
	for _, e := range []*traced{src, dst} {
		if e.ip.IsValid() {
			n := 6
			if e.ip.Is4() {
				n = 4
			}
			if err := is(e.ip.String(), n); err != nil {
				return 0, err
			}
		}
	}
	switch q.Proto {
	case policy.ProtoICMP:
		return 4, is("icmp", 4)
	case policy.ProtoICMPv6:
		return 6, is("icmpv6", 6)
	}
	if family == 0 {
		family = 4
		if (!src.of(4).IsValid() || !dst.of(4).IsValid()) && src.of(6).IsValid() && dst.of(6).IsValid() {
			family = 6
		}
	}
	return family, nil
}

// asked is a crossing with the endpoint at whose bridge it is.
type asked struct {
	backend.Crossing
	at *policy.Workload
}

// has reports whether an end is an endpoint of the crossing, or its address is looked at there.
func (c *asked) has(e *traced) bool { return e.w != nil && (e.w.Key == c.Src || e.w.Key == c.Dst) }

// crossings are those of a packet.
func crossings(q *backend.TraceQuestion, src, dst *traced) (out []asked) {
	add := func(at *policy.Workload, from, to *traced, vlan int) {
		c := backend.Crossing{Bridge: at.Bridge, SrcIP: src.ip, DstIP: dst.ip, Proto: q.Proto, SrcPort: q.SrcPort, DstPort: q.DstPort,
			Type: q.Type, Code: q.Code, VLAN: vlan, Probe: q.Probe}
		if from != nil {
			c.Src = from.w.Key
		}
		if to != nil {
			c.Dst = to.w.Key
		}
		out = append(out, asked{c, at})
	}
	vlan := func(w *policy.Workload, other *traced) int {
		switch {
		case w.VLAN != 0:
			return w.VLAN
		case q.VLAN != nil:
			return *q.VLAN
		case other != nil && other.w.VLAN != 0:
			return other.w.VLAN
		}
		return w.Native
	}
	together := src.local() && dst.local() && src.w.Host == dst.w.Host && src.w.Bridge == dst.w.Bridge &&
		(src.w.VLAN == dst.w.VLAN || src.w.VLAN == 0 || dst.w.VLAN == 0)
	switch {
	case together:
		add(src.w, src, dst, vlan(src.w, dst))
		return out
	case src.local():
		add(src.w, src, nil, vlan(src.w, nil))
	}
	if dst.local() {
		add(dst.w, nil, dst, vlan(dst.w, nil))
	}
	return out
}

// crossing asks the host.
func (f *Fleet) crossing(ctx context.Context, c asked) (wire.TraceCrossing, error) {
	i := slices.IndexFunc(f.hosts, func(e *host.Engine) bool { return e.Name() == c.at.Host })
	if i < 0 {
		return wire.TraceCrossing{}, fmt.Errorf("%w: host %s", backend.ErrUnavailable, c.at.Host)
	}
	return f.hosts[i].Trace(ctx, c.Crossing)
}
