package record

import (
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
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

const (
	// copyPatience is how long a copy waits for room. The kernel keeps what comes meanwhile, and counts what it has no room for.
	copyPatience = 50 * time.Millisecond
	copyPause    = 200 * time.Microsecond
)

// HandleCopy takes one packet that a mirror copied from a bridge: pi.Copy says what is known of it. It is like HandlePacketIn, but copies
// fill the queue to a half only, so that a mirror of much traffic costs no verdict, and who hands them over waits a little for room.
func (r *Recorder) HandleCopy(bridge string, pi PacketIn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	half := (len(r.queue) + 1) / 2
	for waited := time.Duration(0); !r.closed && r.queued >= half && waited < copyPatience; waited += copyPause {
		r.mu.Unlock()
		time.Sleep(copyPause)
		r.mu.Lock()
	}
	r.observed++
	if r.closed || r.queued >= half {
		r.refuse(pi.Host, event.P2)
		return
	}
	pi.Verdicts = nil
	r.enqueue(bridge, pi, 1)
}

// maxTunnels is how deep packets are unwrapped.
const maxTunnels = 2

// unwrap goes on with the frame that a copied packet carries, so that the event is of who talks, and not of who carries.
func (b *builder) unwrap(pi *PacketIn) {
	for range maxTunnels {
		t, inner, ok := packet.Inside(pi.Data, &b.parsed)
		if !ok {
			return
		}
		pi.TotalLen -= len(pi.Data) - len(inner) // what was cut off is at the end of both
		pi.Data = inner
		b.decoder.Decode(pi.Data, pi.TotalLen, &b.parsed)
		b.tunnel = &event.Tunnel{Type: t.Type, VNI: int64(t.VNI), Local: t.Source.String(), Remote: t.Destination.String()}
	}
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
	if tw.Tunnel = b.tunnel; tw.Tunnel == nil {
		tw.Source, tw.Destination = c.Source, c.Destination
	}
	return b.entryOf(r, pi, e, id, transport)
}
