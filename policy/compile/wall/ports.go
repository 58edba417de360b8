package wall

import "github.com/tapwall/tapwall/policy/inventory"

// PlainPorts lists those of the ports of an owned bridge that are not endpoints and may pass traffic: uplinks, tunnels, patch ports,
// LOCAL. The outputs of our own mirrors only receive.
func PlainPorts(ports []inventory.Port) []Port {
	var out []Port
	for i := range ports {
		p := &ports[i]
		if p.Workload != nil || p.Kind == inventory.KindTap {
			continue
		}
		for _, i := range p.Interfaces {
			if i.HasDevice { // one that comes back is somebody's: the topology will say whose
				port := Port{Name: i.Name, OFPort: i.OFPort, VLAN: p.VLAN, Tagged: p.Tagged}
				if p.Name == p.Bridge {
					port.Host, port.MAC = true, i.MAC
				}
				out = append(out, port)
			}
		}
	}
	return out
}
