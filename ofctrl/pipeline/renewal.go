package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// entries are the tables in which the switch begins to translate a packet for its cache: where it comes in, and where it goes on behind
// ct().
var entries = []uint8{TableSource, TableState, TablePickupReply, TableWrongEnd, TableLegReply}

// Renewal returns two sets of flows, as [ofctrl.Renewal] wants them, for a bridge with a wall.
func Renewal() [2][]flow.Flow { return RenewalOf(entries...) }

// RenewalOf returns them for these tables. They have all their packets looked at for a bit of pkt_mark, but match none, as nothing writes
// ones into whole registers.
func RenewalOf(tables ...uint8) (sets [2][]flow.Flow) {
	const never = 1<<32 - 1
	for i := range sets {
		m := flow.Match{}.With(flow.Reg8, flow.U64(never)).With(flow.Reg9, flow.U64(never)).
			WithMasked(flow.PktMark, flow.U64(0), flow.U64(1<<30<<i))
		for _, t := range tables {
			sets[i] = append(sets[i], flow.Flow{Table: t, Priority: PriorityRenewal, Cookie: SystemCookie(t, ItemNone), Match: m})
		}
	}
	return sets
}
