package host

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// capabilities names what can be done on the host beyond flows and rows, see wire.Host.
func (e *Engine) capabilities(topo *vswitch.Topology) []string {
	out := []string{}
	if e.local() {
		out = append(out, wire.CapControlSocket, wire.CapLocalDevices)
	}
	if firstFragments(topo, e.opt.Bridges) {
		out = append(out, wire.CapFirstFragments)
	}
	return out
}

// release is what ovs_version says, such as "3.1.0" or "3.5.0-1.fc40"; what cannot be read of it is 0, so that it is taken for an old one.
type release struct{ major, minor, patch int }

func releaseOf(version string) release {
	var n [3]int
	for i, text := range strings.SplitN(version, ".", 3) {
		end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(text)
		}
		n[i], _ = strconv.Atoi(text[:end])
	}
	return release{n[0], n[1], n[2]}
}

// has reports whether r has a fix: fixed are the first releases of their minor versions that do, in order; all later ones have it.
func (r release) has(fixed ...release) bool {
	for _, f := range fixed {
		if r.major == f.major && r.minor == f.minor {
			return r.patch >= f.patch
		}
	}
	last := fixed[len(fixed)-1]
	return r.major > last.major || r.major == last.major && r.minor > last.minor
}

// onUserspace reports whether a bridge is not on the kernel's datapath.
func onUserspace(topo *vswitch.Topology, bridge string) bool {
	br := topo.Bridges[bridge]
	return br != nil && br.DatapathType != "" && br.DatapathType != kernelDatapath
}

// firstFragments reports whether a connection may begin with a fragmented packet where rules have ports, on all owned bridges. The kernel's
// conntrack puts packets together before they are looked at; the userspace datapath keeps their ports in the original tuple of all
// fragments since commit 9f7eb58f7.
func firstFragments(topo *vswitch.Topology, bridges []BridgeConfig) bool {
	if releaseOf(topo.OVSVersion).has(release{3, 1, 7}, release{3, 2, 5}, release{3, 3, 4}, release{3, 4, 2}) {
		return true
	}
	return !slices.ContainsFunc(bridges, func(b BridgeConfig) bool { return b.Mode == Owned && onUserspace(topo, b.Name) })
}

// mixesUpCaches reports whether the switch may mend a wrong one of the flows that it has cached of a bridge, see [ofctrl.Renewal].
func mixesUpCaches(topo *vswitch.Topology, bridge string) bool {
	fixed := releaseOf(topo.OVSVersion).has(release{2, 17, 8}, release{3, 0, 5}, release{3, 1, 3}, release{3, 2, 0})
	return onUserspace(topo, bridge) && !fixed
}
