package policy

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// PortInfo is what OVSDB says of one port of a managed bridge.
type PortInfo struct {
	Bridge    string
	Port      string // Port.name
	OFPort    int64  // 0 or negative = none (yet)
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
	LabelBridge = "bridge"
	LabelPort   = "port"
	LabelVLAN   = "vlan"
)

const (
	labelAttachedMAC = "attached-mac"
	labelFromOVSDB   = "ovsdb"
)

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

// ResolveWorkloads finds the endpoints among the ports: a port is one if the orchestrator marked it (external_ids iface-id,
// attached-mac, vm-uuid or vm-id) or an Endpoint resource matches it. Endpoint resources that match no port become Remote workloads.
// The result is ordered by Key and, like the warnings, does not depend on the order of the arguments, which are not changed.
// Endpoint resources must be valid and their names unique.
func ResolveWorkloads(ports []PortInfo, endpoints []*Endpoint) ([]*Workload, []Warning) {
	r := resolver{
		ports:     slices.SortedFunc(slices.Values(ports), func(a, b PortInfo) int { return cmp.Or(cmp.Compare(a.Bridge, b.Bridge), cmp.Compare(a.Port, b.Port)) }),
		endpoints: slices.SortedFunc(slices.Values(endpoints), func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) }),
		keys:      make(map[string]string),
	}
	r.match()
	for i := range r.ports {
		if e := r.byPort[i]; e != nil || r.ports[i].claims() {
			r.add(r.local(&r.ports[i], e))
		}
	}
	for _, e := range r.endpoints {
		if r.hits[e.Name] == 0 {
			r.add(remote(e))
		}
	}
	slices.SortFunc(r.workloads, func(a, b *Workload) int { return cmp.Compare(a.Key, b.Key) })
	r.duplicateMACs()
	return r.workloads, r.warnings
}

type resolver struct {
	ports     []PortInfo
	endpoints []*Endpoint
	byPort    []*Endpoint    // the endpoint of each port, nil without
	hits      map[string]int // how many ports each endpoint found
	keys      map[string]string
	workloads []*Workload
	warnings  []Warning
}

func (r *resolver) warn(code, endpoint, format string, args ...any) {
	r.warnings = append(r.warnings, Warning{Code: code, Endpoint: endpoint, Message: fmt.Sprintf(format, args...)})
}

// match gives each port the first endpoint, by name, that finds it. Endpoints are looked up by what they match, so the cost is the sum
// of ports and endpoints.
func (r *resolver) match() {
	byKey := make(map[string][]*Endpoint, len(r.endpoints))
	for _, e := range r.endpoints {
		k := e.Spec.Match.String()
		byKey[k] = append(byKey[k], e)
	}
	r.byPort = make([]*Endpoint, len(r.ports))
	r.hits = make(map[string]int, len(r.endpoints))
	for i := range r.ports {
		p := &r.ports[i]
		var found []*Endpoint
		for _, s := range p.identities() {
			for _, e := range byKey[s.String()] {
				if p.matchedBy(e) && !slices.Contains(found, e) {
					found = append(found, e)
				}
			}
		}
		slices.SortFunc(found, func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) })
		for _, e := range found {
			r.hits[e.Name]++ // also those that lose: they do name a local port, so they are not remote
		}
		if len(found) == 0 {
			continue
		}
		r.byPort[i] = found[0]
		for _, e := range found[1:] {
			r.warn(WarnEndpointConflict, e.Name, "endpoints %q and %q both match port %s of bridge %s; %q is used", found[0].Name, e.Name,
				p.Port, p.Bridge, found[0].Name)
		}
	}
	for _, e := range r.endpoints {
		if n := r.hits[e.Name]; n > 1 && (e.Spec.MAC != "" || len(e.Spec.Addresses) > 0) {
			r.warn(WarnEndpointAmbiguous, e.Name, "endpoint %q matches %d ports, so its MAC and addresses belong to none of them; match by port or neutronPort",
				e.Name, n)
		}
	}
}

// identities lists the selectors by which an Endpoint resource may match the port.
func (p *PortInfo) identities() []Selector {
	ids := []Selector{{Port: p.Port}}
	if v := p.ExternalIDs[labelIfaceID]; v != "" {
		ids = append(ids, Selector{NeutronPort: v})
	}
	for _, k := range vmLabels {
		if v := p.ExternalIDs[k]; v != "" {
			ids = append(ids, Selector{VM: v})
		}
	}
	if m := p.mac(); m != "" {
		ids = append(ids, Selector{MAC: m})
	}
	return ids
}

// local builds the workload of a port.
func (r *resolver) local(p *PortInfo, e *Endpoint) *Workload {
	w := &Workload{
		Bridge:    p.Bridge,
		Port:      p.Port,
		MAC:       p.mac(),
		Labels:    make(map[string]string, len(p.ExternalIDs)+3),
		LabelFrom: make(map[string]string, len(p.ExternalIDs)+3),
	}
	for _, n := range append([]int64{p.OFPort}, p.Members...) {
		switch {
		case n <= 0 || n > 0xffffffff:
		case w.OFPort == 0:
			w.OFPort = uint32(n)
		default:
			w.Members = append(w.Members, uint32(n))
		}
	}
	label := func(k, v, from string) { w.Labels[k], w.LabelFrom[k] = v, from }
	for k, v := range p.ExternalIDs {
		label(k, v, labelFromOVSDB)
	}
	label(LabelBridge, p.Bridge, labelFromOVSDB)
	label(LabelPort, p.Port, labelFromOVSDB)
	if p.Tag != nil && !p.Trunk {
		w.VLAN = *p.Tag
		label(LabelVLAN, strconv.Itoa(*p.Tag), labelFromOVSDB)
	}
	if p.Trunk {
		w.Native = p.Native
	}
	if e != nil {
		w.Endpoint, w.DHCPServer = e.Name, e.Spec.DHCPServer
		for k, v := range e.Spec.Labels {
			label(k, v, "endpoint/"+e.Name)
		}
		if r.hits[e.Name] == 1 {
			if m, err := parseMAC(e.Spec.MAC); err == nil {
				w.MAC = m
			}
			w.Addresses = parseAddresses(e.Spec.Addresses)
		}
	}
	w.Key = p.Bridge + "/" + p.Port
	if id := p.ExternalIDs[labelIfaceID]; id != "" {
		if other, taken := r.keys[id]; !taken {
			w.Key = id
		} else {
			r.warn(WarnDuplicateIface, w.Key, "ports %s and %s have the same external_ids:iface-id %s", other, w.Key, id)
		}
	}
	if s := p.ExternalIDs[labelAttachedMAC]; s != "" && w.MAC == "" {
		_, err := parseMAC(s)
		r.warn(WarnBadMAC, w.Key, "external_ids:attached-mac %s of port %s of bridge %s %v", quote(s), p.Port, p.Bridge, err)
	}
	return w
}

// remote builds the workload of an endpoint that is not on this host. What its match says of it is known too, so that peers that
// select it by machine, Neutron port, port or MAC find its addresses.
func remote(e *Endpoint) *Workload {
	from := "endpoint/" + e.Name
	w := &Workload{
		Key: from, Remote: true, Endpoint: e.Name,
		Labels: make(map[string]string, len(e.Spec.Labels)+1), LabelFrom: make(map[string]string, len(e.Spec.Labels)+1),
		Port: e.Spec.Match.Port, Addresses: parseAddresses(e.Spec.Addresses),
	}
	label := func(k, v string) { w.Labels[k], w.LabelFrom[k] = v, from }
	if e.Spec.Match.VM != "" {
		label("vm-id", e.Spec.Match.VM)
	}
	if e.Spec.Match.NeutronPort != "" {
		label(labelIfaceID, e.Spec.Match.NeutronPort)
	}
	for k, v := range e.Spec.Labels {
		label(k, v)
	}
	for _, s := range [...]string{e.Spec.MAC, e.Spec.Match.MAC} {
		if m, err := parseMAC(s); err == nil && w.MAC == "" {
			w.MAC = m
		}
	}
	return w
}

// add keeps keys unique whatever an orchestrator writes into iface-id.
func (r *resolver) add(w *Workload) {
	for base, n := w.Key, 2; ; n++ {
		if _, taken := r.keys[w.Key]; !taken {
			break
		}
		w.Key = base + "#" + strconv.Itoa(n)
	}
	r.keys[w.Key] = w.Bridge + "/" + w.Port
	r.workloads = append(r.workloads, w)
}

func (r *resolver) duplicateMACs() {
	type place struct {
		bridge string
		vlan   int
		mac    string
	}
	first := make(map[place]*Workload, len(r.workloads))
	for _, w := range r.workloads {
		if w.Remote || w.MAC == "" {
			continue
		}
		at := place{w.Bridge, w.VLAN, w.MAC}
		if o := first[at]; o != nil {
			r.warn(WarnDuplicateMAC, w.Key, "endpoints %s (port %s) and %s (port %s) have the same MAC %s in VLAN %d of bridge %s", o.Key, o.Port,
				w.Key, w.Port, w.MAC, w.VLAN, w.Bridge)
			continue
		}
		first[at] = w
	}
}

// parseAddresses returns the valid addresses, sorted and without repetition.
func parseAddresses(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
