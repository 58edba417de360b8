package ovsdb

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// maxHostID bounds ids of hosts; the names of hosts have at most 253 bytes (RFC 1035 §2.3.4).
const maxHostID = 253

// checkHostID says why a value cannot be the id of a host: ids are parts of keys in the store, and are printed.
func checkHostID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("is empty")
	case len(id) > maxHostID:
		return fmt.Errorf("has %d bytes, and at most %d are possible", len(id), maxHostID)
	}
	if i := strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }); i >= 0 {
		return fmt.Errorf("has a character that is not possible, at byte %d: printable ASCII without blank and / is", i)
	}
	return nil
}

// hostID returns the id of the host of a database: external_ids:system-id or, where that is missing or impossible, a name of the host that
// stands in. doubt then says so, with what to do about it.
//
// The name is the system's own where the database is on this host, because it is there from the first moment: external_ids:hostname is
// written by a start script of Open vSwitch, and not by all. Of a remote database external_ids:hostname names the host, or else what the
// address says.
func hostID(address string, externalIDs map[string]string) (id, doubt string) {
	given, set := externalIDs["system-id"]
	err := checkHostID(given)
	if err == nil {
		return given, ""
	}
	var names []string
	if strings.HasPrefix(address, "unix:") {
		name, _ := os.Hostname()
		names = append(names, name)
	}
	names = append(names, externalIDs["hostname"])
	if _, rest, ok := strings.Cut(address, ":"); ok {
		host, _, _ := net.SplitHostPort(rest)
		names = append(names, host)
	}
	id = "localhost"
	for _, name := range names {
		if checkHostID(name) == nil {
			id = name
			break
		}
	}
	why := "is not set"
	if set {
		why = fmt.Sprintf("%.40q %v", given, err)
	}
	return id, fmt.Sprintf("external_ids:system-id of the Open vSwitch database %s, so the host goes by its name; to give it an id: "+
		"ovs-vsctl set open_vswitch . external_ids:system-id=%s", why, id)
}
