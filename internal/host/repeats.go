package host

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/packet"
)

// repeatWithin is how close copies of one connection's packets are that came at once.
const repeatWithin = 100 * time.Millisecond

// repeats recognises copies of the first packets of a connection that came in one burst: Open vSwitch looks up a batch of packets, of up to
// 32, before it acts on the first of them, and so finds none of them in the record. Later packets are not copied. What it has forgotten, as
// it remembers some hundred connections, is recorded twice. It is for the reader of the bridge's connection alone.
type repeats struct {
	seed maphash.Seed
	seen [512]struct {
		key uint64
		at  time.Time
	}
}

func newRepeats() *repeats { return &repeats{seed: maphash.MakeSeed()} }

// again reports whether the packet is of a connection, judged alike, whose copy has just come. A TCP segment is only if it is the same in
// all bytes: with a SYN of its own a connection begins anew.
func (r *repeats) again(in *record.PacketIn, now time.Time) bool {
	if !in.CtSrc.IsValid() {
		return false
	}
	b := make([]byte, 0, 64)
	b = append(append(b, in.CtSrc.AsSlice()...), in.CtDst.AsSlice()...)
	for _, v := range [...]uint16{in.CtZone, uint16(in.CtNwProto), in.CtTpSrc, in.CtTpDst} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	for _, v := range [...]uint32{in.EgressRule, in.IngressRule, uint32(in.Metadata), uint32(in.Metadata >> 32)} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	key := maphash.Bytes(r.seed, b)
	if in.CtNwProto == packet.ProtoTCP {
		key ^= maphash.Bytes(r.seed, in.Data)
	}
	at := &r.seen[key%uint64(len(r.seen))]
	known := at.key == key && now.Sub(at.at) < repeatWithin
	at.key, at.at = key, now
	return known
}
