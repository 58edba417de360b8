package tap

import (
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// SourceSet is what Mirror rows of one bridge copy to one patch port for staged mirrors: the sources that some of them name there, in one
// direction or both. Of a packet that two rows of one output select, Open vSwitch makes one copy.
type SourceSet struct {
	Row vswitch.MirrorSpec
	// Beside is the second row, nil = there is none. It adds what the first cannot select, or (with snaplen) takes back some of it.
	Beside       *vswitch.MirrorSpec
	DatapathType string
	Members      []Member
}

// rows are all of the set.
func (s *SourceSet) rows() []vswitch.MirrorSpec {
	if s.Beside == nil {
		return []vswitch.MirrorSpec{s.Row}
	}
	return []vswitch.MirrorSpec{s.Row, *s.Beside}
}

// Member is a mirror that a source set serves.
type Member struct {
	Mirror string
	Number uint32 // in regMirror
	Way    uint64 // in regDirection
	// Limited: it has a meter.
	Limited bool
}

// part is one of the source sets that a mirror joins on a bridge.
type part struct {
	name string // of the part, beside what the mirror says of its sources
	way  uint64
	rows []vswitch.MirrorSpec // one or two, of which only what they select is given
}

// join adds the mirror to its source sets on a bridge.
func (w *mirrorWork) join(b *vswitch.Bridge, s *bridgeSources) {
	for _, x := range w.parts(b, s) {
		key := setKey(b.Name, &w.m.Spec, x.name)
		set := w.sets[key]
		if set == nil {
			set = &SourceSet{DatapathType: b.DatapathType}
			for i := range x.rows {
				row := x.rows[i]
				row.Owner, row.Bridge, row.Output = setOwner(key), b.Name, vswitch.OutputSpec{Port: outPrefix + key}
				if row.Name = mirrorRowPrefix + key; i == 0 {
					set.Row = row
				} else {
					row.Name += "-beside"
					set.Beside = &row
				}
			}
			w.sets[key] = set
		}
		set.Members = append(set.Members, Member{w.m.Name, w.numbers[w.m.Name], x.way, w.m.Spec.Sample.Limited()})
		w.info.Owners = append(w.info.Owners, setOwner(key))
	}
}

// parts are the source sets of the mirror on a bridge: one, or one for each direction if a rule asks for it.
func (w *mirrorWork) parts(b *vswitch.Bridge, s *bridgeSources) (out []part) {
	switch {
	case len(s.ports) == 0:
	case w.delivered():
		out = w.deliveredParts(b, s)
	default:
		for _, way := range w.directions() {
			out = append(out, part{name: way, way: wayOf(way), rows: s.rows(way)})
		}
	}
	return append(out, w.enteredParts(b, s)...)
}

// directions are those that are copied apart: both in one, unless rules ask which it was.
func (w *mirrorWork) directions() []string {
	switch d := w.m.Spec.Direction; {
	case d != "" && d != policy.MirrorBoth:
		return []string{d}
	case w.m.Spec.Filter.AsksForDirection():
		return []string{policy.MirrorFromSource, policy.MirrorToSource}
	}
	return []string{policy.MirrorBoth}
}

// rows select the sources in a direction. VLANs restrict what a row selects, so beside other sources they have one of their own.
func (s *bridgeSources) rows(way string) []vswitch.MirrorSpec {
	vlans := selecting(vswitch.MirrorSpec{SelectVLAN: s.vlans}, s, way)
	if s.beside == nil {
		return []vswitch.MirrorSpec{vlans}
	}
	return []vswitch.MirrorSpec{selecting(vswitch.MirrorSpec{}, &bridgeSources{ports: s.beside, deaf: s.deaf}, way), vlans}
}
