package record

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/internal/packet/l7"
)

// What every document begins with.
const (
	ecsVersion    = "9.4.0"
	schemaVersion = 1
	module        = "tapwall"
)

// ct_state bits, as in ovs-fields(7).
const (
	ctNew     = 0x01
	ctRelated = 0x04
	ctReply   = 0x08
	ctInvalid = 0x10
)

// Bound of the caches below: when full they start again.
const maxCached = 65_536

// record is an event with everything it points to that is its own and common, so that it takes one allocation.
type record struct {
	ev       event.Event
	src, dst event.Side
	net      event.Network
	vlan     event.VLAN
	ct       event.CT
	tcp      event.TCP
	icmp     event.ICMP
	related  event.Related
	ips      [2]string
	ruleID   uint32
}

// observer is what events of one port say of where they were seen.
type observer struct {
	event.Observer
	host event.Host
}

type observerKey struct {
	host   string
	dpid   uint64
	inPort uint32
	name   string
}

// builder turns packet-ins into events. It belongs to the recorder's goroutine. What many events share is made once.
type builder struct {
	host    string
	ids     *identity
	decoder *packet.Decoder
	domains *domains
	open    *openTable
	lose    func(host string) // the end of a connection: there is no room for more

	parsed    packet.Parsed
	message   l7.Message    // what the payload of the packet in parsed says
	tunnel    *event.Tunnel // that the packet in parsed came in, of a copy
	text      []byte        // room for the texts of one event
	observers map[observerKey]*observer
	tables    [256]int
	ctStates  [256][]string
	tcpFlags  [512][]string
	category  []string
	allowed   []string
	denied    []string
	info      []string
	endType   []string
	decodeOK  *event.Decode
}

func newBuilder(o *Options, ids *identity) *builder {
	b := &builder{
		host: o.Host, ids: ids, decoder: packet.NewDecoder(), domains: newDomains(), observers: make(map[observerKey]*observer),
		category: []string{"network"}, allowed: []string{"connection", "allowed"}, denied: []string{"connection", "denied"},
		info: []string{"info"}, endType: []string{"connection", "end"},
		decodeOK: &event.Decode{Status: packet.StatusOK.String()},
	}
	for i := range b.tables {
		b.tables[i] = i
	}
	return b
}

// ends are the two sides of a connection.
type ends struct {
	src, dst     netip.Addr
	sport, dport uint16
	proto        uint8
	srcMAC       packet.MAC
	dstMAC       packet.MAC
	hasSrcMAC    bool
	hasDstMAC    bool
	tracked      bool // by the original tuple; else source is the sender
}

// ends finds the initiator: by the conntrack original tuple, else the sender of the packet.
func (b *builder) ends(pi *PacketIn) ends {
	p := &b.parsed
	if !pi.CtSrc.IsValid() || pi.CtSrc.IsUnspecified() || !pi.CtDst.IsValid() {
		return ends{
			src: p.Src, dst: p.Dst, sport: p.SrcPort, dport: p.DstPort, proto: p.Proto,
			srcMAC: p.EthSrc, dstMAC: p.EthDst, hasSrcMAC: p.HasEthernet, hasDstMAC: p.HasEthernet,
		}
	}
	e := ends{src: pi.CtSrc.Unmap(), dst: pi.CtDst.Unmap(), proto: pi.CtNwProto, tracked: true}
	switch pi.CtNwProto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		e.sport, e.dport = pi.CtTpSrc, pi.CtTpDst
	}
	// A MAC belongs to an end only when the packet was between both ends: an ICMP error on the way comes from a router.
	switch {
	case !p.HasEthernet:
	case p.Src == e.src && p.Dst == e.dst && pi.CtState&ctReply == 0, !p.Src.IsValid():
		e.srcMAC, e.dstMAC, e.hasSrcMAC, e.hasDstMAC = p.EthSrc, p.EthDst, true, true
	case p.Src == e.dst && p.Dst == e.src:
		e.srcMAC, e.dstMAC, e.hasSrcMAC, e.hasDstMAC = p.EthDst, p.EthSrc, true, true
	}
	return e
}

// community is the Community ID of the connection.
func (b *builder) community(t []byte, e *ends, pi *PacketIn) []byte {
	p := &b.parsed
	sport, dport := e.sport, e.dport
	if e.proto == packet.ProtoICMP || e.proto == packet.ProtoICMPv6 {
		switch {
		case e.tracked:
			sport, dport = pi.CtTpSrc, pi.CtTpDst
		case p.HasICMP:
			sport, dport = uint16(p.ICMPType), uint16(p.ICMPCode)
		default:
			return t
		}
	}
	if !e.tracked && p.IPVersion == 0 {
		return t
	}
	return packet.AppendCommunityID(t, 0, e.proto, e.src, e.dst, sport, dport)
}

// verdicts appends the events of a packet-in, or of a mirror's copy, to out and returns the layer that has a fault, if any.
func (b *builder) verdicts(pi *PacketIn, now time.Time, out []entry) ([]entry, packet.Layer) {
	b.decoder.Decode(pi.Data, pi.TotalLen, &b.parsed)
	b.tunnel = nil
	if pi.Copy != nil {
		b.unwrap(pi)
	}
	var bad packet.Layer
	if len(pi.Verdicts) > 0 && pi.Verdicts[0].Sampled {
		b.message = l7.Message{}
	} else {
		bad = b.readMessage(pi.Data)
	}
	if b.tunnel == nil { // addresses inside of tunnels may be those of somebody else, too
		b.learnDomains(pi)
	}
	e := b.ends(pi)
	if pi.Copy != nil {
		return append(out, b.copied(pi, &e, now)), bad
	}
	names := pi.Directory.Names()
	if pi.Passed {
		return append(out, b.passed(pi, &e, names, now)), bad
	}
	first := len(out)
	for i := range pi.Verdicts {
		s := &pi.Verdicts[i]
		out = append(out, b.verdict(pi, s, &e, names, now))
		if s.Drop || s.Reject {
			break
		}
	}
	b.follow(pi, out[first].ev)
	return out, bad
}

func (b *builder) verdict(pi *PacketIn, s *VerdictSide, e *ends, names *Names, now time.Time) entry {
	r, id, transport := b.packet(pi, e, s.Direction, now)
	ev, tw := &r.ev, &r.ev.Tapwall
	ev.Event.Type, ev.Event.Action, ev.Event.Dataset, ev.Event.Provider = b.allowed, event.ActionVerdict, event.DatasetFlow, "packet-in"
	ev.Event.Outcome = "success"
	tw.Direction = r.net.Direction
	tw.Enforcement = "enforce"
	tw.Table = &b.tables[pi.Table]
	r.ruleID = s.RuleID
	tw.RuleID = &r.ruleID
	tw.EgressRule, tw.IngressRule = names.Rule(pi.EgressRule), names.Rule(pi.IngressRule)
	rule := names.Rule(s.RuleID)
	if s.Quarantine != "" {
		rule = &event.Rule{ID: "quarantine/" + s.Quarantine, Name: "quarantine", Ruleset: s.Quarantine}
	}
	if s.Guard != "" {
		rule = &event.Rule{ID: "guard/" + s.Guard, Name: s.Guard}
	}
	if s.OutOfState != "" {
		rule = &event.Rule{ID: "out-of-state/" + s.OutOfState, Name: s.OutOfState}
	}
	known := rule != nil
	if !known { // still an event, under the number
		id := fmt.Sprintf("0x%08x", s.RuleID)
		rule = &event.Rule{ID: id, Name: id}
	}
	ev.Rule = rule
	tw.Verdict, tw.Weight = event.Forwarded, pi.Weight
	if s.Sampled {
		ev.Event.Type, ev.Event.Action, ev.Event.Dataset, ev.Event.Outcome = b.info, event.ActionSampled, event.DatasetPacket, ""
		tw.Verdict, tw.Enforcement, tw.Weight = event.Sampled, "", max(pi.Weight, 1)
	}
	if s.Audit {
		tw.Verdict, tw.Enforcement = event.Audit, "audit"
	}
	if s.Drop || s.Reject {
		tw.Verdict, tw.DropReason = event.Dropped, event.PolicyDenied
		if s.Reject {
			tw.Verdict = event.Rejected
		}
		ev.Event.Type, ev.Event.Outcome = b.denied, "failure"
	}
	if s.Quarantine != "" {
		tw.Verdict, tw.DropReason = event.Quarantined, event.InQuarantine
	}
	if s.Guard != "" {
		tw.DropReason, tw.RuleID, tw.Claim = event.Spoofed, nil, s.Claim
	}
	if s.OutOfState != "" {
		tw.DropReason, tw.RuleID = event.OutOfState, nil
	}
	if !known {
		tw.DropReason = event.UnknownRule
	}
	ev.Event.Reason = tw.DropReason
	b.track(r, pi)
	tw.Source, tw.Destination = names.Endpoint(pi.SrcEndpoint), names.Endpoint(pi.DstEndpoint)
	return b.entryOf(r, pi, e, id, transport)
}

// track puts in what conntrack knows of the packet.
func (b *builder) track(r *record, pi *PacketIn) {
	if pi.CtState != 0 {
		r.ct = event.CT{State: b.ctState(pi.CtState), Zone: int(pi.CtZone)}
		r.ev.Tapwall.CT = &r.ct
	}
}

func (b *builder) entryOf(r *record, pi *PacketIn, e *ends, id event.ID, transport string) entry {
	tw := &r.ev.Tapwall
	b.domains.name(&r.ev, where{pi.Host, pi.Bridge}, e.src, e.dst, pi.Time)
	return entry{ev: &r.ev, seq: id.Sequence, Facts: event.Facts{
		Time: pi.Time.UnixNano(), Src: e.src, Dst: e.dst, SrcPort: e.sport, DstPort: e.dport, Verdict: tw.Verdict, Action: r.ev.Event.Action,
		Bridge: pi.Bridge, Transport: transport, Rule: r.ev.Rule, SrcEndpoint: tw.Source, DstEndpoint: tw.Destination, Event: &r.ev,
	}}
}

// packet begins the event of a packet: what its headers say. d is the way that it went, which may not be known. It also returns the name of
// the protocol for filters.
func (b *builder) packet(pi *PacketIn, e *ends, d event.Direction, now time.Time) (r *record, id event.ID, transport string) {
	p := &b.parsed
	r = new(record)
	id = b.ids.next()
	b.texts(r, pi, e, id)

	ev := &r.ev
	ev.Timestamp = pi.Time
	ev.ECS.Version = ecsVersion
	ev.Event = event.Meta{ID: r.ev.Event.ID, Sequence: id.Sequence, Kind: "event", Category: b.category, Module: module, Created: now}
	seen := b.observer(pi)
	ev.Observer, ev.Host = &seen.Observer, &seen.host
	ev.Network = &r.net
	r.net.Transport = event.TransportName(e.proto)
	if d != 0 {
		r.net.Direction = d.String()
	}
	r.net.Bytes, r.net.Packets = int64(p.Length), 1
	transport = r.net.Transport
	if e.tracked || p.IPVersion != 0 {
		r.net.IANANumber = strconv.Itoa(int(e.proto))
		if transport == "" {
			transport = r.net.IANANumber
		}
	}
	switch {
	case e.src.Is4():
		if e.tracked || p.IPVersion != 0 {
			r.net.Type = "ipv4"
		}
	case e.src.Is6():
		r.net.Type = "ipv6"
	}
	if p.VLANs > 0 {
		r.vlan.ID = strconv.Itoa(int(p.VLAN))
		r.net.VLAN = &r.vlan
	}
	r.src.Port, r.dst.Port = int(e.sport), int(e.dport)
	if r.src != (event.Side{}) {
		ev.Source = &r.src
	}
	if r.dst != (event.Side{}) {
		ev.Destination = &r.dst
	}

	tw := &ev.Tapwall
	tw.Schema = schemaVersion
	tw.Bridge = pi.Bridge
	if p.HasPorts && p.Proto == packet.ProtoTCP {
		r.tcp.Flags = b.flags(p.TCPFlags)
		tw.TCP = &r.tcp
	}
	if p.HasICMP {
		r.icmp = event.ICMP{Type: int(p.ICMPType), Code: int(p.ICMPCode), ID: int(p.ICMPID)}
		tw.ICMP = &r.icmp
	}
	b.describe(ev)
	tw.Decode = b.decodeOK
	if p.Status != packet.StatusOK {
		tw.Decode = &event.Decode{Status: p.Status.String(), Layer: p.Layer.String(), Error: p.Err}
	}
	return r, id, transport
}

// texts fills the texts that are the event's own; they share one allocation.
func (b *builder) texts(r *record, pi *PacketIn, e *ends, id event.ID) {
	var end [7]int
	t := id.AppendTo(b.text[:0])
	end[0] = len(t)
	if e.src.IsValid() {
		t = e.src.AppendTo(t)
	}
	end[1] = len(t)
	if e.dst.IsValid() {
		t = e.dst.AppendTo(t)
	}
	end[2] = len(t)
	if e.hasSrcMAC {
		t = appendMAC(t, e.srcMAC)
	}
	end[3] = len(t)
	if e.hasDstMAC {
		t = appendMAC(t, e.dstMAC)
	}
	end[4] = len(t)
	t = b.community(t, e, pi)
	end[5] = len(t)
	if pi.Copy == nil {
		t = strconv.AppendUint(append(t, "0x"...), pi.Cookie, 16)
	}
	end[6] = len(t)
	b.text = t

	s := string(t)
	r.ev.Event.ID = s[:end[0]]
	r.src.IP, r.dst.IP = s[end[0]:end[1]], s[end[1]:end[2]]
	r.src.MAC, r.dst.MAC = s[end[2]:end[3]], s[end[3]:end[4]]
	r.net.CommunityID = s[end[4]:end[5]]
	r.ev.Tapwall.Cookie = s[end[5]:end[6]]
	if r.src.IP != "" && r.dst.IP != "" {
		r.ips = [2]string{r.src.IP, r.dst.IP}
		r.related.IP = r.ips[:]
		r.ev.Related = &r.related
	}
}

func (b *builder) observer(pi *PacketIn) *observer {
	host := pi.Host
	if host == "" {
		host = b.host
	}
	k := observerKey{host, pi.DatapathID, pi.InPort, pi.InPortName}
	if o, ok := b.observers[k]; ok {
		return o
	}
	if len(b.observers) >= maxCached {
		clear(b.observers)
	}
	o := &observer{Observer: event.Observer{Name: host}, host: event.Host{Name: host}}
	if pi.DatapathID != 0 {
		o.SerialNumber = fmt.Sprintf("%016x", pi.DatapathID)
	}
	if pi.InPort != 0 || pi.InPortName != "" {
		o.Ingress = &event.Port{Interface: event.Interface{Name: pi.InPortName, ID: strconv.FormatUint(uint64(pi.InPort), 10)}}
	}
	b.observers[k] = o
	return o
}

func (b *builder) ctState(bits uint32) []string {
	s := &b.ctStates[bits&0xff]
	if *s == nil {
		for i, name := range [...]string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"} {
			if bits&(1<<i) != 0 {
				*s = append(*s, name)
			}
		}
	}
	return *s
}

func (b *builder) flags(bits uint16) []string {
	f := &b.tcpFlags[bits&0x1ff]
	if *f == nil {
		*f = packet.AppendTCPFlags([]string{}, bits)
	}
	return *f
}

// finish gives an event what every document has and takes it into the order of the record.
func (b *builder) finish(e *event.Event, now time.Time) entry {
	id := b.ids.next()
	complete(e, id.String(), id.Sequence, now, b.host)
	return entry{ev: e, seq: id.Sequence, Facts: event.FactsOf(e)}
}

func complete(e *event.Event, id string, seq int64, now time.Time, host string) {
	e.ECS.Version, e.Event.Module, e.Tapwall.Schema = ecsVersion, module, schemaVersion
	e.Event.ID, e.Event.Sequence, e.Event.Created = id, seq, now
	if e.Timestamp.IsZero() {
		e.Timestamp = now
	}
	if e.Event.Kind == "" {
		e.Event.Kind = "event"
	}
	if e.Observer == nil {
		e.Observer = &event.Observer{Name: host}
	}
	e.Host = &event.Host{Name: e.Observer.Name}
}

// lossEvent tells of a loss; its observer is the host that it is of, if any.
func lossEvent(host string, l event.Loss) *event.Event {
	e := &event.Event{
		Event:   event.Meta{Kind: "metric", Action: event.ActionLost, Dataset: event.DatasetLoss, Provider: "counter", Reason: l.Reason},
		Tapwall: event.Tapwall{Loss: &l},
	}
	if host != "" {
		e.Observer = &event.Observer{Name: host}
	}
	return e
}

// appendMAC appends the ECS form of a MAC: upper-case hexadecimal with hyphens.
func appendMAC(b []byte, mac packet.MAC) []byte {
	const digits = "0123456789ABCDEF"
	for i, x := range mac {
		if i > 0 {
			b = append(b, '-')
		}
		b = append(b, digits[x>>4], digits[x&15])
	}
	return b
}
