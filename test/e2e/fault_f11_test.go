package e2e

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// A priority tag names no VLAN, so a frame that bears one is an untagged one: from access ports, native trunks and uplinks
// alike, as OVS forwards it without a wall; and what is denied stays denied.
func TestFault_F11_PriorityTaggedFrames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from, to []string // Port columns
		plain    bool     // the sender is no endpoint
	}{
		"access":            {from: []string{"tag=10"}, to: []string{"tag=10"}},
		"plain access mode": {from: []string{"vlan_mode=access"}, plain: true},
		"tunnel of tags":    {from: []string{"tag=10", "vlan_mode=dot1q-tunnel"}, to: []string{"tag=10"}},
		"native to access":  {from: []string{"vlan_mode=native-untagged", "tag=10"}, to: []string{"tag=10"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ground(t, 3, c.from, c.to, []string{"tag=11"})
			a, b := s.vm[1], s.vm[2]
			if c.plain {
				_, err := s.Vsctl("clear", "interface", a.Port, "external_ids")
				must(t, err)
			}
			open, shut, other := s.inbox(b, 6001), s.inbox(b, 6002), s.inbox(s.vm[3], 6001)
			tell := func(mark string) {
				for i, ip := range [][2]string{{a.IPv4, b.IPv4}, {a.IPv6, b.IPv6}} {
					for prio := range uint16(8) {
						tags := []tag{{0x8100, prio << 13}}
						s.tell(a, b, tags, b.MAC, ip[0], ip[1], 4000+i, 6001, mark)
						s.tell(a, b, tags, b.MAC, ip[0], ip[1], 4000+i, 6002, mark)
						s.tell(a, b, tags, s.vm[3].MAC, ip[0], s.vm[3].IPv4, 4000+i, 6001, mark)
					}
				}
			}
			all := func(in *inbox, mark string) {
				t.Helper()
				lab.Eventually(t, 5*time.Second, mark+" arrives", func() bool { return in.count(mark) == 16 })
			}
			tell("plain OVS")
			all(open, "plain OVS")
			s.wall()
			tell("no policy")
			all(open, "no policy")
			all(shut, "no policy")
			s.applyUncached("kind: Policy\nname: vm2\nspec:\n  appliesTo: [{port: vm2}]\n  ingress:\n  - {name: i, action: allow, services: " +
				"[{protocol: udp, ports: [\"6001\"]}]}\n")
			tell("policy")
			all(open, "policy")
			time.Sleep(passage)
			s.misses(shut, "policy")
			for _, mark := range []string{"plain OVS", "no policy", "policy"} {
				s.misses(other, mark)
			}
			// One with a VLAN is still no frame of an access port.
			s.tell(a, b, []tag{{0x8100, 11}}, s.vm[3].MAC, a.IPv4, s.vm[3].IPv4, 4000, 6001, "hop")
			time.Sleep(passage)
			if c.from != nil && c.from[0] == "tag=10" {
				s.misses(other, "hop")
			}
		})
	}
}
