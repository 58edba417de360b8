package pipeline

import (
	"encoding/binary"
	"net"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Priorities of SPOOF.
const (
	priorityKnownMAC   uint16 = 100
	priorityWatchedMAC uint16 = 80
	priorityNoEndpoint uint16 = 60
	priorityUnknownMAC uint16 = 20
)

// spoof tells of endpoints that send under addresses that are not theirs. Every frame of an endpoint has its own flow or one of its
// endpoint (OwnMAC, StrayMAC, UnknownMAC), or else is copied to the controller and judged as the endpoint's, as its port says.
func (p *program) spoof() {
	p.system(TableSpoof, priorityNoEndpoint, SourceEndpoint.Is(nil, 0), goTo(TableDestination))
	p.add(TableSpoof, 0, SystemCookie(TableSpoof, ItemUnknownMAC), nil, tellMAC(), goTo(TableDestination))
	if p.opt.Guards {
		p.guard()
	}
}

// tellMAC copies the head of a frame. A meter of its own keeps a flood of addresses from displacing the record.
func tellMAC() flow.Action {
	return flow.Controller{MaxLen: MACBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyUnknownMAC.UserData(),
		MeterID: MeterUnknownMAC}
}

// OwnMAC returns the flow for what the endpoint sends under its own address.
func OwnMAC(c flow.Cookie, endpoint uint32, mac uint64) flow.Flow {
	return flow.Flow{Table: TableSpoof, Priority: priorityKnownMAC, Cookie: c,
		Match:   anyGeneration(SourceEndpoint, flow.Match{}.With(flow.EthSrc, flow.U64(mac)), endpoint),
		Actions: []flow.Action{goTo(TableDestination)}}
}

// tellRefused copies what SPOOF refuses, for the record.
func tellRefused(r CopyReason) flow.Action {
	return flow.Controller{MaxLen: LogBytes, ID: ControllerID, Reason: reasonAction, UserData: r.UserData(), MeterID: MeterGuard}
}

// StrayMAC returns the flow for what the endpoint sends in a zone under an address that is not its own and was told of already: it is
// not told of again, but for the record where it is dropped.
func StrayMAC(c flow.Cookie, endpoint uint32, zone uint16, mac uint64, drop bool) flow.Flow {
	f := OwnMAC(c, endpoint, mac)
	f.Match = CtZone.Is(f.Match, uint64(zone))
	if drop {
		f.Cookie, f.Actions = DropUnknownMAC.Cookie(), []flow.Action{tellRefused(CopyMACDrop)}
	}
	return f
}

// WatchMAC returns the flow that tells when a station that is no endpoint sends under an address that was bound to an endpoint by BindMAC.
func WatchMAC(c flow.Cookie, zone uint16, mac uint64) flow.Flow {
	return flow.Flow{Table: TableSpoof, Priority: priorityWatchedMAC, Cookie: c,
		Match:   CtZone.Is(SourceEndpoint.Is(flow.Match{}.With(flow.EthSrc, flow.U64(mac)), 0), uint64(zone)),
		Actions: []flow.Action{tellMAC(), goTo(TableDestination)}}
}

// BindMAC returns the flow that recognises frames to an address that the endpoint was seen to use in a zone. Whoever declares the address
// goes before.
func BindMAC(c flow.Cookie, who Identity, zone uint16, mac uint64) flow.Flow {
	return flow.Flow{Table: TableDestination, Priority: PriorityStrayMAC, Cookie: c,
		Match:   CtZone.Is(flow.Match{}.With(flow.EthDst, flow.U64(mac)), uint64(zone)),
		Actions: append(who.AsDestination(), goTo(TablePre))}
}

// UnknownMAC returns the flow for what the endpoint sends under addresses that have no flow. Without it they are told of and judged.
func UnknownMAC(c flow.Cookie, endpoint uint32, tell, drop bool) flow.Flow {
	f := flow.Flow{Table: TableSpoof, Priority: priorityUnknownMAC, Cookie: c, Match: anyGeneration(SourceEndpoint, nil, endpoint)}
	if tell {
		f.Actions = append(f.Actions, tellMAC())
	}
	if drop {
		f.Cookie, f.Actions = DropUnknownMAC.Cookie(), append(f.Actions, tellRefused(CopyMACDrop))
	} else {
		f.Actions = append(f.Actions, goTo(TableDestination))
	}
	return f
}

// ParseStrayMAC reads the match of a flow of StrayMAC back, endpoint being the base of its ids; ok is false for other flows of SPOOF.
func ParseStrayMAC(m flow.Match) (endpoint uint32, vlan int, mac net.HardwareAddr, ok bool) {
	who, ok1 := m.Get(SourceEndpoint.Field)
	zone, ok2 := m.Get(CtZone.Field)
	src, ok3 := m.Get(flow.EthSrc)
	if !ok1 || !ok2 || !ok3 || who.Value.Lo == 0 {
		return 0, 0, nil, false
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], src.Value.Lo)
	return uint32(who.Value.Lo), int(zone.Value.Lo & 0xfff), b[2:], true
}
