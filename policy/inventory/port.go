package inventory

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// Kind says what is behind a port.
type Kind string

// The kinds. Of several that might be said of a port, the first of this list is.
const (
	KindTap      Kind = "tap"      // tapwall made it to deliver copies
	KindEndpoint Kind = "endpoint" // a machine, by what the orchestrator or an Endpoint resource says
	KindLocal    Kind = "local"    // the host itself: the bridge's own port or another internal one
	KindUplink   Kind = "uplink"   // a device of the host that leads to the network
	KindPatch    Kind = "patch"    // another bridge
	KindTunnel   Kind = "tunnel"   // other hosts
	KindUnknown  Kind = "unknown"  // nobody says, such as of a vhost-user socket without external_ids
)

// kindOf are the interface types of ovs-vswitchd.conf.db(5) that say what is behind them.
var kindOf = map[string]Kind{
	"": KindUplink, "system": KindUplink, "tap": KindUplink, "dpdk": KindUplink, "afxdp": KindUplink, "afxdp-nonpmd": KindUplink,
	"internal": KindLocal,
	"patch":    KindPatch,
	"vxlan":    KindTunnel, "geneve": KindTunnel, "gre": KindTunnel, "ip6gre": KindTunnel, "erspan": KindTunnel, "ip6erspan": KindTunnel,
	"stt": KindTunnel, "lisp": KindTunnel, "gtpu": KindTunnel, "bareudp": KindTunnel, "srv6": KindTunnel,
}

// Port is one port of a bridge.
type Port struct {
	Host   string // id of the host
	Bridge string
	Name   string
	Kind   Kind
	// Interfaces are ordered by name; a port with several is a bond.
	Interfaces []Interface
	// VLAN is that of untagged frames: the tag of an access port, the native VLAN of a trunk, else 0.
	VLAN int
	// Tagged: frames with a VLAN tag may pass (trunks).
	Tagged bool
	// MAC is the address that OVSDB knows for what is plugged in here, canonical; "" = unknown.
	MAC string
	// Fault says why nothing passes; "" = something may.
	Fault string
	// Workload is what was found here; nil = none. A port of KindEndpoint has none where its bridge is not managed, and where the row is what
	// was left of a port that went.
	Workload *policy.Workload
}

// Interface is one of the interfaces of a port.
type Interface struct {
	Name   string
	OFPort uint32 // 0 = none (yet)
	// HasDevice: something can pass through it.
	HasDevice bool
	MAC       string // of the device; "" = it has none
	// System: it is a network device that the host has whether Open vSwitch runs or not.
	System bool
	// Internal: it is a network device of the host that Open vSwitch makes.
	Internal bool
	// Tunnel is where a tunnel leads; zero = it is none, or each packet says where.
	Tunnel Tunnel
}

// Tunnel is one end of a tunnel.
type Tunnel struct {
	Type    string // of the interface, as Open vSwitch calls it
	Remote  netip.Addr
	DstPort int // of UDP; 0 = the protocol has none
}

// HasDevice reports whether something can pass through the port.
func (p *Port) HasDevice() bool {
	return slices.ContainsFunc(p.Interfaces, func(i Interface) bool { return i.HasDevice })
}

// Internal reports whether the port is a network device of the host that Open vSwitch makes, whoever uses it.
func (p *Port) Internal() bool {
	return slices.ContainsFunc(p.Interfaces, func(i Interface) bool { return i.Internal })
}

// String spells the port as it stands in warnings.
func (p *Port) String() string {
	s := p.Bridge + "/" + p.Name
	if !p.HasDevice() {
		s += " (no device: " + p.Fault + ")"
	}
	return s
}

// candidate is a port that may be a workload's, with its row.
type candidate struct {
	*Port
	row *vswitch.Port
	// ids are the external_ids of the Port and those of its Interfaces, which win, the first before the others.
	ids    map[string]string
	kind   Kind   // that of the row by itself
	names  []name // what an Endpoint resource may call the port, each once; nil until needed
	use    use    // what its workload is made of beside the row
	before found  // when the same row was looked at last
}

// use is what an Endpoint resource does for a port.
type use struct {
	endpoint *policy.Endpoint // nil = there is none
	only     bool             // the port is the only one that it finds
}

// found is the workload of a port and what it was made of.
type found struct {
	workload *policy.Workload
	use      use
}

// read takes in a row of the Port table.
func read(host, bridge string, row *vswitch.Port) candidate {
	p := &Port{Host: host, Bridge: bridge, Name: row.Name, Fault: row.Fault(), Kind: KindUnknown}
	p.VLAN, p.Tagged = access(row)
	ids := row.ExternalIDs
	for _, i := range slices.Backward(row.Interfaces) {
		if len(i.ExternalIDs) > 0 {
			ids = maps.Clone(ids)
			if ids == nil {
				ids = make(map[string]string, len(i.ExternalIDs))
			}
			maps.Copy(ids, i.ExternalIDs)
		}
	}
	for _, i := range row.Interfaces {
		p.Interfaces = append(p.Interfaces, readInterface(i))
		switch k := kindOf[i.Type]; {
		case k == KindUplink || k != "" && p.Kind == KindUnknown:
			p.Kind = k
		}
	}
	p.MAC = macOf(row, ids)
	switch {
	case row.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue:
		p.Kind = KindTap
	case p.Name == bridge:
		p.Kind = KindLocal
	case claims(row, ids):
		p.Kind = KindEndpoint
	}
	return candidate{Port: p, row: row, ids: ids, kind: p.Kind}
}

func readInterface(i *vswitch.Interface) Interface {
	out := Interface{
		Name: i.Name, HasDevice: i.HasDevice(), MAC: i.MACInUse,
		System: i.Type == "" || i.Type == "system", Internal: i.Type == "internal",
	}
	if i.OFPort > 0 && i.OFPort <= 0xffffffff {
		out.OFPort = uint32(i.OFPort)
	}
	out.Tunnel = readTunnel(i)
	return out
}

// udpPorts are the default ones of tunnels that have any.
var udpPorts = map[string]int{"vxlan": policy.DefaultVXLANPort, "geneve": policy.DefaultGenevePort}

func readTunnel(i *vswitch.Interface) Tunnel {
	remote, err := netip.ParseAddr(i.Options["remote_ip"])
	if err != nil || kindOf[i.Type] != KindTunnel {
		return Tunnel{}
	}
	out := Tunnel{Type: i.Type, Remote: remote, DstPort: udpPorts[i.Type]}
	if s := i.Options["dst_port"]; s != "" && out.DstPort != 0 {
		port, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return Tunnel{}
		}
		out.DstPort = int(port)
	}
	return out
}

// claims reports whether the orchestrator says that a machine is plugged in here. A bare system port is an uplink; what leads to another
// bridge or to other hosts is none whatever is written there.
func claims(row *vswitch.Port, ids map[string]string) bool {
	if len(row.Interfaces) == 0 {
		return false
	}
	if k := kindOf[row.Interfaces[0].Type]; k == KindPatch || k == KindTunnel {
		return false
	}
	for _, k := range [...]string{policy.LabelNeutronPort, attachedMAC, policy.LabelVMUUID, policy.LabelVMID} {
		if ids[k] != "" {
			return true
		}
	}
	return false
}

// macOf knows that mac_in_use of anything but an internal interface is the host's side of the wire, so it does not count.
func macOf(row *vswitch.Port, ids map[string]string) string {
	s := ids[attachedMAC]
	if s == "" && len(row.Interfaces) > 0 && row.Interfaces[0].Type == "internal" {
		s = row.Interfaces[0].MACInUse
	}
	m, _ := policy.ParseMAC(s)
	return m
}

// access returns the VLAN of a port's untagged frames and whether it takes tagged ones (Port.vlan_mode in ovs-vswitchd.conf.db(5)). The
// tags that a dot1q-tunnel port takes are its customer's and not those that the bridge forwards by, so what carries one could not be
// judged.
func access(p *vswitch.Port) (vlan int, tagged bool) {
	if p.Tag != nil {
		vlan = *p.Tag
	}
	switch p.VLANMode {
	case "access", "dot1q-tunnel":
		return vlan, false
	case "trunk":
		return 0, true
	case "native-tagged", "native-untagged":
		return vlan, true
	}
	return vlan, p.Tag == nil // trunks beside a tag are ignored
}
