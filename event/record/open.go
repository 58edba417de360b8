package record

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
)

const (
	// maxOpen bounds the connections whose end is waited for, or is not told yet. Each holds the event of its start, which takes some 1.3 kB
	// once the ring has let go of it.
	maxOpen = 65_536
	// lookAfter is how old a connection has to be for a look at the switch to say something of it: the copy of its first packet is sent before
	// the switch enters it into its table.
	lookAfter = time.Second
	// roughly is how far the time of a last packet may be off, as the switch tells what is left of a timeout in whole seconds.
	roughly = time.Second
)

// Tuple is what tells connections of a conntrack zone apart: the original direction. Of ICMP, SrcPort is the identifier and DstPort has
// type and code: see ICMPPort.
type Tuple struct {
	Src, Dst         [16]byte // as netip.Addr.As16
	SrcPort, DstPort uint16
	Proto            uint8
}

// NewTuple makes one of addresses and ports.
func NewTuple(proto uint8, src, dst netip.Addr, sport, dport uint16) Tuple {
	return Tuple{src.As16(), dst.As16(), sport, dport, proto}
}

// ICMPPort is DstPort of ICMP and ICMPv6.
func ICMPPort(typ, code uint8) uint16 { return uint16(typ)<<8 | uint16(code) }

// Look is what somebody who looked at the connection table of a switch found of one bridge.
type Look struct {
	Host, Bridge string
	Zones        []uint16  // that were looked at; nil = all of the bridge
	Began, Ended time.Time // when the switch was asked, and had answered
	Found        map[uint16]map[Tuple]Tracked
	// Unwatched: nobody can look there any more. It says that of all connections of the bridge.
	Unwatched bool
}

// Tracked is a connection that was found.
type Tracked struct {
	Closed bool      // it only lingers
	Last   time.Time // when its last packet came, to the second, of one that is closed; zero = not known
	// Sent and Returned are what its two sides have sent; 0 = the datapath does not count.
	Sent, Returned Traffic
}

// Traffic counts packets and their bytes.
type Traffic struct{ Packets, Bytes int64 }

// place is a bridge of a host.
type place struct{ host, bridge string }

// opened is a connection that was recorded and has not ended as far as is known. Times are Unix nanoseconds.
type opened struct {
	start          *event.Event
	began, seen    int64
	sent, returned Traffic // as last seen
	restored       bool    // an earlier process recorded it, and it was not seen since
}

// ending is a connection that has ended, and that no event has told of yet.
type ending struct {
	*opened
	how, reason string
	end         int64
}

// openTable holds the recorded connections whose end is to be told. Its mutex is a leaf: nothing is called under it.
type openTable struct {
	most int // open or ended and not told

	mu      sync.Mutex
	places  map[place]map[uint16]map[Tuple]*opened
	held    int
	ended   []ending
	changes uint64
}

func newOpenTable() openTable {
	return openTable{most: maxOpen, places: map[place]map[uint16]map[Tuple]*opened{}}
}

// begin takes up a connection by the event of its start. fresh says that it begins with that packet: what is in its place has ended. It
// returns false if there is no room.
func (o *openTable) begin(at place, zone uint16, t Tuple, c *opened, fresh bool) (room bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	zones := o.places[at]
	old := zones[zone][t]
	switch {
	case old != nil && (old.began == c.began || !fresh && old.began < c.began):
		return true // the same packet, or connection, is told again
	case o.held >= o.most:
		return false
	}
	o.held++
	o.changes++
	if old != nil && old.began > c.began { // c is of an earlier process
		o.end(c, event.EndReplaced, old.began, false)
		return true
	}
	if old != nil {
		o.end(old, event.EndReplaced, c.began, false)
	}
	if zones == nil {
		zones = map[uint16]map[Tuple]*opened{}
		o.places[at] = zones
	}
	if zones[zone] == nil {
		zones[zone] = map[Tuple]*opened{}
	}
	zones[zone][t] = c
	return true
}

// cut ends the connection, if there is one, because one of its packets was denied. exact is false of the first packet of another one.
func (o *openTable) cut(at place, zone uint16, t Tuple, when int64, exact bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	conns := o.places[at][zone]
	c := conns[t]
	if c == nil {
		return
	}
	how := event.EndCut
	if !exact {
		how = event.EndReplaced
	}
	delete(conns, t)
	o.end(c, how, when, exact)
	o.prune(at, zone)
}

// end notes that a connection has ended, at the latest at the given time; mu is held.
func (o *openTable) end(c *opened, how string, when int64, exact bool) {
	x := ending{opened: c, how: how, reason: event.EndBounded, end: max(when, c.began)}
	switch {
	case c.restored:
		x.reason = event.EndRestarted
	case exact:
		x.reason = event.EndExact
	}
	o.ended = append(o.ended, x)
	o.changes++
}

// prune forgets a zone without connections; mu is held.
func (o *openTable) prune(at place, zone uint16) {
	if len(o.places[at][zone]) == 0 {
		delete(o.places[at], zone)
	}
	if len(o.places[at]) == 0 {
		delete(o.places, at)
	}
}

// look ends what is not there any more, or lingers only, and reports whether anything has ended.
func (o *openTable) look(l *Look) (some bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := place{l.Host, l.Bridge}
	before := len(o.ended)
	began, ended := l.Began.UnixNano(), l.Ended.UnixNano()
	for zone, conns := range o.places[at] {
		if l.Zones != nil && !slices.Contains(l.Zones, zone) {
			continue
		}
		for t, c := range conns {
			if c.began > began-int64(lookAfter) && !l.Unwatched {
				continue
			}
			x, found := l.Found[zone][t]
			if found {
				c.sent, c.returned = x.Sent, x.Returned
			}
			switch last := x.Last.UnixNano(); {
			case l.Unwatched:
				o.end(c, event.EndUnwatched, ended, false)
			case !found:
				o.end(c, event.EndGone, ended, false)
			case x.Closed && !x.Last.IsZero() && last >= c.seen-int64(roughly):
				o.end(c, event.EndClosed, last, true)
			case x.Closed:
				o.end(c, event.EndClosed, ended, false)
			default:
				c.seen, c.restored = began, false
				continue
			}
			delete(conns, t)
		}
		o.prune(at, zone)
	}
	o.changes++
	o.sort(before)
	return len(o.ended) > before
}

// abandon ends what an earlier process recorded and nobody has looked for.
func (o *openTable) abandon(now int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := len(o.ended)
	for at, zones := range o.places {
		for zone, conns := range zones {
			for t, c := range conns {
				if c.restored {
					o.end(c, event.EndUnwatched, now, false)
					delete(conns, t)
				}
			}
			o.prune(at, zone)
		}
	}
	o.sort(before)
}

// sort has ends told in the order of the starts; mu is held.
func (o *openTable) sort(from int) {
	slices.SortFunc(o.ended[from:], func(a, b ending) int { return cmp.Compare(a.start.Event.Sequence, b.start.Event.Sequence) })
}

// take returns the next ends to tell of, at most n.
func (o *openTable) take(n int) []ending {
	o.mu.Lock()
	defer o.mu.Unlock()
	n = min(n, len(o.ended))
	if n == 0 {
		return nil
	}
	out := slices.Clone(o.ended[:n])
	o.held -= n
	clear(o.ended[:n])
	o.ended = o.ended[n:]
	return out
}

// count returns how many connections are open, and not told of.
func (o *openTable) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held
}

// of returns how many connections of a host are open, by bridge and zone.
func (o *openTable) of(host string) map[string]map[uint16]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out map[string]map[uint16]int
	for at, zones := range o.places {
		if at.host != host {
			continue
		}
		if out == nil {
			out = map[string]map[uint16]int{}
		}
		out[at.bridge] = make(map[uint16]int, len(zones))
		for zone, conns := range zones {
			out[at.bridge][zone] = len(conns)
		}
	}
	return out
}

// tupleOf is the one of a tracked packet; ok is false of those that do not stand for a connection.
func tupleOf(pi *PacketIn, p *packet.Parsed) (t Tuple, ok bool) {
	if !pi.CtSrc.IsValid() || pi.CtSrc.IsUnspecified() || !pi.CtDst.IsValid() || pi.CtState&ctRelated != 0 && pi.CtState&ctNew == 0 ||
		pi.CtState&ctInvalid != 0 {
		return t, false
	}
	sport, dport := pi.CtTpSrc, pi.CtTpDst
	if pi.CtNwProto == packet.ProtoICMP || pi.CtNwProto == packet.ProtoICMPv6 {
		sport, dport = p.ICMPID, ICMPPort(uint8(pi.CtTpSrc), uint8(pi.CtTpDst))
	}
	return NewTuple(pi.CtNwProto, pi.CtSrc, pi.CtDst, sport, dport), true
}
