package wall

import (
	"errors"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
)

// Options are the inputs of NewFirewall.
type Options struct {
	// Bridge is the name of the bridge; workloads of other bridges are peers by their addresses only. Mandatory.
	Bridge string
	// BridgeIndex chooses the bridge's range of conntrack zones, 0..pipeline.MaxBridges-1. It must stay the same for the life of the
	// bridge and differ from that of the host's other bridges.
	BridgeIndex int
	// Assignments are those of earlier runs, nil for a new bridge. They are copied.
	Assignments *Assignments
	// LogPerSecond limits copies of logged packets to the controller, of those that pass and of those that are denied, each; 0 =
	// DefaultLogPerSecond.
	LogPerSecond uint32
	// DNS has the controller told what endpoints ask DNS and are answered.
	DNS bool
	// Record says what the bridge records of what policies say nothing else of; zero = nothing.
	Record policy.Record
	// Learning has the controller told what machines say of their addresses.
	Learning bool
}

// DefaultLogPerSecond is the rate of Options.LogPerSecond when it is 0.
const DefaultLogPerSecond = 10000

// Port is a port of the bridge that is not a workload: an uplink, a tunnel, a patch port, LOCAL. What it sends is classified and has
// no endpoint. A port that is neither a workload's nor given as a Port passes nothing.
type Port struct {
	Name   string
	OFPort uint32
	// VLAN is that of untagged frames: the tag of an access port, the native VLAN of a trunk, else 0.
	VLAN int
	// Tagged: frames with a VLAN tag may arrive (trunks). On other ports they are dropped, but for priority tags (VLAN 0).
	Tagged bool
	// Host: it is the bridge's own port, LOCAL; MAC is its address then, "" = not known.
	Host bool
	MAC  string
}

// Owners of flows, as they stand in Changes.Owners: one of these, or that of an endpoint or a policy.
const (
	OwnerSystem  = "system"  // the pipeline itself
	OwnerRetired = "retired" // for ids that endpoints no longer have
	OwnerPickup  = "pickup"  // what takes up remembered connections

	OwnerServices = "services" // the numbers of services

	ownerEndpoint  = "endpoint/"
	ownerPolicy    = "policy/"
	ownerClassRoot = "class/"

	ownerEndingRoot = "ending/"
)

// ownerClass is the owner of the defaults of a class of endpoints.
func ownerClass(n uint16) string { return ownerClassRoot + strconv.Itoa(int(n)) }

// ownerEnding is the owner of a default of the class that ends by itself.
func ownerEnding(side int, n uint16) string {
	return ownerEndingRoot + string(direction(side)) + "/" + strconv.Itoa(int(n))
}

// ClassOf returns the number of the class whose defaults belong to an owner, if they are those of one.
func ClassOf(owner string) (number uint16, ok bool) {
	text, ok := strings.CutPrefix(owner, ownerClassRoot)
	if !ok {
		text, ok = strings.CutPrefix(owner, ownerEndingRoot)
		_, text, _ = strings.Cut(text, "/")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), ok && err == nil
}

// ownerAddresses is the owner of the numbers of some addresses.
func ownerAddresses(shard uint16) string { return "addresses/" + strconv.Itoa(int(shard)) }

// OwnerEndpoint is the owner of the flows that classify the workload with this key and of its defaults.
func OwnerEndpoint(key string) string { return ownerEndpoint + key }

// OwnerPolicy is the owner of the flows of a policy's rules.
func OwnerPolicy(name string) string { return ownerPolicy + name }

// EndpointOf returns the key of the workload whose flows belong to an owner, if they are those of one.
func EndpointOf(owner string) (key string, ok bool) { return strings.CutPrefix(owner, ownerEndpoint) }

// PolicyOf returns the name of the policy whose flows belong to an owner, if they are those of one.
func PolicyOf(owner string) (name string, ok bool) { return strings.CutPrefix(owner, ownerPolicy) }

// Changes are what Compile found different since the Compile before.
type Changes struct {
	// Owners holds, for each owner that changed, all of its flows; nil flows = the owner is gone. Flows are shared: treat them as
	// read-only.
	Owners map[string][]flow.Flow
	// Ends says when what an owner of Owners has is to end, also where nobody takes it away; the others' stays. What is to be there then is
	// among the flows of others. In milliseconds since 1970.
	Ends map[string]int64
	// Meters are all meters that the flows name. They must exist before the flows; they never change after the first Compile.
	Meters []flow.MeterDesc
	// Assignments are to be persisted. The flows may be installed first if what was persisted of the changed entries is not taken for valid
	// by a later run: an id that comes alive again may have been given to more than the entry says.
	Assignments AssignmentChanges
	// Uprooted: connections that conntrack knows under other circumstances have come to be judged here: an endpoint has begun or ceased to
	// forward. They survive if a pickup window is opened in the same bundle.
	Uprooted bool
	// Arrived are the keys of workloads whose port has appeared, or has become an endpoint's: of their connections conntrack knows nothing,
	// or as those of a station. They survive if the workloads are given a window of their own in the same bundle; see SetArrivals.
	Arrived []string
	// Policies holds the status of each policy that changed; nil = the policy is gone.
	Policies map[string]*PolicyState
	// Addresses says what address numbers stand for, of those that did not or stood for something else: the groups and selectors that name
	// these addresses; nil = nothing.
	Addresses map[uint16][]string
	// Services says what all service numbers stand for, such as "tcp 80, 8000-8099"; nil = what they did before.
	Services map[uint16]string
	// Names says what ids stand for, of those that did not or stood for something else; nil = the id is forgotten, some time after it was in
	// force. It is true before the flows are installed.
	Names map[uint32]*RuleInfo
}

// Empty reports whether nothing changed.
func (c *Changes) Empty() bool {
	return len(c.Owners) == 0 && len(c.Policies) == 0 && c.Assignments.Empty()
}

// PolicyState is what became of a policy on this bridge.
type PolicyState struct {
	// Endpoints are the keys of the workloads it applies to, sorted.
	Endpoints []string
	// Subjects are what it applies to.
	Subjects []Choice
	// Rules in the order of the document, ingress first.
	Rules []RuleState
	// Warnings say what the user should know; the policy works as far as it can.
	Warnings []policy.Warning
	// Err is not nil if rules could not be compiled. Endpoints that the policy isolates stay isolated.
	Err error
}

// RuleState is what became of a rule on this bridge.
type RuleState struct {
	Ref    policy.RuleRef
	Action policy.Effect
	// ID is the number in registers, ct_label and cookies; 0 = the rule has no flows because it applies to nobody, no peer is
	// known, or its peers and services exclude each other.
	ID uint32
	// Priority is the OpenFlow priority in EGRESS or INGRESS.
	Priority uint16
	// Flows counts the rule's flows.
	Flows int
	// Peers are what the rule names as its peers; none = everybody.
	Peers []Choice
}

// Choice is a group, or the other selectors of a list together.
type Choice struct {
	ID   string // as in ClassAssignment.Choices
	Text string // "group lbs", "labels app=web, cidr 10.0.0.0/8"
}

// RuleInfo says what an id stands for.
type RuleInfo struct {
	// Ref names the rule. Rule is policy.RuleDefaultAllow or policy.RuleDefaultDeny for defaults; then Policy is the policy that
	// isolates the endpoint, first by name, or empty.
	Ref policy.RuleRef
	// Action is what the rule does.
	Action policy.Effect
	// Audit: its policy is in mode audit, so it does nothing of the kind.
	Audit bool
	// Log: the rule wants records.
	Log bool
	// OneOf: the rule samples one of so many connections; 0 = none. Another number gives it another id.
	OneOf int
	// Endpoint is the key of one of the workloads whose default this is, else empty; see Firewall.Members. The default of a side without an
	// endpoint has neither an endpoint nor a direction.
	Endpoint string
	// Removed: the id is no longer in force.
	Removed bool
}

// Codes of warnings in PolicyState.
const (
	WarnNoEndpoints        policy.Code = "NO_ENDPOINTS"         // the policy applies to no workload of the bridge
	WarnEndpointMACUnknown policy.Code = "ENDPOINT_MAC_UNKNOWN" // ingress of an endpoint cannot be enforced
	WarnRuleEmpty          policy.Code = "RULE_EMPTY"           // a rule has no peers yet or can match nothing
	WarnGroupUnknown       policy.Code = "GROUP_UNKNOWN"        // a group that a rule names does not exist
	// a forwarding endpoint has no zones of its own and is treated as one that does not forward
	WarnTooManyForwarders policy.Code = "TOO_MANY_FORWARDERS"
	// a rule names entity world, which addresses of endpoints on other bridges and hosts are not in
	WarnWorldKnown policy.Code = "WORLD_WITHOUT_PEERS"
	WarnLimitNear  policy.Code = "LIMIT_NEAR" // of a bridge: see Usage
)

// ErrTooManyRules is the Err of a policy whose rules have no flows because the OpenFlow priorities of a direction are used up.
var ErrTooManyRules = errors.New("too many rules: no OpenFlow priority is left")
