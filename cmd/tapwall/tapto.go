package main

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// targetOf reads where copies go, as people write it on a command line: ids0, vxlan://192.0.2.9:4789?vni=7, web.pcapng,
// events. A port of that last name is for documents.
func targetOf(text string) (t policy.MirrorTarget, err error) {
	scheme, _, tunnel := strings.Cut(text, "://")
	if !tunnel {
		file, short := strings.CutSuffix(text, ".pcapng")
		if !short {
			file, short = strings.CutSuffix(text, ".pcap")
		}
		switch {
		case short && strings.ContainsAny(file, "/\\"):
			return t, usage("--to %q: the server writes files into its data directory: give a name without a path", text)
		case short:
			t.Pcap = &policy.PcapTarget{File: file}
		case text == "events":
			t.Events = &policy.EventsTarget{}
		case strings.ContainsAny(text, ":/?"):
			return t, usage("--to %q: want the name of a port, a tunnel as in vxlan://192.0.2.9?vni=7, a name that ends in .pcapng, or events",
				text)
		default:
			t.Port = &policy.PortTarget{Name: text, Create: true}
		}
		return t, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return t, usage("--to %q: is no address of a collector, as in vxlan://192.0.2.9?vni=7 or vxlan://[2001:db8::9]:4789", text)
	}
	takes := map[string][]string{"vxlan": {"vni", "local"}, "geneve": {"vni", "local"}, "gre": {"key", "local"},
		"erspan": {"version", "session", "index", "hardwareId", "local"}}
	keys, known := takes[scheme]
	if !known {
		return t, usage("--to %q: %s is no tunnel that copies go through; there are vxlan, geneve, gre and erspan", text, scheme)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil || u.Path != "" && u.Path != "/" || u.User != nil || u.Fragment != "" {
		return t, usage("--to %q: want the address of the collector behind %s://, as in %[2]s://192.0.2.9 or %[2]s://[2001:db8::9]", text, scheme)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return t, usage("--to %q: %w", text, err)
	}
	numbers := map[string]int{}
	for key, values := range q {
		switch {
		case !slices.Contains(keys, key):
			return t, usage("--to %q: %s takes %s, not %q", text, scheme, strings.Join(keys, ", "), key)
		case key == "local":
			continue
		}
		n, err := strconv.ParseUint(values[0], 0, 32)
		if err != nil || len(values) > 1 {
			return t, usage("--to %q: %s must be one number", text, key)
		}
		numbers[key] = int(n)
	}
	port := 0
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || scheme != "vxlan" && scheme != "geneve" {
			return t, usage("--to %q: %s has no port", text, scheme)
		}
	}
	optional := func(key string) *int {
		if n, given := numbers[key]; given {
			return &n
		}
		return nil
	}
	remote, local := u.Hostname(), q.Get("local")
	switch scheme {
	case "vxlan":
		t.VXLAN = &policy.VXLANTarget{Remote: remote, VNI: optional("vni"), DstPort: port, Local: local}
	case "geneve":
		t.Geneve = &policy.GeneveTarget{Remote: remote, VNI: optional("vni"), DstPort: port, Local: local}
	case "gre":
		t.GRE = &policy.GRETarget{Remote: remote, Local: local}
		if n := optional("key"); n != nil {
			key := int64(*n)
			t.GRE.Key = &key
		}
	case "erspan":
		t.ERSPAN = &policy.ERSPANTarget{Remote: remote, Version: numbers["version"], Session: numbers["session"], Index: numbers["index"],
			HardwareID: numbers["hardwareId"], Local: local}
	}
	return t, nil
}
