package wall_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden compiles the cases of testdata/*.txtar. The archive's comment says what the case shows; "ports" lists the bridge's ports, one
// per line:
//
//	endpoint KEY PORT OFPORT MAC VLAN LABEL=VALUE,… ADDRESS,…     ("-" = none; BRIDGE/PORT for another bridge)
//	port NAME OFPORT VLAN access|trunk
//
// "resources" are documents as users write them, "flows" what comes of them as ovs-ofctl prints it, by owner. The system's fixed flows
// are left out unless the archive has a file "system".
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			parts := map[string]*txtar.File{}
			for i := range archive.Files {
				parts[archive.Files[i].Name] = &archive.Files[i]
			}
			got := golden(t, parts)
			if *update {
				parts["flows"].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(parts["flows"].Data), got); diff != "" {
				t.Errorf("flows (-want +got):\n%s", diff)
			}
		})
	}
}

func golden(t *testing.T, parts map[string]*txtar.File) string {
	t.Helper()
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0", Record: recordAll})
	if err != nil {
		t.Fatal(err)
	}
	fw.SetWorkloads(parsePorts(t, string(parts["ports"].Data)))
	docs, err := policy.DecodeYAML(bytes.NewReader(parts["resources"].Data))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	var groups []*policy.Group
	for _, d := range docs {
		if faults := d.Resource.Validate(); len(faults) > 0 {
			t.Fatalf("%+v", faults)
		}
		switch r := d.Resource.(type) {
		case *policy.Group:
			groups = append(groups, r)
		case *policy.Policy:
			fw.SetPolicy(r)
		}
	}
	fw.SetGroups(groups)
	if parts["pickup"] != nil {
		fw.SetPickup(true, nil)
	}
	c := fw.Compile()
	var out strings.Builder
	for _, owner := range slices.Sorted(maps.Keys(c.Owners)) {
		if owner == wall.OwnerSystem && parts["system"] == nil {
			continue
		}
		fmt.Fprintf(&out, "# %s\n", owner)
		for _, f := range c.Owners[owner] {
			fmt.Fprintln(&out, f.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		for _, w := range c.Policies[name].Warnings {
			fmt.Fprintf(&out, "# warning %s %s %s\n", name, w.Code, w.Rule)
		}
	}
	return out.String()
}

func parsePorts(t *testing.T, text string) (workloads []*policy.Workload, ports []wall.Port) {
	t.Helper()
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	list := func(s string) []string {
		if s == "-" {
			return nil
		}
		return strings.Split(s, ",")
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 8 && f[0] == "endpoint":
			w := &policy.Workload{Key: f[1], Bridge: "br0", Port: f[2], OFPort: uint32(number(f[3])), VLAN: number(f[5]),
				Labels: map[string]string{}}
			if bridge, port, ok := strings.Cut(f[2], "/"); ok {
				w.Bridge, w.Port = bridge, port
			}
			if f[4] != "-" {
				w.MAC = f[4]
			}
			for _, l := range list(f[6]) {
				k, v, _ := strings.Cut(l, "=")
				w.Labels[k] = v
			}
			for _, a := range list(f[7]) {
				w.Addresses = append(w.Addresses, mustAddr(t, a))
			}
			workloads = append(workloads, w)
		case len(f) == 5 && f[0] == "port":
			ports = append(ports, wall.Port{Name: f[1], OFPort: uint32(number(f[2])), VLAN: number(f[3]), Tagged: f[4] == "trunk"})
		case len(f) != 0:
			t.Fatalf("ports: %q", line)
		}
	}
	return workloads, ports
}

func mustAddr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// recordAll is what bridges record unless they are told otherwise.
var recordAll = policy.Record{Connections: policy.RecordAll, Denies: policy.RecordAll}
