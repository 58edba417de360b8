package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// host builds a switch with br0, machines vm1 and vm2 and a port ids0 to mirror to. Ports, MACs and addresses are the same on each.
func host(t *testing.T) *stage {
	t.Helper()
	s := &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}
	must(t, s.AddBridge("br0"))
	for i := 1; i <= 2; i++ {
		vm, err := s.AddVM(fmt.Sprintf("vm%d", i), "br0", i)
		must(t, err)
		must(t, s.Serve(vm, 5000, 5001, 5002, 5003))
		s.vm = append(s.vm, vm)
	}
	must(t, s.AddTargetPort("ids0"))
	return s
}

// about is what the status of a policy or mirror says of one host.
type about struct {
	hostStatus
	Host  string
	Rules []rule
}

// on reads it.
func (s *stage) on(host, kind, name string) about {
	s.t.Helper()
	var doc struct{ Status struct{ Hosts []about } }
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", kind, name, "-o", "json")), &doc))
	for _, h := range doc.Status.Hosts {
		if h.Host == host {
			return h
		}
	}
	s.t.Fatalf("the status of %s %s does not mention %s: %+v", kind, name, host, doc)
	return about{}
}

const twoHosts = `
kind: Policy
name: near-web
spec:
  appliesTo: [{port: vm2, host: near}]
  ingress:
  - {name: in, action: allow, services: [{protocol: tcp, ports: ["5001"]}, {protocol: icmp}], log: true}
  - {name: out, action: deny, services: [{protocol: tcp, ports: ["5002"]}], log: true}
---
kind: Policy
name: far-web
spec:
  appliesTo: [{labels: {iface-id: if-vm2, host: far}}]
  ingress:
  - {name: in, action: allow, services: [{protocol: tcp, ports: ["5002"]}, {protocol: icmp}], log: true}
  - {name: out, action: deny, services: [{protocol: tcp, ports: ["5001"]}], log: true}
---
kind: Policy
name: both
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: common, action: allow, services: [{protocol: tcp, ports: ["5003"]}], log: true}]
---
kind: Mirror
name: tap
spec:
  sources: [{port: vm2, host: far}]
  targets: [{port: {name: ids0}}]
`

// One process, two switches, the one beside it and the other over the network, whose bridges, ports, MACs and addresses are all the same:
// nothing of the one is taken for the other's, and while one hangs, the other does not notice.
func TestHosts_TwoSwitchesOneProcess(t *testing.T) {
	t.Parallel()
	near, far := host(t), host(t)
	must(t, near.Link(far.Lab, "192.0.2.1", "192.0.2.2"))
	hosts := map[string]*stage{"near": near, "far": far}
	for name, s := range hosts {
		_, err := s.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id="+name)
		must(t, err)
	}
	_, err := far.Vsctl("set-manager", "ptcp:6640:192.0.2.2")
	must(t, err)
	for name, s := range hosts { // the control: all of it passes before there is a wall
		for port := 5000; port <= 5003; port++ {
			if !s.vm[1].CanConnect(s.vm[2].IPv4, port, 3*time.Second) {
				t.Fatalf("%s: no connection to port %d without tapwall", name, port)
			}
		}
	}
	config := filepath.Join(near.Dir, "hosts.yaml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "limits: {pickup-window: 0s}\nhosts:\n"+
		"- {name: a, ovsdb: %q, bridges: [{name: br0, mode: owned}]}\n"+
		"- {name: b, ovsdb: \"tcp:192.0.2.2:6640\", bridges: [{name: br0, mode: owned}]}\n", near.DB()), 0o600))
	near.tw, err = near.StartTapwall("--config", config)
	must(t, err)
	far.tw = near.tw
	if rows, err := far.Vsctl("--columns=target,type", "--format=csv", "--no-heading", "list", "Controller"); err != nil ||
		strings.TrimSpace(rows) != `"""ptcp:6653:192.0.2.2""",service` {
		t.Errorf("Controller rows of far: %s %v", rows, err)
	}
	if rows, err := near.Vsctl("list", "Controller"); err != nil || rows != "" {
		t.Errorf("Controller rows of near: %s %v", rows, err)
	}
	for name, id := range map[string]string{"a": "near", "b": "far"} {
		if b, err := os.ReadFile(filepath.Join(near.tw.DataDir(), "hosts", name, "host-id")); err != nil || string(b) != id+"\n" {
			t.Errorf("the id of host %s for the next process: %q %v", name, b, err)
		}
	}
	near.apply(twoHosts)

	// What passes, and what the record says of it.
	allowed := map[*stage]int{near: 5001, far: 5002}
	for _, s := range hosts {
		s.mustConnect(s.vm[1], s.vm[2].IPv4, allowed[s])
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 10003-allowed[s]) // the other of the two
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5000)
	}
	far.mustConnect(far.vm[1], far.vm[2].IPv4, 5003)
	want := map[string]bool{"near near-web/ingress/in FORWARDED 5001": true, "near near-web/ingress/out DROPPED 5002": true,
		"far far-web/ingress/in FORWARDED 5002": true, "far far-web/ingress/out DROPPED 5001": true,
		"far both/ingress/common FORWARDED 5003": true}
	seen := map[string]bool{}
	lab.Eventually(t, 5*time.Second, "all verdicts are recorded", func() bool {
		clear(seen)
		for _, e := range near.recorded() {
			seen[e] = true
		}
		return len(seen) >= len(want)
	})
	if !maps.Equal(seen, want) {
		t.Errorf("recorded:\n%s", strings.Join(slices.Sorted(maps.Keys(seen)), "\n"))
	}

	if text, _ := near.tw.Run("status"); strings.Count(text, "ends of connections are not told: only the control socket") != 1 {
		t.Errorf("of the bridges of two hosts one is reached over the network, where nobody can look for ends: %s", text)
	}

	// Counters and metrics. What a switch counts just behind a change is nobody's: docs/policies.md, Counters.
	lab.Eventually(t, 10*time.Second, "the common rule counts on far", func() bool {
		far.mustConnect(far.vm[1], far.vm[2].IPv4, 5003)
		return near.on("far", "policy", "both").Rules[0].Packets > 0
	})
	for _, s := range hosts {
		s.mustConnect(s.vm[1], s.vm[2].IPv4, allowed[s])
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 10003-allowed[s])
	}
	if n := near.on("near", "policy", "both").Rules[0].Packets; n != 0 {
		t.Errorf("the common rule has %d packets on near, where nobody used it", n)
	}
	packets := func(host, policy, rule string) float64 {
		return near.metric(sprintf(`tapwall_rule_packets_total{direction="ingress",host=%q,policy=%q,rule=%q}`, host, policy, rule))
	}
	for name, other := range map[string]string{"near": "far", "far": "near"} {
		for _, rule := range []string{"in", "out"} {
			if here, there := packets(name, name+"-web", rule), packets(other, name+"-web", rule); here == 0 || there != 0 {
				t.Errorf("metrics of the rule %s of %s: %v there and %v on %s", rule, name, here, there, other)
			}
		}
	}
	if packets("far", "both", "common") == 0 || packets("near", "both", "common") != 0 {
		t.Errorf("metrics of the common rule: %v on far, %v on near", packets("far", "both", "common"), packets("near", "both", "common"))
	}

	// Connections carry the ids of their host's rules, in a zone of their host's: each switch tracks its own alone.
	for name, s := range hosts {
		port := allowed[s]
		id := near.on(name, "policy", name+"-web").Rules[0].ID
		entries := s.conntrack(sprintf("dport=%d)", port), "zone=57344")
		if len(entries) == 0 || id == 0 || uint32(entries[0].label) != id {
			t.Errorf("%s: rule id %#x, connections %+v", name, id, entries)
		}
		if none := s.conntrack(sprintf("dport=%d)", 10003-port), "labels="); len(none) != 0 {
			t.Errorf("%s has connections of the other: %+v", name, none)
		}
	}

	// The mirror is on one of them.
	captures := map[string]*lab.Capture{}
	for name, s := range hosts {
		captures[name], err = s.Capture(s.Switch, "ids0")
		must(t, err)
	}
	near.ping3(near.vm[1], near.vm[2])
	far.ping3(far.vm[1], far.vm[2])
	settle()
	if n, none := len(captures["far"].Frames(lab.ICMP)), len(captures["near"].Frames(lab.ICMP)); n != 6 || none != 0 {
		t.Errorf("the taps got %d ICMP frames of far, want 6, and %d of near, want none", n, none)
	}
	lab.Eventually(t, 12*time.Second, "the mirror counts", func() bool {
		return near.on("far", "mirror", "tap").Counters["selectedPackets"] >= 6
	})
	mirrored := func(host string) float64 {
		return near.metric(sprintf(`tapwall_mirror_packets_total{host=%q,mirror="tap"}`, host))
	}
	if m := near.on("near", "mirror", "tap"); len(m.Counters)+len(m.Endpoints) != 0 || mirrored("near") != 0 || mirrored("far") < 6 {
		t.Errorf("the mirror of far on near: %+v", m)
	}

	// A revocation on one, a living connection on both.
	cut, goes := near.echo(near.vm[1], near.vm[2], 5001), far.echo(far.vm[1], far.vm[2], 5002)
	near.running(cut, goes)
	near.tapwall("delete", "policy", "near-web", "--wait")
	near.quiet(cut, time.Now(), 200*time.Millisecond, "the connection of near")
	far.lossless(goes, "the connection of far")

	for frozen, other := range map[string]string{"near": "far", "far": "near"} {
		hosts[other].mustNotBeDelayed(other, hosts[frozen])
	}
}

// recorded returns the verdicts of the record as "HOST RULE VERDICT PORT", without those of defaults.
func (s *stage) recorded() (out []string) {
	s.t.Helper()
	for line := range strings.Lines(s.tapwall("observe", "-o", "json", "--last", "500")) {
		var e struct {
			Observer    struct{ Name string }
			Destination struct{ Port int }
			Rule        struct{ ID, Name string }
			Tapwall     struct{ Verdict string }
		}
		if !strings.HasPrefix(line, "{") {
			continue
		}
		must(s.t, json.Unmarshal([]byte(line), &e))
		if e.Rule.Name != "" && !strings.HasPrefix(e.Rule.Name, "default-") {
			out = append(out, sprintf("%s %s %s %d", e.Observer.Name, e.Rule.ID, e.Tapwall.Verdict, e.Destination.Port))
		}
	}
	return out
}

// mustNotBeDelayed fails if changes and events of the host s, called name, take longer while the switch of another hangs.
func (s *stage) mustNotBeDelayed(name string, other *stage) {
	t := s.t
	t.Helper()
	// change lets port 5000 pass by another rule, and returns how long it took to be in force and, by a connection, in the record.
	change := func(tag string, n int) (inForce, recorded time.Duration) {
		policy, rule := "moving", sprintf("%s%d", tag, n)
		from := time.Now()
		// The answer may say that it is not in force on the host that hangs; it must not wait for that.
		out, err := s.tw.RunInput(sprintf("kind: Policy\nname: %s\nspec:\n  appliesTo: [{port: vm2, host: %s}]\n"+
			"  ingress: [{name: %s, action: allow, services: [{protocol: tcp, ports: [\"5000\"]}], log: true}]\n", policy, name, rule),
			"apply", "--wait", "-f", "-")
		inForce = time.Since(from)
		if h := s.on(name, "policy", policy); h.Phase != "Active" || len(h.Rules) != 1 || h.Rules[0].Name != rule {
			t.Fatalf("%s: %+v; apply said %v: %s", rule, h, err, out)
		}
		from = time.Now()
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5000)
		lab.Eventually(t, 5*time.Second, "the verdict of "+rule+" is recorded", func() bool {
			return slices.Contains(s.recorded(), sprintf("%s %s/ingress/%s FORWARDED 5000", name, policy, rule))
		})
		return inForce, time.Since(from)
	}
	median := func(tag string) (inForce, recorded time.Duration) {
		const runs = 5
		var a, b [runs]time.Duration
		for i := range runs {
			a[i], b[i] = change(tag, i)
		}
		slices.Sort(a[:])
		slices.Sort(b[:])
		t.Logf("%s %s: in force %v, recorded %v", name, tag, a, b)
		return a[runs/2], b[runs/2]
	}
	start := time.Now()
	inForce, recorded := median("both")
	must(t, other.PauseVswitchd(true))
	resumed := func() error { return other.PauseVswitchd(false) }
	defer func() { must(t, resumed()) }()
	lab.Eventually(t, 10*time.Second, "it is noticed that the other hangs", func() bool {
		out, err := s.tw.Run("status", "--ready")
		return err != nil && strings.Contains(out, "has not answered") && !strings.Contains(out, "host "+name)
	})
	flows := s.tapwall("flows", "--table", "STATE") // standard error is behind it
	if !strings.Contains(flows, "ct(") || strings.Count(flows, "tapwall: host ") != 1 || strings.Contains(flows, "tapwall: host "+name) {
		t.Errorf("the flows while the other hangs:\n%s", flows)
	}
	during, recordedDuring := median("frozen")
	slack := 30*time.Millisecond + lab.Late(start)
	if during > 2*inForce+slack || recordedDuring > 2*recorded+slack {
		t.Errorf("%s: a change took %v, and %v while the other host hangs; an event %v and %v", name, inForce, during, recorded, recordedDuring)
	}
	must(t, resumed())
	lab.Eventually(t, 20*time.Second, "the other is in force again", func() bool {
		_, err := s.tw.Run("status", "--ready")
		return err == nil
	})
	if h := s.on(name, "policy", "moving"); h.Phase != "Active" {
		t.Errorf("%+v", h)
	}
}
