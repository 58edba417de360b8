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
		r.packetIn2(h, p)
	default:
		r.packetIn(h, p)
	}
	return true, st.err
}

// packetIn reads OFPT_PACKET_IN (§7.4.1).
func (r *reader) packetIn(h Header, p *PacketIn) {
	*p = PacketIn{Header: h, Match: p.Match[:0]}
	p.BufferID, p.TotalLen = r.u32("buffer_id"), uint32(r.u16("total_len"))
	p.Reason, p.Table = PacketInReason(r.u8("reason")), r.u8("table_id")
	p.Cookie = flow.Cookie(r.u64("cookie"))
	p.Match = r.match(p.Match)
	r.skip(2, "padding")
	p.Data = r.rest()
	p.finish(r)
}

// packetIn2 reads the properties of NXT_PACKET_IN2; properties that are not known are skipped.
func (r *reader) packetIn2(h Header, p *PacketIn) {
	*p = PacketIn{Header: h, Extended: true, BufferID: NoBuffer, Match: p.Match[:0], Cookie: ^flow.Cookie(0)}
	for r.more() {
		typ, v := r.property()
		if r.st.err != nil {
			return
		}
		switch typ {
		case pinPacket:
			p.Data = v.rest()
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
			p.UserData = v.rest()
		case pinContinuation:
			p.Continuation = v.rest()
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
