package main

import (
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// Every target has words in the table of mirrors; an id that the document leaves to the host is the host's.
func TestMirrorTarget(t *testing.T) {
	vni := 7
	status := policy.Status{Hosts: []policy.HostStatus{{Targets: []map[string]string{{}, {}, {}, {"vni": "99"}, {"vni": "12345"}}}}}
	s := policy.MirrorSpec{Targets: []policy.MirrorTarget{
		{Port: &policy.PortTarget{Name: "ids0"}},
		{RSPAN: &policy.RSPANTarget{VLAN: 100}},
		{Buffer: &policy.BufferTarget{}},
		{VXLAN: &policy.VXLANTarget{Remote: "192.0.2.9", VNI: &vni}},
		{Geneve: &policy.GeneveTarget{Remote: "192.0.2.9"}},
	}}
	want := "port ids0, rspan vlan 100, buffer, vxlan 192.0.2.9 vni 7, geneve 192.0.2.9 vni 12345"
	if got := mirrorTarget(s, status); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
