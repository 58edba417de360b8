package ofp

import (
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// beginMultipart appends the header of a multipart request (§7.3.5) of one part.
func beginMultipart(dst []byte, xid uint32, t MultipartType) []byte {
	return appendZeros(be.AppendUint16(begin(dst, TypeMultipartRequest, xid), uint16(t)), 6)
}

func appendMultipart(dst []byte, xid uint32, t MultipartType) []byte {
	return endShort(beginMultipart(dst, xid, t), len(dst))
}

// appendMultipartID appends a request for one object, or all by the wildcard id of its kind.
func appendMultipartID(dst []byte, xid uint32, t MultipartType, id uint32) []byte {
	start := len(dst)
	return endShort(appendZeros(be.AppendUint32(beginMultipart(dst, xid, t), id), 4), start)
}

// AppendDescRequest appends a request for [DescReply].
func AppendDescRequest(dst []byte, xid uint32) []byte {
	return appendMultipart(dst, xid, MultipartDesc)
}

// AppendTableStatsRequest appends a request for [TableStatsReply].
func AppendTableStatsRequest(dst []byte, xid uint32) []byte {
	return appendMultipart(dst, xid, MultipartTable)
}

// AppendPortDescRequest appends a request for [PortDescReply].
func AppendPortDescRequest(dst []byte, xid uint32) []byte {
	return appendMultipart(dst, xid, MultipartPortDesc)
}

// AppendGroupDescRequest appends a request for [GroupDescReply].
func AppendGroupDescRequest(dst []byte, xid uint32) []byte {
	return appendMultipart(dst, xid, MultipartGroupDesc)
}

// AppendMeterFeaturesRequest appends a request for [MeterFeaturesReply].
func AppendMeterFeaturesRequest(dst []byte, xid uint32) []byte {
	return appendMultipart(dst, xid, MultipartMeterFeatures)
}

// AppendPortStatsRequest appends a request for [PortStatsReply] of a port, or of all by flow.PortAny.
func AppendPortStatsRequest(dst []byte, xid, port uint32) []byte {
	return appendMultipartID(dst, xid, MultipartPortStats, port)
}

// AppendGroupStatsRequest appends a request for [GroupStatsReply] of a group, or of all by [AllGroups].
func AppendGroupStatsRequest(dst []byte, xid, group uint32) []byte {
	return appendMultipartID(dst, xid, MultipartGroup, group)
}

// AppendMeterStatsRequest appends a request for [MeterStatsReply] of a meter, or of all by [AllMeters].
func AppendMeterStatsRequest(dst []byte, xid, meter uint32) []byte {
	return appendMultipartID(dst, xid, MultipartMeter, meter)
}

// AppendMeterConfigRequest appends a request for [MeterConfigReply] of a meter, or of all by [AllMeters].
func AppendMeterConfigRequest(dst []byte, xid, meter uint32) []byte {
	return appendMultipartID(dst, xid, MultipartMeterConfig, meter)
}

// AppendFlowStatsRequest appends a request for [FlowStatsReply]. Errors are those of [AppendMatch].
func AppendFlowStatsRequest(dst []byte, xid uint32, f FlowFilter) ([]byte, error) {
	return appendFlowRequest(dst, xid, MultipartFlow, f)
}

// AppendAggregateRequest appends a request for [AggregateReply]. Errors are those of [AppendMatch].
func AppendAggregateRequest(dst []byte, xid uint32, f FlowFilter) ([]byte, error) {
	return appendFlowRequest(dst, xid, MultipartAggregate, f)
}

func appendFlowRequest(dst []byte, xid uint32, t MultipartType, f FlowFilter) ([]byte, error) {
	start := len(dst)
	dst = append(beginMultipart(dst, xid, t), f.Table, 0, 0, 0)
	dst = be.AppendUint32(be.AppendUint32(dst, anyPort(f.OutPort)), anyGroup(f.OutGroup))
	dst = be.AppendUint64(be.AppendUint64(appendZeros(dst, 4), f.Cookie), f.CookieMask)
	dst, err := AppendMatch(dst, f.Match)
	return end(dst, start, err)
}

// AppendFlowMonitorRequest appends a request for [FlowUpdates]: one reply now, and more with transaction id 0 as flows
// change. OpenFlow 1.3 has it as multipart type 1870 of the ONF. Errors match [ErrValue] if m asks for no event.
func AppendFlowMonitorRequest(dst []byte, xid uint32, m FlowMonitor) ([]byte, error) {
	start := len(dst)
	if m.Flags&(MonitorAdd|MonitorDelete|MonitorModify) == 0 {
		return dst, fmt.Errorf("flow monitor without events: %w", ErrValue)
	}
	dst = beginMultipart(dst, xid, MultipartExperimenter)
	dst = be.AppendUint32(be.AppendUint32(dst, VendorONF), onfFlowMonitor)
	dst = be.AppendUint16(be.AppendUint32(dst, m.ID), uint16(m.Flags))
	at := len(dst)
	dst = be.AppendUint32(appendZeros(dst, 2), anyPort(m.OutPort))
	dst = append(dst, m.Table, 0, 0, 0)
	from := len(dst)
	dst, err := AppendMatch(dst, m.Match)
	if err == nil {
		be.PutUint16(dst[at:], uint16(len(dst)-from))
	}
	return end(dst, start, err)
}

// AppendFlowMonitorCancel appends the end of monitor id. The switch answers only if it fails.
func AppendFlowMonitorCancel(dst []byte, xid, id uint32) []byte {
	start := len(dst)
	return endShort(be.AppendUint32(beginVendor(dst, xid, VendorONF, onfFlowMonitor), id), start)
}

// Properties of NXT_CT_FLUSH and, inside the tuples, theirs.
const (
	ctFlushOrig  = 0
	ctFlushReply = 1
	ctFlushZone  = 2

	ctTupleSrc      = 0
	ctTupleDst      = 1
	ctTupleSport    = 2
	ctTupleDport    = 3
	ctTupleICMPID   = 4
	ctTupleICMPType = 5
	ctTupleICMPCode = 6

	protoICMP   = 1
	protoICMPv6 = 58
)

// AppendCTFlush appends NXT_CT_FLUSH. Open vSwitch 3.1 removes only part of the entries if the tuples are incomplete, and says
// nothing if no entry fits. Errors match [ErrValue] if ports come without a protocol that has them.
func AppendCTFlush(dst []byte, xid uint32, c CTFlush) ([]byte, error) {
	start := len(dst)
	dst = append(beginVendor(dst, xid, VendorNicira, nxtCTFlush), c.Proto)
	dst = appendZeros(dst, 7)
	var err error
	for i, t := range [...]CTTuple{ctFlushOrig: c.Orig, ctFlushReply: c.Reply} {
		if dst, err = appendCTTuple(dst, uint16(i), c.Proto, t); err != nil {
			return dst[:start], err
		}
	}
	if !c.AnyZone {
		dst = appendProp16(dst, ctFlushZone, c.Zone)
	}
	return end(dst, start, nil)
}

func appendCTTuple(dst []byte, typ uint16, proto uint8, t CTTuple) ([]byte, error) {
	if t == (CTTuple{}) {
		return dst, nil
	}
	icmp := proto == protoICMP || proto == protoICMPv6
	if proto == 0 && (t.SrcPort|t.DstPort != 0) || icmp && t.SrcPort|t.DstPort != 0 || !icmp && (t.ICMPID != 0 || t.ICMPType|t.ICMPCode != 0) {
		return dst, fmt.Errorf("conntrack tuple %+v of protocol %d: %w", t, proto, ErrValue)
	}
	at := len(dst)
	dst = appendZeros(be.AppendUint16(dst, typ), 6) // length, then padding to where the nested ones begin
	for i, a := range [...]flow.U128{addr128(t.Src), addr128(t.Dst)} {
		if !a.IsZero() {
			p := len(dst)
			dst = be.AppendUint16(be.AppendUint16(dst, uint16(ctTupleSrc+i)), 20)
			dst = appendPad(appendUint(dst, a, 16), p)
		}
	}
	if icmp {
		dst = appendProp16(dst, ctTupleICMPID, t.ICMPID)
		dst = append(dst, 0, ctTupleICMPType, 0, 5, t.ICMPType, 0, 0, 0)
		dst = append(dst, 0, ctTupleICMPCode, 0, 5, t.ICMPCode, 0, 0, 0)
	} else {
		if t.SrcPort != 0 {
			dst = appendProp16(dst, ctTupleSport, t.SrcPort)
		}
		if t.DstPort != 0 {
			dst = appendProp16(dst, ctTupleDport, t.DstPort)
		}
	}
	be.PutUint16(dst[at+2:], uint16(len(dst)-at))
	return dst, nil
}

// AppendCTFlushZone appends NXT_CT_FLUSH_ZONE: every entry of the zone goes, also those of other bridges.
func AppendCTFlushZone(dst []byte, xid uint32, zone uint16) []byte {
	start := len(dst)
	dst = appendZeros(beginVendor(dst, xid, VendorNicira, nxtCTFlushZone), 6)
	return endShort(be.AppendUint16(dst, zone), start)
}
