package tap

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// Route is the way from this host to a collector, as its kernel knows it.
type Route struct {
	// Device is the one by which packets leave: a bridge or a port of the topology where there is one on the way; "" = there is no route.
	Device string
	MTU    int    // of the way, in bytes of an IP packet; 0 = not known
	Own    string // what the address is if it is not that of one other host, such as "an address of the host itself"; "" = it is
	Fault  string // why nothing arrives; "" = nothing is known
}

// assumedMTU is that of a way whose MTU is not known here: what Ethernet has unless somebody changes it.
const assumedMTU = 1500

// ethernet is the length of an Ethernet header, and of a VLAN tag.
const (
	ethernet = 14
	vlanTag  = 4
)

// headers is how many bytes of an IP packet are not the copy: those of IP and of what a tunnel has behind it (seen on the wire of
// 3.1.0). GRE has a key, and as the carrier of ERSPAN a sequence number.
func (t *mirrorTarget) headers() int {
	n := 20
	if t.remote.Is6() {
		n = 40
	}
	switch t.identity.kind {
	case "vxlan", "geneve":
		return n + 8 + 8
	case "erspan", "ip6erspan":
		if t.spec.Options["erspan_ver"] == "1" {
			return n + 8 + 8
		}
		return n + 8 + 12
	}
	return n + 8
}

// reach looks at the way to the collector of the target with an index: whether there is one, and whether copies of what is copied on these
// bridges fit into the tunnel.
func (w *mirrorWork) reach(i int, t *mirrorTarget, on []*vswitch.Bridge) {
	if !t.remote.IsValid() {
		return
	}
	x, _ := w.m.Spec.Targets[i].Tunnel()
	at := fmt.Sprintf("/spec/targets/%d/%s/remote", i, x.Protocol)
	route, known := w.in.Routes[t.remote]
	switch {
	case route.Own != "":
		w.faultAt(at, policy.ReasonOwnAddress, "%s is %s, so copies would not leave host %s", t.remote, route.Own, w.in.Topology.Host)
		return
	case route.Fault != "":
		w.problem(false, policy.ReasonTargetUnresolved, "copies do not arrive at collector %s: %s", t.remote, route.Fault)
	}
	mtu, of := route.MTU, "an MTU of "+strconv.Itoa(route.MTU)+" on device "+route.Device
	if !known || mtu == 0 {
		mtu, of = assumedMTU, fmt.Sprintf("an MTU that is not known here, %d is assumed", assumedMTU)
	}
	room := max(policy.MinSnaplen, mtu-t.headers())
	w.rooms[t.spec.Port] = room
	larger := w.larger(on, room)
	switch n := w.m.Spec.Snaplen; {
	case len(larger) == 0 || n > 0 && n <= room:
	case w.m.Spec.MTUPolicy == policy.MTUFail:
		w.faultAt(at, policy.ReasonMTUExceeded, "the tunnel to %s carries frames of at most %d bytes (%s), and sources have larger ones: %s; "+
			"use mtuPolicy: truncate or snaplen", t.remote, room, of, strings.Join(larger, ", "))
	default:
		w.warn(policy.Warning{Code: WarnCopiesMayBeCut, Message: fmt.Sprintf(
			"frames of more than %d bytes are cut to that, which is what the tunnel to %s carries (%s)", room, t.remote, of)})
	}
}

// larger lists sources whose frames may be larger than a tunnel carries, some of them. One whose MTU nobody says may have any.
func (w *mirrorWork) larger(on []*vswitch.Bridge, room int) (out []string) {
	const few = 3
	frame := ethernet
	if w.m.Spec.VLANTag != "" && w.m.Spec.VLANTag != policy.VLANTagStrip {
		frame += vlanTag
	}
	for _, b := range on {
		for _, name := range w.sources()[b.Name].ports {
			mtu := 0
			for _, i := range b.Ports[name].Interfaces {
				mtu = max(mtu, int(i.MTU))
			}
			switch {
			case len(out) > few || mtu > 0 && mtu+frame <= room:
			case len(out) == few:
				out = append(out, "…")
			case mtu == 0:
				out = append(out, fmt.Sprintf("%s/%s (MTU not known)", b.Name, name))
			default:
				out = append(out, fmt.Sprintf("%s/%s (MTU %d)", b.Name, name, mtu))
			}
		}
	}
	return out
}

// faultAt is a fatal problem with one place of the mirror, which whoever writes it is told at once.
func (w *mirrorWork) faultAt(at string, reason policy.Reason, format string, args ...any) {
	w.problem(true, reason, format, args...)
	w.info.Problems[len(w.info.Problems)-1].At = at
}

// room is how many bytes of a copy the mirror's tunnel carries; 0 = the target is none, or whoever wrote the mirror wants nothing cut.
func (w *mirrorWork) room(t *mirrorTarget) int {
	if w.m.Spec.MTUPolicy == policy.MTUFail {
		return 0
	}
	return w.rooms[t.spec.Port]
}

// shared warns of other mirrors whose copies come to the collector under the same number.
func (w *mirrorWork) shared(t *mirrorTarget) {
	if !t.remote.IsValid() {
		return
	}
	if others := without(w.users[t.identity], []string{w.m.Name}); len(others) > 0 {
		w.warn(policy.Warning{Code: WarnVNIShared, Message: fmt.Sprintf("mirror %s sends to %s with %s %d, too: nothing tells their copies apart",
			strings.Join(others, ", "), t.remote, t.idName, t.identity.id)})
	}
}

// cutsToFit reports whether the mirror has a tunnel into which copies are to be cut, as a Mirror row cannot do it: one with a snaplen
// cuts the outer packet of the userspace datapath.
func cutsToFit(m *policy.Mirror) bool {
	if m.Spec.MTUPolicy == policy.MTUFail {
		return false
	}
	for i := range m.Spec.Targets {
		if _, ok := m.Spec.Targets[i].Tunnel(); ok {
			return true
		}
	}
	return false
}
