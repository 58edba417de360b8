package record

import (
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
)

// OpenConnections returns how many recorded connections of a host have not ended as far as is known, by bridge and conntrack zone. Whoever
// can look at the switch says by ConnectionsSeen what became of them.
func (r *Recorder) OpenConnections(host string) map[string]map[uint16]int { return r.open.of(host) }

// ConnectionsSeen takes what a look at the connection table of a switch found: what was open and is not there any more has ended, and an
// event tells of it. It never blocks, and keeps nothing of l.
func (r *Recorder) ConnectionsSeen(l *Look) {
	if r.open.look(l) {
		r.rouse()
	}
}

// follow notes what a packet-in says of its connection: that it began, with the event first, or that it was cut.
func (b *builder) follow(pi *PacketIn, first *event.Event) {
	if !pi.Watched || first.Event.Action != event.ActionVerdict {
		return
	}
	t, ok := tupleOf(pi, &b.parsed)
	if !ok {
		return
	}
	at, fresh := place{first.Observer.Name, pi.Bridge}, pi.CtState&ctNew != 0
	switch last := &pi.Verdicts[len(pi.Verdicts)-1]; {
	case last.Guard != "", last.OutOfState != "": // not from who it seems, or not of the connection
	case last.Drop, last.Reject:
		b.open.cut(at, pi.CtZone, t, pi.Time.UnixNano(), !fresh || pi.CtNwProto != packet.ProtoTCP)
	default:
		began := pi.Time.UnixNano()
		if !b.open.begin(at, pi.CtZone, t, &opened{start: first, began: began, seen: began}, fresh) {
			b.lose(at.host)
		}
	}
}

// ended is the event of the end of a connection: what its start said of it, and how long it took.
func (b *builder) ended(x *ending, now time.Time) entry {
	id := b.ids.next()
	s := x.start
	end, duration := time.Unix(0, x.end).UTC(), x.end-x.began
	ev := new(event.Event)
	*ev = *s
	ev.Timestamp = end
	ev.Event = event.Meta{
		ID: id.String(), Sequence: id.Sequence, Kind: "event", Category: b.category, Type: b.endType, Action: event.ActionEnded,
		Dataset: event.DatasetFlow, Module: module, Provider: "conntrack", Outcome: "success", Reason: x.reason, Created: now,
		Start: s.Timestamp, End: end, Duration: &duration,
	}
	ev.DNS, ev.TLS, ev.HTTP, ev.URL, ev.UserAgent = nil, nil, nil, nil, nil // they are of the packet
	tw := &ev.Tapwall
	tw.Ended = &event.Ended{How: x.how, StartID: s.Event.ID, Seen: time.Unix(0, min(x.seen, x.end)).UTC()}
	tw.TCP, tw.Decode, tw.DropReason, tw.Truncated = nil, nil, "", false
	if s.Tapwall.CT != nil {
		tw.CT = &event.CT{Zone: s.Tapwall.CT.Zone}
	}
	if s.Network != nil {
		n := *s.Network
		n.Packets, n.Bytes = x.sent.Packets+x.returned.Packets, x.sent.Bytes+x.returned.Bytes
		ev.Network = &n
	}
	ev.Source, ev.Destination = withTraffic(s.Source, x.sent), withTraffic(s.Destination, x.returned)
	return entry{ev: ev, seq: id.Sequence, Facts: event.FactsOf(ev)}
}

func withTraffic(s *event.Side, t Traffic) *event.Side {
	if s == nil || t == (Traffic{}) {
		return s
	}
	c := *s
	c.Packets, c.Bytes = t.Packets, t.Bytes
	return &c
}
