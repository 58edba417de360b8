package record

import (
	"time"

	"github.com/tapwall/tapwall/event"
)

// MirrorCopy is what is known of a packet that a mirror copied. It is shared with the events and must not be changed.
type MirrorCopy struct {
	Mirror string
	Weight int64 // how many packets the event stands for; 0 = 1
	// Direction is the way that it went, seen from the source: Egress = it came from it; 0 = not known.
	Direction event.Direction
	// Source and Destination are the endpoints that sent it and that it is for; nil = not known.
	Source, Destination *event.Endpoint
}

// HandleCopy takes one packet that a mirror copied from a bridge: pi.Copy says what is known of it. It is like HandlePacketIn, but copies
// fill the queue to a half only, so that a mirror of much traffic costs no verdict.
func (r *Recorder) HandleCopy(bridge string, pi PacketIn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observed++
	if r.closed || r.queued >= (len(r.queue)+1)/2 {
		r.refuse(pi.Host, event.P2)
		return
	}
	pi.Verdicts = nil
	r.enqueue(bridge, pi, 1)
}

// copied is the event of a packet that a mirror copied.
func (b *builder) copied(pi *PacketIn, e *ends, now time.Time) entry {
	c := pi.Copy
	r, id, transport := b.packet(pi, e, c.Direction, now)
	ev, tw := &r.ev, &r.ev.Tapwall
	ev.Event.Type, ev.Event.Action, ev.Event.Dataset, ev.Event.Provider = b.info, l7Actions[b.message.Kind], event.DatasetPacket, "mirror"
	tw.Verdict, tw.Mirror, tw.Weight = event.Mirrored, c.Mirror, max(c.Weight, 1)
	if tw.Weight > 1 {
		tw.Verdict = event.Sampled
	}
	tw.Source, tw.Destination = c.Source, c.Destination
	return b.entryOf(r, pi, e, id, transport)
}
