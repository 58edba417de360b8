package tap

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// maxRows is how many Mirror rows Open vSwitch runs on a bridge.
const maxRows = 32

// keepServing has mirrors whose sources have changed served by the source sets that served them before, until all the new ones copy. The
// new ones have no flow for the mirror until then, so what they copy is dropped; when they stand, the flows of both change in one
// bundle. So no packet is delivered twice, and none is missed. Where a bridge has no slot for that, the new sets come at once, and the
// old ones go.
func (p *mirrorPlanner) keepServing() {
	if p.in.Before == nil {
		return
	}
	rows := p.rows()
	for _, mirror := range slices.Sorted(maps.Keys(p.isStaged)) {
		now, before := setsOf(p.sets, mirror), setsOf(p.in.Before.Sets, mirror)
		coming, leaving := without(now, before), without(before, now)
		coming = slices.DeleteFunc(coming, func(key string) bool { return p.stands(key, p.sets[key]) })
		leaving = slices.DeleteFunc(leaving, func(key string) bool { return !p.stands(key, p.in.Before.Sets[key]) })
		if len(coming) == 0 || len(leaving) == 0 || !p.room(rows, leaving) {
			continue
		}
		for _, key := range leaving {
			old := p.in.Before.Sets[key]
			if p.sets[key] == nil {
				p.sets[key] = &SourceSet{Row: old.Row, Beside: old.Beside, DatapathType: old.DatapathType}
				rows[old.Row.Bridge] += len(old.rows())
			}
			p.sets[key].Members = append(p.sets[key].Members, memberOf(old, mirror))
		}
		for _, key := range without(now, before) {
			s := p.sets[key]
			s.Members = slices.DeleteFunc(slices.Clone(s.Members), func(m Member) bool { return m.Mirror == mirror })
		}
		p.pending(mirror)
	}
}

// rows is how many rows the bridges are to have, others' included.
func (p *mirrorPlanner) rows() map[string]int {
	out := map[string]int{}
	for name, b := range p.in.Topology.Bridges {
		for _, m := range b.Mirrors {
			if m.ExternalIDs[vswitch.MarkOwner] != vswitch.OwnerValue {
				out[name]++
			}
		}
	}
	for _, s := range p.plan.Specs { // of native mirrors
		out[s.Bridge]++
	}
	for _, s := range p.sets {
		out[s.Row.Bridge] += len(s.rows())
	}
	return out
}

// room reports whether the sets can be kept beside all others.
func (p *mirrorPlanner) room(rows map[string]int, keys []string) bool {
	more := map[string]int{}
	for _, key := range keys {
		if p.sets[key] == nil {
			old := p.in.Before.Sets[key]
			more[old.Row.Bridge] += len(old.rows())
		}
	}
	for bridge, n := range more {
		if rows[bridge]+n > maxRows {
			return false
		}
	}
	return true
}

// stands reports whether a set's rows and ports are there.
func (p *mirrorPlanner) stands(key string, s *SourceSet) bool {
	b := p.in.Topology.Bridges[s.Row.Bridge]
	return b != nil && p.ofPort(tapBridgeOf(s.DatapathType), inPrefix+key) > 0 &&
		!slices.ContainsFunc(s.rows(), func(row vswitch.MirrorSpec) bool {
			return !slices.ContainsFunc(b.Mirrors, func(m *vswitch.Mirror) bool {
				return m.ExternalIDs[vswitch.MarkMirror] == row.Owner && m.Name == row.Name && m.OutputPort == row.Output.Port
			})
		})
}

// setsOf are the keys of the sets that serve a mirror, sorted.
func setsOf(sets map[string]*SourceSet, mirror string) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(sets)) {
		if slices.ContainsFunc(sets[key].Members, func(m Member) bool { return m.Mirror == mirror }) {
			keys = append(keys, key)
		}
	}
	return keys
}

func memberOf(s *SourceSet, mirror string) Member {
	i := slices.IndexFunc(s.Members, func(m Member) bool { return m.Mirror == mirror })
	return s.Members[i]
}

// without returns what of a is not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
