package ofp

import (
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// begin appends the header of a message of OpenFlow 1.3; end fills in its length.
func begin(dst []byte, t Type, xid uint32) []byte {
	dst = append(dst, byte(Version13), byte(t), 0, 0)
	return be.AppendUint32(dst, xid)
}

// beginVendor appends the header of an experimenter message.
func beginVendor(dst []byte, xid, vendor, subtype uint32) []byte {
	dst = begin(dst, TypeExperimenter, xid)
	return be.AppendUint32(be.AppendUint32(dst, vendor), subtype)
}

// end writes the length of the message that begins at start, or takes the message back if it failed or is too long.
func end(dst []byte, start int, err error) ([]byte, error) {
	if err != nil {
		return dst[:start], err
	}
	n := len(dst) - start
	if n > 0xffff {
		return dst[:start], fmt.Errorf("%v of %d bytes: %w", Type(dst[start+1]), n, ErrLength)
	}
	be.PutUint16(dst[start+2:], uint16(n))
	return dst, nil
}

// endShort is end for messages that cannot fail.
func endShort(dst []byte, start int) []byte {
	be.PutUint16(dst[start+2:], uint16(len(dst)-start))
	return dst
}

// AppendHello appends a hello (§7.5.1) that offers versions, by default 1.3 alone, in a version bitmap. Its header carries
// the highest of them, so that a switch without bitmaps understands it too.
func AppendHello(dst []byte, xid uint32, versions ...Version) []byte {
	var bits uint32
	high := Version13
	if len(versions) == 0 {
		bits = 1 << Version13
	} else {
		high = 0
		for _, v := range versions {
			if v < 32 {
				bits |= 1 << v
				high = max(high, v)
			}
		}
	}
	dst = append(dst, byte(high), byte(TypeHello), 0, 16)
	dst = be.AppendUint32(dst, xid)
	dst = append(dst, 0, 1, 0, 8) // OFPHET_VERSIONBITMAP
	return be.AppendUint32(dst, bits)
}

// AppendEchoRequest appends an echo request; errors match [ErrLength].
func AppendEchoRequest(dst []byte, xid uint32, data []byte) ([]byte, error) {
	start := len(dst)
	return end(append(begin(dst, TypeEchoRequest, xid), data...), start, nil)
}

// AppendEchoReply appends the answer to r, with its transaction id and data; errors match [ErrLength].
func AppendEchoReply(dst []byte, r *EchoRequest) ([]byte, error) {
	start := len(dst)
	dst = append(begin(dst, TypeEchoReply, r.XID), r.Data...)
	if r.Version != 0 {
		dst[start] = byte(r.Version) // an echo may come before the versions are agreed on
	}
	return end(dst, start, nil)
}

// AppendFeaturesRequest appends a features request (§7.3.1).
func AppendFeaturesRequest(dst []byte, xid uint32) []byte {
	return endShort(begin(dst, TypeFeaturesRequest, xid), len(dst))
}

// AppendGetConfigRequest appends a get-config request (§7.3.2).
func AppendGetConfigRequest(dst []byte, xid uint32) []byte {
	return endShort(begin(dst, TypeGetConfigRequest, xid), len(dst))
}

// AppendSetConfig appends a set-config (§7.3.2). A connection on a bridge's management socket gets no asynchronous message
// until missSendLen (bytes) is above 0.
func AppendSetConfig(dst []byte, xid uint32, flags, missSendLen uint16) []byte {
	start := len(dst)
	dst = be.AppendUint16(begin(dst, TypeSetConfig, xid), flags)
	return endShort(be.AppendUint16(dst, missSendLen), start)
}

// AppendBarrierRequest appends a barrier request (§7.3.8).
func AppendBarrierRequest(dst []byte, xid uint32) []byte {
	return endShort(begin(dst, TypeBarrierRequest, xid), len(dst))
}

// AppendRoleRequest appends a role request (§7.3.9). The generation matters to primary and secondary only.
func AppendRoleRequest(dst []byte, xid uint32, role Role, generation uint64) []byte {
	start := len(dst)
	dst = be.AppendUint32(begin(dst, TypeRoleRequest, xid), uint32(role))
	return endShort(be.AppendUint64(appendZeros(dst, 4), generation), start)
}

func (c AsyncConfig) masks() [6]uint32 {
	return [6]uint32{c.PacketIn[0], c.PacketIn[1], c.PortStatus[0], c.PortStatus[1], c.FlowRemoved[0], c.FlowRemoved[1]}
}

// AppendSetAsync appends OFPT_SET_ASYNC (§7.3.10), which also opens a management connection to asynchronous messages.
func AppendSetAsync(dst []byte, xid uint32, c AsyncConfig) []byte {
	start := len(dst)
	dst = begin(dst, TypeSetAsync, xid)
	for _, m := range c.masks() {
		dst = be.AppendUint32(dst, m)
	}
	return endShort(dst, start)
}

// AppendSetAsync2 appends NXT_SET_ASYNC_CONFIG2, the same as properties. A switch that speaks 1.3 refuses the reasons of
// later versions here (OFPACFC_INVALID), where [AppendSetAsync] ignores them.
func AppendSetAsync2(dst []byte, xid uint32, c AsyncConfig) []byte {
	start := len(dst)
	dst = beginVendor(dst, xid, VendorNicira, nxtSetAsync2)
	for i, m := range c.masks() {
		// OFPACPT_*: even for a secondary, odd for the others.
		dst = be.AppendUint32(append(dst, 0, byte(i^1), 0, 8), m)
	}
	return endShort(dst, start)
}

// AppendSetPacketInFormat appends NXT_SET_PACKET_IN_FORMAT.
func AppendSetPacketInFormat(dst []byte, xid uint32, f PacketInFormat) []byte {
	start := len(dst)
	return endShort(be.AppendUint32(beginVendor(dst, xid, VendorNicira, nxtSetPacketInFormat), uint32(f)), start)
}

// AppendSetControllerID appends NXT_SET_CONTROLLER_ID: packets of controller(id=…) come to the connection with that id.
func AppendSetControllerID(dst []byte, xid uint32, id uint16) []byte {
	start := len(dst)
	dst = appendZeros(beginVendor(dst, xid, VendorNicira, nxtSetControllerID), 6)
	return endShort(be.AppendUint16(dst, id), start)
}

// AppendPacketOut appends a packet-out (§7.3.7) with the packet in it. Errors match [ErrValue] and [ErrLength].
func AppendPacketOut(dst []byte, xid uint32, p *PacketOut) ([]byte, error) {
	start := len(dst)
	dst = be.AppendUint32(begin(dst, TypePacketOut, xid), NoBuffer)
	dst = appendZeros(be.AppendUint32(dst, p.InPort), 8)
	at := len(dst)
	dst, err := appendActions(dst, p.Actions, 0)
	if n := len(dst) - at; err == nil && n > 0xffff {
		err = fmt.Errorf("actions of %d bytes: %w", n, ErrLength)
	}
	if err == nil {
		be.PutUint16(dst[at-8:], uint16(len(dst)-at))
		dst = append(dst, p.Data...)
	}
	return end(dst, start, err)
}

// AppendPortMod appends a port-mod (§7.3.4.3).
func AppendPortMod(dst []byte, xid uint32, p *PortMod) []byte {
	start := len(dst)
	dst = appendZeros(be.AppendUint32(begin(dst, TypePortMod, xid), p.No), 4)
	dst = appendZeros(append(dst, p.HWAddr[:]...), 2)
	dst = be.AppendUint32(be.AppendUint32(dst, p.Config), p.Mask)
	return endShort(appendZeros(be.AppendUint32(dst, p.Advertise), 4), start)
}

// AppendResume appends NXT_RESUME: the packet of p, which must have a Continuation, goes on where controller(pause)
// stopped it, with the Data and Match that p has now.
func AppendResume(dst []byte, xid uint32, p *PacketIn) ([]byte, error) {
	start := len(dst)
	if p.Continuation == nil {
		return dst, fmt.Errorf("packet-in without continuation: %w", ErrValue)
	}
	dst = beginVendor(dst, xid, VendorNicira, nxtResume)
	dst = appendProp(dst, pinPacket, p.Data)
	dst = append(dst, 0, pinTable, 0, 5, p.Table, 0, 0, 0)
	dst = be.AppendUint64(append(dst, 0, pinCookie, 0, 16, 0, 0, 0, 0), uint64(p.Cookie))
	dst = append(dst, 0, pinReason, 0, 5, byte(p.Reason), 0, 0, 0)
	at := len(dst)
	dst, err := appendOXMs(append(dst, 0, pinMetadata, 0, 0), p.Match)
	if err == nil {
		be.PutUint16(dst[at+2:], uint16(len(dst)-at))
		dst = appendProp(appendPad(dst, at), pinContinuation, p.Continuation)
	}
	// A property that wraps its own length makes the message too long as well.
	return end(dst, start, err)
}

// appendProp appends a property of bytes with its padding.
func appendProp(dst []byte, typ uint16, b []byte) []byte {
	at := len(dst)
	dst = be.AppendUint16(be.AppendUint16(dst, typ), uint16(4+len(b)))
	return appendPad(append(dst, b...), at)
}

// The subtypes of Nicira messages (NXT_*) and of ONF messages that OpenFlow 1.3 has for features of 1.4.
const (
	nxtSetPacketInFormat = 16
	nxtSetControllerID   = 20
	nxtSetAsync2         = 27
	nxtResume            = 28
	nxtCTFlushZone       = 29
	nxtPacketIn2         = 30
	nxtCTFlush           = 32

	nxtMonitorCancel  = 21 // OpenFlow 1.0 to 1.2
	nxtMonitorPaused  = 22
	nxtMonitorResumed = 23
	nxstFlowMonitor   = 2

	onfFlowMonitor    = 1870 // the multipart type and the cancel message
	onfMonitorPaused  = 1871
	onfMonitorResumed = 1872

	onfBundleControl = 2300
	onfBundleAdd     = 2301
)

// The properties of NXT_PACKET_IN2 and NXT_RESUME (NXPINT_*).
const (
	pinPacket = iota
	pinFullLen
	pinBufferID
	pinTable
	pinCookie
	pinReason
	pinMetadata
	pinUserData
	pinContinuation
)

// anyPort and anyGroup turn the zero value of our options into the wildcard of the protocol.
func anyPort(p uint32) uint32 {
	if p == 0 {
		return flow.PortAny
	}
	return p
}

func anyGroup(g uint32) uint32 {
	if g == 0 {
		return flow.NoGroup
	}
	return g
}
