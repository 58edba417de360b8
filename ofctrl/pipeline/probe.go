package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// A probe is a packet that the controller has the switch judge as if it had come in by a port: a packet-out that sets ProbeTag and goes
// through the tables from the first. Where its way would lead it out of the pipeline, or into conntrack's memory, a copy goes to the
// controller instead, with all that was written into it, and the packet ends there. So nothing reaches its receiver and no connection is
// made or touched: conntrack sees it in a zone in which there are none, which makes it the first packet of a new connection in any case.
//
// Packets that come in by ports have zeros in all registers, so nobody else can make one.

// probes is the bit that all tags of probes have.
var probes = Field{SubField: sub(flow.Reg13, ProbeTag.Ofs+ProbeTag.Bits-1, 1)}

// ProbeTags are the tags that probes may have, to be told apart: First to First+N-1.
const (
	ProbeTagFirst = 4
	ProbeTagN     = 4
)

// priorityProbe is above all others of VERDICT, COMMIT and EXIT; priorityProbeTrack, in PRE and LINK, above those that send packets through
// conntrack and below those that need none.
const (
	priorityProbe      = 1000
	priorityProbeTrack = PriorityForwarder + 10
)

// Probe returns the actions that make a packet-out a probe with the tag.
func Probe(tag uint8) []flow.Action {
	return []flow.Action{ProbeTag.Load(uint64(tag)), table(TableEntry)}
}

func (p *program) probe() {
	m := probes.Is(nil, 1)
	tell := flow.Controller{MaxLen: MACBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyProbe.UserData()}
	for _, t := range []uint8{TableVerdict, TableCommit, TableExit} {
		p.system(t, priorityProbe, m, tell)
	}
	for _, t := range []uint8{TablePre, TableLink} {
		for _, ether := range []uint64{EthIPv4, EthIPv6} {
			p.system(t, priorityProbeTrack, m.With(flow.EthType, flow.U64(ether)), flow.CT{Table: TableState, Zone: WrongEndZone})
		}
	}
}
