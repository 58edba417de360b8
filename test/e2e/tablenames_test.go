package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// The tables of an owned bridge bear the names of the pipeline. Giving and taking names loses no flow and no packet; what somebody takes
// away comes back, what somebody else wrote stays, and a bridge that is given back keeps none.
func TestTableNames(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(allowPorts("p", "vm2", "vm1", "5001"))
	named := func() bool {
		out, err := s.Ofctl("dump-flows", "br0", "--names")
		must(t, err)
		return strings.Contains(out, "table=STATE,") && strings.Contains(out, `table="LIVE_INGRESS",`) && !strings.Contains(out, "table=204,")
	}
	lab.Eventually(t, 5*time.Second, "tables with names", named)
	if out := s.tapwall("flows", "--table", "live_ingress", "--owner", "policy/p"); !strings.Contains(out, "p/ingress/allow") ||
		!strings.Contains(out, "LIVE_INGRESS") {
		t.Errorf("flows of the rule:\n%s", out)
	}

	s.pickupClosed()
	live, datagrams := s.echo(s.vm[1], s.vm[2], 5001), s.datagrams(s.vm[1], s.vm[2], 5001, 5*time.Millisecond)
	s.running(live, datagrams)
	flows, lost := len(s.flows()), s.metric(`tapwall_flows_lost_total{bridge="br0"}`)
	for range 5 {
		_, err := s.Vsctl("clear", "bridge", "br0", "flow_tables")
		must(t, err)
		lab.Eventually(t, 5*time.Second, "the names are back", named)
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
	}
	s.lossless(live, "a connection while tables were named")
	s.lossless(datagrams, "datagrams while tables were named")
	if now := s.metric(`tapwall_flows_lost_total{bridge="br0"}`); now != lost || len(s.flows()) != flows {
		t.Errorf("%g flows lost, %d of %d there", now-lost, len(s.flows()), flows)
	}

	// Somebody else's row.
	_, err := s.Vsctl("--", "--id=@t", "create", "Flow_Table", "name=theirs", "--", "set", "bridge", "br0", "flow_tables:204=@t",
		"flow_tables:7=@t")
	must(t, err)
	s.apply(allowPorts("q", "vm2", "vm1", "5002"))
	out, err := s.Vsctl("--bare", "--columns=name", "list", "Flow_Table")
	must(t, err)
	if strings.Count(out, "theirs") != 1 || strings.Contains(out, "\nSTATE\n") {
		t.Errorf("the rows are\n%s", out)
	}
	s.unchangedByRestart()
}

// The tables of addresses are looked up by tries. ovs-vswitchd takes the fields, and their coming and going loses no flow and no packet;
// what an administrator writes instead stays, and is told.
func TestTablePrefixes(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(allowPorts("p", "vm2", "vm1", "5001"))
	row := func(table int) string {
		out, err := s.Vsctl("--bare", "get", "bridge", "br0", sprintf("flow_tables:%d", table))
		must(t, err)
		return strings.TrimSpace(out)
	}
	have := func(table int, want string) bool {
		out, err := s.Vsctl("get", "Flow_Table", row(table), "prefixes")
		must(t, err)
		return strings.TrimSpace(out) == want
	}
	accepted := func() bool {
		log, err := os.ReadFile(filepath.Join(s.Dir, "vswitchd.log"))
		must(t, err)
		if strings.Contains(string(log), "'prefixes' with") {
			t.Fatal("ovs-vswitchd does not know the prefixes")
		}
		return strings.Contains(string(log), "table 214: Prefix lookup with: ct_ipv6_src,ct_nw_src.") &&
			strings.Contains(string(log), "table 215: Prefix lookup with: ct_ipv6_dst,ct_nw_dst.")
	}
	lab.Eventually(t, 5*time.Second, "tries", accepted)
	s.pickupClosed()
	live, datagrams := s.echo(s.vm[1], s.vm[2], 5001), s.datagrams(s.vm[1], s.vm[2], 5001, 5*time.Millisecond)
	s.running(live, datagrams)
	flows, lost := len(s.flows()), s.metric(`tapwall_flows_lost_total{bridge="br0"}`)
	for range 5 {
		_, err := s.Vsctl("clear", "Flow_Table", row(214), "prefixes", "--", "clear", "Flow_Table", row(215), "prefixes")
		must(t, err)
		lab.Eventually(t, 5*time.Second, "the prefixes are back", func() bool {
			return have(214, "[ct_ipv6_src, ct_nw_src]") && have(215, "[ct_ipv6_dst, ct_nw_dst]")
		})
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
	}
	s.lossless(live, "a connection while tries came and went")
	s.lossless(datagrams, "datagrams while tries came and went")
	if now := s.metric(`tapwall_flows_lost_total{bridge="br0"}`); now != lost || len(s.flows()) != flows {
		t.Errorf("%g flows lost, %d of %d there", now-lost, len(s.flows()), flows)
	}
	_, err := s.Vsctl("set", "Flow_Table", row(214), "prefixes=ct_nw_src")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the status tells of an administrator's prefixes", func() bool {
		out, _ := s.tw.Run("status")
		return strings.Contains(out, `the prefixes of table 214 are "ct_nw_src", as somebody else wrote`)
	})
	s.unchangedByRestart()
	if !have(214, "[ct_nw_src]") {
		t.Error("what an administrator wrote is gone")
	}
}
