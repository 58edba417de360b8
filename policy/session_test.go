package policy_test

import (
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

func TestMirrorSampleAndBalanceFaults(t *testing.T) {
	const one = "sources: [{port: tap1}]\ntargets: [{port: {name: ids0}}]\n"
	const two = "sources: [{port: tap1}]\ntargets: [{port: {name: ids0, create: true}}, {vxlan: {remote: 192.0.2.9}}]\n"
	runSpecs(t, policy.KindMirror, []specTest{
		{"OK sessions", one + "sample: {sessions: 1/4}", nil},
		{"OK one of one", one + "sample: {sessions: 1/1}", nil},
		{"OK one of many", one + "sample: {sessions: 1/65536, maxPacketsPerSecond: 5}", nil},
		{"bad sessions", one + "sample: {sessions: 2/4}", []string{`/spec/sample/sessions: must be one of so many, like "1/4", at most 1/65536`}},
		{"bad sessions of none", one + "sample: {sessions: 1/0}", []string{"/spec/sample/sessions: must be one of so many"}},
		{"bad sessions of too many", one + "sample: {sessions: 1/65537}", []string{"/spec/sample/sessions: must be one of so many"}},
		{"bad sample of nothing", one + "sample: {}", []string{"/spec/sample: bounds nothing: give sessions or maxPacketsPerSecond"}},
		{"OK balance", two + "balance: {hash: symmetric}", nil},
		{"OK balance without a probe", two + "balance: {hash: symmetric, probe: none}", nil},
		{"OK balance by ARP", two + "balance: {hash: symmetric, probe: arp}", nil},
		{"OK balance by ping", two + "balance: {hash: symmetric, probe: icmp}", nil},
		{"OK balance by TCP", two + `balance: {hash: symmetric, probe: "tcp:22"}`, nil},
		{"bad balance over one", one + "balance: {hash: symmetric}", []string{"/spec/balance: has one target to balance over"}},
		{"bad balance", two + "balance: {hash: l2, probe: ping}", []string{`/spec/balance/hash: unknown value "l2": must be symmetric`,
			`/spec/balance/probe: unknown value "ping"`}},
		{"bad balance of nothing", two + "balance: {}", []string{"/spec/balance/hash: is required: symmetric"}},
		{"bad probe alone", two + "balance: {probe: icmp}", []string{"/spec/balance/hash: is required: symmetric"}},
		{"bad probe port", two + `balance: {hash: symmetric, probe: "tcp:0"}`,
			[]string{"/spec/balance/probe: port 0 is outside the range 1-65535"}},
	})
}

// Both directions are one session, and everything that is no IP is one, too.
func TestSession(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	sighting := func(src, dst netip.Addr, proto uint8, from, to uint16) policy.Sighting {
		return policy.Sighting{EtherType: policy.EtherIPv4, Src: src, Dst: dst, Proto: proto, SrcPort: from, DstPort: to}
	}
	same := func(what string, want bool, x, y policy.Sighting) {
		t.Helper()
		if got := x.Session() == y.Session(); got != want {
			t.Errorf("%s: one session %v, want %v", what, got, want)
		}
	}
	tcp := sighting(a, b, policy.ProtoTCP, 1000, 80)
	same("the way back", true, tcp, sighting(b, a, policy.ProtoTCP, 80, 1000))
	same("another port", false, tcp, sighting(a, b, policy.ProtoTCP, 1001, 80))
	same("another protocol", false, tcp, sighting(a, b, policy.ProtoUDP, 1000, 80))
	same("another address", false, tcp, sighting(a, netip.MustParseAddr("10.0.0.3"), policy.ProtoTCP, 1000, 80))
	udp := sighting(a, b, policy.ProtoUDP, 1000, 53)
	fragment := sighting(a, b, policy.ProtoUDP, 0, 0)
	fragment.Later = true
	same("a fragment of UDP", true, udp, fragment)
	same("other ports of UDP", true, udp, sighting(b, a, policy.ProtoUDP, 7, 8))
	same("ARP and LLDP", true, policy.Sighting{EtherType: policy.EtherARP}, policy.Sighting{EtherType: 0x88cc})
}
