package policy

import (
	"net/netip"
	"slices"
)

// Workload is an endpoint as the firewall and the taps see it: a port of a managed bridge with what OVSDB and Endpoint resources say
// of it. Remote ones are on none of the bridges that are looked at, and only labels and addresses count: an Endpoint resource that matches
// no port, or a port of another host. It is immutable. Package inventory finds them.
type Workload struct {
	// Key is the identity, on its Host, that survives a re-plug: external_ids:iface-id, else "bridge/port"; "endpoint/NAME" of an Endpoint
	// resource that matches no port, "HOST/KEY" of what is on another host.
	Key    string
	Remote bool
	Host   string // id of the host; "" = of an Endpoint resource that matches no port
	Bridge string
	Port   string
	OFPort uint32 // 0 = not assigned
	// Members are the OpenFlow ports of a bond's other Interfaces: what comes from any of them is the endpoint's.
	Members []uint32
	MAC     string // lower-case colon form; "" = unknown, so nothing can be addressed to it
	// MACs are the other addresses that its Endpoint resource declares, sorted; only where MAC is known.
	MACs []string
	// DropUnknownMAC: what it sends under other addresses is dropped, not judged as its own.
	DropUnknownMAC bool
	VLAN           int // access tag; 0 = untagged or trunk
	Native         int // VLAN of the untagged frames of a trunk; 0 = none
	// Endpoint is the name of the Endpoint resource that matched, if one did.
	Endpoint string
	// Labels: host, bridge, port, vlan (access ports), every external_ids key of the Interface, and those of the Endpoint resource,
	// which win. LabelFrom says for each key "ovsdb" or "endpoint/NAME".
	Labels    map[string]string
	LabelFrom map[string]string
	Addresses []netip.Addr // declared; sorted
	// Learned are the addresses that it was seen to use beside those, sorted: none is declared, by whomever in its network.
	Learned []netip.Addr
	// Guard holds what it sends to its declared addresses; nil = nothing does.
	Guard *Guard
	// Audit: what would be denied on its side passes, and is recorded (Endpoint.spec.mode).
	Audit bool
	// DHCPServer: an Endpoint resource says that it may answer DHCP clients.
	DHCPServer bool
	// Forwards: it sends packets of others on, so its connections are told apart by leg (Endpoint.spec.forwards).
	Forwards bool
}

// HasAddress reports whether the address is known to be the workload's, be it declared or learned.
func (w *Workload) HasAddress(a netip.Addr) bool {
	_, declared := slices.BinarySearchFunc(w.Addresses, a, netip.Addr.Compare)
	if declared {
		return true
	}
	_, learned := slices.BinarySearchFunc(w.Learned, a, netip.Addr.Compare)
	return learned
}

// EachAddress calls f with each address that is known to be the workload's.
func (w *Workload) EachAddress(f func(netip.Addr)) {
	for _, list := range [...][]netip.Addr{w.Addresses, w.Learned} {
		for _, a := range list {
			f(a)
		}
	}
}

// Direction is seen from the endpoint that a policy applies to.
type Direction string

// The directions.
const (
	Ingress Direction = "ingress"
	Egress  Direction = "egress"
)

// RuleRef names a rule, or the default of an endpoint where Rule is DefaultAllow or DefaultDeny (then Policy is the policy that isolates
// the endpoint, first by name, or empty).
type RuleRef struct {
	Policy    string    `json:"policy"`
	Direction Direction `json:"direction"`
	Rule      string    `json:"rule"`
}

// Names of the defaults in a RuleRef. They cannot collide with rule names, which are DNS labels.
const (
	RuleDefaultAllow = "(default-allow)"
	RuleDefaultDeny  = "(default-deny)"
)
