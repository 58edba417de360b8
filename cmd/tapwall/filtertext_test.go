package main

import (
	"fmt"
	"testing"
)

func TestChangedText(t *testing.T) {
	for _, x := range []struct {
		pointer string
		v       any
		want    string
	}{
		{"/spec/filter/rules/0", map[string]any{"action": "accept", "direction": "toSource", "protocol": "icmp", "type": 8, "code": 0,
			"vlan": 10},
			"[0 accept toSource icmp type 8 code 0 VLAN 10]"},
		{"/spec/filter/rules/12", map[string]any{"action": "reject"}, "[0 reject everything]"},
		{"/spec/filter", map[string]any{"default": "accept", "rules": []any{map[string]any{"priority": 5, "action": "reject", "protocol": "tcp",
			"src": []any{"10.0.0.0/8"}, "dstPorts": []any{"22", "80-90"}, "symmetric": true}}},
			"[5 reject tcp from 10.0.0.0/8 to port 22,80-90 and back; accept the rest]"},
		{"/spec/filter", map[string]any{"rules": []any{}}, "[reject the rest]"},
		{"/spec/snaplen", 128, "128"},
		{"/spec/filter/rules/0/action", "accept", "accept"},
		{"/spec/filter/rules/0", nil, "(absent)"},
		{"/spec/filter/rules/0", "odd", "odd"},
	} {
		if got := changedText(x.pointer, x.v); fmt.Sprint(got) != x.want {
			t.Errorf("%s: %v, want %s", x.pointer, got, x.want)
		}
	}
}
