package e2e

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// ofVLAN100 keeps pings in VLAN 100, and those without a tag. A trunk has production's in theirs, too, where the bridge floods.
func ofVLAN100(f lab.Frame) bool {
	return lab.ICMP(f) && (f.Data[12] == 0x08 || binary.BigEndian.Uint16(f.Data[14:])&0xfff == 100)
}

const rspanTap = "kind: Mirror\nname: far\nspec: {sources: [{port: vm1}], targets: [{rspan: {vlan: 100, acknowledgeFlooding: true}}]}\n"

// Scenario 12, copies to a VLAN: they leave tagged by a trunk and untagged by a port of the VLAN, and nowhere else; the bridge learns
// nothing there. Whatever others change of that is put right, and at the end the bridge is as it was.
func TestMirrorScenario12RSPAN(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"owned", "guest"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := ground(t, 4, []string{"tag=10"}, []string{"tag=10"}, []string{"tag=100"}, []string{"tag=20"})
			must(t, s.AddTargetPort("trunk0"))
			must(t, s.AddTargetPort("other0"))
			vsctl := func(args ...string) string {
				t.Helper()
				out, err := s.Vsctl(args...)
				must(t, err)
				return strings.TrimSpace(out)
			}
			vsctl("set", "port", "other0", "trunks=10,20")
			vsctl("set", "bridge", "br0", "flood_vlans=300", "external_ids:theirs=1")
			var err error
			s.tw, err = s.StartTapwall("--bridge", "br0="+mode, "--pickup-window", "300ms")
			must(t, err)
			bridge := func() string { return vsctl("get", "bridge", "br0", "flood_vlans", "external_ids", "other_config") }
			before := bridge()
			s.ping3(s.vm[1], s.vm[2])
			s.force(rspanTap)
			s.becomes("mirror", "far", policy.PhaseActive, "", "")
			trunk, other := s.capture("trunk0"), s.capture("other0")
			in := map[int]*lab.Capture{}
			for _, i := range []int{3, 4} {
				in[i], err = s.Capture(s.vm[i].NS, "eth0")
				must(t, err)
			}
			copies := func(what string, want int) {
				t.Helper()
				was := map[*lab.Capture]int{}
				all := []*lab.Capture{trunk, in[3], in[4]}
				for _, c := range all {
					was[c] = len(c.Frames(ofVLAN100))
				}
				s.effective()
				s.ping3(s.vm[1], s.vm[2])
				settle()
				for i, n := range []int{want, want, 0} {
					if got := len(all[i].Frames(ofVLAN100)) - was[all[i]]; got != n {
						t.Errorf("%s: of three pings %d copies came to %s, want %d", what, got, []string{"the trunk", "the port of the VLAN",
							"a port of another VLAN"}[i], n)
					}
				}
			}
			copies("at first", 6)
			for _, f := range trunk.Frames(ofVLAN100) {
				if f.Data[12] != 0x81 {
					t.Errorf("a copy on the trunk without a tag: %x", f.Data[:18])
				}
			}
			for _, f := range in[3].Frames(lab.ICMP) {
				if f.Data[12] != 0x08 || f.Data[13] != 0 {
					t.Errorf("a copy at the port of the VLAN with EtherType %x", f.Data[12:14])
				}
			}
			for _, f := range other.Frames(lab.ICMP) {
				if ofVLAN100(f) {
					t.Error("a copy came to a trunk that has not the VLAN")
				}
			}
			if got := vsctl("get", "bridge", "br0", "flood_vlans"); got != "[100, 300]" {
				t.Errorf("addresses are not learned on VLANs %s", got)
			}
			fdb, err := s.Appctl("fdb/show", "br0")
			must(t, err)
			for line := range strings.Lines(fdb) {
				if f := strings.Fields(line); len(f) > 1 && f[1] == "100" {
					t.Errorf("learned from copies: %s", line)
				}
			}

			stands := func(what string) {
				t.Helper()
				lab.Eventually(t, 5*time.Second, what, func() bool {
					out, err := s.Vsctl("get", "bridge", "br0", "flood_vlans")
					vlan, err2 := s.Vsctl("--bare", "--columns=output_vlan", "find", "mirror", "name=tapwall-far")
					return err == nil && err2 == nil && strings.Contains(out, "100") && strings.TrimSpace(vlan) == "100"
				})
				copies(what, 6)
			}
			vsctl("set", "bridge", "br0", "flood_vlans=300")
			stands("learning is off again")
			vsctl("clear", "mirror", "tapwall-far", "output_vlan")
			stands("the VLAN is back")
			vsctl("clear", "bridge", "br0", "mirrors")
			stands("the row is back")
			if mode == "owned" {
				s.unchangedByRestart()
			} else {
				must(t, s.tw.Stop())
				must(t, s.tw.Start())
			}
			s.becomes("mirror", "far", policy.PhaseActive, "", "")
			lab.Eventually(t, 15*time.Second, "copies are counted", func() bool {
				c := s.mirror("far").Counters
				return c["selectedPackets"] > 0 && c["sentPackets"] == c["selectedPackets"]
			})

			s.force(strings.ReplaceAll(rspanTap, "100", "200"))
			copies("in another VLAN", 0)
			if got := vsctl("get", "bridge", "br0", "flood_vlans"); got != "[200, 300]" {
				t.Errorf("with another VLAN addresses are not learned on %s", got)
			}
			s.tapwall("delete", "mirror", "far", "--wait")
			if now := bridge(); now != before {
				t.Errorf("it left of the bridge\n%s, which was\n%s", now, before)
			}
			if rows := vsctl("--bare", "--columns=name", "list", "mirror"); rows != "" {
				t.Errorf("it left %s", rows)
			}
		})
	}
}

// What cannot be copied to a VLAN is refused with the place, and a source of the VLAN itself too.
func TestMirrorScenario12RSPANRefused(t *testing.T) {
	t.Parallel()
	s := ground(t, 2, []string{"tag=100"})
	s.wall()
	for _, tt := range []struct{ change, to, want string }{
		{", acknowledgeFlooding: true", "", "/spec/targets/0/rspan/acknowledgeFlooding: must be true"},
		{"vlan: 100", "vlan: 4095", "/spec/targets/0/rspan/vlan: 4095 is outside the range 1-4094"},
		{"vlan: 100", "vlan: 0", "/spec/targets/0/rspan/vlan: 0 is outside the range 1-4094"},
		{"targets", "filter: {default: accept}, targets", "/spec/filter: does not go with rspan"},
		{"{port: vm1}", "{vlan: 100}", "/spec/sources/0/vlan: is also the target"},
		{"", "", "/spec/targets/0/rspan/vlan: source vm1 of bridge br0 is a port of VLAN 100"},
	} {
		if out := s.refused(strings.Replace(rspanTap, tt.change, tt.to, 1), "apply", "-f", "-"); !strings.Contains(out, tt.want) {
			t.Errorf("%q instead of %q: %s", tt.to, tt.change, out)
		}
	}
}
