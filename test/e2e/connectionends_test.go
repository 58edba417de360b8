package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// endsWithin is how long after its end a connection may be told to have ended: a look each 10 s, a second that it has to be old, and some
// for a busy machine.
const endsWithin = 25 * time.Second

// followed lists the starts and ends of connections, by the id of the event of the start. Each start has one end at most, and no end is
// without a start.
func (s *stage) followed(flags ...string) (starts, ends map[string]*event.Event) {
	s.t.Helper()
	starts, ends = map[string]*event.Event{}, map[string]*event.Event{}
	all := s.tapwall(append([]string{"observe", "-o", "json", "--last", "10000", "--type", "start,end"}, flags...)...)
	for line := range strings.Lines(all) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		e := new(event.Event)
		must(s.t, json.Unmarshal([]byte(line), e))
		if e.Event.Action != event.ActionEnded {
			starts[e.Event.ID] = e
			continue
		}
		id := e.Tapwall.Ended.StartID
		if starts[id] == nil || ends[id] != nil {
			s.t.Errorf("an end without a start, or another one: %s", line)
			continue
		}
		ends[id] = e
		if a := starts[id]; !e.Event.Start.Equal(a.Timestamp) || e.Event.End.Before(e.Event.Start) || e.Tapwall.Ended.Seen.After(e.Event.End) ||
			*e.Event.Duration != int64(e.Event.End.Sub(e.Event.Start)) || e.Network.CommunityID != a.Network.CommunityID ||
			e.Source.IP != a.Source.IP || e.Source.Port != a.Source.Port || e.Rule.ID != a.Rule.ID {
			s.t.Errorf("the end %s is not of the start %+v", line, a)
		}
	}
	return starts, ends
}

// end waits for the end of the one connection that the flags choose.
func (s *stage) end(within time.Duration, flags ...string) *event.Event {
	s.t.Helper()
	var found *event.Event
	lab.Eventually(s.t, within, fmt.Sprintf("the end of %v is told", flags), func() bool {
		starts, ends := s.followed(flags...)
		if len(starts) != 1 {
			s.t.Fatalf("%v: %d connections began", flags, len(starts))
		}
		for _, found = range ends {
		}
		return found != nil
	})
	return found
}

// wantEnd looks at how a connection ended, and that it was between two times.
func (s *stage) wantEnd(e *event.Event, how, reason string, from, to time.Time) {
	s.t.Helper()
	if e.Tapwall.Ended.How != how || e.Event.Reason != reason {
		s.t.Errorf("ended %q, %q, want %q, %q", e.Tapwall.Ended.How, e.Event.Reason, how, reason)
	}
	if at := e.Event.End; at.Before(from) || at.After(to) {
		s.t.Errorf("ended at %v, want %v to %v", at, from, to)
	}
	s.t.Log(event.Compact(e, event.PrintOptions{}))
}

// TCP that is closed has ended then, to the second; what goes on has not; UDP and echo when the switch has forgotten them.
func TestEventsConnectionEnd(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.pickupClosed()
	goesOn := s.echo(s.vm[1], s.vm[3], 5003)
	closed, datagrams := s.echo(s.vm[1], s.vm[2], 5001), s.datagrams(s.vm[1], s.vm[2], 5002, 10*time.Millisecond)
	s.running(goesOn, closed, datagrams)
	began := time.Now()
	if !s.ping(s.vm[1], s.vm[2].IPv4) || !s.ping(s.vm[1], s.vm[2].IPv6) {
		t.Error("no echo")
	}
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5009) // reset by the machine
	time.Sleep(3 * time.Second)
	closed.Stop()
	datagrams.Stop()
	stopped := time.Now()
	s.wantEnd(s.end(endsWithin, "--to-port", "5001"), event.EndClosed, event.EndExact, stopped.Add(-2*time.Second), stopped.Add(2*time.Second))
	s.wantEnd(s.end(endsWithin, "--to-port", "5009"), event.EndClosed, event.EndExact, began.Add(-time.Second), began.Add(3*time.Second))
	e := s.end(90*time.Second, "--to-port", "5002")
	s.wantEnd(e, event.EndGone, event.EndBounded, stopped, time.Now())
	if e.Tapwall.Ended.Seen.Before(stopped.Add(-time.Second)) {
		t.Errorf("seen last at %v, and stopped at %v", e.Tapwall.Ended.Seen, stopped)
	}
	for _, to := range []string{s.vm[2].IPv4, s.vm[2].IPv6} {
		s.wantEnd(s.end(90*time.Second, "--to-ip", to, "--protocol", "icmp,ipv6-icmp"), event.EndGone, event.EndBounded, began, time.Now())
	}
	if starts, ends := s.followed("--to-port", "5003"); len(starts) != 1 || len(ends) != 0 {
		t.Errorf("of the one that goes on: %d starts, %d ends", len(starts), len(ends))
	}
	s.lossless(goesOn, "a connection that is looked for")
	text := s.tapwall("observe", "--aggregate", "action", "--since", "5m", "-o", "json")
	if strings.Contains(text, event.ActionEnded) {
		t.Errorf("ends are counted as connections: %s", text)
	}
	s.adds()
}

// adds holds the account of the record to its identity.
func (s *stage) adds() {
	s.t.Helper()
	var st struct {
		Events event.Counters
	}
	must(s.t, json.Unmarshal([]byte(s.tapwall("status", "-o", "json")), &st))
	sum := st.Events.Accepted + st.Events.Pending
	for stage, n := range st.Events.Lost {
		if event.Stage(stage).BeforeAcceptance() {
			sum += n
		}
	}
	if st.Events.Observed != sum || st.Events.Observed == 0 {
		s.t.Errorf("observed %d, and the sum is %d: %+v", st.Events.Observed, sum, st.Events)
	}
}

// A connection that a policy cuts has ended then, whatever the switch still has of it; one that nobody recorded has no end.
func TestEventsConnectionEndCut(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	allow := `
kind: Policy
name: data
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: sql, action: allow, services: [{protocol: tcp, ports: ["5001"]}]}
  - {name: datagrams, action: allow, services: [{protocol: udp, ports: ["5002"]}]}
---
kind: Policy
name: quiet
spec: {appliesTo: [{port: vm3}], record: {connections: none}, ingress: [{name: all, action: allow}]}
`
	s.apply(allow)
	s.pickupClosed()
	tcp, udp := s.echo(s.vm[1], s.vm[2], 5001), s.datagrams(s.vm[1], s.vm[2], 5002, 10*time.Millisecond)
	s.running(tcp, udp)
	s.mustConnect(s.vm[1], s.vm[3].IPv4, 5003)
	time.Sleep(time.Until(time.Now().Add(2 * time.Second)))
	before := time.Now()
	s.apply("kind: Policy\nname: data\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: true}}\n")
	after := time.Now()
	for _, port := range []string{"5001", "5002"} {
		s.wantEnd(s.end(10*time.Second, "--to-port", port), event.EndCut, event.EndExact, before, after.Add(2*time.Second))
	}
	if n := len(s.conntrack("dport=5001")); n == 0 {
		t.Error("the switch has forgotten what was cut, so the test shows nothing")
	}
	_, err := s.Appctl("dpctl/flush-conntrack")
	must(t, err)
	time.Sleep(12 * time.Second)
	if starts, ends := s.followed(); len(starts) != len(ends) {
		t.Errorf("%d starts, %d ends", len(starts), len(ends))
	}
	if starts, _ := s.followed("--to-port", "5003"); len(starts) != 0 {
		t.Errorf("%d connections are recorded that are not to be", len(starts))
	}
	s.adds()
}

// What ended while tapwall did not run is told when it runs again, however it ended; so is what ended with the switch.
func TestEventsConnectionEndRestarts(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.pickupClosed()
	ends, goesOn := s.echo(s.vm[1], s.vm[2], 5001), s.echo(s.vm[1], s.vm[3], 5003)
	s.running(ends, goesOn)
	lab.Eventually(t, 5*time.Second, "both are recorded", func() bool {
		starts, _ := s.followed("--protocol", "tcp")
		return len(starts) == 2
	})
	s.tw.Kill()
	ends.Stop()
	stopped := time.Now()
	must(t, s.tw.Start())
	s.wantEnd(s.end(endsWithin, "--to-port", "5001"), event.EndClosed, event.EndRestarted, stopped.Add(-2*time.Second), time.Now())
	if _, ends := s.followed("--to-port", "5003"); len(ends) != 0 {
		t.Errorf("%d ends of what goes on", len(ends))
	}
	time.Sleep(12 * time.Second) // so that it is seen
	starts, _ := s.followed("--to-port", "5003")
	restarted := time.Now()
	s.KillVswitchd()
	goesOn.Stop()
	must(t, s.StartVswitchd())
	var e *event.Event
	lab.Eventually(t, endsWithin+20*time.Second, "what ended with the switch is told", func() bool {
		_, ends := s.followed("--to-port", "5003") // its last packets may have made another one of it
		for id := range starts {
			e = ends[id]
		}
		return e != nil
	})
	if e.Tapwall.Ended.How == event.EndReplaced {
		e.Tapwall.Ended.How = event.EndGone
	}
	s.wantEnd(e, event.EndGone, event.EndBounded, restarted.Add(-2*time.Second), time.Now())
	s.adds()
}

// Where there are too many connections to look for, that is said, nothing is held up by it, and what ended meanwhile is told when there are
// few again. What is in another zone is told all the time.
func TestEventsConnectionEndBounded(t *testing.T) {
	t.Parallel()
	s := open(t, 4)
	for _, vm := range []string{"vm3", "vm4"} {
		_, err := s.Vsctl("set", "port", vm, "tag=7")
		must(t, err)
	}
	s.pickupClosed()
	beside := s.datagrams(s.vm[1], s.vm[2], 5000, time.Millisecond)
	s.running(beside)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	first := time.Now()
	s.track(1, 3400, 3400, 0xE000)
	_, err := s.Appctl("vlog/set", "unixctl:console:dbg", "PATTERN:console:"+askedAt+"|%c|%m")
	must(t, err)
	_, err = s.Ofctl("del-flows", "br0", "udp,tp_dst=7777")
	must(t, err)
	notices := func(action string) (n int, last string) {
		for line := range strings.Lines(s.tapwall("observe", "--action", action, "-o", "json")) {
			var e event.Event
			if strings.HasPrefix(line, "{") {
				must(t, json.Unmarshal([]byte(line), &e))
				n, last = n+1, e.Tapwall.Notice.Message
			}
		}
		return n, last
	}
	var said string
	lab.Eventually(t, endsWithin, "it is said that ends are not told", func() (ok bool) {
		n, message := notices(event.ActionEndsStopped)
		said = message
		return n == 1
	})
	status := s.tapwall("status")
	for _, words := range []string{"zone 57344 (untagged)", "more than 1000", "20 ms"} {
		if !strings.Contains(said, words) || !strings.Contains(status, words) {
			t.Errorf("without %q: %s\n%s", words, said, status)
		}
	}
	s.mustConnect(s.vm[3], s.vm[4].IPv4, 5001)
	time.Sleep(32 * time.Second)
	s.asked(beside, 57344)
	s.wantEnd(s.end(time.Second, "--from", "vm3", "--to-port", "5001"), event.EndClosed, event.EndExact, first, time.Now())
	if _, ends := s.followed("--from", "vm1", "--to-port", "5001"); len(ends) != 0 {
		t.Error("an end is told that nobody can have looked for")
	}
	if n, _ := notices(event.ActionEndsStopped); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	_, err = s.Appctl("dpctl/flush-conntrack", "zone=57344")
	must(t, err)
	e := s.end(endsWithin, "--from", "vm1", "--to-port", "5001")
	s.wantEnd(e, event.EndGone, event.EndBounded, first, time.Now())
	if e.Tapwall.Ended.Seen.After(first.Add(endsWithin)) {
		t.Errorf("seen at %v", e.Tapwall.Ended.Seen)
	}
	if n, message := notices(event.ActionEndsResumed); n != 1 || !strings.Contains(message, "zone 57344") {
		t.Errorf("%d times: %s", n, message)
	}
	if status := s.tapwall("status"); strings.Contains(status, "are not told") {
		t.Error(status)
	}
	s.adds()
}

// askedAt is how the log of ovs-vswitchd has times in asked.
const askedAt = "%D{%Y-%m-%dT%H:%M:%S.###Z}"

// asked holds what ovs-vswitchd was asked for, by its log, to the bounds: nothing of the zone is written out, packets at 1 kHz are not kept
// for longer than is stated, and there is time between two pieces that are written out.
func (s *stage) asked(beside *lab.Probe, zone int) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "vswitchd.log"))
	must(s.t, err)
	var last time.Time
	kept := map[string]time.Duration{} // the least of several: others on this machine keep packets, too
	times := map[string]int{}
	for line := range strings.Lines(string(text)) {
		at, what, ok := strings.Cut(line, "|unixctl|received request dpctl/")
		when, err := time.Parse(time.RFC3339Nano, at)
		if !ok || err != nil {
			continue
		}
		what, _, _ = strings.Cut(what, "]")
		if strings.HasPrefix(what, "dump-conntrack") {
			if strings.Contains(what, fmt.Sprint("zone=", zone)) {
				s.t.Errorf("asked for too much: %s", line)
			}
			if when.Sub(last) < 15*time.Millisecond {
				s.t.Errorf("written out %v after another time: %s", when.Sub(last), line)
			}
			last = when
		}
		gap := beside.MaxGapIn(when.Add(-2*time.Millisecond), when.Add(50*time.Millisecond))
		if times[what]++; times[what] == 1 || gap < kept[what] {
			kept[what] = gap
		}
	}
	for what, gap := range kept {
		s.t.Logf("%s, %d times: packets are kept for %v at least", what, times[what], gap)
		if gap > stated || times[what] < 3 {
			s.t.Errorf("%s, %d times: packets are kept for %v", what, times[what], gap)
		}
	}
	if len(kept) < 3 {
		s.t.Errorf("asked for %v only", kept)
	}
}
