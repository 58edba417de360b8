package host

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// packetIns says what is done with the copies that our flows send, by the reason in their userdata. It runs on the reader of the bridge's
// connection, so that nothing in it may wait.
var packetIns = map[pipeline.CopyReason]func(*Engine, *link, *record.PacketIn, flow.Match){
	pipeline.CopyEgressDrop:  takeVerdict,
	pipeline.CopyIngressDrop: takeVerdict,
	pipeline.CopyAllow:       takeVerdict,
	pipeline.CopyUnknownMAC:  takeUnknownMAC,
	pipeline.CopyStray:       takeStray,
	pipeline.CopyReject:      takeRejected,
	pipeline.CopyProbe:       takeNothing,
	pipeline.CopyQuarantine:  takeQuarantined,
	pipeline.CopyOutOfState:  takeOutOfState,
	pipeline.CopyGuard:       takeGuarded,
	pipeline.CopyAddress:     takeAddress,
	pipeline.CopyMessage:     takeMessage,
	pipeline.CopyMACDrop:     takeDroppedMAC,
	pipeline.CopySample:      takeSampled,
	pipeline.CopyData:        takeData,
}

// packetIn returns the handler of a bridge's packet-ins.
func (e *Engine) packetIn(l *link) func(*ofp.PacketIn) {
	var in record.PacketIn // one for all: it is the reader's
	var sides [2]record.VerdictSide
	return func(pi *ofp.PacketIn) {
		if l.prober.Take(pi) {
			return
		}
		in = record.PacketIn{
			Verdicts: sides[:0],
			Host:     *l.host.Load(), DatapathID: l.datapathID.Load(), Data: pi.Data, TotalLen: int(pi.TotalLen), Table: pi.Table,
			Cookie: uint64(pi.Cookie), Reason: uint8(pi.Reason), UserData: pi.UserData, Directory: &l.directory, Watched: l.watched,
		}
		readMetadata(&in, pi.Match)
		if names := l.portNames.Load(); names != nil {
			in.InPortName = (*names)[in.InPort]
		}
		in.SrcEndpoint, in.DstEndpoint = register(&in, pipeline.SourceEndpoint), register(&in, pipeline.DestinationEndpoint)
		if reason, ours := pipeline.ParseUserData(pi.UserData); ours {
			packetIns[reason](e, l, &in, pi.Match)
			return
		}
		e.opt.Recorder.HandlePacketIn(l.cfg.Name, in) // of no flow of ours: counted, and no event
	}
}

// takeVerdict records what the policies decided.
func takeVerdict(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	l.copies.Add(1)
	in.Verdicts = verdicts(in)
	drawn(in, l.directory.Names())
	if passed := len(in.Verdicts) > 0 && !in.Verdicts[len(in.Verdicts)-1].Drop; passed && l.repeats.again(in, time.Now()) {
		return
	}
	e.opt.Recorder.HandlePacketIn(l.cfg.Name, *in)
}

// takeMessage records what an application said in a packet that passed.
func takeMessage(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	l.copies.Add(1)
	in.Passed = true
	e.opt.Recorder.HandlePacketIn(l.cfg.Name, *in)
}

// takeOutOfState records a sample of the TCP that has no place in a connection. The side is that of the sender, if it is an endpoint.
func takeOutOfState(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	_, reason, _ := pipeline.ParseCookie(flow.Cookie(in.Cookie))
	side := record.VerdictSide{Direction: event.Egress, OutOfState: pipeline.DropReason(reason).String(), Drop: true}
	if in.SrcEndpoint == 0 {
		side.Direction = event.Ingress
	}
	in.Verdicts = []record.VerdictSide{side}
	e.opt.Recorder.HandlePacketIn(l.cfg.Name, *in)
}

// takeNothing is for probes without a tag: there are none.
func takeNothing(*Engine, *link, *record.PacketIn, flow.Match) {}

// takeUnknownMAC notes an address that an endpoint does not declare.
func takeUnknownMAC(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	l.sees(in)
	e.poke()
}

// takeStray notes an endpoint that sends on what others sent to it.
func takeStray(e *Engine, l *link, in *record.PacketIn, m flow.Match) {
	if l.forwarders.note(in, initiatorOf(m), time.Now()) {
		e.poke()
	}
}

// initiatorOf returns the endpoint that opened the connection, as ct_label has it.
func initiatorOf(m flow.Match) uint32 {
	return stamped(m, pipeline.LabelInitiator)
}

// readMetadata takes the pipeline fields over.
func readMetadata(in *record.PacketIn, m flow.Match) {
	for _, t := range m {
		v := t.Value.Lo
		switch f := t.Field; {
		case f >= flow.Reg8 && f <= flow.Reg15:
			in.Registers[f-flow.Reg8] = uint32(v)
		case f == flow.Metadata:
			in.Metadata = v
		case f == flow.InPort:
			in.InPort = uint32(v)
		case f == flow.CtState:
			in.CtState = uint32(v)
		case f == flow.CtZone:
			in.CtZone = uint16(v)
		case f == flow.CtMark:
			in.CtMark = uint32(v)
		case f == flow.CtNwProto:
			in.CtNwProto = uint8(v)
		case f == flow.CtTpSrc:
			in.CtTpSrc = uint16(v)
		case f == flow.CtTpDst:
			in.CtTpDst = uint16(v)
		case f == flow.CtNwSrc:
			in.CtSrc = ipv4(v)
		case f == flow.CtNwDst:
			in.CtDst = ipv4(v)
		case f == flow.CtIPv6Src:
			in.CtSrc = ipv6(t.Value)
		case f == flow.CtIPv6Dst:
			in.CtDst = ipv6(t.Value)
		}
	}
}

func ipv4(v uint64) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v))
	return netip.AddrFrom4(b)
}

func ipv6(v flow.U128) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], v.Hi)
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	return netip.AddrFrom16(b)
}

// register reads a pipeline field out of the registers of a packet-in.
func register(in *record.PacketIn, f pipeline.Field) uint32 {
	return in.Registers[f.Field-flow.Reg8] >> f.Ofs & uint32(flow.Ones(int(f.Bits)).Lo)
}

// noted reads what would have denied a side, but for mode audit; 0 = nothing.
func noted(in *record.PacketIn, f pipeline.Field) uint32 {
	id := uint32(in.Metadata >> f.Ofs)
	if id&pipeline.AuditNoted == 0 {
		return 0
	}
	return id &^ pipeline.AuditNoted
}

// verdicts lists what is told of a packet, and notes who decided about its sides: what dropped it, if that is to be recorded; else what
// would have denied it, but for mode audit; else what allowed it. Of two sides that allow, a rule is named before a default, and the
// receiver's before the sender's. A deny of the receiver goes before a reject of the sender.
func verdicts(in *record.PacketIn) []record.VerdictSide {
	out := in.Verdicts[:0]
	sides := [...]side{
		{event.Egress, pipeline.EgressVerdict, pipeline.EgressRule, pipeline.EgressLog, pipeline.EgressAudit, &in.EgressRule},
		{event.Ingress, pipeline.IngressVerdict, pipeline.IngressRule, pipeline.IngressLog, pipeline.IngressAudit, &in.IngressRule},
	}
	refused := pipeline.Verdict(register(in, pipeline.IngressVerdict)) == pipeline.VerdictDrop
	var allowed *side
	for i := range sides {
		s := &sides[i]
		id := register(in, s.rule)
		if id != pipeline.IDNoEndpoint {
			*s.decided = id
		}
		if audit := noted(in, s.audit); audit != 0 {
			out = append(out, record.VerdictSide{Direction: s.dir, RuleID: audit, Audit: true})
		}
		v := pipeline.Verdict(register(in, s.verdict))
		if v == pipeline.VerdictReject && refused && s.dir == event.Egress {
			continue
		}
		if v != pipeline.VerdictAllow {
			if register(in, s.log) == 1 {
				out = append(out, record.VerdictSide{Direction: s.dir, RuleID: id, Drop: true, Reject: v == pipeline.VerdictReject})
			}
			return out
		}
		if allowed == nil || id != pipeline.IDNoEndpoint && (pipeline.IsRule(id) || !pipeline.IsRule(*allowed.decided)) {
			allowed = s
		}
	}
	if len(out) == 0 {
		out = append(out, record.VerdictSide{Direction: allowed.dir, RuleID: register(in, allowed.rule)})
	}
	return out
}

// side says where the pipeline has what it decided about one side, and where the id goes.
type side struct {
	dir                       event.Direction
	verdict, rule, log, audit pipeline.Field
	decided                   *uint32
}

// publishRules tells the recorder what the ids stand for that wall.Firewall gave or forgot.
func (w *firewall) publishRules(changed map[uint32]*wall.RuleInfo) {
	if len(changed) == 0 {
		return
	}
	names := w.directory.Names()
	rules, samples := make(map[uint32]*event.Rule, len(changed)), map[uint32]*int64{}
	for id, info := range changed {
		rules[id] = nil
		if names.OneOf(id) != 0 {
			samples[id] = nil
		}
		if info != nil {
			rules[id] = ruleName(info.Ref)
			if info.OneOf != 0 {
				samples[id] = new(int64(info.OneOf))
			}
		}
	}
	if names = names.WithRules(rules); len(samples) > 0 {
		names = names.WithSamples(samples)
	}
	w.directory.Publish(names)
}

// ruleName names a rule or default as events do.
func ruleName(ref policy.RuleRef) *event.Rule {
	name := ref.Rule
	switch name {
	case policy.RuleDefaultAllow:
		name = "default-allow"
	case policy.RuleDefaultDeny:
		name = "default-deny"
	}
	return &event.Rule{ID: ref.Policy + "/" + string(ref.Direction) + "/" + name, Name: name, Ruleset: ref.Policy}
}

// publishEndpoints tells the recorder what the endpoint ids stand for, which wall.Firewall gave: those that differ from what it was told.
func (w *firewall) publishEndpoints(ws []*policy.Workload) {
	keys := w.renamed
	for _, x := range differing(ws, w.told) {
		keys[x.Key] = struct{}{}
	}
	w.told = ws
	if len(keys) == 0 {
		return
	}
	changed := map[uint32]*event.Endpoint{}
	for key := range keys {
		if id, named := w.named[key]; named {
			changed[id] = nil
			delete(w.named, key)
		}
	}
	for key := range keys {
		x := workload(ws, key)
		if a, ok := w.numbers.endpoints.Get(key); ok && x != nil && x.Bridge == w.cfg.Name {
			changed[a.ID] = &event.Endpoint{Name: orElse(x.Endpoint, x.Port), PortName: x.Port, Labels: event.BoundedLabels(x.Labels)}
			w.named[key] = a.ID
		}
	}
	w.directory.Publish(w.directory.Names().WithEndpoints(changed))
	clear(w.renamed)
}
