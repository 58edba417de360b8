package tap

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// The tables of a tap bridge. What comes from a source set passes SOURCES once, and the others once for each mirror of the set. No
// table has a flow for the rest: it is dropped.
const (
	TableSources uint8 = 0  // by in_port: which mirrors the copy is for
	TableFilter  uint8 = 10 // accepts or rejects it for one mirror
	TableSample  uint8 = 14 // draws numbers for its session, where the mirror samples or balances
	TableBalance uint8 = 16 // decides by them: whether it is taken, and by which target
	TableTargets uint8 = 20 // sends it where the mirror delivers
	TableCuts    uint8 = 24 // counts a copy that is longer than what its target gets
)

// The registers of a tap bridge.
var (
	regMirror    = flow.Reg(0) // number of the mirror that is being served
	regDirection = flow.Reg(1) // way the packet went at the source
	regSample    = flow.Reg(2) // 0 = its session is taken
	regBucket    = flow.Reg(3) // bucket of its session; in TARGETS the one target that gets it, counted from 1, 0 = all
	regLonger    = flow.Reg(4) // 1 = the copy is longer than a target gets it
)

// Values of regDirection.
const (
	wayAny  = 0 // not known: no mirror of the set asks
	wayFrom = 1
	wayTo   = 2
)

func wayOf(direction string) uint64 {
	switch direction {
	case policy.MirrorFromSource:
		return wayFrom
	case policy.MirrorToSource:
		return wayTo
	}
	return wayAny
}

// defaultRule is the priority in FILTER of what becomes of packets that no rule matches.
const defaultRule = 1

// rulePriority is that of a rule in FILTER. It says nothing of other rules, so that a change of one leaves the flows of the others alone.
func rulePriority(r *policy.ParsedFilterRule) uint16 {
	p := uint16(2*(policy.MaxFilterPriority-r.Priority) + 2)
	if !r.Accept {
		p++
	}
	return p
}

// Deed is what a flow does for a mirror with the packets that it counts.
type Deed uint32

// What flows do. Each packet that a mirror selects is accepted or rejected, once. One that is accepted may be of a session that is not
// taken. The others are for the targets: all of them, or where the mirror balances the one with the index deed - ToTarget.
const (
	Accepted   Deed = 0
	Rejected   Deed = 1
	SampledOut Deed = 2
	ToTargets  Deed = 3
	ToTarget   Deed = 16
	deeds      Deed = 32 // there are so many
)

// cookie is that of a flow by which packets are counted; n is the number of a mirror, a multiple of deeds.
func cookie(n uint32, d Deed) flow.Cookie {
	return pipeline.NewCookie(pipeline.CookieSample, n|uint32(d))
}

// ParseCookie returns the number of the mirror that a flow counts for, and what it does.
func ParseCookie(c flow.Cookie) (number uint32, d Deed, ok bool) {
	kind, id, ok := pipeline.ParseCookie(c)
	return id &^ uint32(deeds-1), Deed(id) % deeds, ok && kind == pipeline.CookieSample
}

func system(table uint8) flow.Cookie { return pipeline.SystemCookie(table, pipeline.ItemNone) }

// apart makes a clone be one in the datapath, too: its actions, which then are among those of the production packet, have their effects on
// the copy alone. ovs-vswitchd does so by itself only for what stands in the clone's own list and cannot be undone, such as this; it does
// not look for a meter behind a resubmit, which would then drop production traffic (reversible_actions in ofproto-dpif-xlate.c; seen on
// 3.1.0: pings of a machine that was copied were lost). There is no such port, so nothing is sent.
var apart = flow.OutputTrunc{Port: 0xfeff, MaxLen: 14}

// sourceFlow serves the mirrors of a source set, each with a copy of its own: what one does to it the next does not see.
func sourceFlow(inPort int64, members []Member) flow.Flow {
	f := flow.Flow{Table: TableSources, Priority: 1, Cookie: system(TableSources),
		Match: flow.Match{}.With(flow.InPort, flow.U64(uint64(inPort)))}
	for _, m := range slices.SortedFunc(slices.Values(members), func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Way, b.Way))
	}) {
		actions := []flow.Action{
			flow.Load{Dst: flow.Whole(regMirror), Value: uint64(m.Number)},
			flow.Load{Dst: flow.Whole(regDirection), Value: m.Way},
			flow.Resubmit{Port: flow.PortInPort, Table: TableFilter},
		}
		if m.Limited {
			actions = append(actions, apart)
		}
		f.Actions = append(f.Actions, flow.Clone{Actions: actions})
	}
	return f
}

// filterFlows decide for one mirror, and send what it accepts to the table next. f is nil if it takes everything.
func filterFlows(number uint32, f *policy.ParsedFilter, next uint8) []flow.Flow {
	is := flow.Match{}.With(regMirror, flow.U64(uint64(number)))
	verdict := func(accept bool, priority uint16, m flow.Match) flow.Flow {
		out := flow.Flow{Table: TableFilter, Priority: priority, Cookie: cookie(number, Rejected), Match: m}
		if accept {
			out.Cookie, out.Actions = cookie(number, Accepted), []flow.Action{flow.Resubmit{Port: flow.PortInPort, Table: next}}
		}
		return out
	}
	if f == nil {
		return []flow.Flow{verdict(true, defaultRule, is)}
	}
	out := []flow.Flow{verdict(f.Default, defaultRule, is)}
	seen := map[flow.Key]bool{}
	for i := range f.Rules {
		r := &f.Rules[i]
		for _, m := range ruleMatches(is, r) {
			v := verdict(r.Accept, rulePriority(r), m)
			if k := v.Key(); !seen[k] {
				seen[k] = true
				out = append(out, v)
			}
		}
	}
	return out
}

// ruleMatches are the matches of a rule, each narrowing m.
func ruleMatches(m flow.Match, r *policy.ParsedFilterRule) []flow.Match {
	if w := wayOf(r.Direction); w != wayAny {
		m = m.With(regDirection, flow.U64(w))
	}
	if r.VLAN != nil {
		m = withVLAN(m, *r.VLAN)
	}
	var out []flow.Match
	for _, v := range r.Families() {
		out = append(out, familyMatches(m, r, v)...)
	}
	return out
}

func withVLAN(m flow.Match, vlan uint16) flow.Match {
	if vlan == 0 {
		return m.WithMasked(flow.VlanTCI, flow.U128{}, flow.U64(0xfff))
	}
	return m.WithMasked(flow.VlanTCI, flow.U64(uint64(vlan)|vlanPresent), flow.U64(0x1fff))
}

// familyMatches are those of one IP version; 0 = the rule asks for nothing of IP.
func familyMatches(m flow.Match, r *policy.ParsedFilterRule, version int) []flow.Match {
	src, dst := flow.IPSrc, flow.IPDst
	switch version {
	case 4:
		m = m.With(flow.EthType, flow.U64(uint64(policy.EtherIPv4)))
	case 6:
		m = m.With(flow.EthType, flow.U64(uint64(policy.EtherIPv6)))
		src, dst = flow.IPv6Src, flow.IPv6Dst
	default:
		if r.EtherType != 0 {
			m = m.With(flow.EthType, flow.U64(uint64(r.EtherType)))
		}
		return []flow.Match{m}
	}
	out := withPrefixes(withPrefixes([]flow.Match{m}, src, r.Src, version), dst, r.Dst, version)
	s := r.Service
	if s == nil {
		return out
	}
	fields := transport[s.Proto]
	for i := range out {
		out[i] = out[i].With(flow.IPProto, flow.U64(uint64(s.Proto)))
		if s.Ports != nil || s.SourcePorts != nil || s.Type != nil || r.TCPFlags != (policy.TCPFlags{}) {
			// Later fragments have zeros in the place of all that follows, which is a type of ICMP.
			out[i] = out[i].WithMasked(flow.IPFrag, flow.U128{}, flow.U64(fragmentLater))
		}
		if s.Type != nil {
			out[i] = out[i].With(fields.src, flow.U64(uint64(*s.Type)))
		}
		if s.Code != nil {
			out[i] = out[i].With(fields.dst, flow.U64(uint64(*s.Code)))
		}
		if t := r.TCPFlags; t != (policy.TCPFlags{}) {
			out[i] = out[i].WithMasked(flow.TCPFlags, flow.U64(uint64(t.Set)), flow.U64(uint64(t.Set|t.Clear)))
		}
	}
	return withPorts(withPorts(out, fields.src, s.SourcePorts), fields.dst, s.Ports)
}

// vlanPresent is the bit of a VLAN tag that says that there is one.
const vlanPresent = 0x1000

// fragmentLater is the bit of ip_frag that a fragment behind the first has (FLOW_NW_FRAG_LATER).
const fragmentLater = 2

// transport are the fields of what protocols have behind IP: ports, or type and code.
var transport = map[uint8]struct{ src, dst flow.FieldID }{
	policy.ProtoTCP:    {flow.TCPSrc, flow.TCPDst},
	policy.ProtoUDP:    {flow.UDPSrc, flow.UDPDst},
	policy.ProtoSCTP:   {flow.SCTPSrc, flow.SCTPDst},
	policy.ProtoICMP:   {flow.ICMPType, flow.ICMPCode},
	policy.ProtoICMPv6: {flow.ICMPv6Type, flow.ICMPv6Code},
}

// withPrefixes narrows each match to each range of the version; nil = every address.
func withPrefixes(in []flow.Match, f flow.FieldID, ps []netip.Prefix, version int) []flow.Match {
	if ps == nil {
		return in
	}
	var out []flow.Match
	for _, m := range in {
		for _, p := range ps {
			if p.Addr().Is4() == (version == 4) {
				out = append(out, m.WithPrefix(f, p))
			}
		}
	}
	return out
}

// withPorts narrows each match to each part of the ranges; nil = every port.
func withPorts(in []flow.Match, f flow.FieldID, rs []policy.PortRange) []flow.Match {
	if rs == nil {
		return in
	}
	var out []flow.Match
	for _, m := range in {
		for _, r := range rs {
			for _, x := range flow.PortMasks(r.Lo, r.Hi) {
				out = append(out, m.WithMasked(f, flow.U64(uint64(x.Value)), flow.U64(uint64(x.Mask))))
			}
		}
	}
	return out
}

// maxMeters is how many mirrors of a tap bridge may have meters. Those that limit have the ids 1 to maxMeters, and those that count what is
// cut the same and maxMeters above.
const maxMeters = 32_000

// delivery is how copies that a mirror takes are sent.
type delivery struct {
	number uint32
	sinks  []sink
	ways   []int64 // where ways back begin
	// wayTargets are the indexes of the targets there.
	wayTargets []int
	snaplen    int // bytes; 0 = all
	tag        policy.VLANTag
	meter      uint32 // that limits, 0 = none
	cuts       uint32 // that counts what is cut, 0 = none
	// balanced: each packet is for the port that regBucket counts out, and not for all of them.
	balanced bool
}

// sink is a port that copies are sent to.
type sink struct {
	port   int64
	target int // index of the target
	room   int // bytes of a copy that pass there; 0 = all
}

// targets are the indexes of those that can be sent to.
func (d *delivery) targets() (out []int) {
	for _, s := range d.sinks {
		out = append(out, s.target)
	}
	return append(out, d.wayTargets...)
}

// flows of TARGETS, and of CUTS. The tag that copies lose, unless they are to keep it, is for an access port the bridge's and not the
// machine's.
func (d *delivery) flows() []flow.Flow {
	if len(d.sinks)+len(d.ways) == 0 {
		return nil
	}
	is := flow.Match{}.With(regMirror, flow.U64(uint64(d.number)))
	var out []flow.Flow
	if d.cuts > 0 {
		out = append(out, d.cutFlow(is))
	}
	if !d.balanced {
		return append(out, d.to(is, ToTargets)...)
	}
	only := func(target int, sinks []sink, ways []int64) {
		one := *d
		one.sinks, one.ways = sinks, ways
		out = append(out, one.to(is.With(regBucket, flow.U64(uint64(target+1))), ToTarget+Deed(target))...)
	}
	for i, s := range d.sinks {
		only(s.target, d.sinks[i:i+1], nil)
	}
	for i, target := range d.wayTargets {
		only(target, nil, d.ways[i:i+1])
	}
	return out
}

// to sends what matches to the ports.
func (d *delivery) to(is flow.Match, deed Deed) []flow.Flow {
	tagged := is.WithMasked(flow.VlanTCI, flow.U64(vlanPresent), flow.U64(vlanPresent))
	vlan, err := d.tag.Number()
	switch {
	case d.tag == policy.VLANTagKeep:
		return []flow.Flow{d.flow(deed, 1, is)}
	case vlan > 0 && err == nil:
		set := flow.Set(flow.VlanVID, flow.U64(uint64(vlan)|vlanPresent))
		return []flow.Flow{d.flow(deed, 1, is, flow.PushVLAN{EthType: 0x8100}, set), d.flow(deed, 2, tagged, set)}
	}
	return []flow.Flow{d.flow(deed, 1, is), d.flow(deed, 2, tagged, flow.PopVLAN{})}
}

// flow sends what matches to all ports, after the actions.
func (d *delivery) flow(deed Deed, priority uint16, m flow.Match, actions ...flow.Action) flow.Flow {
	f := flow.Flow{Table: TableTargets, Priority: priority, Cookie: cookie(d.number, deed), Match: m}
	if d.meter > 0 {
		f.Actions = append(f.Actions, flow.Meter{ID: d.meter})
	}
	f.Actions = append(append(f.Actions, actions...), d.countCuts()...)
	for _, s := range d.sinks {
		if length := d.length(s); length > 0 {
			f.Actions = append(f.Actions, flow.OutputTrunc{Port: uint32(s.port), MaxLen: uint32(length)})
		} else {
			f.Actions = append(f.Actions, flow.Output{Port: uint32(s.port)})
		}
	}
	f.Actions = append(f.Actions, onWay(d.ways, d.snaplen)...)
	return f
}

// MirrorOwner is the owner of the flows that a staged mirror has for itself.
func MirrorOwner(name string) string { return "mirror/" + name }
