package ofp

import (
	"strconv"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// HeaderLen is the size of a header in bytes, and so of the shortest message.
const HeaderLen = 8

// ParseHeader reads the header at the start of b. It fails with [ErrTruncated] if there are fewer than 8 bytes and with
// [ErrLength] if the message claims to be shorter than that, in which case the byte stream is lost.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, &ParseError{Msg: "header", Field: "header", Offset: len(b), Err: ErrTruncated}
	}
	h := Header{Version: Version(b[0]), Type: Type(b[1]), Length: be.Uint16(b[2:]), XID: be.Uint32(b[4:])}
	if h.Length < HeaderLen {
		return h, &ParseError{Msg: h.Type.String(), Field: "length", Offset: 2, Err: ErrLength}
	}
	return h, nil
}

// Decode reads the one message that b must hold exactly. Errors are *[ParseError]; b may then still be skipped, since its
// length is right. A message of another version than 1.3 fails with [ErrUnsupported], unless it is a hello, an error or an
// echo, which may come before the version is agreed on. Kinds of messages that are not known decode as *[Unknown].
func Decode(b []byte) (Message, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	st := state{}
	r := reader{st: &st, b: b[HeaderLen:], off: HeaderLen}
	if int(h.Length) != len(b) {
		st.msg = h.Type.String()
		err := ErrTruncated
		if int(h.Length) < len(b) {
			err = ErrLength
		}
		r.failAt(2, "length", err)
		return nil, st.err
	}
	if h.Version != Version13 && h.Type > TypeEchoReply {
		return nil, &ParseError{Msg: h.Type.String(), Field: "version " + strconv.Itoa(int(h.Version)), Err: ErrUnsupported}
	}
	m := r.message(h, b)
	if st.err != nil {
		if pe, ok := st.err.(*ParseError); ok && pe.Msg == "" {
			pe.Msg = h.Type.String()
		}
		return nil, st.err
	}
	return m, nil
}

// message reads the body of the message msg of header h.
func (r *reader) message(h Header, msg []byte) Message {
	switch h.Type {
	case TypeHello:
		return r.hello(h)
	case TypeError:
		return r.error(h)
	case TypeEchoRequest:
		return &EchoRequest{Header: h, Data: r.rest()}
	case TypeEchoReply:
		return &EchoReply{Header: h, Data: r.rest()}
	case TypeFeaturesReply:
		m := &FeaturesReply{Header: h, DatapathID: r.u64("datapath_id"), Buffers: r.u32("n_buffers"), Tables: r.u8("n_tables"),
			AuxiliaryID: r.u8("auxiliary_id")}
		r.skip(2, "padding")
		m.Capabilities = r.u32("capabilities")
		r.skip(4, "reserved")
		return m
	case TypeGetConfigReply:
		return &ConfigReply{Header: h, Flags: r.u16("flags"), MissSendLen: r.u16("miss_send_len")}
	case TypePacketIn:
		p := &PacketIn{}
		r.packetIn(h, p, msg)
		return p
	case TypeFlowRemoved:
		return r.flowRemoved(h)
	case TypePortStatus:
		m := &PortStatus{Header: h, Reason: PortReason(r.u8("reason"))}
		r.skip(7, "padding")
		m.Port = r.port()
		return m
	case TypeMultipartReply:
		return r.multipart(h)
	case TypeBarrierReply:
		return &BarrierReply{Header: h}
	case TypeRoleReply:
		m := &RoleReply{Header: h, Role: Role(r.u32("role"))}
		r.skip(4, "padding")
		m.GenerationID = r.u64("generation_id")
		return m
	case TypeExperimenter:
		return r.vendor(h, msg)
	}
	return &Unknown{Header: h, Body: r.rest()}
}

// hello reads the elements of a hello and skips those it does not know.
func (r *reader) hello(h Header) Message {
	m := &Hello{Header: h}
	for r.more() {
		if len(r.b) < 4 {
			break // a switch of an older version may send anything here (§7.5.1)
		}
		typ, e := r.property()
		if typ == 1 && r.st.err == nil { // OFPHET_VERSIONBITMAP
			m.Versions = e.u32("version bitmap")
		}
	}
	return m
}

func (r *reader) error(h Header) Message {
	typ, code := ErrorType(r.u16("type")), r.u16("code")
	var vendor uint32
	if typ == ErrorExperimenter {
		vendor = r.u32("experimenter")
	}
	c := ErrorCode(vendor)<<32 | ErrorCode(typ)<<16 | ErrorCode(code)
	return &Error{Header: h, Code: c, Data: r.rest()}
}

func (r *reader) flowRemoved(h Header) Message {
	m := &FlowRemoved{Header: h}
	f := &m.Flow
	f.Cookie = flow.Cookie(r.u64("cookie"))
	f.Priority = r.u16("priority")
	m.Reason = FlowRemovedReason(r.u8("reason"))
	f.Table = r.u8("table_id")
	f.Stats.DurationSec, f.Stats.DurationNsec = r.u32("duration_sec"), r.u32("duration_nsec")
	f.IdleTimeout, f.HardTimeout = r.u16("idle_timeout"), r.u16("hard_timeout")
	f.Stats.Packets, f.Stats.Bytes = r.u64("packet_count"), r.u64("byte_count")
	f.Match = r.match(nil)
	m.Err = r.st.unsupported
	return m
}

// port reads an ofp_port (§7.2.1).
func (r *reader) port() Port {
	p := Port{No: r.u32("port_no")}
	r.skip(4, "port padding")
	copy(p.HWAddr[:], r.bytes(6, "hw_addr"))
	r.skip(2, "port padding")
	p.Name = cString(r.bytes(16, "port name"))
	p.Config, p.State = r.u32("port config"), r.u32("port state")
	p.Current, p.Advertised = r.u32("port curr"), r.u32("port advertised")
	p.Supported, p.Peer = r.u32("port supported"), r.u32("port peer")
	p.CurrSpeed, p.MaxSpeed = r.u32("port curr_speed"), r.u32("port max_speed")
	return p
}

// cString is a fixed-size string up to its first zero byte.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// vendor reads an experimenter message.
func (r *reader) vendor(h Header, msg []byte) Message {
	vendor, subtype := r.u32("experimenter"), r.u32("exp_type")
	switch {
	case vendor == VendorNicira && subtype == nxtPacketIn2:
		p := &PacketIn{}
		r.packetIn2(h, p, msg)
		return p
	case vendor == VendorONF && subtype == onfMonitorPaused, vendor == VendorNicira && subtype == nxtMonitorPaused:
		return &MonitorPaused{Header: h}
	case vendor == VendorONF && subtype == onfMonitorResumed, vendor == VendorNicira && subtype == nxtMonitorResumed:
		return &MonitorResumed{Header: h}
	case vendor == VendorONF && subtype == onfBundleControl:
		return &BundleReply{Header: h, ID: r.u32("bundle_id"), Kind: BundleKind(r.u16("bundle type")), Flags: BundleFlags(r.u16("bundle flags"))}
	}
	return &Unknown{Header: h, Vendor: vendor, Subtype: subtype, Body: r.rest()}
}
