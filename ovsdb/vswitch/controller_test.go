package vswitch_test

import (
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func TestControllerTarget(t *testing.T) {
	for _, tt := range []struct {
		spec   vswitch.ControllerSpec
		target string
		at     string
	}{
		{vswitch.ControllerSpec{Port: 6653}, "ptcp:6653", "0.0.0.0:6653"},
		{vswitch.ControllerSpec{Port: 1, Addr: netip.MustParseAddr("192.0.2.7")}, "ptcp:1:192.0.2.7", "192.0.2.7:1"},
		{vswitch.ControllerSpec{Port: 65535, Addr: netip.MustParseAddr("2001:db8::7"), TLS: true}, "pssl:65535:[2001:db8::7]",
			"[2001:db8::7]:65535"},
		{vswitch.ControllerSpec{Port: 2, TLS: true}, "pssl:2", "0.0.0.0:2"},
	} {
		target := tt.spec.Target()
		at, ok := vswitch.Controller{Target: target}.Listens()
		if target != tt.target || !ok || at.String() != tt.at {
			t.Errorf("%+v: target %s, listens at %v (%v); want %s, %s", tt.spec, target, at, ok, tt.target, tt.at)
		}
	}
}

func TestControllerListens(t *testing.T) {
	for target, want := range map[string]string{
		"ptcp:":                 "0.0.0.0:6653",
		"pssl::192.0.2.1":       "192.0.2.1:6653",
		"ptcp:7:[::]":           "[::]:7",
		"ptcp:7:switch.example": "0.0.0.0:7",
		"ptcp:0:192.0.2.1":      "",
		"ptcp:65536":            "",
		"tcp:192.0.2.1:7":       "",
		"punix:/run/x":          "",
		"":                      "",
	} {
		have := ""
		if at, ok := (vswitch.Controller{Target: target}).Listens(); ok {
			have = at.String()
		}
		if have != want {
			t.Errorf("%q listens at %q, want %q", target, have, want)
		}
	}
}

func TestControllersCollide(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"192.0.2.1:7", "192.0.2.1:7", true},
		{"192.0.2.1:7", "192.0.2.1:8", false},
		{"192.0.2.1:7", "192.0.2.2:7", false},
		{"192.0.2.1:7", "0.0.0.0:7", true},
		{"[2001:db8::1]:7", "0.0.0.0:7", false},
		{"[2001:db8::1]:7", "[::]:7", true},
	} {
		a, b := netip.MustParseAddrPort(tt.a), netip.MustParseAddrPort(tt.b)
		if vswitch.Collide(a, b) != tt.want || vswitch.Collide(b, a) != tt.want {
			t.Errorf("%v and %v: collide %v, want %v", a, b, vswitch.Collide(a, b), tt.want)
		}
	}
}
