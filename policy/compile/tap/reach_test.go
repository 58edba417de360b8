package tap_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// What the way to a collector carries bounds copies, is told, or refuses the mirror; one that leads nowhere is told of.
func TestReach(t *testing.T) {
	remote := netip.MustParseAddr("192.0.2.9")
	eth9 := tap.Route{Device: "eth9", MTU: 1500}
	for _, c := range []struct {
		name    string
		route   *tap.Route // nil = not known
		mtu     int64      // of the source
		change  func(*policy.MirrorSpec)
		codes   string
		message string // of the problem or else the warning
		cut     uint32 // bytes of a copy in the tunnel; 0 = the mirror has no flows, or cuts nothing
	}{
		{"fits", &eth9, 1450, nil, "", "", 1464},
		{"one byte too large", &eth9, 1451, nil, "COPIES_MAY_BE_CUT", "frames of more than 1464 bytes are cut to that", 1464},
		{"fits without its tag only", &eth9, 1450, func(s *policy.MirrorSpec) { s.VLANTag = policy.VLANTagKeep }, "COPIES_MAY_BE_CUT", "", 1464},
		{"MTU of the source not known", &eth9, 0, nil, "COPIES_MAY_BE_CUT", "device eth9", 1464},
		{"MTU of the way not known", nil, 1500, nil, "COPIES_MAY_BE_CUT", "1500 is assumed", 1464},
		{"large way", &tap.Route{Device: "eth9", MTU: 9000}, 1500, nil, "", "", 8964},
		{"tiny way", &tap.Route{Device: "eth9", MTU: 40}, 1500, nil, "COPIES_MAY_BE_CUT", "more than 14 bytes", 14},
		{"snaplen is less", &eth9, 1500, func(s *policy.MirrorSpec) { s.Snaplen = 64 }, "", "", 64},
		{"snaplen is more", &eth9, 1500, func(s *policy.MirrorSpec) { s.Snaplen = 1465 }, "COPIES_MAY_BE_CUT", "", 1464},
		{"bad: fail", &eth9, 1500, func(s *policy.MirrorSpec) { s.MTUPolicy = policy.MTUFail }, "MTUExceeded!",
			"carries frames of at most 1464 bytes (an MTU of 1500 on device eth9), and sources have larger ones: br0/vm1 (MTU 1500)", 0},
		{"fail, and it fits", &eth9, 1450, func(s *policy.MirrorSpec) { s.MTUPolicy = policy.MTUFail }, "", "", 0},
		{"fail, and snaplen makes it fit", &eth9, 1500, func(s *policy.MirrorSpec) { s.MTUPolicy, s.Snaplen = policy.MTUFail, 128 }, "", "", 128},
		{"no route", &tap.Route{Fault: "there is no route to it"}, 1400, nil, "TargetUnresolved", "192.0.2.9: there is no route to it", 1464},
		{"bad: own address", &tap.Route{Device: "lo", Own: "an address of the host itself"}, 1400, nil, "OwnAddress!",
			"192.0.2.9 is an address of the host itself", 0},
	} {
		in := mirrorWorld()
		in.Topology.Bridges["br0"].Ports["vm1"].Interfaces[0].MTU = c.mtu
		m := mirror("m", toVXLAN(remote.String(), 5), policy.Selector{Port: "vm1"})
		if m.Spec.MTUPolicy = ""; c.change != nil {
			c.change(&m.Spec)
		}
		in.Mirrors = []*policy.Mirror{m}
		if c.route != nil {
			in.Routes = map[netip.Addr]tap.Route{remote: *c.route}
		}
		plan := stagedWorld(in)
		info := plan.Info["m"]
		if got := codes(info); got != c.codes {
			t.Errorf("%s: %q, want %q", c.name, got, c.codes)
		}
		message := ""
		switch {
		case len(info.Problems) > 0:
			message = info.Problems[0].Message
			if at := info.Problems[0].At; (at == "/spec/targets/0/vxlan/remote") != info.Problems[0].Fatal {
				t.Errorf("%s: the place is %q", c.name, at)
			}
		case len(info.Warnings) > 0:
			message = info.Warnings[0].Message
		}
		if !strings.Contains(message, c.message) {
			t.Errorf("%s: %q, want %q", c.name, message, c.message)
		}
		var cut uint32
		for _, f := range plan.Flows[tapBridge].Owners[tap.MirrorOwner("m")] {
			for _, a := range f.Actions {
				if x, ok := a.(flow.OutputTrunc); ok {
					cut = x.MaxLen
				}
			}
		}
		if cut != c.cut {
			t.Errorf("%s: cut to %d bytes, want %d", c.name, cut, c.cut)
		}
	}
}
