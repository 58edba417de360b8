package host

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
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

// markFlow is a mark as a flow, which no packet meets.
func markFlow(mark uint64) flow.Flow {
	return flow.Flow{Table: pipeline.TableLast, Priority: 2, Cookie: pipeline.SystemCookie(pipeline.TableLast, pipeline.ItemNone),
		Match: flow.Match{}.With(flow.InPort, flow.U64(lastPort)).With(flow.Metadata, flow.U64(mark))}
}

// doubt forgets the entries that the switch says are stale, save for where their endpoints were. Where the pipeline is gone from the
// switch, and the marks with it, all that let anything pass are forgotten; endpoints keep their ids. It reports whether there were any.
func (l *ledger) doubt(has func(flow.Flow) bool) (stale bool) {
	l.unproven = false
	wiped := !has(entryKey())
	for key, value := range l.stored {
		marked := isEntry(key) && has(markFlow(markOf(key, value)))
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
