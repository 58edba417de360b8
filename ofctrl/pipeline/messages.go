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

// awaits is what COMMIT says of the data that comes first on a connection.
type awaits int

const (
	nothing awaits = iota // it is not looked at, or not any more
	first                 // it is looked at, as the connection is new
	more                  // it is looked at as it was: the connection is judged anew
)

// firstPackets is how many bits MarkRequest and MarkAnswer have, all of which are set first. A packet without PSH takes the highest of them
// away, but for the last, and one with PSH all. No packet brings one back: of packets that come at once, and of which all bits were there
// when Open vSwitch looked them up, the last to be acted on need not have come last.
const firstPackets = 3

// markAwaits is MarkRequest and MarkAnswer.
var markAwaits = Field{SubField: sub(flow.CtMark, MarkRequest.Ofs, MarkRequest.Bits+MarkAnswer.Bits)}

// add narrows m to packets of rules that want it, and adds what is written into ct_mark.
func (a awaits) add(m flow.Match, exec []flow.Action) (flow.Match, []flow.Action) {
	switch a {
	case first:
		return CtState(Messages.Is(m, 1), flow.CtNew, flow.CtNew).With(flow.IPProto, flow.U64(ProtoTCP)),
			append(exec, markAwaits.Load(1<<(2*firstPackets)-1))
	case more:
		return Messages.Is(m, 1), exec
	}
	return m, append(exec, markAwaits.Load(0))
}

// Message returns what a leaf of EGRESS or INGRESS also does to have what is said first copied.
func Message() flow.Action { return Messages.Load(1) }

// firstData copies what both sides of a TCP connection say first: of each, the first packet behind the handshake with PSH, by which
// a sender says that the other side should read, and two before it: one that acknowledges, and one in which a long message begins,
// as that has PSH at its end only. Open vSwitch neither sees how long a payload is nor counts packets, so ct_mark does; of packets
// that come at once it copies more, as it looks all of them up before it acts on the first. Without bits the connection costs no
// more than others. What is judged anew with each packet, as an endpoint in mode audit has it, is not copied: behind COMMIT nothing
// is known of the connection.
func (p *program) firstData() {
	if !p.opt.Messages {
		return
	}
	tell := flow.Controller{MaxLen: MessageBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyData.UserData(),
		MeterID: MeterData}
	for i, mark := range []Field{MarkRequest, MarkAnswer} {
		reply := uint64(i) * flow.CtRpl
		for left := range uint16(firstPackets) {
			for _, ether := range []uint64{EthIPv4, EthIPv6} {
				m := mark.Is(CtState(ipProto(ether, ProtoTCP), flow.CtEst|reply, flow.CtEst|flow.CtRpl), 1<<(left+1)-1)
				take := func(ofs, bits uint16) flow.Action {
					taken := Field{SubField: sub(flow.CtMark, mark.Ofs+ofs, bits)}
					return flow.CT{Commit: true, Table: flow.NoTable, ZoneSrc: CtZone.SubField, Exec: []flow.Action{taken.Load(0)}}
				}
				p.leave(40, m.WithMasked(flow.TCPFlags, flow.U64(tcpPSH), flow.U64(tcpSYN|tcpPSH)), tell, take(0, firstPackets))
				if left > 0 {
					p.leave(30, m.WithMasked(flow.TCPFlags, flow.U64(0), flow.U64(tcpSYN|tcpPSH)), tell, take(left, 1))
				}
			}
		}
	}
}
