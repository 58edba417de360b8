package tap_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	ovs "github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

const tapBridge = "tw-tap-system"

// packet is what a tap bridge gets: the fields of a frame, by which flows are looked up.
type packet map[flow.FieldID]flow.U128

// cutTo stands, in a packet that was sent, for how many bytes of it were; without, all.
const cutTo = flow.FieldID(0)

// frame is how Open vSwitch sees a sighting; fields that the frame has not are zeros, as for an OpenFlow match without them.
func frame(s *policy.Sighting) packet {
	p := packet{flow.EthType: flow.U64(uint64(s.EtherType))}
	if s.VLAN != 0 {
		p[flow.VlanTCI] = flow.U64(uint64(s.VLAN) | 0x1000)
	}
	address := func(v4, v6 flow.FieldID, a netip.Addr) {
		if v, _ := flow.Prefix(netip.PrefixFrom(a, a.BitLen())); a.Is4() {
			p[v4] = v
		} else {
			p[v6] = v
		}
	}
	if s.EtherType != policy.EtherIPv4 && s.EtherType != policy.EtherIPv6 {
		return p
	}
	address(flow.IPSrc, flow.IPv6Src, s.Src)
	address(flow.IPDst, flow.IPv6Dst, s.Dst)
	p[flow.IPProto] = flow.U64(uint64(s.Proto))
	if s.Later {
		p[flow.IPFrag] = flow.U64(3)
		return p
	}
	set := func(f flow.FieldID, n uint16) { p[f] = flow.U64(uint64(n)) }
	switch s.Proto {
	case policy.ProtoTCP:
		set(flow.TCPSrc, s.SrcPort)
		set(flow.TCPDst, s.DstPort)
		set(flow.TCPFlags, s.TCPFlags)
	case policy.ProtoUDP:
		set(flow.UDPSrc, s.SrcPort)
		set(flow.UDPDst, s.DstPort)
	case policy.ProtoSCTP:
		set(flow.SCTPSrc, s.SrcPort)
		set(flow.SCTPDst, s.DstPort)
	case policy.ProtoICMP:
		set(flow.ICMPType, uint16(s.Type))
		set(flow.ICMPCode, uint16(s.Code))
	case policy.ProtoICMPv6:
		set(flow.ICMPv6Type, uint16(s.Type))
		set(flow.ICMPv6Code, uint16(s.Code))
	}
	return p
}

// tables run the flows of a tap bridge on a packet.
type tables struct {
	t     interface{ Fatalf(string, ...any) }
	flows []flow.Flow
	sent  map[uint32][]packet // by port
	// native is what rows copied to ports without the tap bridge.
	native map[string][]packet
	// cuts are how often the meter of a mirror was passed that counts these, of a packet with so many bytes.
	cuts   map[uint32]int
	length uint16
}

func (x *tables) lookUp(table uint8, p packet) {
	var best *flow.Flow
	for i := range x.flows {
		f := &x.flows[i]
		if f.Table != table || slices.ContainsFunc(f.Match, func(t flow.Term) bool { return p[t.Field].And(t.Mask) != t.Value }) {
			continue
		}
		if best != nil && best.Priority == f.Priority && !flow.ActionsEqual(best.Actions, f.Actions) {
			x.t.Fatalf("which of two flows decides is open:\n%s\n%s", best, f)
		}
		if best == nil || f.Priority > best.Priority {
			best = f
		}
	}
	if best != nil {
		x.act(best.Actions, p)
	}
}

func (x *tables) act(actions []flow.Action, p packet) {
	for _, a := range actions {
		switch a := a.(type) {
		case flow.Clone:
			x.act(a.Actions, maps.Clone(p))
		case flow.Load:
			p[a.Dst.Field] = flow.U64(a.Value)
		case flow.Resubmit:
			x.lookUp(a.Table, p)
		case flow.Meter: // nothing is too much
			x.cuts[a.ID]++
		case flow.CheckPktLarger:
			p[a.Dst.Field] = flow.U128{}
			if x.length > a.Len {
				p[a.Dst.Field] = flow.U64(1)
			}
		case flow.Multipath:
			var fields ovs.Fields
			for field, v := range p {
				fields[field] = v
			}
			if a.Fields != flow.HashSymmetricL3L4 || a.Algorithm != flow.LinkModuloN {
				x.t.Fatalf("%s is another hash", a)
			}
			p[a.Dst.Field] = flow.U64(uint64(ovs.SessionHash(&fields, a.Basis, false) % a.Links))
		case flow.PopVLAN:
			delete(p, flow.VlanTCI)
		case flow.PushVLAN:
			p[flow.VlanTCI] = flow.U64(0x1000)
		case flow.SetField:
			if a.Field == flow.PktMark {
				p[a.Field] = a.Value
				break
			}
			if _, tagged := p[flow.VlanTCI]; a.Field != flow.VlanVID || !tagged {
				x.t.Fatalf("%s on a packet without a tag", a)
			}
			p[flow.VlanTCI] = a.Value
		case flow.Output:
			x.sent[a.Port] = append(x.sent[a.Port], maps.Clone(p))
		case flow.OutputTrunc:
			cut := maps.Clone(p)
			cut[cutTo] = flow.U64(uint64(a.MaxLen))
			x.sent[a.Port] = append(x.sent[a.Port], cut)
		default:
			x.t.Fatalf("the test knows no action %s", a)
		}
	}
}

// stagedWorld compiles mirrors, makes what they want in the topology, with numbers for the ports, as Open vSwitch does, and compiles
// them again.
func stagedWorld(in tap.Input) tap.Plan {
	plan := compile(in)
	for _, b := range plan.Bridges {
		if in.Topology.Bridges[b.Name] != nil {
			continue
		}
		in.Topology.Bridges[b.Name] = &vswitch.Bridge{Name: b.Name, DatapathType: b.DatapathType, Ports: map[string]*vswitch.Port{},
			ExternalIDs: map[string]string{vswitch.MarkOwner: vswitch.OwnerValue}}
	}
	for _, p := range plan.Ports {
		if in.Topology.Bridges[p.Bridge].Ports[p.Name] != nil {
			continue
		}
		in.Topology.Bridges[p.Bridge].Ports[p.Name] = &vswitch.Port{Name: p.Name,
			ExternalIDs: map[string]string{vswitch.MarkOwner: vswitch.OwnerValue},
			Interfaces:  []*vswitch.Interface{{Name: p.Name, OFPort: int64(100 + len(in.Topology.Bridges[p.Bridge].Ports))}}}
	}
	for name, b := range in.Topology.Bridges {
		b.Mirrors = slices.DeleteFunc(b.Mirrors, func(m *vswitch.Mirror) bool { return m.ExternalIDs != nil })
		for _, row := range plan.Specs {
			if row.Bridge == name {
				b.Mirrors = append(b.Mirrors, &vswitch.Mirror{Name: row.Name, OutputPort: row.Output.Port, ExternalIDs: map[string]string{
					vswitch.MarkOwner: vswitch.OwnerValue, vswitch.MarkMirror: row.Owner}})
			}
		}
	}
	in.Open = map[string]bool{} // and their flows
	for key := range plan.Ways {
		in.Open[key] = true
	}
	return compile(in)
}

// number is the OpenFlow number of a port of the tap bridge.
func number(in tap.Input, port string) uint32 {
	return uint32(in.Topology.Bridges[tapBridge].Ports[port].Interfaces[0].OFPort)
}

func drawRule(t *rapid.T, label string) policy.FilterRule {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label+name) }
	r := policy.FilterRule{Priority: rapid.IntRange(0, 2).Draw(t, label+"priority"), Action: pick("action", "accept", "reject"),
		Direction: pick("direction", "", "", "both", "fromSource", "toSource"), Symmetric: rapid.Bool().Draw(t, label+"symmetric")}
	ranges := func(name string) []string {
		return rapid.SampledFrom([][]string{nil, nil, {"10.0.0.0/8"}, {"10.0.0.1/32", "fd00::/8"}, {"10.0.0.0/31", "0.0.0.0/0"},
			{"::/0"}}).Draw(t,
			label+name)
	}
	ports := func(name string) []string {
		return rapid.SampledFrom([][]string{nil, nil, {"1"}, {"2-3", "5"}, {"1-65535"}, {"3-6"}}).Draw(t, label+name)
	}
	if rapid.Bool().Draw(t, label+"tagged") {
		r.VLAN = ptr(rapid.SampledFrom([]int{0, 10}).Draw(t, label+"vlan"))
	}
	switch pick("kind", "any", "ether", "ip", "tcp", "udp", "sctp", "icmp", "icmpv6", "47") {
	case "any":
	case "ether":
		r.EtherType = pick("ether", "ipv4", "ipv6", "arp", "0x88cc")
	case "ip":
		r.Src, r.Dst = ranges("src"), ranges("dst")
	case "tcp":
		r.Protocol, r.TCPFlags = "tcp", pick("flags", "", "", "+syn", "-ack", "+syn-ack")
		r.Src, r.SrcPorts, r.DstPorts = ranges("src"), ports("srcPorts"), ports("dstPorts")
	case "udp":
		r.Protocol, r.Dst, r.DstPorts = "udp", ranges("dst"), ports("dstPorts")
	case "sctp":
		r.Protocol, r.SrcPorts = "sctp", ports("srcPorts")
	case "icmp", "icmpv6":
		r.Protocol = policy.Protocol(pick("icmp", "icmp", "icmpv6"))
		if r.Type, r.Symmetric = ptr(rapid.IntRange(0, 2).Draw(t, label+"type")), false; rapid.Bool().Draw(t, label+"coded") {
			r.Code = ptr(rapid.IntRange(0, 1).Draw(t, label+"code"))
		}
	case "47":
		r.Protocol, r.Src = "47", ranges("src")
	}
	return r
}

func drawSighting(t *rapid.T) policy.Sighting {
	s := policy.Sighting{VLAN: rapid.SampledFrom([]uint16{0, 0, 10, 11}).Draw(t, "vlan"),
		EtherType: rapid.SampledFrom([]uint16{0x0800, 0x0800, 0x86dd, 0x0806, 0x88cc}).Draw(t, "ether")}
	four := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("192.0.2.1")}
	six := []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("2001:db8::1")}
	switch s.EtherType {
	case policy.EtherIPv4:
		s.Src, s.Dst = rapid.SampledFrom(four).Draw(t, "src"), rapid.SampledFrom(four).Draw(t, "dst")
	case policy.EtherIPv6:
		s.Src, s.Dst = rapid.SampledFrom(six).Draw(t, "src"), rapid.SampledFrom(six).Draw(t, "dst")
	default:
		return s
	}
	s.Proto = rapid.SampledFrom([]uint8{6, 6, 17, 132, 1, 58, 47}).Draw(t, "proto")
	if s.Later = rapid.IntRange(0, 4).Draw(t, "later") == 0; s.Later {
		return s
	}
	switch s.Proto {
	case 6, 17, 132:
		s.SrcPort, s.DstPort = rapid.Uint16Range(0, 7).Draw(t, "srcPort"), rapid.Uint16Range(0, 7).Draw(t, "dstPort")
	case 1, 58:
		s.Type, s.Code = rapid.Uint8Range(0, 2).Draw(t, "type"), rapid.Uint8Range(0, 1).Draw(t, "code")
	}
	if s.Proto == 6 {
		s.TCPFlags = rapid.SampledFrom([]uint16{0x02, 0x12, 0x10, 0x11, 0x04}).Draw(t, "flags")
	}
	return s
}

// Whatever packet passes wherever, each target of each mirror gets as many copies of it as the mirror says, unchanged but for the tag.
func TestStagedDeliversWhatTheMirrorSays(t *testing.T) {
	ten, web := policy.Selector{VLAN: ptr(10)}, policy.Selector{Labels: map[string]string{"app": "web"}}
	sources := [][]policy.Selector{{{Port: "vm1"}}, {{Port: "vm1"}, {Port: "vm2"}}, {{Port: "vm2"}, {Port: "vm1"}}, {{Bridge: "br0"}},
		{{VM: "vm2"}}, {ten}, {ten, {Port: "vm1"}}, {{VLAN: ptr(11)}, ten, {VM: "vm2"}, {Port: "vm1"}}, {web}, {web, ten}, {{Port: "vm3"}}}
	rapid.Check(t, func(t *rapid.T) {
		in := mirrorWorld()
		in.Topology.Datapaths = map[string]vswitch.Datapath{"system": {Capabilities: map[string]string{"check_pkt_len": "true"}}}
		for i := range rapid.IntRange(1, 4).Draw(t, "mirrors") {
			label := fmt.Sprintf("m%d ", i)
			m := mirror(fmt.Sprintf("m%d", i), toNewPort(rapid.SampledFrom([]string{"tap0", "tap1"}).Draw(t, label+"target")),
				rapid.SampledFrom(sources).Draw(t, label+"sources")...)
			m.Spec.Direction = rapid.SampledFrom([]string{"", "both", "fromSource", "toSource"}).Draw(t, label+"direction")
			m.Spec.CapturePoint = rapid.SampledFrom([]string{"", "wire", "delivered"}).Draw(t, label+"point")
			if rapid.IntRange(0, 3).Draw(t, label+"excludes") == 0 {
				m.Spec.Exclude = []policy.Selector{{Port: "vm1"}}
			}
			if plain := rapid.IntRange(0, 3).Draw(t, label+"plain") == 0; !plain {
				m.Spec.Filter = &policy.MirrorFilter{Default: rapid.SampledFrom([]string{"", "accept", "reject"}).Draw(t, label+"default")}
				if rapid.IntRange(0, 3).Draw(t, label+"several") == 0 {
					m.Spec.Targets = []policy.MirrorTarget{toNewPort("tap0"), toNewPort("tap1")}
				}
				switch rapid.IntRange(0, 3).Draw(t, label+"back") {
				case 0:
					m.Spec.Targets = append(m.Spec.Targets, toPort("ids"))
				case 1:
					m.Spec.Targets = []policy.MirrorTarget{toPort("ids")}
				}
				m.Spec.VLANTag = rapid.SampledFrom([]policy.VLANTag{"", "", "strip", "keep", "100"}).Draw(t, label+"tag")
				if rapid.IntRange(0, 3).Draw(t, label+"limited") == 0 {
					m.Spec.Sample = &policy.MirrorSample{MaxPacketsPerSecond: 5}
				}
				m.Spec.Snaplen = rapid.SampledFrom([]int{0, 0, 64, 128}).Draw(t, label+"snaplen")
				drawSessions(t, m)
				for j := range rapid.IntRange(0, 4).Draw(t, label+"rules") {
					m.Spec.Filter.Rules = append(m.Spec.Filter.Rules, drawRule(t, fmt.Sprintf("%srule %d ", label, j)))
				}
			}
			if faults := m.Validate(); len(faults) == 0 {
				in.Mirrors = append(in.Mirrors, m)
			}
		}
		if len(in.Mirrors) == 0 {
			t.Skip("none is valid")
		}
		plan := stagedWorld(in)
		var flows []flow.Flow
		for _, owned := range plan.Flows[tapBridge].Owners {
			flows = append(flows, owned...)
		}
		kept := fates{}
		for range 25 {
			x := tables{t: t, flows: flows, sent: map[uint32][]packet{}, native: map[string][]packet{}, cuts: map[uint32]int{},
				length: rapid.SampledFrom([]uint16{60, 64, 65, 128, 129, 1514}).Draw(t, "length")}
			p := drawPassage(t)
			if slices.ContainsFunc(in.Mirrors, func(m *policy.Mirror) bool {
				return len(plan.Info[m.Name].Twice) > 0 &&
					m.Spec.CapturePoint != ""
			}) {
				p.to = p.to[:min(1, len(p.to))] // the mirror says that it may copy what floods more than once
			}
			x.pass(in, plan.Specs, p)
			x.goBack(in, plan)
			x.check(in, plan, p)
			kept.check(&x, in, p)
			if p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort; len(p.to) == 1 {
				p.from, p.to[0] = p.to[0], p.from
			}
			x.sent, x.native = map[uint32][]packet{}, map[string][]packet{}
			x.pass(in, plan.Specs, p)
			kept.check(&x, in, p)
		}
	})
}

// passage is a packet that a bridge switches.
type passage struct {
	policy.Sighting
	bridge string
	from   string
	to     []string // none: it was dropped
}

func drawPassage(t *rapid.T) passage {
	p := passage{Sighting: drawSighting(t), bridge: rapid.SampledFrom([]string{"br0", "br0", "br1"}).Draw(t, "bridge")}
	ports := map[string][]string{"br0": {"vm1", "vm2", "eth0"}, "br1": {"vm3", "br1"}}[p.bridge]
	p.from = rapid.SampledFrom(ports).Draw(t, "from")
	p.to = rapid.SliceOfNDistinct(rapid.SampledFrom(without(ports, p.from)), 0, len(ports)-1, rapid.ID).Draw(t, "to")
	return p
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

// pass has the rows copy a packet, first where it comes in, then where it goes out: once for all rows of an output.
func (x *tables) pass(in tap.Input, rows []vswitch.MirrorSpec, p passage) {
	copied := map[string]bool{}
	copies := func(row vswitch.MirrorSpec, listed []string, port string) {
		if row.Bridge != p.bridge || !row.SelectAll && !slices.Contains(listed, port) || copied[row.Output.Port] ||
			row.SelectVLAN != nil && !slices.Contains(row.SelectVLAN, int(p.VLAN)) {
			return
		}
		copied[row.Output.Port] = true
		if row.Snaplen > 0 {
			return // no cut copy enters a patch port
		}
		set, isSet := strings.CutPrefix(row.Output.Port, "tws-")
		switch {
		case !isSet:
			f := frame(&p.Sighting)
			if row.Output.Tag != nil {
				delete(f, flow.VlanTCI)
			}
			x.native[row.Output.Port] = append(x.native[row.Output.Port], f)
		case in.Topology.Bridges[tapBridge].Ports["twt-"+set] != nil:
			f := frame(&p.Sighting)
			f[flow.InPort] = flow.U64(uint64(number(in, "twt-"+set)))
			x.lookUp(tap.TableSources, f)
		}
	}
	for _, row := range rows {
		copies(row, row.SelectSrcPort, p.from)
	}
	for _, to := range p.to {
		for _, row := range rows {
			copies(row, row.SelectDstPort, to)
		}
	}
}

// idsPort is under which number what was sent to ids, on br0, is kept beside what was sent on the tap bridge.
const idsPort = 1 << 20

// goBack has br0 take what was sent on ways back.
func (x *tables) goBack(in tap.Input, plan tap.Plan) {
	for key, way := range plan.Ways {
		back := tables{t: x.t, flows: plan.Flows[way.Bridge].Owners[way.Owner], sent: map[uint32][]packet{}}
		for _, p := range x.sent[number(in, "twb-"+key)] {
			p[flow.InPort] = flow.U64(uint64(in.Topology.Bridges[way.Bridge].Ports["twr-"+key].Interfaces[0].OFPort))
			back.lookUp(0, p)
		}
		for to, packets := range back.sent {
			if int64(to) != in.Topology.Bridges[way.Bridge].Ports["ids"].Interfaces[0].OFPort {
				x.t.Fatalf("sent back to port %d", to)
			}
			for _, p := range packets {
				if mark := p[flow.PktMark]; mark != (flow.U128{}) {
					x.t.Fatalf("delivered with the mark %v", mark)
				}
			}
			x.sent[idsPort] = append(x.sent[idsPort], packets...)
		}
	}
}

// copies is how many a mirror makes for each target.
func (p *passage) copies(m *policy.Mirror) int {
	is := func(port string) bool {
		excluded := slices.ContainsFunc(m.Spec.Exclude, func(s policy.Selector) bool { return s.Port == port })
		return !excluded && slices.ContainsFunc(m.Spec.Sources, func(s policy.Selector) bool {
			return s.Port == port || s.VM == port || s.Bridge == p.bridge || s.VLAN != nil && *s.VLAN == int(p.VLAN) ||
				s.Labels != nil && (port == "vm1" || port == "vm3")
		})
	}
	seen := p.Sighting
	seen.Dropped = len(p.to) == 0
	return m.Spec.Copies(seen, is(p.from), slices.ContainsFunc(p.to, is))
}

// cutMeter is the meter that counts what is cut for a mirror; 0 = none.
func cutMeter(plan tap.Plan, m *policy.Mirror) uint32 {
	for id, name := range plan.Cuts {
		if name == m.Name {
			return id
		}
	}
	return 0
}

// check compares what was sent, by target, length (0 = whole) and VLAN, and what was counted as cut, with what the mirrors say of a packet.
func (x *tables) check(in tap.Input, plan tap.Plan, passed passage) {
	seen := passed.Sighting
	want, got := map[string]int{}, map[string]int{}
	for _, m := range in.Mirrors {
		if bySessions(m) {
			continue // see fates
		}
		vlan, err := m.Spec.VLANTag.Number()
		if err != nil {
			x.t.Fatalf("%v", err)
		}
		if m.Spec.VLANTag == policy.VLANTagKeep {
			vlan = seen.VLAN
		}
		for _, target := range m.Spec.Targets {
			if n := passed.copies(m); n > 0 {
				want[fmt.Sprintf("%s %d %d", target.Port.Name, m.Spec.Snaplen, vlan)] += n
				if m.Spec.Snaplen > 0 && int(x.length) > m.Spec.Snaplen {
					want["cut of "+m.Name] += n
				}
			}
		}
		if n := x.cuts[cutMeter(plan, m)]; n > 0 {
			got["cut of "+m.Name] = n
		}
	}
	for _, target := range []string{"tap0", "tap1"} {
		sent := x.native[target]
		if b := in.Topology.Bridges[tapBridge]; b != nil && b.Ports[target] != nil {
			sent = slices.Concat(sent, x.sent[number(in, target)])
		}
		for _, p := range sent {
			got[fmt.Sprintf("%s %d %d", target, p[cutTo].Lo, p[flow.VlanTCI].Lo&0xfff)]++
		}
	}
	for _, p := range x.sent[idsPort] {
		got[fmt.Sprintf("ids %d %d", p[cutTo].Lo, p[flow.VlanTCI].Lo&0xfff)]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		x.t.Fatalf("copies of %+v (-want +got):\n%s", passed, diff)
	}
}

// Mirrors with the same sources share a row, wherever they deliver, and stay with it when machines come and go.
func TestStagedSharesSourceSets(t *testing.T) {
	in := mirrorWorld()
	web := policy.Selector{Labels: map[string]string{"app": "web"}}
	add := func(name string, filter policy.MirrorFilter, direction string, sources ...policy.Selector) {
		m := mirror(name, toNewPort("tap0"), sources...)
		m.Spec.Filter, m.Spec.Direction = &filter, direction
		in.Mirrors = append(in.Mirrors, m)
	}
	all := policy.MirrorFilter{Default: "accept"}
	from := policy.MirrorFilter{Default: "accept", Rules: []policy.FilterRule{{Action: "reject", Direction: "fromSource"}}}
	add("a", all, "", web, policy.Selector{Port: "vm2"})
	add("b", all, "both", policy.Selector{Port: "vm2"}, web) // the same in another order
	add("c", all, "fromSource", policy.Selector{Port: "vm1"})
	add("d", from, "", policy.Selector{Port: "vm1"}) // one row of which is c's
	plan := stagedWorld(in)
	rows := map[string]vswitch.MirrorSpec{}
	users := map[string][]string{}
	for _, s := range plan.Specs {
		rows[s.Owner] = s
		for _, m := range in.Mirrors {
			if plan.Info[m.Name].Serves(m.Name, s.Owner) {
				users[s.Bridge] = append(users[s.Bridge], m.Name)
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"br0": 3, "br1": 1}, count(plan.Specs)); diff != "" {
		t.Errorf("rows by bridge (-want +got):\n%s", diff)
	}
	if slices.Sort(users["br0"]); !slices.Equal(users["br0"], []string{"a", "b", "c", "d", "d"}) || len(users["br1"]) != 2 {
		t.Errorf("who has rows: %v", users)
	}
	if got := len(plan.Bridges); got != 1 {
		t.Errorf("%d tap bridges", got)
	}
	in.Topology.Bridges["br0"].Ports["vm2"].Interfaces[0].ExternalIDs["app"] = "web"
	delete(in.Topology.Bridges["br0"].Ports, "vm1")
	for _, s := range compile(in).Specs {
		if before, ok := rows[s.Owner]; !ok || before.Output.Port != s.Output.Port || before.Name != s.Name {
			t.Errorf("another row %+v", s)
		}
	}
}

func count(specs []vswitch.MirrorSpec) map[string]int {
	out := map[string]int{}
	for _, s := range specs {
		out[s.Bridge]++
	}
	return out
}

// What a filter cannot reach is refused with what to do, and mirrors do not get into each other's way.
func TestStagedProblems(t *testing.T) {
	vm1 := policy.Selector{Port: "vm1"}
	filtered := func(m *policy.Mirror) *policy.Mirror {
		m.Spec.Filter = &policy.MirrorFilter{Default: "accept"}
		return m
	}
	in := mirrorWorld()
	in.Mirrors = []*policy.Mirror{
		filtered(mirror("a", toPort("ids"), vm1)),                            // on br0, by a way back
		filtered(mirror("b", toNewPort("tap0"), vm1)),                        //
		filtered(mirror("c", toNewPort("tap0"), policy.Selector{Port: "x"})), // nothing there
		mirror("d", toNewPort("tap0"), vm1),                                  // without a filter
		filtered(mirror("e", toVXLAN("192.0.2.9", 5), vm1)),
		filtered(mirror("f", toVXLAN("192.0.2.9", 5), policy.Selector{Port: "vm2"})), // into the same tunnel
	}
	plan := stagedWorld(in)
	got := map[string]string{}
	for name, i := range plan.Info {
		got[name] = codes(i)
	}
	want := map[string]string{"a": "", "b": "", "c": "SourceMissing", "d": "", "e": "VNI_SHARED", "f": "VNI_SHARED"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	tunnels := 0
	for _, p := range plan.Ports {
		if p.Type == "vxlan" {
			tunnels++
		}
	}
	if tunnels != 1 {
		t.Errorf("%d tunnels for two mirrors to one collector and vni", tunnels)
	}
}

// A port without a number yet has no flows, and the mirror says so.
func TestStagedWaitsForNumbers(t *testing.T) {
	in := mirrorWorld()
	m := mirror("m", toNewPort("tap0"), policy.Selector{Port: "vm1"})
	m.Spec.Filter = &policy.MirrorFilter{Default: "accept"}
	in.Mirrors = []*policy.Mirror{m}
	if plan := compile(in); !plan.Info["m"].Unfinished || len(plan.Specs) != 1 || len(plan.Ports) != 3 {
		t.Errorf("before the bridge is there: %+v", plan)
	}
	if plan := stagedWorld(in); plan.Info["m"].Unfinished || plan.Info["m"].Through != tapBridge {
		t.Errorf("with numbers: %+v", plan.Info["m"])
	}
}

// A mirror is a row alone where that suffices.
func TestStagedWhereARowDoesNotSuffice(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*policy.MirrorSpec)
		staged bool
	}{
		{"plain", func(*policy.MirrorSpec) {}, false},
		{"filter", func(s *policy.MirrorSpec) { s.Filter = &policy.MirrorFilter{Default: "accept"} }, true},
		{"snaplen", func(s *policy.MirrorSpec) { s.Snaplen = 64 }, true},
		{"limit", func(s *policy.MirrorSpec) { s.Sample = &policy.MirrorSample{MaxPacketsPerSecond: 1} }, true},
		{"two targets", func(s *policy.MirrorSpec) { s.Targets = append(s.Targets, toNewPort("tap1")) }, true},
		{"strip, as ports that are made do", func(s *policy.MirrorSpec) { s.VLANTag = "strip" }, false},
		{"keep", func(s *policy.MirrorSpec) { s.VLANTag = "keep" }, true},
		{"another VLAN", func(s *policy.MirrorSpec) { s.VLANTag = "7" }, true},
	} {
		in := mirrorWorld()
		m := mirror("m", toNewPort("tap0"), policy.Selector{Port: "vm1"})
		c.change(&m.Spec)
		in.Mirrors = []*policy.Mirror{m}
		plan := stagedWorld(in)
		if got := len(plan.Bridges) == 1 && plan.Info["m"].Through != ""; got != c.staged || codes(plan.Info["m"]) != "" {
			t.Errorf("%s: staged %v, want %v; %s", c.name, got, c.staged, codes(plan.Info["m"]))
		}
		if got := len(plan.Info["m"].Targets); got != len(m.Spec.Targets) {
			t.Errorf("%s: %d targets told of", c.name, got)
		}
	}
}

// Limits are meters of the tap bridge, one for each mirror, and pass ahead of everything else.
func TestStagedLimits(t *testing.T) {
	in := mirrorWorld()
	for i, name := range []string{"a", "b", "c"} {
		m := mirror(name, toNewPort("tap0"), policy.Selector{Port: "vm1"})
		m.Spec.Sample = &policy.MirrorSample{MaxPacketsPerSecond: 5 + i}
		in.Mirrors = append(in.Mirrors, m)
	}
	flows := stagedWorld(in).Flows[tapBridge]
	rates := map[uint32]int{}
	for _, m := range flows.Meters {
		rates[m.ID] = int(m.Bands[0].Rate)
	}
	if len(rates) != 3 {
		t.Errorf("meters %v", flows.Meters)
	}
	metered := 0
	for owner, owned := range flows.Owners {
		for _, f := range owned {
			if n := strings.Count(f.String(), "output(port=65279,max_len=14)"); f.Table == tap.TableSources && n != 3 {
				t.Errorf("%d of 3 clones are apart from production traffic: %s", n, f)
			}
			if f.Table != tap.TableTargets {
				continue
			}
			m, ok := f.Actions[0].(flow.Meter)
			if want := 5 + int(owner[len(owner)-1]-'a'); !ok || rates[m.ID] != want {
				t.Errorf("%s of %s goes by meter %d with rate %d, want %d", f, owner, m.ID, rates[m.ID], want)
			}
			metered++
		}
	}
	if metered != 6 {
		t.Errorf("%d flows with a limit, want 2 for each mirror", metered)
	}
}

// A mirror whose sources change is served by the old source set until the new one stands; at no step is a packet delivered twice or missed.
func TestStagedChangesSourcesWithoutAGap(t *testing.T) {
	vm1, vm2 := policy.Selector{Port: "vm1"}, policy.Selector{Port: "vm2"}
	staged := func(name string, sources ...policy.Selector) *policy.Mirror {
		m := mirror(name, toNewPort("tap0"), sources...)
		m.Spec.Filter = &policy.MirrorFilter{Default: "accept"}
		return m
	}
	deliver := func(in tap.Input, plan tap.Plan) int {
		t.Helper()
		x := tables{t: t, sent: map[uint32][]packet{}}
		for _, owned := range plan.Flows[tapBridge].Owners {
			x.flows = append(x.flows, owned...)
		}
		seen := policy.Sighting{EtherType: policy.EtherIPv4, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
			Proto: 17}
		x.pass(in, plan.Specs, passage{Sighting: seen, bridge: "br0", from: "vm1", to: []string{"eth0"}})
		return len(x.sent[number(in, "tap0")])
	}
	in := mirrorWorld()
	in.Mirrors = []*policy.Mirror{staged("m", vm1)}
	first := stagedWorld(in)
	if n := deliver(in, first); n != 1 || first.Info["m"].Unfinished {
		t.Fatalf("%d copies at first; %+v", n, first.Info["m"])
	}
	in.Mirrors = []*policy.Mirror{staged("m", vm1, vm2)}
	in.Before = &first
	second := compile(in)
	if n := deliver(in, second); n != 1 || len(second.Specs) != 2 || !second.Info["m"].Unfinished {
		t.Errorf("%d copies while the new set is made, of %d rows; %+v", n, len(second.Specs), second.Info["m"])
	}
	in.Before = &second
	stagedWorld(in) // the row and the ports stand
	if n := deliver(in, second); n != 1 {
		t.Errorf("%d copies when the new set stands and the flows are still those of the old one", n)
	}
	if third := compile(in); deliver(in, third) != 1 || len(third.Specs) != 1 || third.Info["m"].Unfinished {
		t.Errorf("%d copies with the new set, of %d rows; %+v", deliver(in, third), len(third.Specs), third.Info["m"])
	}

	// Without a slot for both the old one goes at once.
	in = mirrorWorld()
	in.Mirrors = []*policy.Mirror{staged("m", vm1)}
	first = stagedWorld(in)
	for range 31 {
		in.Topology.Bridges["br0"].Mirrors = append(in.Topology.Bridges["br0"].Mirrors, &vswitch.Mirror{Name: "foreign"})
	}
	in.Mirrors, in.Before = []*policy.Mirror{staged("m", vm1, vm2)}, &first
	if plan := compile(in); len(plan.Specs) != 1 || plan.Specs[0].Owner == first.Specs[0].Owner {
		t.Errorf("on a full bridge: %+v", plan.Specs)
	}
}

// What a rule of every kind is on the switch, as ovs-ofctl prints it.
func TestStagedFlows(t *testing.T) {
	for _, c := range []struct {
		rule policy.FilterRule
		want []string // parts of the only flow, or of each
	}{
		{policy.FilterRule{}, []string{"priority=64002,"}},
		{policy.FilterRule{Action: "reject", Priority: 32000}, []string{"priority=3,", "actions=drop"}},
		{policy.FilterRule{Direction: "fromSource"}, []string{"reg1=0x1"}},
		{policy.FilterRule{Direction: "toSource"}, []string{"reg1=0x2"}},
		{policy.FilterRule{EtherType: "0x88cc"}, []string{"dl_type=0x88cc"}},
		{policy.FilterRule{EtherType: "arp", VLAN: ptr(0)}, []string{"arp", "vlan_tci=0x0000/0x0fff"}},
		{policy.FilterRule{VLAN: ptr(10)}, []string{"dl_vlan=10"}},
		{policy.FilterRule{Src: []string{"10.0.0.0/8"}}, []string{",ip,", "nw_src=10.0.0.0/8"}},
		{policy.FilterRule{Dst: []string{"2001:db8::/32"}}, []string{",ipv6,", "ipv6_dst=2001:db8::/32"}},
		{policy.FilterRule{Protocol: "47", EtherType: "ipv4"}, []string{"nw_proto=47"}},
		{policy.FilterRule{Protocol: "tcp", EtherType: "ipv4", TCPFlags: "+syn-ack", DstPorts: []string{"443"}},
			[]string{",tcp,", "tcp_flags=+syn-ack", "tp_dst=443", "nw_frag=not_later"}},
		{policy.FilterRule{Protocol: "udp", EtherType: "ipv6", SrcPorts: []string{"1024-2047"}},
			[]string{",udp6,", "tp_src=0x400/0xfc00", "nw_frag=not_later"}},
		{policy.FilterRule{Protocol: "icmp", Type: ptr(8), Code: ptr(0)}, []string{",icmp,", "icmp_type=8", "icmp_code=0", "nw_frag=not_later"}},
		{policy.FilterRule{Protocol: "icmpv6", Type: ptr(128)}, []string{",icmp6,", "icmp_type=128", "nw_frag=not_later"}},
	} {
		in := mirrorWorld()
		m := mirror("m", toNewPort("tap0"), policy.Selector{Port: "vm1"})
		if c.rule.Action == "" {
			c.rule.Action = "accept"
		}
		m.Spec.Filter = &policy.MirrorFilter{Default: "accept", Rules: []policy.FilterRule{c.rule}}
		if faults := m.Validate(); faults != nil {
			t.Errorf("%+v: %v", c.rule, faults)
		}
		in.Mirrors = []*policy.Mirror{m}
		n := 0
		for _, f := range stagedWorld(in).Flows[tapBridge].Owners[tap.MirrorOwner("m")] {
			text := f.String()
			if f.Table != tap.TableFilter || f.Priority == 1 {
				continue
			}
			n++
			for _, part := range c.want {
				if !strings.Contains(text, part) {
					t.Errorf("%+v: no %s in %s", c.rule, part, text)
				}
			}
		}
		if n != 1 {
			t.Errorf("%+v has %d flows, want 1", c.rule, n)
		}
	}
}

// A mirror that is made anew under a name has a number of its own, so that what flows of the old one counted is not taken for its.
func TestStagedNumbersByUID(t *testing.T) {
	numbers := map[uint32]bool{}
	for _, uid := range []string{"", "a", "b"} {
		in := mirrorWorld()
		m := mirror("m", toNewPort("tap0"), policy.Selector{Port: "vm1"})
		m.UID, m.Spec.Snaplen = uid, 100
		in.Mirrors = []*policy.Mirror{m}
		for n := range stagedWorld(in).Numbers {
			numbers[n] = true
		}
	}
	if len(numbers) != 3 {
		t.Errorf("numbers of three mirrors of a name: %v", numbers)
	}
}
