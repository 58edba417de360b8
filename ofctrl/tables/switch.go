// Package tables evaluates packets against flows as an OpenFlow switch with conntrack would, so that one can ask what flows mean without a
// switch. It knows the actions that tapwall's pipeline uses; others are an error.
//
// What it simplifies: matching is a linear search; conntrack knows a packet by its tuple and tells new, established, reply and
// (where the packet says so) related, with no state machines, timeouts or address translation.
package tables

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Packet is a frame as the fields of its headers; metadata and registers start at zero.
type Packet map[flow.FieldID]flow.U128

// Tuple identifies one direction of a connection.
type Tuple struct {
	Zone             uint16
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16
	Type, Code       uint8 // of ICMP and ICMPv6
}

// answers are the types of requests and of their answers (RFC 792, RFC 4443).
var answers = map[uint8]map[uint8]uint8{1: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15}, 58: {128: 129, 129: 128}}

// Reversed is the tuple of the other direction.
func (t Tuple) Reversed() Tuple {
	t.Src, t.Dst, t.SrcPort, t.DstPort = t.Dst, t.Src, t.DstPort, t.SrcPort
	t.Type = answers[t.Proto][t.Type]
	return t
}

// Conn is a conntrack entry.
type Conn struct {
	Orig  Tuple
	Label flow.U128
	Mark  uint32
	// Replied: packets were seen in both directions, so the connection is established.
	Replied bool
}

// Result is what became of a packet.
type Result struct {
	Normal bool // it was handed to NORMAL
	// Copies are those to the controller.
	Copies []flow.Controller
	// Committed is the connection that the packet committed or changed, nil without.
	Committed *Conn
	// Tables are those it visited, in order; Flows the flows that it met there, nil on a miss, and Cookies theirs, 0 on a miss. Of a
	// conjunction the flow is that which decides.
	Tables  []uint8
	Flows   []*flow.Flow
	Cookies []flow.Cookie
	// Fields are the packet's after its last table.
	Fields *Fields
}

// Fields holds the value of each field of a packet, 0 of those it does not have.
type Fields [256]flow.U128

// Visited reports whether the packet was in the table.
func (r *Result) Visited(table uint8) bool { return slices.Contains(r.Tables, table) }

// Switch is a bridge with its flows and conntrack entries. It is for one goroutine at a time.
type Switch struct {
	tables map[uint8]*table
	conns  map[Tuple]*Conn // by both tuples

	// Recirculates, if not nil, is called when a packet has been in conntrack and its tables are still to be looked up.
	Recirculates func()
}

// table holds the flows of one table, in order when they are first asked for: most of a large bridge's are of tables that no packet meets.
type table struct {
	flows []*flow.Flow
	ranks []rank // by falling priority; nil until needed
}

// rank holds the flows of a table that have one priority: those that decide alone, the clauses of conjunctions and what these decide.
type rank struct{ plain, clauses, decide []*flow.Flow }

// New returns a switch without flows.
func New() *Switch { return With(nil) }

// With returns a switch with the flows, of which no two must have the same identity. They are not copied.
func With(flows []flow.Flow) *Switch {
	s := &Switch{tables: map[uint8]*table{}, conns: map[Tuple]*Conn{}}
	s.add(flows)
	return s
}

// Fresh returns a switch with the same flows and no conntrack entries.
func (s *Switch) Fresh() *Switch { return &Switch{tables: s.tables, conns: map[Tuple]*Conn{}} }

// SetFlows replaces all flows. It fails if two have the same identity.
func (s *Switch) SetFlows(flows []flow.Flow) error {
	seen := make(map[flow.Key]int, len(flows))
	for i := range flows {
		key := flows[i].Key()
		if other, ok := seen[key]; ok {
			return fmt.Errorf("two flows in one place:\n%s\n%s", flows[other].String(), flows[i].String())
		}
		seen[key] = i
	}
	s.tables = map[uint8]*table{}
	s.add(flows)
	return nil
}

func (s *Switch) add(flows []flow.Flow) {
	for i := range flows {
		f := &flows[i]
		if s.tables[f.Table] == nil {
			s.tables[f.Table] = new(table)
		}
		s.tables[f.Table].flows = append(s.tables[f.Table].flows, f)
	}
}

// ranked returns the flows by falling priority.
func (t *table) ranked() []rank {
	if t == nil {
		return nil
	}
	if t.ranks != nil {
		return t.ranks
	}
	slices.SortStableFunc(t.flows, func(a, b *flow.Flow) int { return int(b.Priority) - int(a.Priority) })
	for i, f := range t.flows {
		if i == 0 || t.flows[i-1].Priority != f.Priority {
			t.ranks = append(t.ranks, rank{})
		}
		t.ranks[len(t.ranks)-1].add(f)
	}
	return t.ranks
}

func (r *rank) add(f *flow.Flow) {
	of := &r.plain
	if _, ok := f.Match.Get(flow.ConjID); ok {
		of = &r.decide
	} else if slices.ContainsFunc(f.Actions, func(a flow.Action) bool { _, ok := a.(flow.Conjunction); return ok }) {
		of = &r.clauses
	}
	*of = append(*of, f)
}

// Conns returns the conntrack entries, each once.
func (s *Switch) Conns() []*Conn {
	var out []*Conn
	for t, c := range s.conns {
		if t == c.Orig {
			out = append(out, c)
		}
	}
	return out
}

// Forget empties conntrack.
func (s *Switch) Forget() { clear(s.conns) }

// fault is what flows ask for that a switch would not do, or this package does not know.
type fault string

// Try is Process for flows that may hold what this package does not know: the error says what, and the result is of the way up to there.
func (s *Switch) Try(p Packet) (r Result, err error) {
	w := s.walk(p)
	defer func() {
		r = w.r
		switch x := recover().(type) {
		case nil:
		case fault:
			err = errors.New(string(x))
		default:
			panic(x)
		}
	}()
	w.table(0, 0)
	return w.r, nil
}

// Process runs a packet through the switch from table 0. It panics where Try returns an error.
func (s *Switch) Process(p Packet) Result {
	w := s.walk(p)
	w.table(0, 0)
	return w.r
}

func (s *Switch) walk(p Packet) *walk {
	w := &walk{s: s, p: &Fields{}}
	for f, v := range p {
		w.p[f] = v
	}
	w.r.Fields = w.p
	return w
}

// walk is one packet on its way.
type walk struct {
	s     *Switch
	p     *Fields
	stack []flow.U128
	r     Result
}

func (w *walk) table(id uint8, depth int) {
	if depth > 64 {
		panic(fault("resubmit depth exceeded"))
	}
	f := w.lookup(id)
	w.r.Tables, w.r.Flows = append(w.r.Tables, id), append(w.r.Flows, f)
	if f == nil {
		w.r.Cookies = append(w.r.Cookies, 0)
		return
	}
	w.r.Cookies = append(w.r.Cookies, f.Cookie)
	for _, a := range f.Actions {
		w.do(a, depth)
	}
}

// lookup finds the flow for the packet: the highest priority at which a plain flow matches or a conjunction is complete. Two plain flows
// that match at one priority are a fault of the flows.
func (w *walk) lookup(id uint8) *flow.Flow {
	ranks := w.s.tables[id].ranked()
	for i := range ranks {
		if f := w.at(&ranks[i]); f != nil {
			return f
		}
	}
	return nil
}

func (w *walk) at(r *rank) *flow.Flow {
	var hit *flow.Flow
	take := func(f *flow.Flow) {
		if hit != nil && (hit.Cookie != f.Cookie || !flow.ActionsEqual(hit.Actions, f.Actions)) {
			// Which of them decides is undefined (OpenFlow 1.3 §5.3), so they may only differ in what they match.
			panic(fault(fmt.Sprintf("two flows match at one priority and differ:\n%s\n%s", hit.String(), f.String())))
		}
		hit = f
	}
	for _, f := range r.plain {
		if w.matches(f.Match) {
			take(f)
		}
	}
	if len(r.clauses) == 0 {
		return hit
	}
	have, of := map[uint32]uint64{}, map[uint32]uint8{} // clauses by conjunction, the first has bit 1; how many it has
	for _, f := range r.clauses {
		if !w.matches(f.Match) {
			continue
		}
		for _, a := range f.Actions {
			if c, ok := a.(flow.Conjunction); ok {
				have[c.ID] |= 1 << c.Clause
				of[c.ID] = c.N
			}
		}
	}
	for id, clauses := range have {
		if clauses != uint64(1)<<(of[id]+1)-2 {
			continue
		}
		w.p[flow.ConjID] = flow.U64(uint64(id))
		for _, f := range r.decide {
			if w.matches(f.Match) {
				take(f)
			}
		}
		w.p[flow.ConjID] = flow.U128{}
	}
	return hit
}

func (w *walk) matches(m flow.Match) bool {
	for _, t := range m {
		if w.p[t.Field].And(t.Mask) != t.Value {
			return false
		}
	}
	return true
}

func (w *walk) get(s flow.SubField) flow.U128 {
	return w.p[s.Field].Shr(int(s.Ofs)).And(flow.Ones(int(s.Bits)))
}

func set(old flow.U128, s flow.SubField, v flow.U128) flow.U128 {
	mask := flow.Ones(int(s.Bits)).Shl(int(s.Ofs))
	return old.And(mask.Not()).Or(v.Shl(int(s.Ofs)).And(mask))
}

func (w *walk) put(s flow.SubField, v flow.U128) { w.p[s.Field] = set(w.p[s.Field], s, v) }

func (w *walk) do(a flow.Action, depth int) {
	switch a := a.(type) {
	case flow.Load:
		w.put(a.Dst, flow.U64(a.Value))
	case flow.Move:
		w.put(a.Dst, w.get(a.Src))
	case flow.Push:
		w.stack = append(w.stack, w.get(a.Src))
	case flow.Pop:
		w.put(a.Dst, w.stack[len(w.stack)-1])
		w.stack = w.stack[:len(w.stack)-1]
	case flow.Resubmit:
		w.table(a.Table, depth+1)
	case flow.GotoTable:
		w.table(a.Table, depth+1)
	case flow.Controller:
		w.r.Copies = append(w.r.Copies, a)
	case flow.Output:
		if a.Port != flow.PortNormal {
			panic(fault("output to a port"))
		}
		w.r.Normal = true
	case flow.CTClear:
		for _, f := range ctFields {
			w.p[f] = flow.U128{}
		}
	case flow.CT:
		w.ct(&a, depth)
	case flow.Multipath:
		w.multipath(&a)
	default:
		panic(fault(fmt.Sprintf("action %s is not known here", a)))
	}
}
