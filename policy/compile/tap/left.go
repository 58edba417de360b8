package tap

import (
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// What came in at some ports and went out at others is copied where it goes out: at a patch port nothing is copied, and whether a packet
// leaves the bridge (capturePoint: delivered) shows there only. Two rows of one output do that. The first selects what goes out anywhere;
// the second selects what comes in where it does not count, and its copies are swallowed. As Open vSwitch takes two rows of one output for
// one mirror, and remembers what it has copied for that, the first row does not copy what the second has.

// swallowed is the snaplen of a row whose copies go nowhere: a copy that is to be cut is not let into a patch port ("Mirror truncate to
// ODPP_NONE, skipping output" in ofproto-dpif-xlate.c).
const swallowed = policy.MinSnaplen

// delivered reports whether only packets that leave the bridge are copied.
func (w *mirrorWork) delivered() bool { return w.m.Spec.CapturePoint == policy.CaptureDelivered }

// passing select what came in anywhere but at the ports in, and went out at the ports out. What comes in at a patch port is never selected
// where it comes in, and so counts.
func passing(in, out []string, vlans []int) []vswitch.MirrorSpec {
	rows := []vswitch.MirrorSpec{{SelectDstPort: out, SelectVLAN: vlans}}
	if len(in) > 0 {
		rows = append(rows, vswitch.MirrorSpec{SelectSrcPort: in, Snaplen: swallowed})
	}
	return rows
}

// doors are the ports of a bridge where packets of production can be copied, and those of them that get no copies of mirrors.
func (w *mirrorWork) doors(b *vswitch.Bridge) (all, clean []string) {
	for _, name := range portNames(b) {
		kind := w.port(b, name).Kind
		if _, isOutput := w.outputs[b.Name][name]; isOutput || kind == inventory.KindPatch {
			continue
		}
		if all = append(all, name); len(w.receivers[b.Name][name]) == 0 {
			clean = append(clean, name)
		}
	}
	return all, clean
}

// deliveredParts are the source sets of a mirror of packets that leave the bridge.
func (w *mirrorWork) deliveredParts(b *vswitch.Bridge, s *bridgeSources) (out []part) {
	directions := w.directions()
	gets := without(s.ports, s.deaf)
	all, clean := w.doors(b)
	add := func(direction, number string, rows []vswitch.MirrorSpec) {
		if len(rows[0].SelectDstPort) > 0 {
			out = append(out, part{name: "delivered/" + direction, way: wayOf(number), rows: rows})
		}
	}
	for _, d := range directions {
		switch {
		case d == policy.MirrorToSource || s.all:
			add(d, d, passing(nil, gets, s.vlans))
		case d == policy.MirrorFromSource:
			add(d, d, passing(without(all, s.ports), clean, s.vlans))
		default:
			add(policy.MirrorToSource, d, passing(nil, gets, s.vlans))
			add(policy.MirrorBoth, d, passing(without(all, s.ports), without(clean, s.ports), s.vlans))
		}
	}
	return out
}

// realisable notes why what leaves the bridge cannot be known there.
func (w *mirrorWork) realisable(b *vswitch.Bridge, s *bridgeSources) {
	if !leaving(&w.m.Spec) || len(s.ports) == 0 {
		return
	}
	if patches := w.patchPorts(b, ""); len(patches) > 0 {
		w.problem(true, policy.ReasonCapturePoint, "what sources of bridge %s send may leave it by patch port %s, where Open vSwitch copies "+
			"nothing; write capturePoint: wire, or direction: toSource", b.Name, strings.Join(patches, ", "))
	}
}

// patchPorts are those of a bridge that are not tapwall's, save one.
func (w *mirrorWork) patchPorts(b *vswitch.Bridge, save string) []string {
	return slices.DeleteFunc(portNames(b), func(name string) bool {
		return name == save || w.port(b, name).Kind != inventory.KindPatch
	})
}

// enter takes a patch port as a source: what comes out of it enters its bridge and what goes into it enters the other bridge, and is copied
// where it leaves that. So nothing else may come in by a patch port there.
func (w *mirrorWork) enter(found map[string]*bridgeSources, b *vswitch.Bridge, name string) {
	other, end := w.peer(b.Ports[name])
	if other == nil {
		w.problem(false, policy.ReasonSourceMissing, "patch port %s of bridge %s leads nowhere: there is no peer that leads back", name, b.Name)
		return
	}
	type door struct {
		bridge *vswitch.Bridge
		port   string
		way    string
	}
	var doors []door
	if w.m.Spec.Direction != policy.MirrorToSource {
		doors = append(doors, door{b, name, policy.MirrorFromSource})
	}
	if w.m.Spec.Direction != policy.MirrorFromSource {
		doors = append(doors, door{other, end.Name, policy.MirrorToSource})
	}
	for _, d := range doors {
		why := ""
		if !slices.Contains(w.bridges, d.bridge) {
			why = "bridge " + d.bridge.Name + " is not managed"
		} else if more := w.patchPorts(d.bridge, d.port); len(more) > 0 {
			why = "bridge " + d.bridge.Name + " has other patch ports (" + strings.Join(more, ", ") +
				"), and what came by which cannot be told apart"
		}
		if why != "" {
			w.problem(false, policy.ReasonPatchPort, "Open vSwitch copies nothing at patch port %s of bridge %s, and what passed it can be copied "+
				"where it leaves a bridge only if nothing else comes in like that: %s; name ports of bridge %s or %s instead", name, b.Name, why,
				b.Name, other.Name)
			return
		}
	}
	for _, d := range doors {
		s := found[d.bridge.Name]
		if s == nil {
			s = &bridgeSources{}
			found[d.bridge.Name] = s
		}
		if !slices.Contains(s.entered, d.way) {
			s.entered = append(s.entered, d.way)
		}
	}
	w.patched = append(w.patched, b.Name+"/"+name)
}

// enteredParts are the source sets for what came into a bridge by its patch port and leaves it where no source sees it anyway.
func (w *mirrorWork) enteredParts(b *vswitch.Bridge, s *bridgeSources) (out []part) {
	all, clean := w.doors(b)
	if w.m.Spec.Direction != policy.MirrorFromSource {
		clean = without(clean, s.ports)
	}
	for _, way := range s.entered {
		x := part{name: "entered/" + way, rows: passing(all, clean, nil)}
		if w.m.Spec.Filter.AsksForDirection() {
			x.way = wayOf(way)
		}
		if len(clean) > 0 {
			out = append(out, x)
		}
	}
	return out
}

// loops refuses a tunnel whose packets would come into a bridge by the patch port that is copied.
func (w *mirrorWork) loops(b *vswitch.Bridge, device string, t mirrorTarget) {
	for name, o := range w.in.Topology.Bridges {
		if o != b && o.Ports[device] != nil && w.joined(name, b.Name) {
			w.problem(true, policy.ReasonSourceCarriesTarget, "the collector %s is reached through %s of bridge %s, from where packets may come to "+
				"bridge %s by the patch port that is copied", t.remote, device, name, b.Name)
		}
	}
}
