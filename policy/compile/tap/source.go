package tap

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// bridgeSources are the sources of a mirror on one bridge.
type bridgeSources struct {
	all   bool     // every port of the bridge
	ports []string // sorted; with all, every port that is no output
	vlans []int    // sorted; restricts
	// deaf are those of ports of which only what they send is copied: another mirror delivers copies there, which must not be copied again.
	deaf []string
	// beside are those of the ports whose packets are copied whatever their VLAN, sorted; nil = none, or there are no vlans.
	beside []string
	// entered are the directions, seen from patch ports that are sources, in which packets come into the bridge by its patch port.
	entered []string
}

// sources are those on each bridge that has any. What is wrong with them is noted once.
func (w *mirrorWork) sources() map[string]*bridgeSources {
	if w.found == nil {
		w.found = w.findSources()
	}
	return w.found
}

func (w *mirrorWork) findSources() map[string]*bridgeSources {
	spec := &w.m.Spec
	out := map[string]*bridgeSources{}
	var vlans []int
	for i := range spec.Sources {
		if v := spec.Sources[i].VLAN; v != nil && !w.elsewhere(&spec.Sources[i]) {
			vlans = append(vlans, *v)
		}
	}
	slices.Sort(vlans)
	found := make([]bool, len(spec.Sources))
	type patch struct {
		bridge *vswitch.Bridge
		port   string
	}
	var patches []patch
	for _, b := range w.bridges {
		s := &bridgeSources{vlans: slices.Compact(vlans)}
		excluded := false
		for _, name := range portNames(b) {
			port := w.port(b, name)
			wl := port.Workload
			inVLAN, besides := false, false
			for i := range spec.Sources {
				if w.selects(&spec.Sources[i], b, name, wl) {
					found[i] = true
					s.all = s.all || spec.Sources[i].Bridge != "" || spec.Sources[i].VLAN != nil
					inVLAN, besides = inVLAN || spec.Sources[i].VLAN != nil, besides || spec.Sources[i].VLAN == nil
				}
			}
			_, isOutput := w.outputs[b.Name][name]
			switch {
			case !inVLAN && !besides:
			case slices.ContainsFunc(spec.Exclude, func(x policy.Selector) bool { return w.excludes(&x, b, name, wl) }):
				excluded = true
			case len(w.receivers[b.Name][name]) > 0:
				excluded = true
				if w.receiver(s, b, name, wl); besides && slices.Contains(s.deaf, name) {
					s.beside = append(s.beside, name)
				}
			case port.Kind == inventory.KindPatch && w.names(b, name, wl):
				patches = append(patches, patch{b, name})
			case !isOutput:
				s.ports = append(s.ports, name)
				if besides {
					s.beside = append(s.beside, name)
				}
			case port.Kind == inventory.KindTap && w.names(b, name, wl):
				w.problem(true, policy.ReasonSourceCarriesTarget, "source %s of bridge %s was made by tapwall to deliver copies", name, b.Name)
			}
		}
		s.all = s.all && !excluded
		if len(s.beside) == len(s.ports) { // no VLAN restricts them
			s.vlans, s.beside = nil, nil
		}
		if len(s.ports) > 0 {
			out[b.Name] = s
		}
	}
	for _, at := range patches {
		w.enter(out, at.bridge, at.port)
	}
	w.missing(found, len(out) == 0 && len(patches) == 0)
	return out
}

func portNames(b *vswitch.Bridge) []string {
	names := make([]string, 0, len(b.Ports))
	for name := range b.Ports {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// selects reports whether a selector chooses the port; wl is the workload there, if there is one. A vlan chooses every port: what it
// restricts is the packets.
func (w *mirrorWork) selects(s *policy.Selector, b *vswitch.Bridge, port string, wl *policy.Workload) bool {
	if w.elsewhere(s) {
		return false
	}
	switch s.Kind() {
	case policy.SelectPort:
		return s.Port == port
	case policy.SelectBridge:
		return s.Bridge == b.Name
	case policy.SelectVLAN:
		return true
	case policy.SelectCIDR:
		return wl != nil && s.MatchesAddress(wl)
	}
	return wl != nil && policy.AnyMatches([]policy.Selector{*s}, w.in.Groups, wl)
}

// elsewhere reports whether a selector is about another host.
func (w *mirrorWork) elsewhere(s *policy.Selector) bool {
	return s.Host != "" && s.Host != w.in.Topology.Host
}

// excludes is selects for exclusions: a vlan excludes the access ports of that VLAN.
func (w *mirrorWork) excludes(s *policy.Selector, b *vswitch.Bridge, port string, wl *policy.Workload) bool {
	if s.Kind() == policy.SelectVLAN && !w.elsewhere(s) {
		tag := b.Ports[port].Tag
		return tag != nil && *tag == *s.VLAN
	}
	return w.selects(s, b, port, wl)
}

// names reports whether a source chooses the port for itself and not only as one of all.
func (w *mirrorWork) names(b *vswitch.Bridge, port string, wl *policy.Workload) bool {
	return slices.ContainsFunc(w.m.Spec.Sources, func(s policy.Selector) bool {
		return s.Bridge == "" && s.VLAN == nil && w.selects(&s, b, port, wl)
	})
}

// missing reports the sources that chose nothing: those that name one thing always, those that choose by property if nothing is chosen.
func (w *mirrorWork) missing(found []bool, nothing bool) {
	var absent []string
	for i := range w.m.Spec.Sources {
		s := &w.m.Spec.Sources[i]
		if w.elsewhere(s) {
			continue
		}
		switch s.Kind() {
		case policy.SelectPort, policy.SelectVM, policy.SelectNeutronPort, policy.SelectMAC:
			if !found[i] {
				absent = append(absent, s.String())
			}
		default:
			if !found[i] && nothing {
				absent = append(absent, s.String())
			}
		}
	}
	switch {
	case len(absent) > 0:
		w.problem(false, policy.ReasonSourceMissing, "not on a managed bridge of this host: %s", strings.Join(absent, "; "))
	case nothing && !w.fatal() && slices.Contains(found, true):
		w.problem(false, policy.ReasonSourceMissing, "every source is excluded")
	}
}

// devices reports sources that are chosen for themselves and through which nothing passes. Of those chosen as one of all of a bridge some
// are always idle.
func (w *mirrorWork) devices(b *vswitch.Bridge, s *bridgeSources) {
	for _, name := range s.ports {
		if w.names(b, name, w.port(b, name).Workload) {
			w.fault(b, "source", name, policy.ReasonSourceMissing, policy.ReasonSourceDown, false)
		}
	}
}

// device reports a target through which nothing passes.
func (w *mirrorWork) device(b *vswitch.Bridge, out vswitch.OutputSpec) {
	w.fault(b, "target", out.Port, policy.ReasonTargetMissing, policy.ReasonTargetDown, out.Create)
}

// fault reports a port through which nothing passes; b may be nil. soon: tapwall makes it.
func (w *mirrorWork) fault(b *vswitch.Bridge, what, name string, missing, down policy.Reason, soon bool) {
	text := portFault(b, name)
	if text == "" {
		return
	}
	reason, p := down, b.Ports[name]
	if !p.HasDevice() {
		untouched := func(i *vswitch.Interface) bool { return i.OFPort == 0 && i.Error == "" }
		reason, soon = missing, soon && slices.ContainsFunc(p.Interfaces, untouched)
	}
	w.problem(false, reason, "%s %s of bridge %s: %s", what, name, b.Name, text)
	w.info.Problems[len(w.info.Problems)-1].Soon = soon
}

// mirrorTarget is where a mirror delivers.
type mirrorTarget struct {
	spec     vswitch.OutputSpec
	identity output
	remote   netip.Addr // of a tunnel
	idName   string     // what the id of a tunnel is called
	// Of a port that is there already: its bridge, nil = there is none; the machine that it was named by; and why it cannot be had.
	at      *vswitch.Bridge
	vm      string
	bad     *Problem
	capture *Capture // what this host reads
}

// target returns the target with an index and the bridge that it is bound to, "" = any.
func (w *mirrorWork) target(i int) (t mirrorTarget, bridge string) {
	if t, ok := tunnelOf(&w.m.Spec.Targets[i], w.ids[place{w.m.Name, i}]); ok {
		return w.tunnel(t)
	}
	if c := CaptureOf(w.m.Name, i, &w.m.Spec.Targets[i]); c != nil {
		return w.captured(c), ""
	}
	p := w.m.Spec.Targets[i].Port
	switch {
	case w.m.Spec.Targets[i].There():
		return w.existing(&w.m.Spec.Targets[i])
	case p == nil:
		return t, ""
	}
	t.spec = vswitch.OutputSpec{Port: p.Name, Create: p.Create}
	if prefix := reserved(p.Name); prefix != "" {
		w.faultAt(fmt.Sprintf("/spec/targets/%d/port/name", i), policy.ReasonOutputPortTaken,
			"names that begin with %s are those of what tapwall makes for its own use; choose another one", prefix)
	}
	t.identity = output{port: p.Name}
	// As an access port of VLAN 0 it gets packets of all VLANs, without their tag, as from a tunnel.
	t.spec.Type, t.spec.Tag = "internal", new(int)
	if w.in.NoDevices {
		w.problem(true, policy.ReasonNoLocalDevices,
			"host %s is managed over the network and lacks the capability localDevices, so port %s could be made there "+
				"but not brought up; name a port that is there, without create", w.in.Topology.Host, p.Name)
	}
	return t, w.bridgeOf(p.Name)
}

// reserved returns how names begin that tapwall gives itself, if that is one; "" = it is none.
func reserved(name string) string {
	for _, prefix := range []string{tapBridgePrefix, outPrefix, inPrefix, backPrefix, returnPrefix, capturePrefix} {
		if strings.HasPrefix(name, prefix) {
			return prefix
		}
	}
	return ""
}

func (p *mirrorPlanner) bridgeOf(port string) string {
	for _, b := range p.bridges {
		if b.Ports[port] != nil {
			return b.Name
		}
	}
	return ""
}

// guard refuses mirrors that would copy their own copies.
func (w *mirrorWork) guard(b *vswitch.Bridge, s *bridgeSources, t mirrorTarget) {
	if slices.Contains(s.ports, t.spec.Port) && w.names(b, t.spec.Port, w.port(b, t.spec.Port).Workload) {
		w.problem(true, policy.ReasonSourceCarriesTarget, "port %s of bridge %s is source and target", t.spec.Port, b.Name)
	}
	if !t.remote.IsValid() {
		return
	}
	device := w.in.Routes[t.remote].Device
	known := device != ""
	if known && len(s.entered) > 0 {
		w.loops(b, device, t)
	}
	var carriers []string
	for _, name := range s.ports {
		switch {
		case known && (device == b.Name || w.port(b, device).Internal()):
			// The host's address is on LOCAL or another internal port: tunnel packets pass there and through whatever leads out of the bridge.
			if name == device || w.port(b, name).Kind == inventory.KindUplink {
				carriers = append(carriers, name)
			}
		case known:
			if name == device {
				carriers = append(carriers, name)
			}
		case name == b.Name:
			carriers = append(carriers, name)
		}
	}
	switch {
	case len(carriers) == 0:
	case known:
		w.faultAt("/spec/sources", policy.ReasonSourceCarriesTarget,
			"the collector %s is reached through %s, so the mirror would copy its own tunnel packets; exclude that",
			t.remote, strings.Join(carriers, ", "))
	default:
		w.warn(policy.Warning{Code: WarnSourceMayCarryTarget, Message: "if the collector " +
			t.remote.String() +
			" is reached through bridge " + b.Name + ", the mirror copies its own tunnel packets; exclude port " + strings.Join(carriers, ", ")})
	}
	w.overlay(t)
}
