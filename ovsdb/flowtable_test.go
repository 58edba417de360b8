package ovsdb_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func TestTableNames(t *testing.T) {
	o := newSwitch(t)
	o.Vsctl("add-br", "br1", "--", "--id=@t", "create", "Flow_Table", "name=theirs", "flow_limit=7", "overflow_policy=refuse",
		"external_ids:by=them", "--",
		"set", "Bridge", "br0", "flow_tables:201=@t")
	for _, table := range []string{"200", "201", "202"} {
		o.Ofctl("add-flow", "br0", "table="+table+",cookie=0x7,priority=1,actions=drop")
	}
	foreign := func() string {
		return o.Vsctl("--columns=_uuid,name,flow_limit,overflow_policy,external_ids", "find", "Flow_Table", "external_ids:by=them")
	}
	before, mirrors := foreign(), foreignRows(o)
	c := connected(t, o)
	names := func(bridge string) string {
		var out []string
		for _, n := range []int{200, 201, 202, 203} {
			out = append(out, c.Topology().Bridges[bridge].FlowTables[n].Name)
		}
		return strings.Join(out, ",")
	}
	d := func(names map[int]string) ovsdb.Desired {
		return ovsdb.Desired{TableNames: map[string]map[int]string{"br0": names, "nosuch": names}}
	}
	for _, step := range []struct {
		what         string
		want         ovsdb.Desired
		transactions int
		names        string
	}{
		{"made", d(map[int]string{200: "A", 201: "B", 202: "C"}), 1, "A,theirs,C,"},
		{"again", d(map[int]string{200: "A", 201: "B", 202: "C"}), 0, "A,theirs,C,"},
		{"not decided yet", d(nil), 0, "A,theirs,C,"},
		{"changed", d(map[int]string{200: "A2", 201: "B", 203: "D"}), 1, "A2,theirs,,D"},
		{"released", ovsdb.Desired{}, 1, ",theirs,,"},
		{"released again", ovsdb.Desired{}, 0, ",theirs,,"},
	} {
		apply(t, c, step.transactions, step.want)
		if have := names("br0"); have != step.names {
			t.Errorf("%s: the tables are %s, not %s", step.what, have, step.names)
		}
		if have := names("br1"); have != ",,," {
			t.Errorf("%s: the tables of another bridge are %s", step.what, have)
		}
		if diff := cmp.Diff(before, foreign()); diff != "" {
			t.Errorf("%s: the foreign row changed (-before +after):\n%s", step.what, diff)
		}
		if n := strings.Count(o.Ofctl("dump-flows", "br0", "cookie=0x7/-1"), "actions=drop"); n != 3 {
			t.Errorf("%s: %d of 3 flows are there", step.what, n)
		}
	}
	if diff := cmp.Diff(mirrors, foreignRows(o)); diff != "" {
		t.Errorf("foreign rows changed (-before +after):\n%s", diff)
	}
	if out := o.Vsctl("--bare", "--columns=_uuid", "list", "Flow_Table"); strings.Count(out, "-") != 4 {
		t.Errorf("more than the foreign row is left:\n%s", out)
	}

	// What somebody takes away is restored, and read by ovs-ofctl.
	apply(t, c, 1, d(map[int]string{200: "A", 202: "C"}))
	o.Vsctl("clear", "Bridge", "br0", "flow_tables")
	eventually(t, c, "the rows are gone", func(s *vswitch.Topology) bool { return len(s.Bridges["br0"].FlowTables) == 0 })
	apply(t, c, 1, d(map[int]string{200: "A", 202: "C"}))
	if out := o.Ofctl("dump-flows", "br0", "--names", "cookie=0x7/-1"); !strings.Contains(out, "table=A,") || !strings.Contains(out,
		"table=C,") || !strings.Contains(out, "table=201,") {
		t.Errorf("ovs-ofctl prints\n%s", out)
	}
}
