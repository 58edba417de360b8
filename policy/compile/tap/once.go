package tap

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// once notes why a packet may be copied more than once for the mirror, of which these are the sources.
func (w *mirrorWork) once(on []*vswitch.Bridge, sources map[string]*bridgeSources) {
	w.onceElsewhere(on, sources)
	if w.m.Spec.Direction == policy.MirrorFromSource && !w.delivered() {
		return // it enters a bridge once, and what comes by a patch port has entered another one
	}
	ways := w.m.Spec.Direction != policy.MirrorToSource && w.m.Spec.Filter.AsksForDirection()
	for _, b := range on {
		if len(sources[b.Name].ports) < 2 {
			continue
		}
		if ways {
			w.twice("rules of the filter name directions, and a packet between two sources goes both ways: it is judged, and may be " +
				"copied, once for each")
		}
		if copiesChanged(w.in.Version) && slices.Contains(w.in.Guests, b.Name) {
			w.twice("Open vSwitch " + cmp.Or(w.in.Version, "of unknown version") +
				" copies a packet again whose headers were changed (TTL, NAT), and flows of " +
				"guest bridge " + b.Name + " may do that")
		}
	}
	for i, b := range on {
		for _, other := range on[i+1:] {
			if len(sources[b.Name].ports) > 0 && len(sources[other.Name].ports) > 0 && w.joined(b.Name, other.Name) {
				w.twice("bridges " + b.Name + " and " + other.Name +
					" are connected by patch ports, and a packet between their sources is copied on each")
			}
		}
	}
}

// onceElsewhere does so for packets that are copied where they leave a bridge.
func (w *mirrorWork) onceElsewhere(on []*vswitch.Bridge, sources map[string]*bridgeSources) {
	entered, ports := false, false
	for _, b := range on {
		s := sources[b.Name]
		entered, ports = entered || len(s.entered) > 0, ports || len(s.ports) > 0
		if leaving(&w.m.Spec) && w.m.Spec.Direction != policy.MirrorFromSource && !s.all && len(s.ports) > 1 {
			w.twice("what a source sends to everybody leaves bridge " + b.Name + " at another source and elsewhere, and is copied for each")
		}
		if (leaving(&w.m.Spec) && !s.all || len(s.entered) > 0) && copiesChanged(w.in.Version) && slices.Contains(w.in.Guests, b.Name) {
			w.twice("Open vSwitch " + cmp.Or(w.in.Version, "of unknown version") +
				" forgets what it has copied when headers are changed (TTL, NAT), " +
				"which flows of guest bridge " + b.Name + " may do: then a packet may be copied again, or though no source sent it")
		}
	}
	if entered && ports {
		w.twice("what passes between a patch port and other sources is seen at both")
	}
}

// twice notes one reason why a packet may be copied more than once.
func (w *mirrorWork) twice(why string) {
	if !slices.Contains(w.info.Twice, why) {
		w.info.Twice = append(w.info.Twice, why)
		w.warn(policy.Warning{Code: WarnDuplicates, Message: why})
	}
}

// copiesChanged reports whether a version of Open vSwitch copies a packet for a mirror again when its headers were changed since: from
// 2.17.8, 3.0.5, 3.1.3 and 3.2.0 on ("Mirror packets that are modified", feed7f677). One that cannot be read may.
func copiesChanged(version string) bool {
	var n [3]int
	for i, part := range strings.SplitN(version, ".", 3) {
		digits := part
		if end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = part[:end]
		}
		v, err := strconv.Atoi(digits)
		if err != nil {
			return true
		}
		n[i] = v
	}
	since := map[[2]int]int{{2, 17}: 8, {3, 0}: 5, {3, 1}: 3}
	if patch, branch := since[[2]int{n[0], n[1]}]; branch {
		return n[2] >= patch
	}
	return n[0] > 3 || n[0] == 3 && n[1] > 1
}

// joined reports whether patch ports that are not tapwall's lead from one bridge to another, through whichever.
func (p *mirrorPlanner) joined(from, to string) bool {
	seen := map[string]bool{from: true}
	for next := []string{from}; len(next) > 0; next = next[1:] {
		if next[0] == to {
			return true
		}
		for _, other := range p.neighbours(next[0]) {
			if !seen[other] {
				seen[other] = true
				next = append(next, other)
			}
		}
	}
	return false
}

// neighbours are the bridges to which patch ports of a bridge lead, save tapwall's.
func (p *mirrorPlanner) neighbours(bridge string) []string {
	b := p.in.Topology.Bridges[bridge]
	if b == nil {
		return nil
	}
	out := map[string]bool{}
	for _, port := range b.Ports {
		if port.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue {
			continue
		}
		if other, _ := p.peer(port); other != nil {
			out[other.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// peer is the other end of a patch port; nil = it is none, or leads nowhere.
func (p *mirrorPlanner) peer(port *vswitch.Port) (*vswitch.Bridge, *vswitch.Port) {
	if len(port.Interfaces) != 1 || port.Interfaces[0].Type != "patch" {
		return nil, nil
	}
	name := port.Interfaces[0].Options["peer"]
	for _, other := range p.in.Topology.Bridges {
		if end := other.Ports[name]; end != nil && len(end.Interfaces) == 1 && end.Interfaces[0].Type == "patch" &&
			end.Interfaces[0].Options["peer"] == port.Interfaces[0].Name {
			return other, end
		}
	}
	return nil, nil
}
