package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// OutOfStateReasons are the reasons for which TCP is dropped that conntrack has no place for, the names of which begin alike.
func OutOfStateReasons() []DropReason {
	return []DropReason{DropOutOfState, DropStrangeFlags, DropStraySYNACK, DropUnfitSegment, DropStrayReset, DropStrayFIN}
}

// outOfState drops in STATE what belongs to no connection, and TCP that does not fit into its own, each counted by what it is. The first of
// TCP are copied to the controller, which says who sends it.
//
// What conntrack takes for invalid is looked at above all else there, what it takes for new below the connections that it knows: packets
// of those meet ct_state alone.
func (p *program) outOfState() {
	p.drop(TableState, 200, DropInvalid, CtState(nil, flow.CtInv, flow.CtInv))
	// IPv4 has no protocol 0; OVS takes it for "there is no original tuple", so that rules with addresses would not match.
	p.drop(TableState, 199, DropInvalid, ipProto(EthIPv4, 0))
	tell := flow.Controller{MaxLen: LogBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyOutOfState.UserData(),
		MeterID: MeterOutOfState}
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		tcp := ipProto(ether, ProtoTCP)
		drop := func(priority uint16, r DropReason, state, value, mask uint64) {
			m := tcp
			if mask != 0 {
				m = tcp.WithMasked(flow.TCPFlags, flow.U64(value), flow.U64(mask))
			}
			p.add(TableState, priority, r.Cookie(), CtState(m, state, state), tell)
		}
		drop(234, DropStrangeFlags, flow.CtInv, tcpSYN|tcpRST, tcpSYN|tcpRST)
		drop(232, DropStrangeFlags, flow.CtInv, tcpSYN|tcpFIN, tcpSYN|tcpFIN)
		drop(230, DropStrangeFlags, flow.CtInv, 0, tcpSYN|tcpACK|tcpRST)
		drop(220, DropStraySYNACK, flow.CtInv, tcpSYN|tcpACK, tcpSYN|tcpACK)
		drop(210, DropUnfitSegment, flow.CtInv, 0, 0)
		// OVS's userspace conntrack takes a lone ACK, FIN or RST for the start of a connection; only a SYN is one.
		drop(154, DropStrayReset, flow.CtNew, tcpRST, tcpSYN|tcpRST)
		drop(152, DropStrayFIN, flow.CtNew, tcpFIN, tcpSYN|tcpFIN)
		drop(150, DropOutOfState, flow.CtNew, 0, tcpSYN)
	}
}
