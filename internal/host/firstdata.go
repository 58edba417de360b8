package host

import (
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/internal/packet/l7"
	"github.com/tapwall/tapwall/ofctrl/flow"
)

// takeData records what is said first on a connection whose rule wants to know it, of what the switch copies as it may be that: other data,
// or none, is no event.
func takeData(e *Engine, l *link, in *record.PacketIn, m flow.Match) {
	l.copies.Add(1)
	if !l.reader.reads(in) {
		return
	}
	deciders(in, m)
	in.Passed = true
	e.opt.Recorder.HandlePacketIn(l.cfg.Name, *in)
}

// messageReader looks whether packets hold a message. It is for the reader of the bridge's connection alone.
type messageReader struct {
	decoder *packet.Decoder
	parsed  packet.Parsed
	message l7.Message
}

func newMessageReader() *messageReader { return &messageReader{decoder: packet.NewDecoder()} }

func (r *messageReader) reads(in *record.PacketIn) bool {
	p := &r.parsed
	r.decoder.Decode(in.Data, in.TotalLen, p)
	l7.Read(p.Proto, p.SrcPort, p.DstPort, in.Data[p.PayloadAt:p.PayloadAt+p.PayloadLen], &r.message)
	return r.message.Kind != l7.None
}
