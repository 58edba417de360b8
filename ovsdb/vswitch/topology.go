// Package vswitch holds values of the Open_vSwitch database: an immutable snapshot of the topology that tapwall looks at
// and the mirror rows that it wants. Column names are those of ovs-vswitchd.conf.db(5). It does no I/O.
package vswitch

import (
	"slices"
	"strings"
)

// Topology is a snapshot of one host's database. It is immutable after it was published; a new snapshot replaces it whole.
type Topology struct {
	Host       string // Open_vSwitch.external_ids:system-id, or a name of the host
	HostDoubt  string // why Host is not the system-id, and what to do about it; "" = it is
	OVSVersion string // Open_vSwitch.ovs_version
	DBVersion  string // Open_vSwitch.db_version
	// InterfaceTypes are those that ovs-vswitchd can make (Open_vSwitch.iface_types), sorted; none = it has not said so.
	InterfaceTypes []string
	// RestoreWait: ovs-vswitchd was told to wait until somebody has restored its flows (other_config:flow-restore-wait), as ovs-ctl does when
	// it restarts the switch. One with the userspace datapath forwards nothing until then.
	RestoreWait bool
	// Generation grows with every snapshot of this process that differs from the one before.
	Generation uint64
	// Structure grows only when something other than NextCfg, CurCfg and Mirror.Statistics differs: what is compiled from the
	// topology depends on nothing else.
	Structure uint64
	NextCfg   int64
	CurCfg    int64
	// Bridges by name.
	Bridges map[string]*Bridge
	// Datapaths by type, "system" or "netdev": those that have a row, which only conntrack zones need.
	Datapaths map[string]Datapath
}

// Bridge is one row of the Bridge table with its ports and mirrors.
type Bridge struct {
	UUID         string
	Name         string
	DatapathType string // "" = system, "netdev"
	DatapathID   string // 16 hex digits, "" until known
	FailMode     string // "", "standalone", "secure"
	Protocols    []string
	ExternalIDs  map[string]string
	OtherConfig  map[string]string
	Controllers  []Controller     // ordered by target
	Ports        map[string]*Port // by Port.name
	Mirrors      []*Mirror        // ordered by UUID
	// FlowTables are the Flow_Table rows by the number of the table.
	FlowTables map[int]FlowTable
	FloodVLANs []int // on which it learns no addresses, sorted
}

// FlowTable is one row of the Flow_Table table: the settings of an OpenFlow table.
type FlowTable struct {
	UUID        string
	Name        string   // "" = none
	Prefixes    []string // fields for which its look-ups use tries, sorted
	ExternalIDs map[string]string
}

// Port is one row of the Port table. A port with more than one interface is a bond.
type Port struct {
	UUID        string
	Name        string
	Tag         *int // access VLAN; nil = trunk
	Trunks      []int
	VLANMode    string
	ExternalIDs map[string]string
	OtherConfig map[string]string
	Interfaces  []*Interface // ordered by name
}

// Interface is one row of the Interface table.
type Interface struct {
	UUID        string
	Name        string
	Type        string // "", "internal", "patch", "vxlan", "dpdkvhostuser", "dummy", …
	OFPort      int64  // 0 = not assigned yet, -1 = refused (see Error)
	MACInUse    string
	AdminState  string
	LinkState   string
	MTU         int64
	Error       string
	ExternalIDs map[string]string
	Options     map[string]string
}

// HasDevice reports whether something can pass through the interface: Open vSwitch has opened its device and given it a number, and the
// device has not gone since. Of a device that goes, Open vSwitch keeps the number and takes back the MAC (seen on 3.1.0).
func (i *Interface) HasDevice() bool {
	return i.OFPort > 0 && (i.MACInUse != "" || i.AdminState != "down")
}

// Fault says why nothing passes through the interface, in Open vSwitch's own words where it has any; "" = nothing is known to be wrong.
func (i *Interface) Fault() string {
	switch {
	case i.Error != "":
		return i.Error
	case i.OFPort < 0:
		return "Open vSwitch has refused it"
	case i.OFPort == 0:
		return "Open vSwitch has not taken it up yet"
	case !i.HasDevice():
		return "its device is gone"
	case i.AdminState == "down":
		return "it is down (admin_state)"
	case i.LinkState == "down":
		return "it has no link (link_state is down)"
	}
	return ""
}

// HasDevice reports whether one of the port's interfaces has a device.
func (p *Port) HasDevice() bool { return slices.ContainsFunc(p.Interfaces, (*Interface).HasDevice) }

// Fault says why nothing passes through the port; "" = something may. A bond works as long as one of its members does.
func (p *Port) Fault() string {
	faults := make([]string, 0, len(p.Interfaces))
	for _, i := range p.Interfaces {
		f := i.Fault()
		if f == "" {
			return ""
		}
		if len(p.Interfaces) > 1 {
			f = i.Name + ": " + f
		}
		faults = append(faults, f)
	}
	return strings.Join(faults, "; ")
}

// Mirror is one row of the Mirror table as read back. Port references are resolved to names; a reference to a vanished port
// is already gone from the row (the references are weak).
type Mirror struct {
	UUID          string
	Name          string
	SelectAll     bool
	SelectSrcPort []string
	SelectDstPort []string
	SelectVLAN    []int
	OutputPort    string // "" = none
	OutputVLAN    *int
	Snaplen       *int
	Statistics    map[string]int64 // tx_packets, tx_bytes; empty = not programmed (yet)
	ExternalIDs   map[string]string
}

// Marks in external_ids of the rows that tapwall made (Bridge, Port, Interface, Mirror, Flow_Table, Controller, Datapath, CT_Zone,
// CT_Timeout_Policy). A row without MarkOwner is foreign and is never changed.
const (
	MarkOwner    = "tapwall-owner"     // always OwnerValue
	MarkMirror   = "tapwall-mirror-id" // name of the Mirror resource, on a Mirror and on the output port made with it
	MarkSpecHash = "tapwall-spec-hash" // hash of the wanted row: equal hash and content = nothing to do
	MarkResource = "tapwall-resource"  // whom any other bridge, port, zone or timeout policy is for
	OwnerValue   = "tapwall"

	// MarkFloods, in external_ids of any bridge, lists those of its flood_vlans that tapwall has added: "100,200".
	MarkFloods = "tapwall-flood-vlans"

	// MarkHolder, in external_ids of the Open_vSwitch row, says which tapwall holds the lock of the host.
	MarkHolder = "tapwall-holder"
)

// MirrorSpec is one wanted native mirror with the output port it needs. It is a value: equal specs want the same rows.
type MirrorSpec struct {
	Owner  string // name of the Mirror resource
	Bridge string
	// Name of the Mirror row.
	Name string
	// SelectAll mirrors every packet of the bridge and excludes the port lists.
	SelectAll     bool
	SelectSrcPort []string // port names, sorted: what enters the bridge there
	SelectDstPort []string // port names, sorted: what leaves the bridge there
	SelectVLAN    []int    // sorted
	Snaplen       int      `json:",omitempty"` // 0 = whole packets; a cut copy is not let into a patch port
	Output        OutputSpec
	// OutputVLAN sends copies to every port of the bridge that has this VLAN, on which the bridge then learns no addresses; there is no
	// Output. 0 = to Output.
	OutputVLAN int `json:",omitempty"`
	// Hold: the rows are not made yet; those that are there stay as they are. It belongs to the moment, not to the wanted row. A patch
	// port that waits for its mirror gets what NORMAL floods on the bridge: only a mirror reserves its output port.
	Hold bool `json:"-"`
}

// OutputSpec is the output port of a mirror.
type OutputSpec struct {
	Port string // port name (at most 15 bytes)
	// Create: tapwall makes the port and removes it with the last mirror that uses it. Without it the port must exist, or be made by a
	// PortSpec.
	Create bool
	// Type and Options of the created interface: "internal" without options, or "vxlan" with remote_ip, key, dst_port, ….
	Type    string
	Options map[string]string
	// Tag makes the created port an access port so that copies leave untagged; nil = keep the tag.
	Tag *int
}
