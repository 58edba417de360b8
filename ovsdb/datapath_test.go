package ovsdb_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func timeouts(specs ...vswitch.TimeoutPolicySpec) ovsdb.Desired {
	return ovsdb.Desired{TimeoutPolicies: specs}
}

func udpFirst(zone, seconds int) vswitch.TimeoutPolicySpec {
	return vswitch.TimeoutPolicySpec{Owner: "wall", Zone: zone, Timeouts: map[string]int{"udp_first": seconds}}
}

var entryTimeout = regexp.MustCompile(`timeout=(\d+)`)

// udpTimeout sends the first packet of a new connection through conntrack in a zone and returns the timeout that it got.
func udpTimeout(t *testing.T, o *ovsdbtest.OVS, zone int, sourcePort int) int {
	t.Helper()
	o.Ofctl("add-flow", "br0", fmt.Sprintf("in_port=vm1,udp,actions=ct(commit,zone=%d)", zone))
	o.Appctl("netdev-dummy/receive", "vm1", fmt.Sprintf("in_port(1),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),"+
		"ipv4(src=192.0.2.1,dst=192.0.2.2,proto=17,tos=0,ttl=64,frag=no),udp(src=%d,dst=53)", sourcePort))
	for _, line := range strings.Split(o.Appctl("dpctl/dump-conntrack", "-s", fmt.Sprintf("zone=%d", zone)), "\n") {
		if m := entryTimeout.FindStringSubmatch(line); m != nil && strings.Contains(line, fmt.Sprintf("sport=%d", sourcePort)) {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no entry:\n%s", o.Appctl("dpctl/dump-conntrack", "-s"))
	return 0
}

func TestTimeoutPolicyLifecycle(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	rows := counts(o)
	standard := udpTimeout(t, o, 7, 1000)

	d := timeouts(udpFirst(7, 5000), vswitch.TimeoutPolicySpec{Owner: "wall", DatapathType: "netdev", Zone: 65535, Timeouts: map[string]int{
		"tcp_syn_sent": 3, "icmp_reply": 4294967295,
	}})
	r := apply(t, c, 1, d)
	stand(t, r)
	apply(t, c, 0, d)
	if have := udpTimeout(t, o, 7, 1001); have < 4900 || have > 5000 || standard > 4900 {
		t.Errorf("a connection lives %d s, before %d s, want 5000", have, standard)
	}
	if have := o.Vsctl("list-zone-tp", "system"); have != "Zone:7, Timeout Policies: udp_first=5000" {
		t.Errorf("ovs-vsctl lists %s", have)
	}
	zone := c.Topology().Datapaths["netdev"].Zones[65535]
	if diff := cmp.Diff(map[string]int{"tcp_syn_sent": 3, "icmp_reply": 4294967295}, zone.Policy.Timeouts); diff != "" {
		t.Errorf("timeouts (-want +got):\n%s", diff)
	}
	for _, ids := range []map[string]string{zone.ExternalIDs, zone.Policy.ExternalIDs} {
		if ids[vswitch.MarkOwner] != vswitch.OwnerValue || ids[vswitch.MarkResource] != "wall" {
			t.Errorf("marks %v", ids)
		}
	}

	// Change, and what somebody else changes.
	d.TimeoutPolicies[0] = udpFirst(7, 6000)
	r2 := apply(t, c, 1, d)
	if r2.TimeoutPolicies[0].UUID != r.TimeoutPolicies[0].UUID {
		t.Errorf("the row was replaced: %+v, was %+v", r2.TimeoutPolicies[0], r.TimeoutPolicies[0])
	}
	if have := udpTimeout(t, o, 7, 1002); have < 5900 || have > 6000 {
		t.Errorf("a connection lives %d s, want 6000", have)
	}
	id := r.TimeoutPolicies[0].UUID
	zone = c.Topology().Datapaths["system"].Zones[7]
	for _, args := range []string{
		"set CT_Timeout_Policy " + id + " timeouts:udp_first=1 timeouts:udp_single=1",
		"set CT_Timeout_Policy " + id + " external_ids:tapwall-resource=else",
		"remove CT_Zone " + zone.UUID + " external_ids tapwall-resource",
		"clear CT_Zone " + zone.UUID + " timeout_policy",
		"del-zone-tp system zone=7",
		"clear Open_vSwitch . datapaths",
	} {
		cfg := c.Topology().NextCfg
		o.Vsctl(strings.Fields(args)...)
		eventually(t, c, "the change", func(s *vswitch.Topology) bool { return s.NextCfg > cfg })
		stand(t, apply(t, c, 1, d))
		apply(t, c, 0, d)
	}
	if have := udpTimeout(t, o, 7, 1003); have < 5900 || have > 6000 {
		t.Errorf("a connection lives %d s, want 6000", have)
	}

	o.KillDB()
	eventually(t, c, "loss", func(*vswitch.Topology) bool { return !c.Status().Connected })
	o.StartDB()
	eventually(t, c, "reconnect", func(*vswitch.Topology) bool { return c.Status().Connected })
	stand(t, apply(t, c, 0, d))

	r = apply(t, c, 1, timeouts(d.TimeoutPolicies[1]))
	if diff := cmp.Diff([]string{"timeout policy system/7"}, r.Removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if have := udpTimeout(t, o, 7, 1004); have > standard {
		t.Errorf("a connection lives %d s, want %d", have, standard)
	}
	apply(t, c, 1, ovsdb.Desired{})
	if have := counts(o); have != rows {
		t.Errorf("rows are left: %s, were %s", have, rows)
	}
}

// Zones and datapaths of others stay as they are, also when ours stand beside them.
func TestForeignZones(t *testing.T) {
	o := newSwitch(t)
	o.Vsctl("--id=@d", "create", "Datapath", "external_ids:note=theirs", "--", "set", "Open_vSwitch", ".", "datapaths:system=@d")
	o.Vsctl("add-zone-tp", "system", "zone=7", "udp_first=70")
	c := connected(t, o)
	theirs := o.Dump("Datapath") + o.Dump("CT_Zone") + o.Dump("CT_Timeout_Policy")
	bad := vswitch.TimeoutPolicySpec{Zone: 9, DatapathType: "nosuch", Timeouts: map[string]int{"udp_last": 1, "udp_first": -1}}
	d := timeouts(udpFirst(8, 80), udpFirst(7, 71), udpFirst(70000, 1), udpFirst(8, 81), bad)
	r := apply(t, c, 1, d)
	want := []string{
		"zone 7 ZONE_TAKEN: zone 7 of datapath system was not set up by tapwall",
		"zone 70000 INVALID: zone 70000 is not in 0…65535",
		"zone 8 INVALID: another timeout policy has the same datapath and zone",
		`zone 9 INVALID: no owner; datapath type "nosuch" has no conntrack zones; ` +
			`udp_first = -1 is not in 0…4294967295; there is no timeout "udp_last"`,
	}
	if diff := cmp.Diff(want, allCodes(r)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	for _, want := range []string{"Zone:7, Timeout Policies: udp_first=70", "Zone:8, Timeout Policies: udp_first=80"} {
		if have := o.Vsctl("list-zone-tp", "system"); !strings.Contains(have, want) {
			t.Errorf("ovs-vsctl lists %s, not %s", have, want)
		}
	}
	apply(t, c, 0, d)
	apply(t, c, 1, ovsdb.Desired{})
	if diff := cmp.Diff(theirs, o.Dump("Datapath")+o.Dump("CT_Zone")+o.Dump("CT_Timeout_Policy")); diff != "" {
		t.Errorf("foreign rows changed (-before +after):\n%s", diff)
	}

	// A policy that somebody has put into our zone, and a zone into our datapath, are theirs.
	n := vswitch.TimeoutPolicySpec{Owner: "wall", DatapathType: "netdev", Zone: 1, Timeouts: map[string]int{"udp_first": 10}}
	apply(t, c, 1, timeouts(n))
	zone := c.Topology().Datapaths["netdev"].Zones[1]
	o.Vsctl("--id=@p", "create", "CT_Timeout_Policy", "timeouts:udp_first=11", "--", "set", "CT_Zone", zone.UUID, "timeout_policy=@p")
	o.Vsctl("add-zone-tp", "netdev", "zone=2", "udp_first=20")
	eventually(t, c, "theirs", func(s *vswitch.Topology) bool { return len(s.Datapaths["netdev"].Zones) == 2 })
	if r := apply(t, c, 0, timeouts(n)); r.TimeoutPolicies[0].Code != ovsdb.CodeZoneTaken || r.TimeoutPolicies[0].UUID != "" {
		t.Errorf("result %+v", r.TimeoutPolicies[0])
	}
	apply(t, c, 0, ovsdb.Desired{})
	for _, want := range []string{"Zone:1, Timeout Policies: udp_first=11", "Zone:2, Timeout Policies: udp_first=20"} {
		if have := o.Vsctl("list-zone-tp", "netdev"); !strings.Contains(have, want) {
			t.Errorf("ovs-vsctl lists %s, not %s", have, want)
		}
	}
}
