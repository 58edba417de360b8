package host

import (
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// takeSampled records a packet of a connection that a rule samples. A rule that samples no more, or is forgotten, has copies on their way
// for a moment.
func takeSampled(e *Engine, l *link, in *record.PacketIn, m flow.Match) {
	l.copies.Add(1)
	deciders(in, m)
	n, side := drawnBy(in, l.directory.Names())
	if n == 0 {
		return
	}
	id := in.IngressRule
	if side == event.Egress {
		id = in.EgressRule
	}
	in.Weight, in.Verdicts = n, []record.VerdictSide{{Direction: side, RuleID: id, Sampled: true}}
	e.opt.Recorder.HandlePacketIn(l.cfg.Name, *in)
}

// deciders notes who decided about the connection of a packet that passed: as its registers have it, or else as the connection's label.
func deciders(in *record.PacketIn, m flow.Match) {
	in.EgressRule, in.IngressRule = register(in, pipeline.EgressRule), register(in, pipeline.IngressRule)
	if in.EgressRule == 0 { // the packet was not judged
		in.EgressRule, in.IngressRule = stamped(m, pipeline.LabelEgress), stamped(m, pipeline.LabelIngress)
	}
	for _, id := range []*uint32{&in.EgressRule, &in.IngressRule} {
		if *id == pipeline.IDNoEndpoint {
			*id = 0
		}
	}
}

// drawn says what the record of a connection stands for that is told of only because it was drawn.
func drawn(in *record.PacketIn, names *record.Names) {
	if register(in, pipeline.Sampled) == 1 && register(in, pipeline.EgressLog)+register(in, pipeline.IngressLog) == 0 &&
		noted(in, pipeline.EgressAudit)|noted(in, pipeline.IngressAudit) == 0 {
		in.Weight, _ = drawnBy(in, names)
	}
}

// drawnBy returns of how many connections the one was drawn, and the side whose rule did: of two, that of the smaller number, whose sample
// the other's is a part of. 0 = neither rule samples.
func drawnBy(in *record.PacketIn, names *record.Names) (n int64, by event.Direction) {
	n, by = names.OneOf(in.IngressRule), event.Ingress
	if out := names.OneOf(in.EgressRule); out != 0 && (n == 0 || out < n) {
		n, by = out, event.Egress
	}
	return n, by
}

// stamped reads a part of the connection's label.
func stamped(m flow.Match, f pipeline.Field) uint32 {
	t, _ := m.Get(flow.CtLabel)
	return uint32(t.Value.Shr(int(f.Ofs)).And(flow.Ones(int(f.Bits))).Lo)
}
