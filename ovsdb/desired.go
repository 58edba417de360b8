package ovsdb

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// MaxMirrors is how many mirrors ovs-vswitchd programs per bridge. It ignores further rows without an error that a client could
// see (MAX_MIRRORS in ofproto/ofproto-dpif-mirror.c).
const MaxMirrors = 32

// maxInterfaceName is IFNAMSIZ without the final zero.
const maxInterfaceName = 15

// Desired is everything that tapwall wants in one database. What carries tapwall's marks and is not in it is removed. All of it is
// written in one transaction; a mirror may send to a port that is made in the same.
//
// A caller that must do something between rows calls Apply more than once: with MirrorSpec.Hold on the mirrors whose time has not
// come, then, when the bridges and ports stand (BridgeResult.Stands, PortResult.Stands) and their flows are installed, without. What
// is held back is not made, and what is there of it stays as it is, so a mirror that already runs goes on meanwhile. What is to go is
// left out, and goes at once with all that belonged to it.
type Desired struct {
	// Bridges of our own are identified by Name. One that is not wanted any more goes with all of our rows on it.
	Bridges []vswitch.BridgeSpec
	// Ports are identified by Name.
	Ports []vswitch.PortSpec
	// Mirrors are identified by Bridge, Owner and Name.
	Mirrors []vswitch.MirrorSpec
	// FailModes maps bridge names to "secure", "standalone" or "" (the column empty). Bridges that are not named keep theirs; it says
	// nothing about those in Bridges.
	FailModes map[string]string
	// TableNames maps bridge names to names of OpenFlow tables by their number, at most 31 bytes each. A table that has a foreign
	// Flow_Table row keeps it, with its name. A bridge that maps to nil keeps what it has; from one that is not in the map, our rows are
	// removed.
	TableNames map[string]map[int]string
	// TablePrefixes maps bridge names to the fields for which look-ups in a table use tries (prefixes in ovs-vswitchd.conf.db(5)), sorted;
	// it says nothing of bridges for which TableNames does not. Other prefixes that somebody has written stay, also into our row.
	TablePrefixes map[string]map[int][]string
	// Controllers are identified by Bridge and Target. Those of others stay as they are.
	Controllers []vswitch.ControllerSpec
	// TimeoutPolicies are identified by DatapathType and Zone.
	TimeoutPolicies []vswitch.TimeoutPolicySpec
}

// Code says what became of one spec.
type Code int

// The codes.
const (
	CodeOK              Code = iota
	CodeInvalid              // the spec contradicts itself or the schema
	CodeBridgeMissing        // no such bridge
	CodeMirrorLimit          // the bridge has MaxMirrors already, foreign ones included
	CodeOutputMissing        // the output port must exist and does not
	CodeOutputPortTaken      // the output port exists and must not be used
	CodeOutputError          // ovs-vswitchd refused the created port: see MirrorResult.OutputError
	CodePending              // an old port of the same name or number had to go first: call Apply again
	CodeTargetTaken          // another Controller row of the host listens there
	CodeHeld                 // the mirror is held back (MirrorSpec.Hold): nothing was changed
	CodeBridgeTaken          // a bridge or port of somebody else has the bridge's name
	CodeBridgeError          // ovs-vswitchd does not run the bridge
	CodePortTaken            // a port or interface of somebody else has the port's name
	CodePortError            // ovs-vswitchd refused the port: see PortResult.Error
	CodeZoneTaken            // somebody else has set up the conntrack zone
)

// String returns the code as the API spells it.
func (c Code) String() string {
	switch c {
	case CodeOK:
		return "OK"
	case CodeInvalid:
		return "INVALID"
	case CodeBridgeMissing:
		return "BRIDGE_MISSING"
	case CodeMirrorLimit:
		return "MIRROR_LIMIT"
	case CodeOutputMissing:
		return "OUTPUT_MISSING"
	case CodeOutputPortTaken:
		return "OUTPUT_PORT_TAKEN"
	case CodeOutputError:
		return "OUTPUT_ERROR"
	case CodePending:
		return "PENDING"
	case CodeTargetTaken:
		return "TARGET_TAKEN"
	case CodeHeld:
		return "HELD"
	case CodeBridgeTaken:
		return "BRIDGE_TAKEN"
	case CodeBridgeError:
		return "BRIDGE_ERROR"
	case CodePortTaken:
		return "PORT_TAKEN"
	case CodePortError:
		return "PORT_ERROR"
	case CodeZoneTaken:
		return "ZONE_TAKEN"
	}
	return fmt.Sprintf("Code(%d)", int(c))
}

// Result is what Apply found and did, as read back from the database.
type Result struct {
	// Transactions is 0 when nothing differed, else 1.
	Transactions int
	// Cfg is the configuration number that ovs-vswitchd has confirmed; every row in Mirrors is at least that old.
	Cfg int64
	// Generation is the topology that the result was read from.
	Generation uint64
	// These have one entry per spec of the Desired field of the same name, in the same order.
	Bridges         []BridgeResult
	Ports           []PortResult
	Mirrors         []MirrorResult
	Controllers     []ControllerResult
	TimeoutPolicies []TimeoutPolicyResult
	// Removed names the marked rows that nobody wants any more and that were removed: "bridge tw-tap" with all that was on it,
	// "mirror br0/name", "port br0/name", "controller br0/ptcp:6653", "timeout policy netdev/7".
	Removed []string
	// Kept names the bridges of ours that nobody wants any more and that stay because of something on them that is not ours:
	// "bridge tw-tap: port eth1 is not tapwall's".
	Kept []string
	// MissingBridges are keys of Desired.FailModes without a bridge, sorted.
	MissingBridges []string
	// Pending: another call is needed, there was an order to keep. It also follows from the topology's wake-up.
	Pending bool
}

// MirrorResult is the state of one MirrorSpec.
type MirrorResult struct {
	Owner, Bridge, Name string
	Code                Code
	Message             string // one sentence; "" for CodeOK
	// UUID of the Mirror row; "" when there is none. A spec with an error may still have the row of an earlier call.
	UUID string
	// Counting: ovs-vswitchd has reported statistics for the row, so at some time it was programmed. It reports every 5 s or
	// later, and does not withdraw the report when the output port goes.
	Counting bool
	// MissingSources are ports of the spec that do not exist on the bridge, sorted. The mirror runs without them.
	MissingSources []string
	// OutputVLAN is the VLAN that copies go to; 0 = they go to a port.
	OutputVLAN int
	// OutputUUID is the Port row that copies go to; "" when the row has no output, or goes to a VLAN.
	OutputUUID string
	// OutputOFPort is 0 while not assigned and -1 when refused.
	OutputOFPort int64
	// OutputError is Interface.error of the output port.
	OutputError string
}

// validate reports every fault of a spec.
func validate(m *vswitch.MirrorSpec) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.Owner == "" {
		bad("no owner")
	}
	if m.Name == "" {
		bad("no name")
	}
	if m.SelectAll && (len(m.SelectSrcPort) > 0 || len(m.SelectDstPort) > 0) {
		bad("select_all and ports exclude each other")
	}
	for _, v := range m.SelectVLAN {
		if v < 0 || v > 4095 {
			bad("VLAN %d is not in 0…4095", v)
		}
	}
	out := m.Output
	switch {
	case m.OutputVLAN < 0 || m.OutputVLAN > 4094:
		bad("output VLAN %d is not in 1…4094", m.OutputVLAN)
	case m.OutputVLAN > 0 && out.Port != "":
		bad("output port and output VLAN exclude each other")
	case m.OutputVLAN > 0:
	case out.Port == "":
		bad("no output port")
	case slices.Contains(m.SelectSrcPort, out.Port) || slices.Contains(m.SelectDstPort, out.Port):
		bad("output port %s is also a source", out.Port)
	}
	if out.Create {
		if len(out.Port) > maxInterfaceName {
			bad("name of the port to create, %q, is longer than %d bytes", out.Port, maxInterfaceName)
		}
		if out.Type == "" {
			bad("no type for the port to create")
		}
		if out.Tag != nil && (*out.Tag < 0 || *out.Tag > 4095) {
			bad("tag %d is not in 0…4095", *out.Tag)
		}
	}
	return errors.Join(errs...)
}

// mirrorKey identifies a wanted mirror and the row that was made for it.
type mirrorKey struct{ bridge, owner, name string }

func compareKeys(a, b mirrorKey) int {
	return cmp.Or(cmp.Compare(a.bridge, b.bridge), cmp.Compare(a.owner, b.owner), cmp.Compare(a.name, b.name))
}

func keyOf(m *vswitch.MirrorSpec) mirrorKey { return mirrorKey{m.Bridge, m.Owner, m.Name} }

// specHash identifies a wanted row. JSON of the value is canonical: fields in order, maps sorted by key.
func specHash(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and maps of strings only
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// ours says whether a row with these external_ids was made by this package.
func ours(ids map[string]string) bool { return ids[vswitch.MarkOwner] == vswitch.OwnerValue }

// oursPort says the same of a port. One into which somebody has put an interface of theirs is not ours to remove.
func oursPort(p *vswitch.Port) bool {
	return ours(p.ExternalIDs) &&
		!slices.ContainsFunc(p.Interfaces, func(i *vswitch.Interface) bool { return i.Name != p.Name && !ours(i.ExternalIDs) })
}
