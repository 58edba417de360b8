package host

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// ownerMarks is the owner of the marks on a switch; see ledger.
const ownerMarks = "unsaved"

// marks returns the marks that have to be on the switch, sorted.
func (l *ledger) marks() []uint64 {
	var out []uint64
	for key, now := range l.unsaved {
		if !isEntry(key) {
			continue
		}
		for _, there := range [][]byte{l.stored[key], l.doubtful()[key]} {
			if there != nil && !bytes.Equal(there, now) {
				out = append(out, markOf(key, there))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// isEntry reports whether a key is that of an entry: what numbers stand for.
func isEntry(key string) bool {
	for _, prefix := range []string{statePolicy, stateEndpoint, stateClass, stateAddresses} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// markOf names an entry with a value.
func markOf(key string, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(key))))
	_, _ = h.Write([]byte(key))
	_, _ = h.Write(value)
	return h.Sum64()
}

// sheets are marks as they stand on a switch: each sheet is one flow, which no packet meets, so that a change of many marks is one
// flow-mod. A mark stays on its sheet.
type sheets [][]uint64

// maxMarks is how many marks are on a sheet. As actions they are 24 bytes each, and a flow-mod has 64 KiB.
const maxMarks = 1000

// with returns the sheets with exactly these marks, which are sorted.
func (s sheets) with(marks []uint64) sheets {
	var out sheets
	there := map[uint64]bool{}
	for _, sheet := range s {
		kept := slices.DeleteFunc(slices.Clone(sheet), func(m uint64) bool { _, keep := slices.BinarySearch(marks, m); return !keep })
		for _, m := range kept {
			there[m] = true
		}
		out = append(out, kept)
	}
	at := 0
	for _, m := range marks {
		if there[m] {
			continue
		}
		for at < len(out) && len(out[at]) >= maxMarks {
			at++
		}
		if at == len(out) {
			out = append(out, nil)
		}
		out[at] = append(out[at], m)
	}
	return out
}

func (s sheets) flows() (out []flow.Flow) {
	for i, sheet := range s {
		if len(sheet) == 0 {
			continue
		}
		f := flow.Flow{Table: pipeline.TableLast, Priority: 2, Cookie: pipeline.SystemCookie(pipeline.TableLast, pipeline.ItemNone),
			Match: flow.Match{}.With(flow.InPort, flow.U64(lastPort)).With(flow.Metadata, flow.U64(uint64(i)))}
		for _, m := range sheet {
			f.Actions = append(f.Actions, flow.Load{Value: m, Dst: flow.Whole(flow.XReg0)})
		}
		out = append(out, f)
	}
	return out
}

// onSheet returns the marks that a flow bears; nil = it is no sheet. Earlier versions had a flow for each mark, which was its metadata.
func onSheet(f *flow.Flow) (marks []uint64) {
	if f.Table != pipeline.TableLast || f.Priority != 2 || f.Cookie != pipeline.SystemCookie(pipeline.TableLast, pipeline.ItemNone) {
		return nil
	}
	for _, a := range f.Actions {
		if l, ok := a.(flow.Load); ok {
			marks = append(marks, l.Value)
		}
	}
	for _, t := range f.Match {
		if t.Field == flow.Metadata && len(f.Actions) == 0 {
			marks = append(marks, t.Value.Lo)
		}
	}
	return marks
}

// seenMarks are those that a switch was found with when its connection began. It is safe for concurrent use.
type seenMarks struct {
	mu        sync.Mutex
	part, all map[uint64]bool
}

// readBack takes a flow that is read back; nil = that was all.
func (s *seenMarks) readBack(f *flow.Flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == nil {
		s.all, s.part = s.part, nil
		return
	}
	for _, m := range onSheet(f) {
		if s.part == nil {
			s.part = map[uint64]bool{}
		}
		s.part[m] = true
	}
}

func (s *seenMarks) has(mark uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[mark]
}

// doubt forgets the entries that the switch says are stale, save for where their endpoints were. Where the pipeline is gone from the
// switch, and the marks with it, all that let anything pass are forgotten; endpoints keep their ids. It reports whether there were any.
func (l *ledger) doubt(wiped bool, has func(mark uint64) bool) (stale bool) {
	l.unproven = false
	for key, value := range l.stored {
		marked := isEntry(key) && has(markOf(key, value))
		if !isEntry(key) || !wiped && !marked {
			continue
		}
		stale = true
		l.distrust(key, marked)
	}
	return stale
}

// distrust forgets an entry: one that the switch says is stale, or one of a switch that has lost what would say so.
func (l *ledger) distrust(key string, marked bool) {
	if name, ok := strings.CutPrefix(key, statePolicy); ok {
		delete(l.given.Policies, name)
		if marked { // who knows whether it had a rule that led past others
			l.given.Policies[name] = wall.PolicyAssignment{"": {Pass: true}}
		}
		l.unsaved[key] = nil
		return
	}
	if name, ok := strings.CutPrefix(key, stateEndpoint); ok {
		if ep := l.given.Endpoints[name]; marked {
			delete(l.given.Endpoints, name)
			l.given.Retired[ep.ID] = ep.Station
			l.unsaved[key] = nil
		}
		return
	}
	if text, ok := strings.CutPrefix(key, stateClass); ok {
		n, _ := strconv.ParseUint(text, 10, 16)
		if c := l.given.Classes[uint16(n)]; marked {
			delete(l.given.Classes, uint16(n)) // its endpoints begin anew
			l.unsaved[key] = nil
		} else {
			c.EgressAllow, c.IngressAllow = 0, 0
			l.given.Classes[uint16(n)] = c
		}
		return
	}
	delete(l.given.Addresses, strings.TrimPrefix(key, stateAddresses))
	l.unsaved[key] = nil
}
