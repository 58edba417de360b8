package wire

// Trace says what would happen to the first packet of a connection, and why.
type Trace struct {
	Packet TracePacket `json:"packet"`
	// Verdict is allow, audit (it passes, and would be denied but for mode audit), deny or reject: of the first crossing that it does not
	// survive, if there is one.
	Verdict string `json:"verdict"`
	// Crossings are the bridges that judge it, in order: the sender's, then the receiver's if that is another one or another VLAN of it.
	Crossings []TraceCrossing `json:"crossings"`
	// Problems name the hosts of which nothing is known, and why.
	Problems []string `json:"problems,omitempty"`
}

// TracePacket is the packet.
type TracePacket struct {
	Protocol    string       `json:"protocol"` // as services have it: tcp, icmpv6; the number of one without a name
	Source      TraceAddress `json:"source"`
	Destination TraceAddress `json:"destination"`
	Type        *int         `json:"type,omitempty"` // ICMP and ICMPv6
	Code        *int         `json:"code,omitempty"`
}

// TraceAddress is one side of the packet.
type TraceAddress struct {
	IP   string `json:"ip"`
	Port int    `json:"port,omitempty"`
	// Assumed: nobody has said which address the endpoint has, so one was made up. Rules by address may say something else of the real one.
	Assumed bool `json:"assumed,omitempty"`
}

// TraceCrossing is the packet's way over one bridge, by what is installed there.
type TraceCrossing struct {
	Host   string `json:"host"`
	Bridge string `json:"bridge"`
	VLAN   int    `json:"vlan"` // 0 = untagged
	// Revision is that of the store up to which policies are installed.
	Revision    int64    `json:"revision"`
	Source      TraceEnd `json:"source"`
	Destination TraceEnd `json:"destination"`
	Verdict     string   `json:"verdict"` // as Trace.Verdict
	// Unjudged says why policies have no say; "" = they have.
	Unjudged string    `json:"unjudged,omitempty"`
	Egress   TraceSide `json:"egress"`  // by the policies of the sender
	Ingress  TraceSide `json:"ingress"` // by those of the receiver
	// Change says what would have to change for the packet to pass.
	Change []string `json:"change,omitempty"`
	// Path is the packet's way through the tables, by the installed flows; empty = it is not known, and Notes say why.
	Path []TraceStep `json:"path,omitempty"`
	// Probe is what the switch itself says; absent = it was not asked, and Notes say why if it should have been.
	Probe *TraceProbe `json:"probe,omitempty"`
	Notes []string    `json:"notes,omitempty"`
}

// TraceEnd is the sender or the receiver at one bridge.
type TraceEnd struct {
	Endpoint string `json:"endpoint,omitempty"` // as events have it; "" = no endpoint of the bridge
	PortName string `json:"portName,omitempty"`
}

// TraceSide is the verdict of one side's policies.
type TraceSide struct {
	Judged bool   `json:"judged"`           // there is an endpoint on this side
	Effect string `json:"effect,omitempty"` // allow, audit, deny, reject
	Rule   string `json:"rule,omitempty"`   // that decides: POLICY/DIRECTION/RULE or a default, as in events
	// Audited is what would deny, but for mode audit.
	Audited string `json:"audited,omitempty"`
	// Passed is the last rule with action pass that led to the next tier.
	Passed string `json:"passed,omitempty"`
	// Policies apply to the endpoint, in the order in which their rules come; the first 50 of PolicyCount.
	Policies    []TracePolicy `json:"policies,omitempty"`
	PolicyCount int           `json:"policyCount,omitempty"`
	// Matching are the rules that match, in the order in which they are asked; the first 20.
	Matching []TraceRule `json:"matching,omitempty"`
}

// TracePolicy is a policy that applies.
type TracePolicy struct {
	Name     string `json:"name"`
	Tier     string `json:"tier"`
	Priority int    `json:"priority"`
	Audit    bool   `json:"audit,omitempty"`    // it decides nothing
	Isolates bool   `json:"isolates,omitempty"` // it denies what no rule allows
}

// TraceRule is a rule that matches.
type TraceRule struct {
	Rule     string `json:"rule"`
	Action   string `json:"action"`
	Tier     string `json:"tier"`
	Priority int    `json:"priority"`
	Audit    bool   `json:"audit,omitempty"`
	Decides  bool   `json:"decides,omitempty"`
}

// TraceStep is one table.
type TraceStep struct {
	Table     int    `json:"table"`
	TableName string `json:"tableName,omitempty"`
	Cookie    string `json:"cookie,omitempty"`
	Owner     string `json:"owner,omitempty"` // of the flow, as in flows
	Rule      string `json:"rule,omitempty"`  // that it was compiled from
	Text      string `json:"flow,omitempty"`  // "" = no flow matches
	// Names says what numbers in the flow stand for.
	Names []FlowName `json:"names,omitempty"`
}

// TraceProbe is what a switch did with an injected packet.
type TraceProbe struct {
	Verdict string `json:"verdict"`           // allow, audit, deny; unknown where the switch did not say
	Egress  string `json:"egress,omitempty"`  // rule or default that decided
	Ingress string `json:"ingress,omitempty"` // likewise
	// Agrees: the switch says what the policies say.
	Agrees  bool   `json:"agrees"`
	Message string `json:"message,omitempty"`
}
