package wire

import (
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// Host is one OVS instance.
type Host struct {
	ID         string `json:"id"`
	OVSVersion string `json:"ovsVersion"`
	Connected  bool   `json:"connected"`
	Message    string `json:"message,omitempty"`
	// Capabilities are what can be done there beyond flows and rows: controlSocket (what ovs-vswitchd tells on its control socket, such as
	// connections) and localDevices (ports that are made there are brought up), which a host that is managed over the network lacks;
	// firstFragments (a connection may begin with a fragmented packet where rules have ports).
	Capabilities []string     `json:"capabilities"`
	Bridges      []HostBridge `json:"bridges"`
	// Warnings are about the host, its ports and endpoints: what works and is probably not meant.
	Warnings []policy.Warning `json:"warnings,omitempty"`
}

// The words of Host.Capabilities.
const (
	CapControlSocket  = "controlSocket"
	CapLocalDevices   = "localDevices"
	CapFirstFragments = "firstFragments"
)

// HostBridge is one bridge of a host; foreign bridges are listed with mode "".
type HostBridge struct {
	Name         string     `json:"name"`
	Mode         string     `json:"mode,omitempty"` // owned | guest | ""
	DatapathType string     `json:"datapathType"`
	FailMode     string     `json:"failMode"`
	Connected    bool       `json:"connected"`
	Message      string     `json:"message,omitempty"`
	Ports        []HostPort `json:"ports"`
	// Dropped counts what the pipeline dropped, by reason, as tapwall_dropped_packets_total does; reasons without any are left out.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
	Mirrors []HostMirror      `json:"mirrors,omitempty"`
}

// HostPort is one port.
type HostPort struct {
	Name     string `json:"name"`
	OFPort   int64  `json:"ofport"`
	Type     string `json:"type,omitempty"`
	VLAN     *int   `json:"vlan,omitempty"`
	MAC      string `json:"mac,omitempty"`
	Endpoint string `json:"endpoint,omitempty"` // key of the workload
	Error    string `json:"error,omitempty"`
}

// HostMirror is one mirror row, ours or foreign.
type HostMirror struct {
	Name   string `json:"name"`
	Owner  string `json:"owner,omitempty"` // Mirror resource; "" = foreign
	Output string `json:"output,omitempty"`
}

// FlowEntry is one flow, desired and/or installed.
type FlowEntry struct {
	Host   string `json:"host"`
	Bridge string `json:"bridge"`
	Owner  string `json:"owner"`
	// Rule is the rule or default that it was compiled from, POLICY/DIRECTION/RULE as in events; "" = none.
	Rule      string `json:"rule,omitempty"`
	Table     int    `json:"table"`
	TableName string `json:"tableName,omitempty"` // "" = not one of tapwall's tables
	State     string `json:"state"`               // installed | missing (desired, not on the switch) | foreign (on the switch, not ours)
	Text      string `json:"flow"`                // as ovs-ofctl dump-flows prints it, without statistics
	Packets   uint64 `json:"packets"`
	Bytes     uint64 `json:"bytes"`
	// Names says what numbers in the flow stand for, where that is not said by Owner and Rule.
	Names []FlowName `json:"names,omitempty"`
}

// FlowName says what a number in a flow stands for.
type FlowName struct {
	Field  string `json:"field"`  // as docs/pipeline.md has it: source class, destination address, service, …
	Number string `json:"number"` // as the field holds it; 16-31 = all of these
	Name   string `json:"name"`   // "vm1, vm2 and 3 more", "10.0.0.0/8 and 12 more (group lbs)", "tcp 80, 8000-8099"
}

// Class is a class of endpoints of a bridge: those that the same groups and selectors choose, of all that policies name. Flows match its
// number instead of the endpoints.
type Class struct {
	Host      string      `json:"host"`
	Bridge    string      `json:"bridge"`
	Number    int         `json:"number"`
	Endpoints []string    `json:"endpoints"` // as events name them, sorted
	ChosenBy  []string    `json:"chosenBy"`  // "group lbs", "labels app=web, port tap0"
	Policies  []string    `json:"policies"`  // that apply to it
	Rules     []ClassRule `json:"rules"`     // that name it
}

// ClassRule is a rule that names a class.
type ClassRule struct {
	Rule string `json:"rule"` // POLICY/DIRECTION/RULE
	As   string `json:"as"`   // subject | peer
}

// SystemStatus is the health of the process.
type SystemStatus struct {
	Version  string         `json:"version"`
	Healthy  bool           `json:"healthy"`
	Problems []string       `json:"problems,omitempty"`
	Store    StoreStatus    `json:"store"`
	Hosts    []HostHealth   `json:"hosts"`
	Events   event.Counters `json:"events"`
	// Confirmations are outstanding.
	Confirmations []Confirmation `json:"confirmations,omitempty"`
}

// StoreStatus is the health of the store.
type StoreStatus struct {
	Kind      string `json:"kind"` // embedded | external
	Connected bool   `json:"connected"`
	Revision  int64  `json:"revision"`
	Message   string `json:"message,omitempty"`
}

// HostHealth is the health of the connections to one host.
type HostHealth struct {
	Host      string         `json:"host"`
	OVSDB     string         `json:"ovsdb"` // connected | connecting: reason
	Desired   int64          `json:"desiredRevision"`
	Installed int64          `json:"installedRevision"`
	Bridges   []BridgeHealth `json:"bridges"`
	// Warnings are those of Host.
	Warnings []policy.Warning `json:"warnings,omitempty"`
}

// BridgeHealth is the health of one OpenFlow connection.
type BridgeHealth struct {
	Bridge         string `json:"bridge"`
	Mode           string `json:"mode"`
	OpenFlow       string `json:"openflow"` // connected | connecting: reason
	DesiredFlows   int    `json:"desiredFlows"`
	InstalledFlows int    `json:"installedFlows"`
	FlowMods       uint64 `json:"flowMods"` // sent since start
	Resyncs        uint64 `json:"resyncs"`
	Pickup         bool   `json:"pickup"` // the window for connections from before a restart is open
	// Pickups are the open pickup windows, that of the whole bridge first.
	Pickups []PickupWindow `json:"pickups,omitempty"`
	// NotTakenUp counts packets of older connections that the window dropped because nobody knows who opened them and only a default allows
	// one of the two orientations.
	NotTakenUp uint64 `json:"notTakenUp"`
	// CopyLimit is how many connections a second, and how many denied packets, are copied to the record at most; absent = none are.
	CopyLimit uint32 `json:"copyLimit,omitempty"`
	// Dropped is that of HostBridge.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
	// ConnectionEnds says why the ends of recorded connections are not told now, of some or of all; absent = they are.
	ConnectionEnds string `json:"connectionEnds,omitempty"`
	Message        string `json:"message,omitempty"`
}

// PickupWindow is a time in which TCP connections that are older than what conntrack knows are judged instead of dropped.
type PickupWindow struct {
	Workload string    `json:"workload,omitempty"` // key; absent = the whole bridge
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Reason   string    `json:"reason"`
}

// Workload is what was found on a port, with what OVSDB and Endpoint resources say of it.
type Workload struct {
	Key       string                   `json:"key"`            // unique on its host
	Host      string                   `json:"host,omitempty"` // id of the host; "" = Remote
	Remote    bool                     `json:"remote,omitempty"`
	Bridge    string                   `json:"bridge,omitempty"`
	Port      string                   `json:"port,omitempty"`
	OFPort    uint32                   `json:"ofport,omitempty"`
	MAC       string                   `json:"mac,omitempty"`
	MACs      []string                 `json:"macs,omitempty"`
	VLAN      int                      `json:"vlan,omitempty"`
	Endpoint  string                   `json:"endpoint,omitempty"`
	Labels    map[string]WorkloadLabel `json:"labels"`
	Addresses []string                 `json:"addresses,omitempty"` // declared
	// Learned are those that it was seen to use beside them.
	Learned []policy.LearnedAddress `json:"learned,omitempty"`
}

// WorkloadLabel is a label with its origin.
type WorkloadLabel struct {
	Value string `json:"value"`
	From  string `json:"from"` // ovsdb | endpoint/NAME
}
