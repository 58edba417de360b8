package ovsdb_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
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

	testPrefixes(t, o, c)

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

// testPrefixes gives tables prefixes, with a name and without; what somebody else wrote stays, in their row and in ours.
func testPrefixes(t *testing.T, o *ovsdbtest.OVS, c *ovsdb.Client) {
	prefixes := func() string {
		var out []string
		for _, n := range []int{200, 201, 202, 214} {
			row := c.Topology().Bridges["br0"].FlowTables[n]
			out = append(out, row.Name+":"+strings.Join(row.Prefixes, "+"))
		}
		return strings.Join(out, " ")
	}
	names := map[string]map[int]string{"br0": {200: "A", 201: "B"}}
	src := map[string]map[int][]string{"br0": {200: {"ct_ipv6_src", "ct_nw_src"}, 201: {"ct_nw_src"}, 214: {"ct_nw_src"}}}
	for _, step := range []struct {
		what         string
		before       func()
		want         ovsdb.Desired
		transactions int
		prefixes     string
	}{
		{"names only", nil, ovsdb.Desired{TableNames: names}, 1, "A: theirs: : :"},
		{"prefixes", nil, ovsdb.Desired{TableNames: names, TablePrefixes: src}, 1, "A:ct_ipv6_src+ct_nw_src theirs: : :ct_nw_src"},
		{"again", nil, ovsdb.Desired{TableNames: names, TablePrefixes: src}, 0, "A:ct_ipv6_src+ct_nw_src theirs: : :ct_nw_src"},
		{"not decided yet", nil, ovsdb.Desired{TableNames: map[string]map[int]string{"br0": nil}}, 0,
			"A:ct_ipv6_src+ct_nw_src theirs: : :ct_nw_src"},
		{"cleared by somebody", func() {
			o.Vsctl("clear", "Flow_Table", "A", "prefixes")
			eventually(t, c, "the prefixes are gone", func(s *vswitch.Topology) bool { return len(s.Bridges["br0"].FlowTables[200].Prefixes) == 0 })
		}, ovsdb.Desired{TableNames: names, TablePrefixes: src}, 1, "A:ct_ipv6_src+ct_nw_src theirs: : :ct_nw_src"},
		{"set by somebody", func() {
			o.Vsctl("set", "Flow_Table", "A", "prefixes=ip_dst")
			eventually(t, c, "the prefixes are theirs", func(s *vswitch.Topology) bool {
				return slices.Equal(s.Bridges["br0"].FlowTables[200].Prefixes, []string{"ip_dst"})
			})
		}, ovsdb.Desired{TableNames: names, TablePrefixes: src}, 0, "A:ip_dst theirs: : :ct_nw_src"},
		{"released", nil, ovsdb.Desired{}, 1, ": theirs: : :"},
	} {
		if step.before != nil {
			step.before()
		}
		apply(t, c, step.transactions, step.want)
		if have := prefixes(); have != step.prefixes {
			t.Errorf("%s: the tables are %s, not %s", step.what, have, step.prefixes)
		}
		if n := strings.Count(o.Ofctl("dump-flows", "br0", "cookie=0x7/-1"), "actions=drop"); n != 3 {
			t.Errorf("%s: %d of 3 flows are there", step.what, n)
		}
	}
}
