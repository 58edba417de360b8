package tap_test

import (
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// What is no part of a mirror may make it staged, and then it stays so until it is changed.
func TestFormByCircumstances(t *testing.T) {
	web, vm1, vm3 := policy.Selector{Labels: map[string]string{"app": "web"}}, policy.Selector{Port: "vm1"}, policy.Selector{Port: "vm3"}
	disabled := mirror("b", toNewPort("tap0"), vm3)
	disabled.Spec.Enabled = ptr(false)
	for _, c := range []struct {
		name   string
		m      *policy.Mirror
		change func(*tap.Input)
		why    string // "" = native
	}{
		{"alone", mirror("a", toNewPort("tap0"), vm1), nil, ""},
		{"sources on two bridges", mirror("a", toNewPort("tap0"), web), nil, "bridges br0, br1"},
		{"a target in common", mirror("a", toNewPort("tap0"), vm1), func(in *tap.Input) {
			in.Mirrors = append(in.Mirrors, mirror("b", toNewPort("tap0"), vm3))
		}, "mirror b delivers to the same target"},
		{"a tunnel in common", mirror("a", toVXLAN("192.0.2.9", 5), vm1), func(in *tap.Input) {
			in.Mirrors = append(in.Mirrors, mirror("b", toVXLAN("192.0.2.9", 5), vm1))
		}, "mirror b delivers to the same target"},
		{"another key", mirror("a", toVXLAN("192.0.2.9", 5), vm1), func(in *tap.Input) {
			in.Mirrors = append(in.Mirrors, mirror("b", toVXLAN("192.0.2.9", 6), vm1))
		}, ""},
		{"in common with one that does not run", mirror("a", toNewPort("tap0"), vm1), func(in *tap.Input) {
			in.Mirrors = append(in.Mirrors, disabled)
		}, ""},
		{"the machine moved away from the target", mirror("a", toNewPort("tap0"), vm1), func(in *tap.Input) {
			in.Topology.Bridges["br1"].Ports["tap0"] = &vswitch.Port{Name: "tap0", Interfaces: []*vswitch.Interface{{Name: "tap0", OFPort: 7}},
				ExternalIDs: map[string]string{vswitch.MarkOwner: vswitch.OwnerValue}}
		}, "its target is on bridge br1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := mirrorWorld()
			c.m.Revision = 5
			in.Mirrors = []*policy.Mirror{c.m}
			if c.change != nil {
				c.change(&in)
			}
			plan := compile(in)
			got := plan.Info["a"].Form
			if got.Staged != (c.why != "") || !strings.Contains(got.Because, c.why) || got.Because == "" ||
				strings.TrimPrefix(codes(plan.Info["a"]), string(tap.WarnVNIShared)) != "" {
				t.Fatalf("%+v, want staged because %q; %s", got, c.why, codes(plan.Info["a"]))
			}
			if !got.Staged {
				return
			}
			// The reason goes.
			calm := mirrorWorld()
			calm.Bridges, calm.Mirrors, calm.Before = []string{"br0"}, in.Mirrors[:1], &plan
			kept := compile(calm)
			if now := kept.Info["a"].Form; now != got {
				t.Errorf("without the reason it has form %+v, had %+v", now, got)
			}
			changed := *c.m
			changed.Revision++
			calm.Mirrors, calm.Before = []*policy.Mirror{&changed}, &kept
			if now := compile(calm).Info["a"].Form; now.Staged {
				t.Errorf("changed, it has form %+v", now)
			}
		})
	}
}

// Whether a packet is copied exactly once depends on the mirror, on the bridges and on the version of Open vSwitch.
func TestExactlyOnce(t *testing.T) {
	vm1, vm2, vm3 := policy.Selector{Port: "vm1"}, policy.Selector{Port: "vm2"}, policy.Selector{Port: "vm3"}
	for _, c := range []struct {
		name    string
		sources []policy.Selector
		dir     string
		version string
		guest   bool
		patched bool
		why     string // "" = exactly once
	}{
		{"one", []policy.Selector{vm1}, "", "3.7.1", true, true, ""},
		{"two, old", []policy.Selector{vm1, vm2}, "", "3.1.0", true, true, ""},
		{"two, owned", []policy.Selector{vm1, vm2}, "", "3.7.1", false, true, ""},
		{"two, guest", []policy.Selector{vm1, vm2}, "", "3.1.3", true, true, "headers were changed"},
		{"two, guest, from", []policy.Selector{vm1, vm2}, "fromSource", "3.1.3", true, true, ""},
		{"2.17.7", []policy.Selector{vm1, vm2}, "", "2.17.7", true, false, ""},
		{"2.17.8", []policy.Selector{vm1, vm2}, "", "2.17.8", true, false, "headers were changed"},
		{"3.0.5-dev", []policy.Selector{vm1, vm2}, "", "3.0.5-dev", true, false, "headers were changed"},
		{"2.13.8", []policy.Selector{vm1, vm2}, "", "2.13.8", true, false, ""},
		{"unknown", []policy.Selector{vm1, vm2}, "", "", true, false, "headers were changed"},
		{"two bridges apart", []policy.Selector{vm1, vm3}, "", "3.1.0", true, false, ""},
		{"two bridges joined", []policy.Selector{vm1, vm3}, "", "3.1.0", true, true, "connected by patch ports"},
		{"two bridges joined, from", []policy.Selector{vm1, vm3}, "fromSource", "3.1.0", true, true, ""},
		{"two bridges joined, to", []policy.Selector{vm1, vm3}, "toSource", "3.1.0", true, true, "connected by patch ports"},
	} {
		in := mirrorWorld()
		in.Version = c.version
		if c.guest {
			in.Guests = in.Bridges
		}
		if c.patched {
			join(in, "br0", "br9")
			join(in, "br9", "br1")
		}
		m := mirror("m", toNewPort("tap0"), c.sources...)
		m.Spec.Direction = c.dir
		in.Mirrors = []*policy.Mirror{m}
		info := compile(in).Info["m"]
		if why := strings.Join(info.Twice, "; "); (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %q, want %q", c.name, why, c.why)
		}
		if want := map[bool]string{false: "DUPLICATES_POSSIBLE"}[c.why == ""]; codes(info) != want {
			t.Errorf("%s: %q, want %q", c.name, codes(info), want)
		}
	}
}

// join connects two bridges by patch ports, which are called FROM-TO and TO-FROM.
func join(in tap.Input, a, b string) {
	end := func(from, to string) {
		name := from + "-" + to
		in.Topology.Bridges[from].Ports[name] = &vswitch.Port{Name: name, Interfaces: []*vswitch.Interface{{Name: name, Type: "patch",
			OFPort: int64(50 + len(in.Topology.Bridges[from].Ports)), Options: map[string]string{"peer": to + "-" + from}}}}
	}
	end(a, b)
	end(b, a)
}
