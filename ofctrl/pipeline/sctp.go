package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// JudgeSCTP returns the flows that have every packet of SCTP judged, for as long as rules name ports of it. OVS's userspace conntrack has
// one connection for all of SCTP between two addresses, so that the rule that allowed it says nothing of the ports of the next packet.
// Rules match the packet's own, in a reply the other way round. What is a reply on a denied connection is dropped: it is not judged as its
// sender's own (see samePort), by which one who may open could give back what was revoked.
func JudgeSCTP() []flow.Flow {
	var p program
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		p.system(TableLiveEgress, 200, CtState(ipProto(ether, ProtoSCTP), flow.CtEst, flow.CtEst), goTo(TableRecheck))
	}
	return p.flows
}
