package e2e

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// A bond is one endpoint, by whichever of its interfaces a frame comes.
func TestFault_F14_EveryMemberOfABond(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	a, b, c := s.vm[1], s.vm[2], s.vm[3]
	must(t, s.Unplug(a))
	must(t, s.Unplug(b))
	// The second interface is the one that says who this is.
	_, err := s.Vsctl("--", "add-bond", "br0", "bond1", a.Port, b.Port, "bond_mode=balance-slb", "--",
		"set", "interface", b.Port, "external_ids:iface-id=if-bond", `external_ids:attached-mac="`+a.MAC+`"`)
	must(t, err)
	open, shut, barred := s.inbox(c, 6001), s.inbox(c, 6002), s.inbox(c, 6003)
	// The machine's source address is one, on both wires.
	tell := func(mark string) {
		t.Helper()
		for _, wire := range []*lab.VM{a, b} {
			for i, ip := range [][2]string{{a.IPv4, c.IPv4}, {a.IPv6, c.IPv6}} {
				for port := 6001; port <= 6003; port++ {
					etherType, p := datagram(t, ip[0], ip[1], 4000+i, port, mark)
					must(t, wire.Send(ethernet(parseMAC(t, c.MAC), parseMAC(t, a.MAC), nil, etherType, p)))
				}
			}
		}
	}
	all := func(in *inbox, mark string) {
		t.Helper()
		lab.Eventually(t, 5*time.Second, mark+" arrives by both wires", func() bool { return in.count(mark) == 4 })
	}
	s.wall()
	tell("no policy")
	for _, in := range []*inbox{open, shut, barred} {
		all(in, "no policy")
	}
	s.applyUncached(`
kind: Policy
name: vm3
spec:
  appliesTo: [{port: vm3}]
  ingress:
  - {name: bond, action: allow, from: [{port: bond1}], services: [{protocol: udp, ports: ["6001", "6003"]}]}
---
kind: Policy
name: bond
spec:
  appliesTo: [{neutronPort: if-bond}]
  defaultDeny: {egress: false}
  egress:
  - {name: no, action: deny, services: [{protocol: udp, ports: ["6003"]}]}
`)
	tell("policy")
	all(open, "policy")
	time.Sleep(passage)
	s.misses(shut, "policy")
	s.misses(barred, "policy")
}
