package wall

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// Held is a port that a quarantine holds.
type Held struct {
	Quarantine string // its name
	// OFPorts are the OpenFlow ports; several of a bond.
	OFPorts []uint32
	VLAN    int // of an access port; 0 = it may use any
	// MACs and Addresses are those of what is behind, as far as they are known.
	MACs      []string
	Addresses []netip.Addr
	// Pass lists what still passes; nil = nothing, and nothing does either without MACs.
	Pass []policy.Passage
}

// Sealed reports whether nothing at all may pass, so that the port is best kept out of everything that the switch sends.
func (h *Held) Sealed() bool { return len(h.Pass) == 0 || len(h.MACs) == 0 }

const ownerQuarantine = "quarantine/"

// OwnerQuarantine is the owner of the flows of a quarantine.
func OwnerQuarantine(name string) string { return ownerQuarantine + name }

// QuarantineOf returns the name of the quarantine whose flows belong to an owner, if they are those of one.
func QuarantineOf(owner string) (name string, ok bool) {
	return strings.CutPrefix(owner, ownerQuarantine)
}

// QuarantineID is the object id in the cookies of a quarantine's flows, for what its ports send (to = false) or would get. It comes from
// the name, so that flows say what they belong to whoever put them there.
func QuarantineID(name string, to bool) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	id := h.Sum32() &^ 1
	if to {
		id |= 1
	}
	return id
}

// MeterQuarantine is the meter that the flows of Quarantines name.
func MeterQuarantine() flow.MeterDesc {
	return flow.MeterDesc{ID: pipeline.MeterQuarantine, Flags: flow.MeterPktps | flow.MeterBurst | flow.MeterStats,
		Bands: []flow.Band{{Type: flow.BandDrop, Rate: quarantinedPerSecond, Burst: 4 * quarantinedPerSecond}}}
}

// quarantinedPerSecond is how many dropped packets of all quarantined ports of a bridge are recorded: the first ones say enough.
const quarantinedPerSecond = 5

// Quarantines returns the flows that hold ports of the bridge with the given index, by owner. A place that two of them claim is the
// first's.
func Quarantines(bridgeIndex int, held []Held) map[string][]flow.Flow {
	q := quarantines{index: bridgeIndex, out: map[string][]flow.Flow{}, taken: map[flow.Key]bool{}}
	for i := range held {
		q.hold(&held[i])
	}
	return q.out
}

type quarantines struct {
	index int
	out   map[string][]flow.Flow
	taken map[flow.Key]bool
}

func (q *quarantines) add(h *Held, flows ...flow.Flow) {
	owner := OwnerQuarantine(h.Quarantine)
	for _, f := range flows {
		if k := f.Key(); !q.taken[k] {
			q.taken[k] = true
			q.out[owner] = append(q.out[owner], f)
		}
	}
}

func (q *quarantines) hold(h *Held) {
	from := pipeline.NewCookie(pipeline.CookieQuarantine, QuarantineID(h.Quarantine, false))
	to := pipeline.NewCookie(pipeline.CookieQuarantine, QuarantineID(h.Quarantine, true))
	var passed []passed
	if !h.Sealed() {
		passed = passages(h.Pass)
	}
	for _, port := range h.OFPorts {
		if port == localPort {
			port = flow.PortLocal
		}
		in := flow.Match{}.With(flow.InPort, flow.U64(uint64(port)))
		q.add(h, pipeline.QuarantineDrop(pipeline.TableSource, from, in))
		var nd []flow.Match
		for _, mac := range h.MACs {
			src, ok := parseMAC(mac)
			if !ok {
				continue
			}
			for _, p := range passed {
				for _, m := range p.sent(h, src) {
					m = with(in.With(flow.EthSrc, flow.U64(src)), m)
					if p.kind == passedSolicitation || p.kind == passedAdvertisement {
						nd = append(nd, m)
						continue
					}
					q.add(h, pipeline.QuarantinePass(pipeline.TableSource, from, m))
					if p.asks {
						q.add(h, pipeline.QuarantineAsks(false, from, m)...)
					}
				}
			}
		}
		if nd != nil {
			q.add(h, pipeline.QuarantineND(from, in, nd)...)
		}
	}
	var zone flow.Match
	if h.VLAN != 0 {
		zone = pipeline.CtZone.Is(nil, uint64(pipeline.ZoneBase(q.index))+uint64(h.VLAN))
	}
	for _, mac := range h.MACs {
		dst, ok := parseMAC(mac)
		if !ok {
			continue
		}
		at := with(zone, flow.Match{}.With(flow.EthDst, flow.U64(dst)))
		q.add(h, pipeline.QuarantineDrop(pipeline.TableDestination, to, at))
		for _, p := range passed {
			q.add(h, pipeline.QuarantinePass(pipeline.TableDestination, to, with(at, p.received)))
			if p.asks { // whose zone may be another by now
				q.add(h, pipeline.QuarantineAsks(true, to, p.received.With(flow.EthDst, flow.U64(dst)))...)
			}
		}
	}
	if len(h.OFPorts) != 1 {
		return // which of a bond's interfaces would be the right one, the switch knows
	}
	for _, p := range passed {
		for _, a := range asking(h.Addresses) {
			if m := p.asked(a); m != nil {
				q.add(h, pipeline.QuarantineDeliver(to, with(zone, m), h.OFPorts[0], h.VLAN != 0))
			}
		}
	}
}

// with joins two matches of different fields.
func with(a, b flow.Match) flow.Match {
	for _, t := range b {
		a = a.WithMasked(t.Field, t.Value, t.Mask)
	}
	return a
}

// passed is one thing that a pass list lets through.
type passed struct {
	prefix netip.Prefix
	kind   passedKind
	to     flow.Match // what the machine sends; of address resolution, without who it says it is
	// received is what it gets.
	received flow.Match
	asks     bool // it opens the connections
}

type passedKind uint8

const (
	passedIP passedKind = iota
	passedARP
	passedSolicitation
	passedAdvertisement
)

// passages resolves a pass list. Whoever is on it is also to be found by ARP or neighbour discovery (RFC 826, RFC 4861 §4.3, §4.4).
func passages(list []policy.Passage) (out []passed) {
	for i := range list {
		prefix, ok := list[i].Prefix()
		if !ok {
			continue
		}
		ether, src, dst := uint64(pipeline.EthIPv4), flow.IPSrc, flow.IPDst
		if prefix.Addr().Is6() {
			ether, src, dst = pipeline.EthIPv6, flow.IPv6Src, flow.IPv6Dst
		}
		ip := flow.Match{}.With(flow.EthType, flow.U64(ether))
		to, from := ip.WithPrefix(dst, prefix), ip.WithPrefix(src, prefix)
		if len(list[i].Services) == 0 {
			out = append(out, passed{prefix, passedIP, to, from, false})
		}
		for _, s := range list[i].Services {
			proto, ports, err := s.Parse()
			if err != nil || proto == policy.ProtoICMP && prefix.Addr().Is6() || proto == policy.ProtoICMPv6 && prefix.Addr().Is4() {
				continue
			}
			out = append(out, passedPorts(passed{prefix, passedIP, to, from, list[i].Asks}, proto, ports)...)
		}
		if ether == pipeline.EthIPv4 {
			for op := range uint64(2) { // what is neither a request nor a reply is not looked into by Open vSwitch
				arp := flow.Match{}.With(flow.EthType, flow.U64(pipeline.EthARP)).With(flow.ARPOp, flow.U64(op+1))
				out = append(out, passed{prefix, passedARP, arp.WithPrefix(flow.ARPTpa, prefix), arp.WithPrefix(flow.ARPSpa, prefix), false})
			}
			continue
		}
		nd := func(kind uint64) flow.Match {
			return ip.With(flow.IPProto, flow.U64(pipeline.ProtoICMPv6)).With(flow.ICMPv6Type, flow.U64(kind)).With(flow.ICMPv6Code, flow.U64(0))
		}
		out = append(out,
			passed{prefix, passedSolicitation, nd(135).WithPrefix(flow.NDTarget, prefix), nd(135).WithPrefix(src, prefix), false},
			passed{prefix, passedAdvertisement, nd(136).WithPrefix(dst, prefix), nd(136).WithPrefix(flow.NDTarget, prefix), false})
	}
	return out
}

// passedPorts narrows what is passed to a protocol and ports.
func passedPorts(all passed, proto uint8, ports []policy.PortRange) (out []passed) {
	all.to, all.received = all.to.With(flow.IPProto, flow.U64(uint64(proto))), all.received.With(flow.IPProto, flow.U64(uint64(proto)))
	if ports == nil {
		return append(out, all)
	}
	src, dst := flow.TCPSrc, flow.TCPDst
	if proto == policy.ProtoUDP {
		src, dst = flow.UDPSrc, flow.UDPDst
	}
	for _, r := range portMasks(ports) {
		v, mask := flow.U64(uint64(r.Value)), flow.U64(uint64(r.Mask))
		one := all
		one.to, one.received = all.to.WithMasked(dst, v, mask), all.received.WithMasked(src, v, mask)
		out = append(out, one)
	}
	return out
}

// sent returns the matches of what the machine sends. Where its addresses are known it may ask and answer as one of them only.
func (p *passed) sent(h *Held, mac uint64) []flow.Match {
	switch p.kind {
	case passedARP:
		m := p.to.With(flow.ARPSha, flow.U64(mac))
		var out []flow.Match
		for _, a := range h.Addresses {
			if a.Is4() {
				out = append(out, m.WithPrefix(flow.ARPSpa, netip.PrefixFrom(a, 32)))
			}
		}
		if out == nil {
			out = append(out, m)
		}
		return out
	case passedSolicitation, passedAdvertisement:
		as := flow.IPv6Src
		if p.kind == passedAdvertisement {
			as = flow.NDTarget
		}
		var out []flow.Match
		for _, a := range h.Addresses {
			if a.Is6() {
				out = append(out, p.to.WithPrefix(as, netip.PrefixFrom(a, 128)))
			}
		}
		if out == nil {
			return []flow.Match{p.to}
		}
		for _, mac := range h.MACs {
			if _, ok := parseMAC(mac); ok {
				out = append(out, p.to.WithPrefix(as, netip.PrefixFrom(policy.LinkLocal(mac), 128)))
			}
		}
		return out
	}
	return []flow.Match{p.to}
}

// asking are the addresses that others may ask for: those that are known, or any of a family of which none is.
func asking(known []netip.Addr) []netip.Addr {
	out := slices.Clone(known)
	if !slices.ContainsFunc(known, netip.Addr.Is4) {
		out = append(out, netip.IPv4Unspecified())
	}
	if !slices.ContainsFunc(known, netip.Addr.Is6) {
		out = append(out, netip.IPv6Unspecified())
	}
	return out
}

// asked returns the match of what asks everybody for an address of the machine, the unspecified one standing for
// any; nil = nothing does.
func (p *passed) asked(a netip.Addr) flow.Match {
	switch {
	case p.kind == passedARP && a.Is4():
		if op, _ := p.received.Get(flow.ARPOp); op.Value.Lo != 1 {
			return nil
		}
		return p.received.WithPrefix(flow.ARPTpa, hostPrefix(a))
	case p.kind == passedSolicitation && a.Is6():
		return p.received.WithPrefix(flow.NDTarget, hostPrefix(a))
	}
	return nil
}

// hostPrefix is the prefix of an address alone, and of everybody for the unspecified one.
func hostPrefix(a netip.Addr) netip.Prefix {
	if a.IsUnspecified() {
		return netip.PrefixFrom(a, 0)
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// SamePass reports whether two pass lists are the same.
func SamePass(a, b []policy.Passage) bool {
	return slices.EqualFunc(a, b, func(x, y policy.Passage) bool {
		return x.CIDR == y.CIDR && x.Asks == y.Asks && slices.EqualFunc(x.Services, y.Services, func(s, t policy.PassedService) bool {
			return s.Protocol == t.Protocol && slices.Equal(s.Ports, t.Ports)
		})
	})
}
