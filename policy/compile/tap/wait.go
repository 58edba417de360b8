package tap

import (
	"slices"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// A mirror without sources waits for some. What reads at its targets on this host, a sensor or tapwall itself, would lose the device with
// them, so the ports stay as long as the mirror runs.

// waitFor has the port of a native mirror there without a row that copies to it: where it is, or on the first managed bridge. It returns
// the bridge, "" = there is no port to be had.
func (w *mirrorWork) waitFor(t mirrorTarget, where string) string {
	if !w.stays(t) || slices.ContainsFunc(w.info.Problems, func(p Problem) bool { return p.Fatal }) {
		return ""
	}
	if where == "" && len(w.bridges) > 0 {
		where = w.bridges[0].Name
	}
	if where != "" {
		w.plan.Ports = append(w.plan.Ports, vswitch.PortSpec{Owner: w.m.Name, Bridge: where, Name: t.spec.Port, Type: t.spec.Type,
			Tag: t.spec.Tag})
	}
	return where
}

// stays reports whether a target is there without sources: a port that the mirror names and creates, unless all sources are on other hosts,
// and one that tapwall has read packets from.
func (w *mirrorWork) stays(t mirrorTarget) bool {
	switch {
	case !t.spec.Create || t.remote.IsValid():
		return false
	case t.capture != nil:
		return w.standing(t.spec.Port) != nil
	}
	return (len(w.bridges) > 0 || w.standing(t.spec.Port) != nil) &&
		slices.ContainsFunc(w.m.Spec.Sources, func(s policy.Selector) bool { return !w.elsewhere(&s) })
}

// standing is the bridge that has a port of this name and is no managed one, such as a tap bridge; nil = none.
func (p *mirrorPlanner) standing(port string) *vswitch.Bridge {
	for _, b := range p.in.Topology.Bridges {
		if b.Ports[port] != nil && b.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue {
			return b
		}
	}
	return nil
}

// home is the datapath type of the tap bridge of a mirror with sources on these bridges; without any, of that which has one of its
// targets, or of the first managed bridge.
func (w *mirrorWork) home(on []*vswitch.Bridge) string {
	if len(on) > 0 {
		return on[0].DatapathType
	}
	for i := range w.m.Spec.Targets {
		t, _ := w.scratch().target(i)
		if b := w.standing(t.spec.Port); t.at == nil && b != nil {
			return b.DatapathType
		}
	}
	if len(w.bridges) > 0 {
		return w.bridges[0].DatapathType
	}
	return ""
}
