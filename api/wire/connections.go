package wire

// Connection is one tracked connection of a managed bridge.
type Connection struct {
	Host     string `json:"host"`
	Bridge   string `json:"bridge"`
	VLAN     *int   `json:"vlan,omitempty"` // 0 = untagged; absent = of a forwarding endpoint, which has zones of its own for all VLANs
	Zone     int    `json:"zone"`
	Protocol string `json:"protocol"`        // as events have it: tcp, ipv6-icmp; the number of one without a name
	State    string `json:"state,omitempty"` // of the original direction, as the datapath has it; "" where the protocol has none
	// Source opened the connection, as conntrack has it.
	Source      ConnectionEnd   `json:"source"`
	Destination ConnectionEnd   `json:"destination"`
	ICMP        *ConnectionICMP `json:"icmp,omitempty"`
	// Egress and Ingress allowed it on the side of Source and of Destination.
	Egress  ConnectionRule `json:"egress"`
	Ingress ConnectionRule `json:"ingress"`

	Ours      bool   `json:"ours"`                // tapwall committed it; otherwise its ids mean nothing
	Logged    bool   `json:"logged"`              // a record of it was sent
	PickedUp  bool   `json:"pickedUp"`            // tapwall came in the middle of it
	Timeout   uint32 `json:"timeout,omitempty"`   // seconds until it is forgotten if it stays silent
	Mark      string `json:"mark"`                // ct_mark
	Label     string `json:"label"`               // ct_label
	Packets   uint64 `json:"packets,omitempty"`   // both directions, where the datapath counts
	Bytes     uint64 `json:"bytes,omitempty"`     // likewise
	NotKilled string `json:"notKilled,omitempty"` // in the answer to a kill: why it lives on
}

// ConnectionEnd is one side of a connection.
type ConnectionEnd struct {
	IP   string `json:"ip"`
	Port int    `json:"port,omitempty"`
	// Endpoint is the name of the endpoint, as events have it; "" = not an endpoint, or of an id that stands for nothing any more.
	Endpoint string `json:"endpoint,omitempty"`
	PortName string `json:"portName,omitempty"`
	ID       uint32 `json:"id,omitempty"` // in ct_label; 0 = none
	// InForce: the connection may go on as this endpoint's. Otherwise its next packet is judged anew.
	InForce bool `json:"inForce"`
}

// ConnectionRule is what allowed a connection on one side.
type ConnectionRule struct {
	Rule string `json:"rule,omitempty"` // POLICY/DIRECTION/RULE or a default, as in events; "" = the id stands for nothing any more
	ID   uint32 `json:"id"`             // in ct_label
	// InForce: the rule still lets pass what it has allowed. Otherwise the next packet is judged anew.
	InForce bool `json:"inForce"`
}

// ConnectionICMP is what an ICMP message has instead of ports.
type ConnectionICMP struct {
	Type int `json:"type"`
	Code int `json:"code"`
	ID   int `json:"id"`
}

// Connections is the answer to a query.
type Connections struct {
	Items []Connection `json:"items"`
	// Matched counts those that match; Items may be fewer.
	Matched int `json:"matched"`
	// Problems name the hosts and zones that were not looked at, and why.
	Problems []string `json:"problems,omitempty"`
}

// Killed is the answer to a kill.
type Killed struct {
	Connections
	DryRun bool `json:"dryRun"`
	// Killed counts those that are no more; of a dry run, that would be.
	Killed int `json:"killed"`
	// Notes say what to know of what was killed.
	Notes []string `json:"notes,omitempty"`
}

// Explanation says what the numbers in a conntrack entry stand for.
type Explanation struct {
	Connection
	// Passes: packets of the connection pass by what allowed it. Otherwise they are judged anew, as Now is.
	Passes bool     `json:"passes"`
	Why    []string `json:"why"`
	// Now is what policies say of a new connection with this tuple; absent where it is not known between whom that would be.
	Now *Judgement `json:"now,omitempty"`
}

// Judgement is what policies say of a new connection.
type Judgement struct {
	Effect  string `json:"effect"`            // allow, deny
	Egress  string `json:"egress,omitempty"`  // rule or default; "" = that side is not judged
	Ingress string `json:"ingress,omitempty"` // likewise
}

// Explanations is the answer to a question: one for each bridge that the entry may be of.
type Explanations struct {
	Items    []Explanation `json:"items"`
	Problems []string      `json:"problems,omitempty"`
}
