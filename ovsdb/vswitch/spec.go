package vswitch

// BridgeSpec is one wanted bridge of tapwall's own, with its LOCAL port. It is a value: equal specs want the same row.
//
// The bridge gets fail_mode=secure: what it carries are copies, and a bridge in standalone mode would learn from them and flood them.
// Its LOCAL port is a network interface of the host, as of every bridge.
type BridgeSpec struct {
	Owner string // whom it is for; kept in the row's MarkResource
	// Name is unique among all bridges, ports and interfaces of the host, and has at most 15 bytes.
	Name         string
	DatapathType string            // "" = system, "netdev"; a patch port connects only bridges of one type
	Protocols    []string          // "OpenFlow10" … "OpenFlow15", in any order; none = Open vSwitch's default
	OtherConfig  map[string]string // the whole column
}

// PortSpec is one wanted port with one interface of the same name, on a bridge of tapwall's own or of somebody else. It is a value:
// equal specs want the same rows.
type PortSpec struct {
	Owner  string // whom it is for; kept in the rows' MarkResource
	Bridge string
	// Name is unique among all bridges, ports and interfaces of the host, and has at most 15 bytes unless Type is "patch".
	Name    string
	Type    string            // "patch", "internal", "vxlan", …; "" = a device of the system
	Options map[string]string // the whole column: peer of a patch port, remote_ip, key, …
	Tag     *int              // access VLAN 0…4095; nil = trunk of all VLANs
}

// Datapath is one row of the Datapath table, which clients make. What ovs-vswitchd writes there is what the datapath can do.
type Datapath struct {
	UUID        string
	ExternalIDs map[string]string
	Zones       map[int]Zone // by number of the conntrack zone
	// Capabilities are those of ovs-vswitchd.conf.db(5) by name, such as check_pkt_len: "true".
	Capabilities map[string]string
}

// Zone is one row of the CT_Zone table with its CT_Timeout_Policy.
type Zone struct {
	UUID        string
	ExternalIDs map[string]string
	Policy      *TimeoutPolicy // nil = none: the datapath's own timeouts hold
}

// TimeoutPolicy is one row of the CT_Timeout_Policy table.
type TimeoutPolicy struct {
	UUID        string
	ExternalIDs map[string]string
	Timeouts    map[string]int // seconds by name
}

// TimeoutPolicySpec is one wanted conntrack timeout policy. It is a value: equal specs want the same rows.
type TimeoutPolicySpec struct {
	Owner        string // whom it is for; kept in the rows' MarkResource
	DatapathType string // "" = system, "netdev"
	Zone         int    // 0…65535
	// Timeouts are seconds, 0…4294967295, by the names of ovs-vswitchd.conf.db(5), CT_Timeout_Policy: "tcp_established", "udp_first", ….
	// Those without a name here keep the datapath's own value.
	Timeouts map[string]int
}

// DatapathName is the key of a datapath type in Open_vSwitch.datapaths.
func DatapathName(datapathType string) string {
	if datapathType == "" {
		return "system"
	}
	return datapathType
}

// TimeoutNames are what the schema lets a timeout be called, sorted (CT_Timeout_Policy in vswitch.ovsschema, since Open vSwitch 2.13).
func TimeoutNames() []string {
	return []string{
		"icmp_first", "icmp_reply", "tcp_close", "tcp_close_wait", "tcp_established", "tcp_fin_wait", "tcp_last_ack", "tcp_retransmit",
		"tcp_syn_recv", "tcp_syn_sent", "tcp_syn_sent2", "tcp_time_wait", "tcp_unack", "udp_first", "udp_multiple", "udp_single",
	}
}
