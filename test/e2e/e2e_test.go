// Package e2e runs the acceptance scenarios of the design on a real switch with real traffic: the built binary, a private OVS and
// namespaces as virtual machines. Each test says which scenario of the reference it is. Assertions look at what arrived and at what the
// switch says, not only at tapwall's own records.
package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// stage is a lab with bridge br0, machines vm1…vmN that serve ports 5000–5005, and tapwall.
type stage struct {
	*lab.Lab
	t  *testing.T
	tw *lab.Tapwall
	vm []*lab.VM // vm[1] is vm1
}

// open builds a stage; flags go to `tapwall serve` behind --bridge br0=owned.
func open(t *testing.T, machines int, flags ...string) *stage {
	t.Helper()
	s := plugged(t, machines)
	var err error
	s.tw, err = s.StartTapwall(append([]string{"--bridge", "br0=owned"}, flags...)...)
	must(t, err)
	return s
}

// plugged builds a stage without tapwall.
func plugged(t *testing.T, machines int) *stage {
	t.Helper()
	s := &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}
	must(t, s.AddBridge("br0"))
	for i := 1; i <= machines; i++ {
		vm, err := s.AddVM(fmt.Sprintf("vm%d", i), "br0", i)
		must(t, err)
		must(t, s.Serve(vm, 5000, 5001, 5002, 5003, 5004, 5005))
		s.vm = append(s.vm, vm)
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// apply applies documents and waits until they are installed.
func (s *stage) apply(docs string) time.Time {
	s.t.Helper()
	must(s.t, s.tw.Apply(docs))
	return time.Now()
}

// force is apply for whoever counts the packets that come next: nothing is left of what the switch had cached before. Without that wait
// it follows some ms later, or more on a busy machine; how soon, others measure.
func (s *stage) force(docs string) {
	s.t.Helper()
	if out, err := s.tw.RunInput(docs, "apply", "--wait=effective", "-f", "-"); err != nil {
		s.t.Fatalf("apply: %v\n%s", err, out)
	}
}

// tapwall runs a CLI command that must succeed.
func (s *stage) tapwall(args ...string) string {
	s.t.Helper()
	out, err := s.tw.Run(args...)
	if err != nil {
		s.t.Fatalf("tapwall %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs a CLI command that must fail and returns what it said.
func (s *stage) refused(stdin string, args ...string) string {
	s.t.Helper()
	out, err := s.tw.RunInput(stdin, args...)
	if err == nil {
		s.t.Fatalf("tapwall %s succeeded:\n%s", strings.Join(args, " "), out)
	}
	return out
}

// mustConnect tries a TCP connection.
func (s *stage) mustConnect(from *lab.VM, to string, port int) {
	s.t.Helper()
	if !from.CanConnect(to, port, 5*time.Second) {
		s.t.Errorf("%s cannot connect to %s port %d", from.Port, to, port)
	}
}

// mustNotConnect lets the switch throw away first what it had cached before a change: it does so some ms after the change is in force,
// later on a busy machine. A switch that does not say when it has done so, as without its database, is tried all the same.
func (s *stage) mustNotConnect(from *lab.VM, to string, port int) {
	s.t.Helper()
	for range 2 {
		if _, err := s.Appctl("revalidator/wait"); err != nil {
			break
		}
	}
	if from.CanConnect(to, port, 700*time.Millisecond) {
		s.t.Errorf("%s can connect to %s port %d", from.Port, to, port)
	}
}

// mustTimeOut tries a TCP connection with one SYN that nothing may answer; it gives up before it would send another.
func (s *stage) mustTimeOut(from *lab.VM, to string, port int) {
	s.t.Helper()
	c, err := from.Dial("tcp", to, port, 700*time.Millisecond)
	if err == nil {
		_ = c.Close()
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		s.t.Errorf("%s to %s port %d did not time out: %v", from.Port, to, port, err)
	}
}

func (s *stage) ping(from *lab.VM, to string) bool {
	_, err := from.Run("ping", "-c", "1", "-W", "1", to)
	return err == nil
}

// flows returns br0's flows as ovs-ofctl prints them, without what changes by itself: counters, the marks of what is just being saved,
// whether the last flow-mod of a flow replaced another (reset_counts), and the flows that each change exchanges.
func (s *stage) flows(filter ...string) []string {
	s.t.Helper()
	out, err := s.Ofctl("dump-flows", "br0", append([]string{"--no-stats"}, filter...)...)
	must(s.t, err)
	var lines []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.Contains(line, "actions=") && !strings.Contains(line, "table=229, priority=2,") &&
			!strings.Contains(line, "priority=65535,pkt_mark=") {
			lines = append(lines, strings.Replace(line, " reset_counts", "", 1))
		}
	}
	return lines
}

// ownDrops is how many packets ovs-vswitchd has dropped itself: a busy one drops those that come while it is changing how it looks after
// its caches.
func (s *stage) ownDrops() (n int64) {
	s.t.Helper()
	for _, counter := range []string{"datapath_drop_lock_error", "datapath_drop_upcall_error"} {
		out, err := s.Appctl("coverage/read-counter", counter)
		must(s.t, err)
		x, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		must(s.t, err)
		n += x
	}
	return n
}

var nPackets = regexp.MustCompile(`n_packets=(\d+)`)

// packets sums the packet counters of br0's flows whose text contains every one of the parts.
func (s *stage) packets(parts ...string) int {
	s.t.Helper()
	out, err := s.Ofctl("dump-flows", "br0")
	must(s.t, err)
	sum := 0
next:
	for line := range strings.Lines(out) {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue next
			}
		}
		if m := nPackets.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			must(s.t, err)
			sum += n
		}
	}
	return sum
}

// rule is what the status of a policy says of one rule.
type rule struct {
	Name, Direction, Action string
	ID                      uint32
	Packets                 uint64
	// Packets of a new connection, of one that was let pass before, and dropped; when there was one last, and since when that is known.
	New, Established, Denied uint64
	LastHit, CountedSince    *time.Time
}

// rules reads the rules of a policy with their counters from the API.
func (s *stage) rule(policy, name string) rule {
	s.t.Helper()
	var doc struct {
		Status struct {
			Hosts []struct{ Rules []rule }
		}
	}
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", "policy", policy, "-o", "json")), &doc))
	for _, h := range doc.Status.Hosts {
		for _, r := range h.Rules {
			if r.Name == name {
				return r
			}
		}
	}
	s.t.Fatalf("policy %s has no rule %s in its status", policy, name)
	return rule{}
}

// entry is one line of the conntrack table. label holds the two rule ids: the lower half of ct_label.
type entry struct {
	text  string
	label uint64
}

// conntrack returns the entries that contain every one of the parts.
func (s *stage) conntrack(parts ...string) []entry {
	s.t.Helper()
	out, err := s.Appctl("dpctl/dump-conntrack")
	must(s.t, err)
	var es []entry
next:
	for line := range strings.Lines(out) {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue next
			}
		}
		e := entry{text: strings.TrimSpace(line)}
		if _, l, ok := strings.Cut(e.text, "labels="); ok {
			l, _, _ = strings.Cut(l, ",")
			if l = strings.TrimPrefix(l, "0x"); len(l) > 16 { // above are the ends
				l = l[len(l)-16:]
			}
			e.label, _ = strconv.ParseUint(l, 16, 64)
		}
		es = append(es, e)
	}
	return es
}

// quiet fails when the probe received anything later than grace after t, watching for a second more. A busy machine has more time.
func (s *stage) quiet(p *lab.Probe, t time.Time, grace time.Duration, what string) {
	s.t.Helper()
	limit := grace
	for time.Since(t) < limit+time.Second {
		time.Sleep(time.Until(t.Add(limit + time.Second)))
		limit = grace + lab.Late(t)
	}
	grace = limit
	if n := p.ReceivedSince(t.Add(grace)); n > 0 {
		s.t.Errorf("%s: %d messages came later than %v after the change", what, n, grace)
	} else {
		s.t.Logf("%s: silent %v after the answer", what, p.LastArrival().Sub(t).Round(time.Millisecond))
	}
}

// lossless fails when a probe that has been running does not get every message back.
func (s *stage) lossless(p *lab.Probe, what string) {
	s.t.Helper()
	sent := p.Sent()
	ok := sent > 0
	for start := time.Now(); ok && p.Received() < sent && time.Since(start) < 2*time.Second+lab.Late(start); {
		time.Sleep(5 * time.Millisecond)
	}
	if !ok || p.Received() < sent || p.Err() != nil {
		s.t.Errorf("%s: %d of %d messages came back (%v)", what, p.Received(), sent, p.Err())
	}
}

func (s *stage) echo(from, to *lab.VM, port int) *lab.Probe {
	s.t.Helper()
	p, err := from.EchoTCP(to.IPv4, port, 10*time.Millisecond)
	must(s.t, err)
	s.t.Cleanup(p.Stop)
	return p
}

func (s *stage) push(from, to *lab.VM, port int) *lab.Probe {
	s.t.Helper()
	p, err := from.PushTCP(to.IPv4, port)
	must(s.t, err)
	s.t.Cleanup(p.Stop)
	return p
}

func (s *stage) datagrams(from, to *lab.VM, port int, every time.Duration) *lab.Probe {
	s.t.Helper()
	p, err := from.EchoUDP(to.IPv4, port, every)
	must(s.t, err)
	s.t.Cleanup(p.Stop)
	return p
}

// running waits until the probe has exchanged a few messages.
func (s *stage) running(ps ...*lab.Probe) {
	s.t.Helper()
	for _, p := range ps {
		lab.Eventually(s.t, 3*time.Second, "a probe gets answers", func() bool { return p.Received() > 20 })
	}
}

// pickupClosed waits until the pickup window of the first start is over: inside it, packets of unknown connections are judged instead of
// dropped.
func (s *stage) pickupClosed() {
	s.t.Helper()
	lab.Eventually(s.t, 20*time.Second, "the pickup window closes", func() bool { return len(s.flows("table=213")) == 0 })
}

// whole is how long a scenario takes: all of its time in `make soak`, less otherwise.
func whole(all, less time.Duration) time.Duration {
	if os.Getenv("TAPWALL_SOAK") != "" {
		return all
	}
	return less
}

// series is scrape, which must succeed.
func (s *stage) series() map[string]float64 {
	s.t.Helper()
	out, err := s.scrape()
	must(s.t, err)
	return out
}

// metric reads one sample of /metrics, such as name{label="value"}; it is 0 if there is none.
func (s *stage) metric(sample string) float64 {
	s.t.Helper()
	return s.series()[sample]
}

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }
