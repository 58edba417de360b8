package ofp

import (
	"github.com/tapwall/tapwall/ofctrl/flow"
)

// DecodePacketIn reads a packet-in of either format into p and reuses the memory of p.Match, so that a receiver that keeps
// one PacketIn allocates nothing per packet. ok is false, and p unchanged, if b is another message. p is in no defined
// state after an error.
func DecodePacketIn(p *PacketIn, b []byte) (ok bool, err error) {
	if len(b) < HeaderLen || b[0] != byte(Version13) {
		return false, nil
	}
	v2 := b[1] == byte(TypeExperimenter)
	if v2 && (len(b) < 16 || be.Uint32(b[8:]) != VendorNicira || be.Uint32(b[12:]) != nxtPacketIn2) {
		return false, nil
	}
	if !v2 && b[1] != byte(TypePacketIn) {
		return false, nil
	}
	h, err := ParseHeader(b)
	if err != nil {
		return true, err
	}
	st := state{msg: "packet-in"}
	r := reader{st: &st, b: b[HeaderLen:], off: HeaderLen}
	switch {
	case int(h.Length) > len(b):
		r.failAt(2, "length", ErrTruncated)
	case int(h.Length) < len(b):
		r.failAt(2, "length", ErrLength)
	case v2:
		r.skip(8, "experimenter")
		r.packetIn2(h, p, b)
	default:
		r.packetIn(h, p, b)
	}
	return true, st.err
}

// restOf returns all that is left as a part of the whole message msg. It is rest without the result coming from r itself, so
// that the compiler need not put r's state on the heap for the sake of a p that is there.
func (r *reader) restOf(msg []byte) []byte {
	lo := r.off
	hi := lo + len(r.b)
	if r.st.err != nil || hi > len(msg) {
		return nil
	}
	r.b, r.off = nil, hi
	return msg[lo:hi:hi]
}

// packetIn reads OFPT_PACKET_IN (§7.4.1) out of msg.
func (r *reader) packetIn(h Header, p *PacketIn, msg []byte) {
	*p = PacketIn{Header: h, Match: p.Match[:0]}
	p.BufferID, p.TotalLen = r.u32("buffer_id"), uint32(r.u16("total_len"))
	p.Reason, p.Table = PacketInReason(r.u8("reason")), r.u8("table_id")
	p.Cookie = flow.Cookie(r.u64("cookie"))
	p.Match = r.match(p.Match)
	r.skip(2, "padding")
	p.Data = r.restOf(msg)
	p.finish(r)
}

// packetIn2 reads the properties of NXT_PACKET_IN2 out of msg; properties that are not known are skipped.
func (r *reader) packetIn2(h Header, p *PacketIn, msg []byte) {
	*p = PacketIn{Header: h, Extended: true, BufferID: NoBuffer, Match: p.Match[:0], Cookie: ^flow.Cookie(0)}
	for r.more() {
		typ, v := r.property()
		if r.st.err != nil {
			return
		}
		switch typ {
		case pinPacket:
			p.Data = v.restOf(msg)
		case pinFullLen:
			p.TotalLen = v.u32("full_len")
		case pinBufferID:
			p.BufferID = v.u32("buffer_id")
		case pinTable:
			p.Table = v.u8("table_id")
		case pinCookie:
			v.skip(4, "cookie padding")
			p.Cookie = flow.Cookie(v.u64("cookie"))
		case pinReason:
			p.Reason = PacketInReason(v.u8("reason"))
		case pinMetadata:
			p.Match = v.oxms(p.Match[:0])
		case pinUserData:
			p.UserData = v.restOf(msg)
		case pinContinuation:
			p.Continuation = v.restOf(msg)
		}
	}
	p.finish(r)
}

// finish settles what both formats have.
func (p *PacketIn) finish(r *reader) {
	p.TotalLen = max(p.TotalLen, uint32(len(p.Data)))
	if len(p.Data) == 0 {
		p.Data = nil
	}
	p.UnknownFields = r.st.unknowns
}
