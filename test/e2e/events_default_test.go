package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// openRecording is open with a configuration that says what br0 records; zero = it says nothing.
func openRecording(t *testing.T, machines int, r policy.Record) *stage {
	t.Helper()
	s := plugged(t, machines)
	path := filepath.Join(s.Dir, "tapwall.yaml")
	said := ""
	if r != (policy.Record{}) {
		b, err := json.Marshal(r)
		must(t, err)
		said = ", record: " + string(b)
	}
	must(t, os.WriteFile(path, []byte("bridges: [{name: br0, mode: owned"+said+"}]\n"), 0o600))
	var err error
	s.tw, err = s.StartTapwall("--config", path)
	must(t, err)
	return s
}

// told counts the events of verdicts on what from sends to an address and port (0 = any), by verdict and rule.
func (s *stage) told(from *lab.VM, to string, port int) map[string]int {
	s.t.Helper()
	flags := []string{"--last", "1000", "--action", "policy-verdict", "--from", from.Port, "--to-ip", to}
	if port != 0 {
		flags = append(flags, "--to-port", fmt.Sprint(port))
	}
	out := map[string]int{}
	for _, v := range s.events(flags...) {
		out[v.Tapwall.Verdict+" "+v.Rule.ID]++
	}
	return out
}

// Who starts tapwall and writes nothing sees who talks to whom: each connection once, by any protocol, of both families.
func TestEventsByDefault(t *testing.T) {
	t.Parallel()
	s := openRecording(t, 2, policy.Record{})
	const allowed = "FORWARDED /ingress/default-allow"
	for _, to := range []string{s.vm[2].IPv4, s.vm[2].IPv6} {
		s.mustConnect(s.vm[1], to, 5001)
		if !s.ping(s.vm[1], to) {
			t.Errorf("no echo of %s", to)
		}
		c, err := s.vm[1].Dial("udp", to, 5001, time.Second)
		must(t, err)
		for range 5 {
			_, err = c.Write([]byte("x"))
			must(t, err)
		}
		must(t, c.Close())
		lab.Eventually(t, 5*time.Second, "the connections to "+to+" are recorded", func() bool {
			return s.told(s.vm[1], to, 0)[allowed] == 3
		})
		kinds := map[string]int{}
		for _, v := range s.events("--from", "vm1", "--to-ip", to, "--action", "policy-verdict") {
			kinds[v.Network.Transport]++
			if v.Tapwall.Source.Name != "vm1" || v.Tapwall.Destination.Name != "vm2" || v.Tapwall.EgressRule.ID != "/egress/default-allow" ||
				v.Tapwall.IngressRule.ID != "/ingress/default-allow" {
				t.Errorf("event %+v", v)
			}
		}
		if kinds["tcp"] != 1 || kinds["udp"] != 1 || len(kinds) != 3 {
			t.Errorf("to %s: %v", to, kinds)
		}
	}
	s.apply("kind: Policy\nname: shut\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: true}}\n")
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	lab.Eventually(t, 5*time.Second, "what is denied is recorded", func() bool {
		return s.told(s.vm[1], s.vm[2].IPv4, 5002)["DROPPED shut/ingress/default-deny"] > 0
	})
}

// silent is an address that vm2 gets packets for and does not answer.
const silent = "10.77.0.99"

// first returns a packet of vm1 to port 80 of silent, the first of a connection by TCP or UDP.
func (s *stage) first(proto layers.IPProtocol, port int) []byte {
	s.t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.ParseIP(s.vm[1].IPv4), DstIP: net.ParseIP(silent)}
	var upper gopacket.SerializableLayer = &layers.TCP{SrcPort: layers.TCPPort(port), DstPort: 80, SYN: true, Seq: 1, Window: 1024}
	if proto == layers.IPProtocolUDP {
		upper = &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 80}
	}
	f, err := lab.CraftFrame(s.vm[1].MAC, s.vm[2].MAC, layers.EthernetTypeIPv4, ip, upper)
	must(s.t, err)
	return f
}

// One-way UDP stays new to conntrack for ever, and a SYN that nobody answers is sent again: either is one event, however fast they come.
func TestEventsByDefaultOneWay(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	const each, atOnce = 6400, 64
	before, err := s.vm[2].Received()
	must(t, err)
	for i, proto := range []layers.IPProtocol{layers.IPProtocolUDP, layers.IPProtocolTCP, layers.IPProtocolUDP} {
		frames := slices.Repeat([][]byte{s.first(proto, 10_000+i)}, atOnce)
		for range each / atOnce {
			must(t, s.vm[1].Send(frames...))
			time.Sleep(time.Millisecond)
		}
	}
	after, err := s.vm[2].Received()
	must(t, err)
	if after-before < each {
		t.Errorf("%d of %d packets arrived", after-before, 3*each)
	}
	time.Sleep(2 * time.Second) // for one event too many
	got := s.told(s.vm[1], silent, 80)
	if len(got) != 1 || got["FORWARDED /ingress/default-allow"] != 3 {
		t.Errorf("three streams of %d packets made the events %v", after-before, got)
	}
	t.Logf("%d packets", after-before)
}

// Each value of record, of the bridge and of a policy: a policy's word goes before the bridge's, and what a rule says log of before both. A
// change cuts nothing and is in force for new connections; a restart with it sends nothing.
func TestEventsByDefaultRecord(t *testing.T) {
	t.Parallel()
	for _, bridge := range []policy.Record{
		{}, {Connections: policy.RecordLogged, Denies: policy.RecordLogged}, {Connections: policy.RecordNone, Denies: policy.RecordAll},
		{Connections: policy.RecordAll, Denies: policy.RecordNone},
	} {
		t.Run(fmt.Sprintf("%s %s", cmp.Or(bridge.Connections, "default"), cmp.Or(bridge.Denies, "default")), func(t *testing.T) {
			t.Parallel()
			s := openRecording(t, 3, bridge)
			of := policy.Record{Connections: cmp.Or(bridge.Connections, policy.RecordAll), Denies: cmp.Or(bridge.Denies, policy.RecordAll)}
			s.recordedAs(policy.Record{}, of)
			live := s.echo(s.vm[1], s.vm[2], 5002)
			s.running(live)
			for _, own := range []policy.Record{
				{Connections: policy.RecordNone, Denies: policy.RecordLogged}, {Connections: policy.RecordAll},
				{Connections: policy.RecordLogged}, {Denies: policy.RecordAll},
			} {
				s.recordedAs(own, of)
			}
			s.lossless(live, "a connection while what is recorded changes")
			s.pickupClosed()
			sent := s.flows()
			must(t, s.tw.Stop())
			must(t, s.tw.Start())
			if n := s.health().FlowMods; n != 0 {
				t.Errorf("a restart sent %d flow-mods: %v, was %v", n, s.flows(), sent)
			}
		})
	}
}

// A record that was interrupted says so once: what was denied while tapwall did not run is in none of its events.
func TestEventsResumed(t *testing.T) {
	t.Parallel()
	s := openRecording(t, 3, policy.Record{})
	s.apply(`
kind: Policy
name: shut
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: no, action: deny, services: [{protocol: tcp, ports: ["5003-5005"]}]}]
`)
	denied := func(port int) {
		if s.vm[1].CanConnect(s.vm[2].IPv4, port, 300*time.Millisecond) {
			t.Errorf("a connection to port %d is not denied", port)
		}
	}
	of := func(port string) int {
		return strings.Count(s.tapwall("observe", "--all", "--to-port", port), "DENIED")
	}
	denied(5003)
	lab.Eventually(t, 5*time.Second, "what is denied is recorded", func() bool { return of("5003") > 0 })
	if n := len(s.filed(event.ActionResumed)); n != 0 {
		t.Errorf("a record that was not interrupted has resumed %d times", n)
	}
	must(t, s.tw.Stop())
	denied(5004)
	must(t, s.tw.Start())
	denied(5005)
	lab.Eventually(t, 5*time.Second, "what is denied is recorded again", func() bool { return of("5005") > 0 })
	if n := of("5004"); n != 0 {
		t.Errorf("of what was denied meanwhile there are %d events", n)
	}
	lab.Eventually(t, 5*time.Second, "the record says that it was interrupted", func() bool {
		return len(s.filed(event.ActionResumed)) == 1
	})
	t.Log(s.tapwall("observe", "--action", event.ActionResumed))
}

// recordedAs applies a policy with a record to vm2 and looks at what is recorded of new connections on a bridge with the record of.
func (s *stage) recordedAs(own, of policy.Record) {
	s.t.Helper()
	said := ""
	if own != (policy.Record{}) {
		b, err := json.Marshal(own)
		must(s.t, err)
		said = "  record: " + string(b) + "\n"
	}
	s.apply(`
kind: Policy
name: web
spec:
  appliesTo: [{port: vm2}]
` + said + `  ingress:
  - {name: told, action: allow, services: [{protocol: tcp, ports: ["5001"]}], log: true}
  - {name: plain, action: allow, services: [{protocol: tcp, ports: ["5002"]}]}
  - {name: not, action: deny, services: [{protocol: tcp, ports: ["5003"]}]}
  - {name: not-told, action: deny, services: [{protocol: tcp, ports: ["5004"]}], log: true}
`)
	s.revalidated()
	connections, denies := cmp.Or(own.Connections, of.Connections) == policy.RecordAll, cmp.Or(own.Denies, of.Denies) == policy.RecordAll
	type try struct {
		to    *lab.VM
		port  int
		event string
		is    bool
	}
	tries := []try{
		{s.vm[2], 5002, "FORWARDED web/ingress/plain", connections}, {s.vm[2], 5003, "DROPPED web/ingress/not", denies},
		{s.vm[2], 5000, "DROPPED web/ingress/default-deny", denies}, {s.vm[3], 5002, "FORWARDED /ingress/default-allow",
			of.Connections == policy.RecordAll},
		{s.vm[2], 5004, "DROPPED web/ingress/not-told", true}, {s.vm[2], 5001, "FORWARDED web/ingress/told", true},
	}
	before := map[try]int{}
	for _, x := range tries {
		before[x] = s.told(s.vm[1], x.to.IPv4, x.port)[x.event]
	}
	for _, x := range tries {
		passes := x.event[0] == 'F'
		if passes != s.vm[1].CanConnect(x.to.IPv4, x.port, 500*time.Millisecond) {
			s.t.Errorf("%+v: port %d, passes: %v", own, x.port, !passes)
		}
	}
	last := tries[len(tries)-1] // events come in order: those before it are there, or will not be
	lab.Eventually(s.t, 5*time.Second, "a rule with log is recorded", func() bool {
		return s.told(s.vm[1], last.to.IPv4, last.port)[last.event] > before[last]
	})
	for _, x := range tries {
		n := s.told(s.vm[1], x.to.IPv4, x.port)[x.event] - before[x]
		if x.is != (n > 0) || x.event[0] == 'F' && n > 1 {
			s.t.Errorf("bridge %+v, policy %+v: %d events %s of port %d of %s, want some: %v", of, own, n, x.event, x.port, x.to.Port, x.is)
		}
	}
}

// 5,000 connections a second for two seconds: each is an event, and no copy is withheld. None is lost, but for a few, which are told, on a
// machine that does much else.
func TestEventsByDefaultRate(t *testing.T) {
	s := open(t, 2)
	const n, perTick = 10_000, 50
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = s.first(layers.IPProtocolTCP, 10_000+i)
	}
	began := time.Now()
	next := began
	for i := 0; i < n; i += perTick {
		must(t, s.vm[1].Send(frames[i:i+perTick]...))
		if next = next.Add(10 * time.Millisecond); time.Since(next) > 20*time.Millisecond {
			next = time.Now().Add(-20 * time.Millisecond) // on a busy machine it takes longer: to catch up with more would be a burst
		}
		time.Sleep(time.Until(next))
	}
	took := time.Since(began)
	var st struct {
		Events struct {
			Observed, Accepted int64
			Lost               map[string]int64
		}
	}
	recorded := func() int {
		return int(s.metric(`tapwall_events_total{action="policy-verdict",dataset="tapwall.flow",verdict="FORWARDED"}`))
	}
	s.revalidated()
	copied := s.packets("table=209", "priority=304") // a busy machine drops some before they reach the switch
	if copied < n*9/10 {
		t.Errorf("%d of %d packets reached the switch", copied, n)
	}
	lost := func() (n int) {
		must(t, json.Unmarshal([]byte(s.tapwall("status", "-o", "json")), &st))
		for _, l := range st.Events.Lost {
			n += int(l)
		}
		return n + int(s.metric(`tapwall_unattributed_copies_total{bridge="br0"}`))
	}
	lab.Eventually(t, 15*time.Second, "each connection is an event, or told to be lost", func() bool { return recorded()+lost() >= copied })
	time.Sleep(4 * time.Second) // what was lost is told a little later
	// Where tapwall itself waits for a core, the switch has to keep more copies than it can. That is told.
	if got, lost := recorded(), lost(); got+lost != copied || lost > copied/20 {
		t.Errorf("%d events of %d connections, lost: %v", got, copied, st.Events.Lost)
	}
	t.Logf("%d connections of %d in %v: %+v", copied, n, took, st.Events)
}

// TestEventsDenyFlood: a flood of denied packets beyond what is recorded of them takes away the copy of no connection.
func TestEventsDenyFlood(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--events-per-second", "50")
	s.apply("kind: Policy\nname: shut\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: false}, " +
		"ingress: [{name: closed, action: deny, services: [{protocol: udp, ports: [\"6002\"]}]}]}\n")
	flood := s.datagrams(s.vm[1], s.vm[2], 6002, time.Millisecond)
	lab.Eventually(t, 10*time.Second, "the meter withholds copies", func() bool { return s.record().Lost["packet_in_meter"] > 100 })
	const n = 40
	for range n {
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
		time.Sleep(20 * time.Millisecond)
	}
	before := s.record().Lost["packet_in_meter"]
	lab.Eventually(t, 10*time.Second, "the flood goes on", func() bool { return s.record().Lost["packet_in_meter"] > before })
	flood.Stop()
	allowed := 0
	lab.Eventually(t, 10*time.Second, "each connection is an event", func() bool {
		allowed = len(s.events("--type", "start", "--to-port", "5001", "--all"))
		return allowed >= n
	})
	time.Sleep(4 * time.Second) // until a deficit would be told as lost
	r := s.record()
	if r.Lost["switch_queue"] > 0 || r.Observed != r.Accepted+r.lost() {
		t.Errorf("observed %d, accepted %d, lost %v", r.Observed, r.Accepted, r.Lost)
	}
	t.Logf("%d denied datagrams sent: %d connections recorded, lost %v", flood.Sent(), allowed, r.Lost)
}
