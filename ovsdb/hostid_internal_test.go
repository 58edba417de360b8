package ovsdb

import (
	"os"
	"strings"
	"testing"
)

func TestHostID(t *testing.T) {
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	ids := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	const local, remote, remote6 = "unix:/run/db.sock", "tcp:192.0.2.1:6640", "ssl:[2001:db8::1]:6640"
	for _, tt := range []struct {
		name, address string
		ids           map[string]string
		want, doubt   string
	}{
		{"OK an id", local, ids("system-id", "5f0c8a9e-0000-4000-8000-000000000001", "hostname", "h"), "5f0c8a9e-0000-4000-8000-000000000001",
			""},
		{"OK of any characters that a key may have", local, ids("system-id", "Rack:7_a.b@c"), "Rack:7_a.b@c", ""},
		{"OK the longest", local, ids("system-id", strings.Repeat("x", 253)), strings.Repeat("x", 253), ""},
		{"bad none: this host's name", local, ids("hostname", "h"), here, "is not set"},
		{"bad none of a remote host: its name", remote, ids("hostname", "h"), "h", "is not set"},
		{"bad none of a nameless remote host: its address", remote, nil, "192.0.2.1", "is not set"},
		{"bad none of a nameless remote host: its IPv6 address", remote6, ids("hostname", "a/b"), "2001:db8::1", "is not set"},
		{"bad empty", remote, ids("system-id", "", "hostname", "h"), "h", `"" is empty`},
		{"bad a slash", remote, ids("system-id", "rack/7", "hostname", "h"), "h", "not possible, at byte 4"},
		{"bad a blank", remote, ids("system-id", "rack 7", "hostname", "h"), "h", "at byte 4"},
		{"bad a control character", remote, ids("system-id", "rack\x1b[2J", "hostname", "h"), "h", `"rack\x1b[2J" has a character`},
		{"bad beyond ASCII", remote, ids("system-id", "é", "hostname", "h"), "h", "at byte 0"},
		{"bad too long", remote, ids("system-id", strings.Repeat("x", 254), "hostname", "h"), "h", "has 254 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, doubt := hostID(tt.address, tt.ids)
			if id != tt.want || !strings.Contains(doubt, tt.doubt) || (doubt == "") != (tt.doubt == "") {
				t.Errorf("got %q, %q", id, doubt)
			}
			if doubt != "" && !strings.HasSuffix(doubt, "ovs-vsctl set open_vswitch . external_ids:system-id="+id) {
				t.Errorf("no command at the end of %q", doubt)
			}
		})
	}
}
