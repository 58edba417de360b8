package policy

// Phase says in one word what was observed of a resource.
type Phase string

// The phases. Nothing is Active that was not read back.
const (
	PhasePending  Phase = "Pending"
	PhaseActive   Phase = "Active"
	PhaseDegraded Phase = "Degraded"
	PhaseStopped  Phase = "Stopped"
	PhaseFailed   Phase = "Failed"
)

// Status is what was observed of a resource, over all hosts and per host.
type Status struct {
	Phase            Phase        `json:"phase"`
	Reason           string       `json:"reason,omitempty"` // CamelCase code, e.g. SourceMissing
	Message          string       `json:"message,omitempty"`
	ObservedRevision int64        `json:"observedRevision"` // revision that is installed; behind Meta.Revision = not yet
	Hosts            []HostStatus `json:"hosts,omitempty"`
	Warnings         []Warning    `json:"warnings,omitempty"`
}

// Reasons why a resource does not find what it is about on a host.
const (
	ReasonNoEndpoints = "NoEndpoints" // a policy selects nobody: Pending, since a port may come
	ReasonNoPort      = "NoPort"      // no port matches an Endpoint without addresses: Pending likewise
	ReasonElsewhere   = "Elsewhere"   // no port matches an Endpoint, whose addresses are in force as a peer's: Active
	// ReasonSourceMissing is that of a mirror some or, where no endpoints are listed, all of whose sources are not there: Degraded.
	ReasonSourceMissing = "SourceMissing"
)

// HostStatus is the part of one host.
type HostStatus struct {
	Host     string           `json:"host"`
	Bridges  []string         `json:"bridges,omitempty"`
	Phase    Phase            `json:"phase"`
	Reason   string           `json:"reason,omitempty"`
	Message  string           `json:"message,omitempty"`
	Observed int64            `json:"observedRevision"`
	Counters map[string]int64 `json:"counters,omitempty"`
	// Endpoints lists "bridge/port" of what the resource selects on this host: sources of a mirror, subjects of a policy, ports of an
	// endpoint.
	Endpoints []string `json:"endpoints,omitempty"`
	// Rules are the counters of a policy's rules.
	Rules []RuleStatus `json:"rules,omitempty"`
	// Target describes where a mirror delivers.
	Target map[string]string `json:"target,omitempty"`
}

// RuleStatus is what one rule did on one host since its flows were installed.
type RuleStatus struct {
	Name      string    `json:"name"`
	Direction Direction `json:"direction"`
	Action    Effect    `json:"action"`
	ID        uint32    `json:"id"`      // as in reg11/reg12, ct_label and events
	Packets   uint64    `json:"packets"` // first packets judged plus established packets passed
	Bytes     uint64    `json:"bytes"`
	Flows     int       `json:"flows"`
}

// Warning is something the user should know although the resource is valid.
type Warning struct {
	Code    string `json:"code"` // e.g. SHADOWED
	Message string `json:"message"`
	Rule    string `json:"rule,omitempty"` // "ingress/NAME" where it concerns one rule
	// Policy, Endpoint (a workload key or the name of an Endpoint resource) and By (the rule that covers a shadowed one) are set where
	// the warning concerns them.
	Policy   string   `json:"policy,omitempty"`
	Endpoint string   `json:"endpoint,omitempty"`
	By       *RuleRef `json:"by,omitempty"`
}

// Codes of the warnings of this package.
const (
	WarnShadowed          = "SHADOWED"           // a rule that can never match
	WarnEndpointConflict  = "ENDPOINT_CONFLICT"  // two Endpoint resources match one port
	WarnEndpointAmbiguous = "ENDPOINT_AMBIGUOUS" // an Endpoint resource with a MAC or addresses matches several ports
	WarnDuplicateMAC      = "DUPLICATE_MAC"      // two endpoints with one MAC in one VLAN of a bridge
	WarnDuplicateIface    = "DUPLICATE_IFACE_ID" // two ports with one external_ids:iface-id
	WarnDuplicateAddress  = "DUPLICATE_ADDRESS"  // two endpoints with one address where they can meet
	WarnOneFamily         = "ONE_FAMILY"         // a rule that says of one IP version what it does not say of the other
	WarnBadMAC            = "BAD_MAC"            // external_ids:attached-mac is not a unicast MAC
	WarnMACContradiction  = "MAC_CONTRADICTION"  // an Endpoint resource has another MAC than external_ids:attached-mac, so it does not apply
	WarnUnknownMAC        = "UNKNOWN_MAC"        // an endpoint sends under an address that it does not declare
)

// AboutResource reports whether Endpoint is the name of an Endpoint resource and not the key of a workload.
func (w Warning) AboutResource() bool {
	return w.Code == WarnEndpointConflict || w.Code == WarnEndpointAmbiguous || w.Code == WarnMACContradiction
}
