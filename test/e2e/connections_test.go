package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/test/lab"
)

// listed runs `tapwall connections`.
func (s *stage) listed(flags ...string) []client.Connection {
	s.t.Helper()
	var out client.Connections
	must(s.t, json.Unmarshal([]byte(s.tapwall(append([]string{"connections", "-o", "json"}, flags...)...)), &out))
	if out.Matched != len(out.Items) || len(out.Problems) > 0 {
		s.t.Errorf("connections %v: %d of %d listed, problems %v", flags, len(out.Items), out.Matched, out.Problems)
	}
	return out.Items
}

// spelled is what a test compares of a connection: protocol, port that it goes to, both ends and both rules.
func spelled(x client.Connection) string {
	port := fmt.Sprint(x.Destination.Port)
	if x.ICMP != nil {
		port = fmt.Sprint("type ", x.ICMP.Type)
	}
	return fmt.Sprintf("%s %s %s>%s %s %s", x.Protocol, port, x.Source.Endpoint, x.Destination.Endpoint, x.Egress.Rule, x.Ingress.Rule)
}

func spell(all []client.Connection) []string {
	out := []string{}
	for _, x := range all {
		out = append(out, spelled(x))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *stage) wantListed(want []string, flags ...string) {
	s.t.Helper()
	slices.Sort(want)
	if got := spell(s.listed(flags...)); !slices.Equal(got, want) {
		s.t.Errorf("connections %v:\n%s\nwant\n%s", flags, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const connectionsPolicies = `
kind: Endpoint
name: db
spec:
  match: {port: vm2}
---
kind: Policy
name: data
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: sql, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001"]}], log: true}
  - {name: dns, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5002"]}]}
  - {name: ping, action: allow, from: [{port: vm1}], services: [{protocol: icmp}, {protocol: icmpv6}]}
---
kind: Policy
name: out
spec:
  appliesTo: [{port: vm1}]
  defaultDeny: {egress: false}
  egress:
  - {name: to-db, action: allow, to: [{vm: db}], services: [{protocol: tcp, ports: ["5001"]}]}
`

// connected opens one of each kind: by rules of one and of both sides, by default, TCP, UDP and echo, IPv4 and IPv6.
func (s *stage) connected() map[string]*lab.Probe {
	s.t.Helper()
	probes := map[string]*lab.Probe{}
	for family, to := range map[string]func(*lab.VM) string{"4": func(vm *lab.VM) string { return vm.IPv4 },
		"6": func(vm *lab.VM) string { return vm.IPv6 }} {
		for name, open := range map[string]func() (*lab.Probe, error){
			"tcp":     func() (*lab.Probe, error) { return s.vm[1].EchoTCP(to(s.vm[2]), 5001, 10*time.Millisecond) },
			"udp":     func() (*lab.Probe, error) { return s.vm[1].EchoUDP(to(s.vm[2]), 5002, 10*time.Millisecond) },
			"default": func() (*lab.Probe, error) { return s.vm[1].EchoTCP(to(s.vm[3]), 5003, 10*time.Millisecond) },
		} {
			p, err := open()
			must(s.t, err)
			s.t.Cleanup(p.Stop)
			s.running(p)
			probes[name+family] = p
		}
		if !s.ping(s.vm[1], to(s.vm[2])) {
			s.t.Errorf("vm1 cannot ping %s", to(s.vm[2]))
		}
	}
	return probes
}

const (
	listedTCP     = "tcp 5001 vm1>db out/egress/to-db data/ingress/sql"
	listedUDP     = "udp 5002 vm1>db egress/default-allow data/ingress/dns"
	listedDefault = "tcp 5003 vm1>vm3 egress/default-allow ingress/default-allow"
	listedPing    = "icmp type 8 vm1>db egress/default-allow data/ingress/ping"
	listedPing6   = "ipv6-icmp type 128 vm1>db egress/default-allow data/ingress/ping"
)

func TestConnectionsListed(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(connectionsPolicies)
	s.pickupClosed()
	s.connected()
	all := []string{listedTCP, listedUDP, listedDefault, listedPing, listedPing6}
	s.wantListed(all)
	for _, tc := range []struct {
		flags string
		want  []string
	}{
		{"--endpoint vm3", []string{listedDefault}},
		{"--endpoint db", []string{listedTCP, listedUDP, listedPing, listedPing6}},
		{"--endpoint br0/vm2", []string{listedTCP, listedUDP, listedPing, listedPing6}},
		{"--from vm1", all},
		{"--to vm1", nil},
		{"--from db", nil},
		{"--endpoint nobody", nil},
		{"--protocol tcp", []string{listedTCP, listedDefault}},
		{"--protocol icmpv6,17", []string{listedUDP, listedPing6}},
		{"--port 5001,5002", []string{listedTCP, listedUDP}},
		{"--from-port 5001", nil},
		{"--to-port 5003", []string{listedDefault}},
		{"--ip " + s.vm[3].IPv6, []string{listedDefault}},
		{"--from-ip 10.77.0.0/24 --protocol icmp", []string{listedPing}},
		{"--to-ip 10.77.0.1", nil},
		{"--policy out", []string{listedTCP}},
		{"--rule dns", []string{listedUDP}},
		{"--rule data/ingress/ping", []string{listedPing, listedPing6}},
		{"--policy out --rule sql", nil}, // of different sides
		{"--rule default-allow --protocol tcp", []string{listedDefault}},
		{"--state established", []string{listedTCP, listedDefault}},
		{"--vlan 0 --bridge br0", all},
		{"--vlan 7", nil},
		{"--bridge br1", nil},
	} {
		s.wantListed(tc.want, strings.Fields(tc.flags)...)
	}
	for _, x := range s.listed("--to", "db", "--protocol", "tcp") {
		if !x.Ours || !x.Logged || x.PickedUp || x.State != "ESTABLISHED" || x.Timeout == 0 || *x.VLAN != 0 || x.Zone != 0xE000 ||
			!x.Source.InForce || !x.Destination.InForce || !x.Egress.InForce || !x.Ingress.InForce {
			t.Errorf("%+v", x)
		}
	}
	// Under other ids: the endpoint that loses something, the rule that is gone.
	before := s.listed("--from", "vm1", "--to-port", "5003")
	s.apply("kind: Policy\nname: late\nspec:\n  appliesTo: [{port: vm3}]\n  defaultDeny: {ingress: true}\n")
	s.revalidated()
	for _, x := range s.listed("--to-port", "5003") {
		if x.Destination.InForce || x.Destination.Endpoint != "vm3" {
			t.Errorf("after vm3 was isolated: %+v; before %+v", x, before)
		}
	}
	table := s.tapwall("connections", "--to-port", "5003", "-o", "wide")
	if !strings.Contains(table, "vm3 (stale) 10.77.0.3:5003") || !strings.Contains(table, "untagged") {
		t.Error(table)
	}
}

// What tapwall came into the middle of says so.
func TestConnectionsPickedUp(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(connectionsPolicies)
	p := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(p)
	_, err := s.Appctl("dpctl/flush-conntrack")
	must(t, err)
	_, err = s.Ofctl("del-flows", "br0")
	must(t, err)
	wiped := time.Now()
	lab.Eventually(t, 10*time.Second, "the connection goes on", func() bool { return p.ReceivedSince(wiped) > 20 })
	s.pickupClosed()
	for _, x := range s.listed("--to-port", "5001") {
		if !x.PickedUp || spelled(x) != listedTCP {
			t.Errorf("%+v", x)
		}
	}
	if n := len(s.listed("--to-port", "5001")); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A kill cuts what it names and nothing else.
func TestConnectionsKilled(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(connectionsPolicies)
	s.pickupClosed()
	probes := s.connected()
	goOn := func(names ...string) {
		t.Helper()
		since := time.Now()
		for _, name := range names {
			lab.Eventually(t, 5*time.Second, name+" goes on", func() bool { return probes[name].ReceivedSince(since) > 20 })
		}
	}
	kill := func(flags ...string) (k client.Killed) {
		t.Helper()
		must(t, json.Unmarshal([]byte(s.tapwall(append([]string{"connections", "kill", "-o", "json"}, flags...)...)), &k))
		return k
	}

	if out := s.refused("", "connections", "kill"); !strings.Contains(out, "or --all") {
		t.Error(out)
	}
	s.refused("", "connections", "kill", "--all", "--protocol", "tcp")
	s.refused("", "connections", "kill", "--rule", ",") // nothing by a slip is not everything
	if k := kill("--to-port", "5001", "--dry-run"); k.Killed != 2 || k.Matched != 2 || !k.DryRun || len(k.Items) != 2 {
		t.Errorf("dry run: %+v", k)
	}
	goOn("tcp4", "tcp6", "udp4", "udp6", "default4", "default6")

	one := s.listed("--to-port", "5001", "--ip", s.vm[2].IPv4)[0]
	killed := time.Now()
	if k := kill("--from-ip", one.Source.IP, "--from-port", fmt.Sprint(one.Source.Port), "--to-ip", one.Destination.IP, "--to-port",
		fmt.Sprint(one.Destination.Port)); k.Killed != 1 || len(k.Notes) > 0 {
		t.Errorf("%+v", k)
	}
	s.quiet(probes["tcp4"], killed, 300*time.Millisecond, "the killed connection")
	goOn("tcp6", "udp4", "udp6", "default4", "default6")

	killed = time.Now()
	if k := kill("--endpoint", "vm3"); k.Killed != 2 {
		t.Errorf("%+v", k)
	}
	s.quiet(probes["default4"], killed, 300*time.Millisecond, "vm3's connection")
	s.quiet(probes["default6"], killed, 300*time.Millisecond, "vm3's connection by IPv6")
	goOn("tcp6", "udp4", "udp6")
	s.wantListed(nil, "--endpoint", "vm3")

	killed = time.Now()
	if k := kill("--rule", "data/ingress/sql"); k.Killed != 1 {
		t.Errorf("%+v", k)
	}
	s.quiet(probes["tcp6"], killed, 300*time.Millisecond, "the rule's connection")
	if out := s.tapwall("connections", "kill", "--rule", "dns"); !strings.Contains(out, "2 connections killed") ||
		!strings.Contains(out, "begins anew") {
		t.Error(out)
	}
	goOn("udp4", "udp6") // as policy allows them
	if out := s.refused("", "connections", "kill", "--rule", "ping"); !strings.Contains(out, "1 connection killed") ||
		!strings.Contains(out, "not killed: ipv6-icmp") || !strings.Contains(out, "1 connection could not be killed") {
		t.Error(out)
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001) // the wall is as it was
	s.mustConnect(s.vm[1], s.vm[3].IPv6, 5003)
	log, err := os.ReadFile(filepath.Join(s.Dir, "tapwall.log"))
	must(t, err)
	if !strings.Contains(string(log), "connections killed") || !strings.Contains(string(log), "rule=ping") {
		t.Errorf("the log does not tell of it:\n%s", log)
	}
}

// Numbers in conntrack entries have names, and what they mean now.
func TestConnectionsExplained(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(connectionsPolicies)
	p := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(p)
	line := s.conntrack("10.77.0.2", "dport=5001")[0].text
	_, label, _ := strings.Cut(line, "labels=")
	label, _, _ = strings.Cut(label, ",")
	explained := func(arg string, words ...string) {
		t.Helper()
		out := s.tapwall("connections", "explain", arg)
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("without %q:\n%s", w, out)
			}
		}
	}
	explained(line, "vm1 10.77.0.1:", "db 10.77.0.2:5001", "the initiator is vm1, under the id that it has now",
		"the responder is db, under the id that it has now", "allowed it by out/egress/to-db (", "allowed it by data/ingress/sql (",
		"so its packets pass", "a new one like it now: allow (egress out/egress/to-db, ingress data/ingress/sql)")
	explained(label, "the initiator is vm1", "allowed it by data/ingress/sql (", "so its packets pass")
	explained("labels="+label, "the responder is db")
	out, err := s.tw.RunInput(line+"\n\n"+label+"\n", "connections", "explain", "-")
	if err != nil || strings.Count(out, "so its packets pass") != 2 {
		t.Errorf("%v: %s", err, out)
	}

	// The rule goes, and nothing is sent meanwhile that could be judged anew.
	p.Hush()
	s.apply(strings.Replace(connectionsPolicies, `{name: sql, action: allow`, `{name: sql, action: deny`, 1))
	explained(line, "allowed it by data/ingress/sql under an id (", "that is not in force", "so its next packet is judged anew",
		"a new one like it now: deny (egress out/egress/to-db, ingress data/ingress/sql)")
	explained("udp,orig=(src=1.1.1.1,dst=2.2.2.2,sport=1,dport=2),zone=57344", "its label says nothing")
	explained("udp,orig=(src=1.1.1.1,dst=2.2.2.2,sport=1,dport=2),zone=3", "no managed bridge has this zone")
	explained("0x123456789", "knows these numbers")
	out = s.refused("", "connections", "explain", "udp,orig=(src=\x1b[31m)")
	if strings.Contains(out, "\x1b") || !strings.Contains(out, "entry") {
		t.Errorf("%q", out)
	}
}

// Whoever names a port may not steer a terminal.
func TestConnectionsHostileNames(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	const evil = "e\x1b]0;owned\x07\nvil"
	_, err := s.Vsctl("del-port", "vm3", "--", "--id=@i", "create", "Interface", "name=vm3", `external_ids:attached-mac="`+s.vm[3].MAC+`"`,
		"external_ids:vm-uuid=uuid-vm3", "--", "--id=@p", "create", "Port", `name="e\u001b]0;owned\u0007\nvil"`, "interfaces=@i", "--", "add",
		"Bridge", "br0", "ports", "@p")
	must(t, err)
	p := s.echo(s.vm[1], s.vm[3], 5003)
	s.running(p)
	if got := s.listed("--to-port", "5003"); len(got) != 1 || got[0].Destination.Endpoint != evil {
		t.Fatalf("%+v", got)
	}
	for _, args := range [][]string{{"-o", "wide"}, {"-o", "json"}, {"-o", "yaml"}, {"kill", "--to-port", "5003"}} {
		out := s.tapwall(append([]string{"connections"}, args...)...)
		if strings.ContainsAny(out, "\x1b\x07") || !strings.Contains(out, "owned") {
			t.Errorf("%v: %q", args, out)
		}
	}
}
