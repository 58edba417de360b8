package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// versions is traffic of 1,000 packets a second that every version allows, and that every version denies by a rule or by a feed.
type versions struct {
	*stage
	allowed, moving      *lab.Probe // to vm2, and to vm3, whose labels change
	never, listed        *lab.Probe
	atVM2                *lab.Capture
	deniedPort, feedPort uint16
}

// web is a version of the policy of vm2, vm3 and vm4, which have the same labels. Whatever n, it allows vm1 udp 5001 and denies udp 5002.
// It allows vm5, which is in the feed, udp 5003.
func web(n int) string {
	return sprintf(`
kind: Policy
name: web
spec:
  priority: %d
  appliesTo: [{labels: {role: web}}]
  ingress:
  - {name: always, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5001"]}]}
  - {name: r%d, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: ["%d"]}]}
  - {name: vm5, action: allow, from: [{port: vm5}], services: [{protocol: udp, ports: ["5003"]}]}
  - {name: never, action: deny, services: [{protocol: udp, ports: ["5002"]}]}
`, 100+n%2, n, 6000+n%7)
}

// listed denies what is in the feed.
const listed = `
kind: Policy
name: listed
spec:
  tier: security
  appliesTo: [{labels: {role: web}}]
  ingress: [{name: feed, action: deny, from: [{group: feed}]}]
`

// feed lists n addresses, of which none is in the feed of another second byte, and some more.
func feed(n, second int, more ...string) string {
	var b strings.Builder
	b.WriteString("kind: Group\nname: feed\nspec:\n  members:\n")
	for i := range n {
		b.WriteString(sprintf("  - {cidr: 198.%d.%d.%d/32}\n", second, i/125, 2*(i%125)+1))
	}
	for _, cidr := range more {
		b.WriteString("  - {cidr: " + cidr + "}\n")
	}
	return b.String()
}

// kind is the endpoint of a machine, with a label more unless half is "".
func kind(vm, half string) string {
	if half != "" {
		half = ", half: " + half
	}
	return sprintf("kind: Endpoint\nname: e-%s\nspec: {match: {port: %s}, labels: {role: web%s}}\n", vm, vm, half)
}

// half is a policy that applies to half of the machines, and names it as a peer.
func half(h string) string {
	return sprintf(`
kind: Policy
name: half-%s
spec:
  appliesTo: [{labels: {half: %s}}]
  defaultDeny: {ingress: false, egress: false}
  ingress: [{name: in, action: allow, from: [{port: vm1}, {labels: {half: %s}}], services: [{protocol: tcp, ports: ["7000-7010"]}]}]
  egress: [{name: out, action: deny, to: [{labels: {half: %s}}], services: [{protocol: tcp, ports: ["7020"]}]}]
`, h, h, h, h)
}

// Scenario 14: replacing policies under load loses nothing that all versions allow and lets nothing through that all deny, also when
// endpoints of one kind part and come together and when a feed is exchanged; a batch with one invalid rule changes nothing.
func TestFirewallScenario14Atomicity(t *testing.T) {
	t.Parallel()
	s := open(t, 5, "--pickup-window", "300ms")
	s.neighbours()
	const vm5 = "10.77.0.5/32"
	s.apply(strings.Join([]string{kind("vm2", ""), kind("vm3", ""), kind("vm4", ""), feed(10, 18, vm5), listed, web(0)}, "---\n"))
	s.pickupClosed()
	a := &versions{stage: s, deniedPort: 5002, feedPort: 5003}
	var err error
	a.atVM2, err = s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	a.allowed, a.moving = s.datagrams(s.vm[1], s.vm[2], 5001, time.Millisecond), s.datagrams(s.vm[1], s.vm[3], 5001, 10*time.Millisecond)
	a.never, a.listed = s.datagrams(s.vm[1], s.vm[2], 5002, time.Millisecond), s.datagrams(s.vm[5], s.vm[2], 5003, 10*time.Millisecond)
	s.running(a.allowed, a.moving)

	start := time.Now()
	for n := 1; n <= 100; n++ {
		s.apply(web(n))
		time.Sleep(time.Until(start.Add(time.Duration(n) * 100 * time.Millisecond)))
	}
	a.intact("100 replacements", start)

	start = time.Now()
	for range 10 {
		s.apply(half("a") + "---\n" + kind("vm3", "a"))                                  // vm3 parts from vm2 and vm4
		s.apply(kind("vm3", "b") + "---\n" + kind("vm4", "a"))                           // all three part
		s.apply(half("b") + "---\n" + kind("vm2", "a"))                                  // vm2 joins vm4
		s.apply(kind("vm2", "") + "---\n" + kind("vm3", "") + "---\n" + kind("vm4", "")) // all come together
		s.tapwall("delete", "policy", "half-a", "--wait")
		s.tapwall("delete", "policy", "half-b", "--wait")
	}
	a.intact("40 splits and merges", start)

	start = time.Now()
	for _, second := range []int{18, 51, 18} {
		s.apply(feed(9999, second, vm5))
	}
	a.intact("a feed that grows to 10,000 prefixes and is exchanged for another and back", start)

	a.notices()
	for _, p := range []*lab.Probe{a.allowed, a.moving, a.never, a.listed} {
		p.Stop()
	}
	a.refusesWhole()
}

// intact checks that nothing was lost and nothing came through that is denied.
func (a *versions) intact(what string, since time.Time) {
	a.t.Helper()
	a.t.Logf("%s in %v, %d datagrams so far", what, time.Since(since).Round(time.Millisecond), a.allowed.Sent())
	a.lossless(a.allowed, what+": traffic that every version allows")
	a.lossless(a.moving, what+": the same to a machine whose labels change")
	for port, p := range map[uint16]*lab.Probe{a.deniedPort: a.never, a.feedPort: a.listed} {
		if n := len(a.atVM2.Frames(lab.UDPTo(port))); n != 0 || p.Received() != 0 || p.Sent() == 0 {
			a.t.Errorf("%s: %d of %d datagrams to port %d that every version denies arrived", what, n, p.Sent(), port)
		}
	}
}

// notices checks that the probes would have told: versions that differ for a moment lose something, and let something through.
func (a *versions) notices() {
	a.t.Helper()
	a.apply(strings.Replace(web(0), "name: always, action: allow", "name: always, action: deny", 1))
	a.apply(web(0))
	for _, p := range []*lab.Probe{a.allowed, a.moving} {
		last := p.Received()
		lab.Eventually(a.t, 5*time.Second, "the stream goes on", func() bool { return p.Received() > last+20 })
		if p.Received() == p.Sent() {
			a.t.Error("the probe did not notice a moment in which its traffic was denied")
		}
	}
	a.apply(strings.Replace(web(1), "name: never, action: deny", "name: never, action: allow", 1))
	arrives := func(port uint16) func() bool {
		return func() bool { return len(a.atVM2.Frames(lab.UDPTo(port))) > 0 }
	}
	lab.Eventually(a.t, 5*time.Second, "what is denied no longer arrives", arrives(a.deniedPort))
	a.apply(feed(10, 18))
	lab.Eventually(a.t, 5*time.Second, "who is listed no longer arrives", arrives(a.feedPort))
}

var sinceWhen = regexp.MustCompile(`(duration|idle_age|hard_age)=[0-9.]+s?, `)

// refusesWhole checks that a batch with one invalid rule changes no flow and no counter.
func (a *versions) refusesWhole() {
	a.t.Helper()
	counters := func() string {
		out, err := a.Ofctl("dump-flows", "br0")
		must(a.t, err)
		var keep []string
		for line := range strings.Lines(out) { // what the machines' kernels send by themselves is counted elsewhere
			if strings.Contains(line, "table=205,") || strings.Contains(line, "table=206,") || strings.Contains(line, "table=207,") ||
				strings.Contains(line, "table=208,") {
				keep = append(keep, sinceWhen.ReplaceAllString(line, ""))
			}
		}
		return strings.Join(keep, "")
	}
	rules := a.stable("web")
	before, counted := a.flows(), counters()
	if rules.rules["always"] == 0 || !strings.Contains(counted, "table=208") {
		a.t.Fatalf("nothing was counted: %v\n%s", rules, counted)
	}
	out := a.refused(web(101)+"---"+strings.Replace(web(102), `"5002"`, `"70000"`, 1), "apply", "-f", "-")
	if !strings.Contains(out, "/spec/ingress/3/services/0/ports/0") || !strings.Contains(out, "70000") {
		a.t.Errorf("the fault is not named: %s", out)
	}
	if after := a.flows(); strings.Join(after, "\n") != strings.Join(before, "\n") {
		a.t.Error("a refused batch changed the flow table")
	}
	if after := counters(); after != counted {
		a.t.Errorf("a refused batch changed counters:\n%s\nwas\n%s", after, counted)
	}
	if after := a.stable("web"); after.rules["always"] != rules.rules["always"] {
		a.t.Errorf("a refused batch changed what rules have counted: %v, was %v", after, rules)
	}
}
