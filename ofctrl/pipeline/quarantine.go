package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// Priorities of quarantine in SOURCE, DESTINATION and STATE, above everything else there: what the pass list lets through, and the rest.
const (
	PriorityPassList   uint16 = 510
	PriorityQuarantine uint16 = 500
	// Neighbour discovery is not of what the pass list lets through as IP: in SOURCE it passes above that, or not at all.
	priorityPassND        uint16 = 530
	PriorityQuarantinedND uint16 = 520
)

// quarantineSide is the bit by which a packet that has been let through in a table is not looked at again there.
func quarantineSide(table uint8) Field {
	if table == TableSource {
		return PassedFrom
	}
	return PassedTo
}

// QuarantineDrop returns the flow of SOURCE or DESTINATION that drops what a quarantined port sends, or what is sent to it. The first
// packets are copied to the controller.
func QuarantineDrop(table uint8, c flow.Cookie, m flow.Match) flow.Flow {
	return quarantineDrop(table, c, quarantineSide(table).Is(m, 0))
}

func quarantineDrop(table uint8, c flow.Cookie, m flow.Match) flow.Flow {
	return flow.Flow{Table: table, Priority: PriorityQuarantine, Cookie: c, Match: m,
		Actions: []flow.Action{flow.Controller{MaxLen: LogBytes, ID: ControllerID, Reason: reasonAction,
			UserData: CopyQuarantine.UserData(), MeterID: MeterQuarantine}}}
}

// QuarantineAsks returns the flows by which what the pass list lets through, because the machine asks or is answered, is nothing else:
// STATE drops what it sends (to = false) of connections that others opened to it, or what is sent to it that is no reply. Where neither
// side is an endpoint the packet is taken there, too. m is of IP.
func QuarantineAsks(to bool, c flow.Cookie, m flow.Match) []flow.Flow {
	side, reply := PassedFrom, uint64(flow.CtRpl)
	if to {
		side, reply = PassedTo, 0
	}
	m = side.Is(m, 1)
	return []flow.Flow{
		quarantineDrop(TableState, c, CtState(m, reply, flow.CtRpl)),
		{Table: TablePre, Priority: priorityUnmanaged + 1, Cookie: c, Match: DestinationEndpoint.Is(SourceEndpoint.Is(m, 0), 0),
			Actions: []flow.Action{flow.CT{Table: TableState, ZoneSrc: CtZone.SubField}}},
	}
}

// QuarantinePass returns the flow that lets a packet of the pass list go on as if there were no quarantine: the table is looked up again.
func QuarantinePass(table uint8, c flow.Cookie, m flow.Match) flow.Flow {
	side := quarantineSide(table)
	return flow.Flow{Table: table, Priority: PriorityPassList, Cookie: c, Match: side.Is(m, 0),
		Actions: []flow.Action{side.Load(1), resubmitTo(table)}}
}

// QuarantineND returns the flows by which a machine behind a port of m speaks in neighbour discovery as itself: those of QuarantinePass for
// the matches in own, and drops of all else, router advertisements and redirects, too.
func QuarantineND(c flow.Cookie, m flow.Match, own []flow.Match) (out []flow.Flow) {
	for _, x := range own {
		f := QuarantinePass(TableSource, c, x)
		f.Priority = priorityPassND
		out = append(out, f)
	}
	for t := uint64(133); t <= 137; t++ {
		x := icmpv6(t)
		for _, term := range m {
			x = x.WithMasked(term.Field, term.Value, term.Mask)
		}
		f := QuarantineDrop(TableSource, c, x)
		f.Priority = PriorityQuarantinedND
		out = append(out, f)
	}
	return out
}

// QuarantineDeliver is QuarantinePass in DESTINATION for a frame to many, which also goes to the port by itself: a port that is kept out of
// floods would not get it. untagged: the port's frames have no tag.
func QuarantineDeliver(c flow.Cookie, m flow.Match, port uint32, untagged bool) flow.Flow {
	f := QuarantinePass(TableDestination, c, m.WithMasked(flow.EthDst, flow.U64(groupBit), flow.U64(groupBit)))
	out := []flow.Action{flow.Output{Port: port}}
	if untagged {
		out = []flow.Action{flow.PopVLAN{}, flow.Output{Port: port}}
	}
	f.Actions = append([]flow.Action{flow.Clone{Actions: out}}, f.Actions...)
	return f
}

func resubmitTo(t uint8) flow.Action { return flow.Resubmit{Port: flow.PortInPort, Table: t} }

// HeldPort returns the port that a flow of QuarantineDrop in SOURCE is for.
func HeldPort(f *flow.Flow) (port uint32, ok bool) {
	kind, _, ours := ParseCookie(f.Cookie)
	t, there := f.Match.Get(flow.InPort)
	return uint32(t.Value.Lo), ours && kind == CookieQuarantine && f.Table == TableSource && f.Priority == PriorityQuarantine && there
}
