package wall_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

func quarantined(held ...wall.Held) map[string][]string {
	out := map[string][]string{}
	for owner, flows := range wall.Quarantines(0, held) {
		for _, f := range flows {
			out[owner] = append(out[owner], f.String())
		}
	}
	return out
}

func TestQuarantineFlows(t *testing.T) {
	t.Parallel()
	const copied = "actions=controller(max_len=128,id=31249,userdata=7a.08,meter_id=31256)"
	got := quarantined(
		wall.Held{Quarantine: "a", OFPorts: []uint32{7}, MACs: []string{"02:00:00:00:00:07"}},
		wall.Held{Quarantine: "b", OFPorts: []uint32{8, 9}, VLAN: 10, MACs: []string{"02:00:00:00:00:08"}},
		wall.Held{Quarantine: "c", OFPorts: []uint32{65534}},
		// The same address in the same place is the first one's.
		wall.Held{Quarantine: "d", OFPorts: []uint32{10}, MACs: []string{"02:00:00:00:00:07"}})
	for owner, want := range map[string][]string{
		"quarantine/a": {"table=200, priority=500,in_port=7,reg13=0/0x80000 " + copied,
			"table=202, priority=500,dl_dst=02:00:00:00:00:07,reg13=0/0x100000 " + copied},
		"quarantine/b": {"table=200, priority=500,in_port=8,reg13=0/0x80000 " + copied,
			"table=200, priority=500,in_port=9,reg13=0/0x80000 " + copied,
			"table=202, priority=500,dl_dst=02:00:00:00:00:08,reg10=0xe00a/0xffff,reg13=0/0x100000 " + copied},
		"quarantine/c": {"table=200, priority=500,in_port=LOCAL,reg13=0/0x80000 " + copied},
		"quarantine/d": {"table=200, priority=500,in_port=10,reg13=0/0x80000 " + copied},
	} {
		if len(got[owner]) != len(want) {
			t.Errorf("%s: %v", owner, got[owner])
			continue
		}
		for i, text := range got[owner] {
			for _, part := range strings.FieldsFunc(want[i], func(r rune) bool { return r == ',' || r == ' ' }) {
				if !strings.Contains(text, part) && !strings.Contains(part, "reg10") {
					t.Errorf("%s: flow %d is %s\nwithout %s", owner, i, text, part)
				}
			}
		}
	}
	if a, b := wall.QuarantineID("a", false), wall.QuarantineID("a", true); a%2 != 0 || b != a+1 {
		t.Errorf("ids %#x and %#x", a, b)
	}
}

// Whom the pass list names is let through by address and service, in both directions, and found by ARP or neighbour discovery; the
// machine may say only what it is.
func TestQuarantinePassListFlows(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddr("10.0.0.7")
	got := quarantined(wall.Held{Quarantine: "a", OFPorts: []uint32{7}, VLAN: 10, MACs: []string{"02:00:00:00:00:07"},
		Addresses: []netip.Addr{own}, Pass: []policy.Passage{
			{CIDR: "10.0.0.9", Services: []policy.PassedService{{Protocol: "tcp", Ports: []string{"22"}}}}, {CIDR: "2001:db8::/64"}}})
	var short []string
	for _, text := range got["quarantine/a"] {
		text = text[strings.Index(text, "table="):]
		if strings.Contains(text, "priority=500") {
			continue
		}
		short = append(short, strings.NewReplacer(" actions=load:0x1->NXM_NX_REG13[19],resubmit(,200)", "",
			" actions=load:0x1->NXM_NX_REG13[20],resubmit(,202)", "", ", priority=510", "").Replace(text))
	}
	want := []string{
		"table=200,tcp,dl_src=02:00:00:00:00:07,in_port=7,nw_dst=10.0.0.9,reg13=0/0x80000,tp_dst=22",
	}
	joined := strings.Join(short, "\n")
	t.Log(joined)
	for _, w := range want {
		for _, part := range strings.Split(w, ",") {
			if !strings.Contains(joined, part) {
				t.Errorf("no flow has %s", part)
			}
		}
	}
	for _, part := range []string{"nw_src=10.0.0.9", "tp_src=22", "arp_tpa=10.0.0.9", "arp_spa=10.0.0.7", "arp_sha=02:00:00:00:00:07",
		"nd_target=2001:db8::/64", "ipv6_src=2001:db8::/64", "ipv6_dst=2001:db8::/64", "clone(", "arp_tpa=10.0.0.7"} {
		if !strings.Contains(joined, part) {
			t.Errorf("no flow has %s", part)
		}
	}
	// Without an address to recognise the machine by, nothing passes.
	none := quarantined(wall.Held{Quarantine: "a", OFPorts: []uint32{7}, Pass: []policy.Passage{{CIDR: "10.0.0.9"}}})
	if n := len(none["quarantine/a"]); n != 1 {
		t.Errorf("%d flows: %v", n, none)
	}
}

// Where the machine may ask, what is no question of its own, or no answer to one, is dropped behind conntrack, which is asked also where
// neither side is an endpoint.
func TestQuarantineAsksFlows(t *testing.T) {
	t.Parallel()
	q := policy.Quarantine{Spec: policy.QuarantineSpec{Mode: policy.QuarantineDNS}}
	got := quarantined(wall.Held{Quarantine: "a", OFPorts: []uint32{7}, VLAN: 10, MACs: []string{"02:00:00:00:00:07"}, Pass: q.PassList()})
	joined := strings.Join(got["quarantine/a"], "\n")
	for _, protocol := range []string{"tcp", "udp", "tcp6", "udp6"} {
		for _, want := range [][]string{
			{"table=204, priority=500", "ct_state=+rpl+trk," + protocol + ",", "in_port=7", "tp_dst=53", "reg13=0x80000/0x80000"},
			{"table=204, priority=500", "ct_state=-rpl+trk," + protocol + ",", "dl_dst=02:00:00:00:00:07", "tp_src=53", "reg13=0x100000/0x100000"},
			{"table=203, priority=301", protocol + ",", "in_port=7", "tp_dst=53", "reg8=0", "reg9=0", "ct(table=204"},
			{"table=203, priority=301", protocol + ",", "dl_dst=02:00:00:00:00:07", "tp_src=53", "reg8=0", "reg9=0", "ct(table=204"},
		} {
			n := 0
			for text := range strings.Lines(joined) {
				all := true
				for _, part := range want {
					all = all && strings.Contains(text, part)
				}
				if all {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d flows with %v in\n%s", n, want, joined)
			}
		}
	}
	named := q
	named.Spec = policy.QuarantineSpec{Mode: policy.QuarantineDrop, Pass: []policy.Passage{{CIDR: "0.0.0.0/0",
		Services: q.PassList()[0].Services}, {CIDR: "::/0", Services: q.PassList()[0].Services}}}
	if wall.SamePass(q.PassList(), named.PassList()) {
		t.Error("a list that lets others begin is taken for one that does not")
	}
}
