package compile

import (
	"cmp"
	"slices"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// OtherPorts returns the ports of a bridge that are not those of workloads, ordered by port number, for Firewall.SetWorkloads. Left out
// are output ports of mirrors and the ports that tapwall makes for them: nothing may come in there.
func OtherPorts(b *vswitch.Bridge, workloads []*policy.Workload) []Port {
	taken := map[string]bool{}
	for _, w := range workloads {
		if !w.Remote && w.Bridge == b.Name {
			taken[w.Port] = true
		}
	}
	for _, m := range b.Mirrors {
		taken[m.OutputPort] = true
	}
	var out []Port
	for name, p := range b.Ports {
		if taken[name] || p.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue {
			continue
		}
		vlan, tagged := 0, p.Tag == nil || p.VLANMode != "" && p.VLANMode != "access"
		if p.Tag != nil && p.VLANMode != "trunk" { // a trunk's tag is ignored (ovs-vswitchd.conf.db(5))
			vlan = *p.Tag
		}
		for _, i := range p.Interfaces { // several in a bond
			if i.OFPort > 0 && i.OFPort <= localPort {
				out = append(out, Port{Name: i.Name, OFPort: uint32(i.OFPort), VLAN: vlan, Tagged: tagged})
			}
		}
	}
	slices.SortFunc(out, func(a, b Port) int { return cmp.Compare(a.OFPort, b.OFPort) })
	return out
}
