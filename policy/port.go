package policy

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// PortInfo is what OVSDB says of one port of a managed bridge.
type PortInfo struct {
	Host   string // id of the host
	Bridge string
	Port   string // Port.name
	OFPort int64  // 0 or negative = none (yet)
	// Gone: Open vSwitch has no device behind the port, though it may still have a number. Fault is what it says about that.
	Gone      bool
	Fault     string
	IfaceName string // name of the (first) Interface
	Type      string // Interface.type
	MACInUse  string
	Tag       *int // access VLAN
	Trunk     bool // carries tagged frames: Tag is not an access tag
	Native    int  // VLAN of the untagged frames of a trunk
	// ExternalIDs are the Port's and those of its Interfaces, which win, the first before the others.
	ExternalIDs map[string]string
	// Members are the OpenFlow ports of a bond's other Interfaces.
	Members []int64
}

// Label keys that come from the topology itself and win over external_ids of the same name.
const (
	LabelHost   = "host"
	LabelBridge = "bridge"
	LabelPort   = "port"
	LabelVLAN   = "vlan"
)

const (
	labelAttachedMAC = "attached-mac"
	labelFromOVSDB   = "ovsdb"
)

// dead reports whether nothing can pass through the port: its device is gone or was never there.
func (p *PortInfo) dead() bool {
	return p.Gone || p.OFPort <= 0 && !slices.ContainsFunc(p.Members, func(n int64) bool { return n > 0 })
}

// String spells the port as it stands in warnings.
func (p *PortInfo) String() string {
	s := p.Bridge + "/" + p.Port
	switch {
	case !p.dead():
		return s
	case p.Fault != "":
		return s + " (no device: " + p.Fault + ")"
	}
	return s + " (no device)"
}

// claims reports whether the orchestrator says that an endpoint is plugged here. A bare system port is an uplink; patch and tunnel
// ports and the bridge's own (LOCAL) port lead elsewhere.
func (p *PortInfo) claims() bool {
	if p.Port == p.Bridge || leadsElsewhere(p.Type) {
		return false
	}
	for _, k := range [...]string{labelIfaceID, labelAttachedMAC, "vm-uuid", "vm-id"} {
		if p.ExternalIDs[k] != "" {
			return true
		}
	}
	return false
}

// leadsElsewhere knows the interface types of ovs-vswitchd.conf.db(5) behind which there is no endpoint.
func leadsElsewhere(ifaceType string) bool {
	switch ifaceType {
	case "patch", "vxlan", "geneve", "gre", "ip6gre", "erspan", "ip6erspan", "stt", "lisp", "gtpu", "bareudp", "srv6":
		return true
	}
	return false
}

// matchedBy reports whether the Endpoint resource's match finds the port.
func (p *PortInfo) matchedBy(e *Endpoint) bool {
	m := e.Spec.Match
	if m.Host != "" && m.Host != p.Host {
		return false
	}
	switch m.Kind() {
	case SelectPort:
		return p.Port == m.Port
	case SelectNeutronPort:
		return p.ExternalIDs[labelIfaceID] == m.NeutronPort
	case SelectVM:
		return slices.ContainsFunc(vmLabels[:], func(k string) bool { return p.ExternalIDs[k] == m.VM })
	case SelectMAC:
		return p.mac() != "" && strings.EqualFold(p.mac(), m.MAC)
	}
	return false
}

// mac is the address that OVSDB knows for what is plugged here, canonical; "" if unknown. mac_in_use of anything but an internal
// interface is the host's side of the wire, so it does not count.
func (p *PortInfo) mac() string {
	if s := p.ExternalIDs[labelAttachedMAC]; s != "" {
		m, _ := parseMAC(s)
		return m
	}
	if p.Type == "internal" {
		m, _ := parseMAC(p.MACInUse)
		return m
	}
	return ""
}

// parseMAC reads a unicast MAC in colon form and returns it in lower case.
func parseMAC(s string) (string, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 || strings.Count(s, ":") != 5 {
		return "", fmt.Errorf("must be a MAC address like %q", "52:54:00:12:34:56")
	}
	if hw[0]&1 != 0 {
		return "", fmt.Errorf("is a multicast or broadcast address, not that of one endpoint")
	}
	if [6]byte(hw) == [6]byte{} {
		return "", fmt.Errorf("is all zeros")
	}
	return hw.String(), nil
}
