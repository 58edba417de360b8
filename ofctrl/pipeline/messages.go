package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

const portDNS = 53

// messages copies what endpoints ask DNS, and what they are answered, whole: of packets that are on their way out, so that nothing is
// learned from what is dropped. A packet that was judged is copied in COMMIT, behind which it is not known any more whose reply it is,
// others in EXIT. What stations say to each other that are no endpoints is nobody's business.
func (p *program) messages() {
	if !p.opt.DNS {
		return
	}
	tell := flow.Controller{MaxLen: MessageBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyMessage.UserData(),
		MeterID: MeterMessage}
	nobody := Told.Is(DestinationEndpoint.Is(SourceEndpoint.Is(nil, 0), 0), 0)
	p.system(TableCommit, 160, nobody, Told.Load(1), table(TableCommit))
	p.system(TableExit, 20, nobody, flow.Output{Port: flow.PortNormal})
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		for _, port := range []flow.FieldID{flow.UDPSrc, flow.UDPDst} {
			m := Told.Is(ipProto(ether, ProtoUDP).With(port, flow.U64(portDNS)), 0)
			p.tell(150, m, tell)
			p.leave(10, m, tell)
		}
	}
}
