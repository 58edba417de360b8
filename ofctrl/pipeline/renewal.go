package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// RenewalTables are the tables in which the switch begins to translate a packet for its cache: where it comes in, and where it goes on
// behind ct().
var RenewalTables = []uint8{TableSource, TableState, TablePickupReply, TableWrongEnd, TableLegReply}

// RenewalFlows returns one of the sets of flows that ofctrl.Renewal asks for, in these tables. They have all packets of the tables looked
// at for bits of pkt_mark, half of them, in each set other ones, so that none has all those of another set; and they match none, as nothing
// writes ones into whole registers.
func RenewalFlows(n uint16, tables ...uint8) []flow.Flow {
	var out []flow.Flow
	for _, t := range tables {
		out = append(out, flow.Flow{Table: t, Priority: priorityRenewal, Cookie: SystemCookie(t, ItemNone), Match: renewal(n)})
	}
	return out
}

func renewal(n uint16) flow.Match {
	const never = 1<<32 - 1
	return flow.Match{}.With(flow.Reg8, flow.U64(never)).With(flow.Reg9, flow.U64(never)).
		WithMasked(flow.PktMark, flow.U64(0), flow.U64(uint64(n)|uint64(^n)<<16))
}

// RenewalNumber says of which set a flow is.
func RenewalNumber(f *flow.Flow) (n uint16, ok bool) {
	mark, ok := f.Match.Get(flow.PktMark)
	n = uint16(mark.Mask.Lo)
	return n, ok && f.Priority == priorityRenewal && f.Match.Equal(renewal(n))
}

// priorityRenewal is above all others: only so every packet of a table is looked at.
const priorityRenewal uint16 = 65535
