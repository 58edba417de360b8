package policy

import "time"

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
	Reason           Reason       `json:"reason,omitempty"`
	Message          string       `json:"message,omitempty"`
	ObservedRevision int64        `json:"observedRevision"` // revision that is installed; behind Meta.Revision = not yet
	Hosts            []HostStatus `json:"hosts,omitempty"`
	// Source is that of a group which takes members from a file or URL.
	Source *SourceStatus `json:"source,omitempty"`
	// Life is that of a mirror which begins or ends by itself.
	Life     *LifeStatus `json:"life,omitempty"`
	Warnings []Warning   `json:"warnings,omitempty"`
}

// HostStatus is the part of one host.
type HostStatus struct {
	Host     string           `json:"host"`
	Bridges  []string         `json:"bridges,omitempty"`
	Phase    Phase            `json:"phase"`
	Reason   Reason           `json:"reason,omitempty"`
	Message  string           `json:"message,omitempty"`
	Observed int64            `json:"observedRevision"`
	Counters map[string]int64 `json:"counters,omitempty"`
	// Endpoints lists "bridge/port" of what the resource selects on this host: sources of a mirror, subjects of a policy, ports of an
	// endpoint.
	Endpoints []string `json:"endpoints,omitempty"`
	// Rules are the counters of a policy's rules.
	Rules []RuleStatus `json:"rules,omitempty"`
	// Learned are the addresses that the ports of an endpoint were seen to use.
	Learned []LearnedAddress `json:"learned,omitempty"`
	// RealisedAs is how a mirror is made: native (one Mirror row) or staged (through a bridge of tapwall's own). Form says why.
	RealisedAs string `json:"realisedAs,omitempty"`
	Form       string `json:"form,omitempty"`
	// ExactOnce: a mirror makes one copy of each packet; if not, its warning DUPLICATES_POSSIBLE says why. nil = it copies nothing.
	ExactOnce *bool `json:"exactOnce,omitempty"`
	// Target describes where a mirror delivers.
	Target map[string]string `json:"target,omitempty"`
	// Targets are those of one that has several.
	Targets []map[string]string `json:"targets,omitempty"`
}

// The values of HostStatus.RealisedAs.
const (
	RealisedNative = "native"
	RealisedStaged = "staged"
)

// RuleStatus is what one rule did on one host since its flows were installed.
type RuleStatus struct {
	Name      string    `json:"name"`
	Direction Direction `json:"direction"`
	Action    Effect    `json:"action"`
	ID        uint32    `json:"id"`      // as in reg11/reg12, ct_label and events
	Packets   uint64    `json:"packets"` // first packets judged plus established packets passed
	Bytes     uint64    `json:"bytes"`
	Flows     int       `json:"flows"`
	// New are the packets that the rule judged: first packets, and those of connections that were judged again. Of a rule that allows,
	// Established are the others, which passed because it had allowed their connections; of one that denies, all of its packets are Denied.
	New         uint64 `json:"new"`
	Established uint64 `json:"established"`
	Denied      uint64 `json:"denied"`
	// LastHit is when a packet met the rule last, as exact as counters are read: at most a minute late. nil = never since CountedSince.
	LastHit      *time.Time `json:"lastHit,omitempty"`
	CountedSince *time.Time `json:"countedSince,omitempty"`
}

// LearnedAddress is one that an endpoint was seen to use.
type LearnedAddress struct {
	Address string    `json:"address"`
	Source  string    `json:"source"` // arp | nd | dhcp
	Since   time.Time `json:"since"`
	Seen    time.Time `json:"seen"`  // last
	Until   time.Time `json:"until"` // when it is forgotten unless it is seen again
}

// Warning is something the user should know although the resource is valid.
type Warning struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Rule    string `json:"rule,omitempty"` // "ingress/NAME" where it concerns one rule, "filter/INDEX" one of a mirror's
	// Policy, Endpoint (a workload key or the name of an Endpoint resource) and By (the rule that covers a shadowed one) are set where
	// the warning concerns them.
	Policy   string   `json:"policy,omitempty"`
	Endpoint string   `json:"endpoint,omitempty"`
	By       *RuleRef `json:"by,omitempty"`
	// AboutResource: Endpoint is the name of an Endpoint resource and not the key of a workload.
	AboutResource bool `json:"-"`
}
