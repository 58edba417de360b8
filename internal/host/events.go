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
)

// packetIn returns the handler of a bridge's packet-ins. It runs on the connection's reader, so it only copies values.
func (e *Engine) packetIn(b *bridge) func(*ofp.PacketIn) {
	return func(pi *ofp.PacketIn) {
		in := record.PacketIn{
			Host: *b.host.Load(), DatapathID: b.datapathID.Load(), Data: pi.Data, TotalLen: int(pi.TotalLen), Table: pi.Table, Cookie: uint64(pi.Cookie),
			Reason: uint8(pi.Reason), UserData: pi.UserData,
		}
		readMetadata(&in, pi.Match)
		if names := b.portNames.Load(); names != nil {
			in.InPortName = (*names)[in.InPort]
		}
		in.SrcEndpoint, in.DstEndpoint = register(&in, pipeline.SourceEndpoint), register(&in, pipeline.DestinationEndpoint)
		reason, ours := pipeline.ParseUserData(pi.UserData)
		if ours && reason == pipeline.CopyUnknownMAC {
			b.sees(&in)
			e.poke()
			return
		}
		if ours && reason == pipeline.CopyStray {
			if b.forwarders.note(&in, initiatorOf(pi.Match), time.Now()) {
				e.poke()
			}
			return
		}
		if ours {
			b.copies.Add(1)
			in.Verdicts = verdicts(&in)
		}
		e.opt.Recorder.HandlePacketIn(b.cfg.Name, in)
	}
}

// initiatorOf returns the endpoint that opened the connection, as ct_label has it.
func initiatorOf(m flow.Match) uint32 {
	t, ok := m.Get(flow.CtLabel)
	if !ok {
		return 0
	}
	f := pipeline.LabelInitiator
	return uint32(t.Value.Shr(int(f.Ofs)).And(flow.Ones(int(f.Bits))).Lo)
}

// readMetadata takes the pipeline fields over.
func readMetadata(in *record.PacketIn, m flow.Match) {
	for _, t := range m {
		v := t.Value.Lo
		switch f := t.Field; {
		case f >= flow.Reg8 && f <= flow.Reg15:
			in.Registers[f-flow.Reg8] = uint32(v)
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

// verdicts lists the sides whose rule wants a record; what the first side dropped, the second never decided.
func verdicts(in *record.PacketIn) []record.VerdictSide {
	var out []record.VerdictSide
	for _, side := range []struct {
		dir                event.Direction
		verdict, rule, log pipeline.Field
	}{
		{event.Egress, pipeline.EgressVerdict, pipeline.EgressRule, pipeline.EgressLog},
		{event.Ingress, pipeline.IngressVerdict, pipeline.IngressRule, pipeline.IngressLog},
	} {
		drop := pipeline.Verdict(register(in, side.verdict)) != pipeline.VerdictAllow
		if register(in, side.log) == 1 {
			out = append(out, record.VerdictSide{Direction: side.dir, RuleID: register(in, side.rule), Drop: drop})
		}
		if drop {
			break
		}
	}
	return out
}

// Names resolves rule and endpoint ids for the recorder; it implements record.RuleLookup and record.EndpointLookup. The recorder is made before the
// engine, so Use binds it later.
type Names struct{ engine *Engine }

// Use binds the names to an engine. It must be called before the recorder runs.
func (n *Names) Use(e *Engine) { n.engine = e }

func (n *Names) bridge(name string) *bridge {
	e := n.engine
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, b := range e.published.bridges {
		if b.cfg.Name == name {
			return b
		}
	}
	return nil
}

// Rule implements record.RuleLookup.
func (n *Names) Rule(bridge string, id uint32) (record.RuleInfo, bool) {
	b := n.bridge(bridge)
	if b == nil {
		return record.RuleInfo{}, false
	}
	return b.rule(id)
}

// rule names a rule or default as events do.
func (b *bridge) rule(id uint32) (record.RuleInfo, bool) {
	if b.fw == nil {
		return record.RuleInfo{}, false
	}
	b.mu.Lock()
	info, ok := b.fw.Rule(id)
	b.mu.Unlock()
	if !ok {
		return record.RuleInfo{}, false
	}
	name := info.Ref.Rule
	switch name {
	case policy.RuleDefaultAllow:
		name = "default-allow"
	case policy.RuleDefaultDeny:
		name = "default-deny"
	}
	return record.RuleInfo{Policy: info.Ref.Policy, Direction: string(info.Ref.Direction), Name: name}, true
}

// Endpoint implements record.EndpointLookup.
func (n *Names) Endpoint(bridge string, id uint32) (event.Endpoint, bool) {
	b := n.bridge(bridge)
	if b == nil {
		return event.Endpoint{}, false
	}
	byID := b.endpoints.Load()
	if byID == nil {
		return event.Endpoint{}, false
	}
	ep, ok := (*byID)[id]
	return ep, ok
}
