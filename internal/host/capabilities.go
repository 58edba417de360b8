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

// fragmentsSince says, by the minor version of Open vSwitch 3, from which patch release on its userspace datapath keeps the ports of a
// fragmented packet in the original tuple of all of its fragments (commit 9f7eb58f7). Minor versions behind have it from the first on.
var fragmentsSince = map[int]int{1: 7, 2: 5, 3: 4, 4: 2}

// firstFragments reports whether a connection may begin with a fragmented packet where rules have ports, on all owned bridges. The kernel's
// conntrack puts packets together before they are looked at.
func firstFragments(topo *vswitch.Topology, bridges []BridgeConfig) bool {
	if fragmentsFixed(topo.OVSVersion) {
		return true
	}
	return !slices.ContainsFunc(bridges, func(b BridgeConfig) bool {
		br := topo.Bridges[b.Name]
		return b.Mode == Owned && br != nil && br.DatapathType != "" && br.DatapathType != kernelDatapath
	})
}

// fragmentsFixed reads ovs_version, such as "3.1.0" or "3.5.0-1.fc40"; what it cannot read is taken for an old one.
func fragmentsFixed(version string) bool {
	var n [3]int
	for i, text := range strings.SplitN(version, ".", 3) {
		end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(text)
		}
		n[i], _ = strconv.Atoi(text[:end])
	}
	patch, some := fragmentsSince[n[1]]
	return n[0] > 3 || n[0] == 3 && (some && n[2] >= patch || n[1] >= 5)
}
