package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// verdict is the part of an event that these tests look at.
type verdict struct {
	Timestamp time.Time `json:"@timestamp"`
	Event     struct{ ID, Action, Kind, Reason string }
	Source    struct {
		IP   string
		Port int
	}
	Destination struct {
		IP   string
		Port int
	}
	Network struct{ Transport string }
	Rule    struct{ ID, Name, Ruleset string }
	Tapwall struct {
		Verdict     string
		Direction   string
		Source      struct{ Name string }
		Destination struct{ Name string }
		EgressRule  struct{ ID string } `json:"egress_rule"`
		IngressRule struct{ ID string } `json:"ingress_rule"`
		Decode      struct{ Status string }
		Loss        struct {
			Stage string
			Count int64
		}
	}
}

func (s *stage) events(flags ...string) []verdict {
	s.t.Helper()
	var out []verdict
	for line := range strings.Lines(s.tapwall(append([]string{"observe", "-o", "json"}, flags...)...)) {
		if !strings.HasPrefix(line, "{") {
			continue // the coverage header
		}
		var v verdict
		must(s.t, json.Unmarshal([]byte(line), &v))
		out = append(out, v)
	}
	return out
}

const loggedPolicy = `
kind: Policy
name: web
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: http, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}], ` +
	`log: true}
  - {name: no-telnet, action: deny, services: [{protocol: tcp, ports: ["5002"]}], log: true}
  defaultDeny: {ingress: true, log: true}
`

// Each logged verdict is an event that names rule, policy and endpoints; one connection is one event; the file holds the same documents.
func TestRecordVerdicts(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.apply(loggedPolicy)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv6, 5001)
	udp := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(udp)
	want := map[string]int{"FORWARDED http vm1 tcp": 1, "DROPPED no-telnet vm1 tcp": 1, "DROPPED default-deny vm3 tcp": 1,
		"FORWARDED http vm1 udp": 1}
	got := map[string]int{}
	lab.Eventually(t, 8*time.Second, "all verdicts are recorded", func() bool {
		got = map[string]int{}
		for _, v := range s.events("--last", "100", "--action", "policy-verdict") {
			got[v.Tapwall.Verdict+" "+v.Rule.Name+" "+v.Tapwall.Source.Name+" "+v.Network.Transport]++
			if v.Rule.Ruleset != "web" || v.Tapwall.Direction != "ingress" || v.Tapwall.Decode.Status != "ok" ||
				v.Tapwall.Destination.Name != "vm2" {
				t.Fatalf("event %+v", v)
			}
		}
		return len(got) >= len(want)
	})
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%d events %q, want %d (all: %v)", got[k], k, n, got)
		}
	}
	if n := len(s.events("--last", "100", "--verdict", "DROPPED")); n != 2 {
		t.Errorf("--verdict DROPPED gives %d events", n)
	}
	compact := s.tapwall("observe", "--last", "100")
	for _, part := range []string{"web/", "no-telnet", "DENIED", "ALLOWED", "10.77.0.1", "->"} {
		if !strings.Contains(compact, part) {
			t.Errorf("the compact form lacks %q:\n%s", part, compact)
		}
	}
	lab.Eventually(t, 8*time.Second, "the file has the same documents", func() bool {
		b, err := os.ReadFile(filepath.Join(s.Dir, "data", "events", "events.jsonl"))
		return err == nil && strings.Count(string(b), "\n") >= 4 && strings.Contains(string(b), `"no-telnet"`)
	})
}

// Scenario 18 of the firewall: a flood of denied packets neither hurts a logged allow, nor goes uncounted, nor fills the memory, and
// what is recorded of it says who, with whom and why.
func TestFirewallScenario18LogFlood(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--events-per-second", "50")
	s.apply(strings.Replace(loggedPolicy, "protocol: tcp, ports: [\"5002\"]", "protocol: udp, ports: [\"5002\"]", 1))
	good := s.datagrams(s.vm[1], s.vm[2], 5001, time.Millisecond)
	s.running(good)
	resident := s.resident()
	began := time.Now()
	flood := s.datagrams(s.vm[1], s.vm[2], 5002, 500*time.Microsecond)
	// The truth is what the logging flow counts: a busy machine drops datagrams before they reach the switch.
	denies := func() int64 { return int64(s.packets("table=209", "priority=380")) }
	lab.Eventually(t, 30*time.Second, "a flood has reached the switch", func() bool { return denies() >= 2000 })
	flood.Stop()
	s.lossless(good, "the logged and allowed stream")
	var st struct {
		Events struct {
			Observed, Accepted int64
			Lost               map[string]int64
		}
	}
	s.revalidated()
	denied := denies()
	lab.Eventually(t, 15*time.Second, "every copy that the meter withheld is counted", func() bool {
		must(t, json.Unmarshal([]byte(s.tapwall("status", "-o", "json")), &st))
		return st.Events.Accepted+st.Events.Lost["packet_in_meter"] >= denied
	})
	// The meter has a burst of twice its rate, and as much again when it was made.
	if n, most := st.Events.Accepted, 50*(time.Since(began).Seconds()+4); float64(n) > most || n == 0 {
		t.Errorf("%d events were accepted in %v at 50 per second", n, time.Since(began))
	}
	if grown := s.resident() - resident; grown > 16<<10 {
		t.Errorf("the process grew by %d KiB", grown)
	}
	told := s.events("--last", "1000", "--verdict", "DROPPED")
	for _, v := range told {
		if v.Rule.ID != "web/ingress/no-telnet" || v.Tapwall.Source.Name != "vm1" || v.Tapwall.Destination.Name != "vm2" ||
			v.Source.IP != s.vm[1].IPv4 || v.Source.Port == 0 || v.Destination.IP != s.vm[2].IPv4 || v.Destination.Port != 5002 {
			t.Fatalf("an event lacks rule, endpoints or tuple: %+v", v)
		}
	}
	if len(told) < 50 {
		t.Errorf("%d events tell of the flood", len(told))
	}
	lost := int64(0)
	for _, n := range st.Events.Lost {
		lost += n
	}
	if st.Events.Observed != st.Events.Accepted+lost {
		t.Errorf("observed %d is not accepted %d + lost %d", st.Events.Observed, st.Events.Accepted, lost)
	}
	t.Logf("flood of %d, %d of them at the switch: %d events, %v lost", flood.Sent(), denied, st.Events.Accepted, st.Events.Lost)
	var told2 int64
	last := map[string]time.Time{}
	for _, v := range s.events("--last", "1000", "--action", "events-lost") {
		told2 += v.Tapwall.Loss.Count
		about := v.Tapwall.Loss.Stage + " " + v.Event.Reason
		if since := v.Timestamp.Sub(last[about]); since < 900*time.Millisecond {
			t.Errorf("the loss %s is told of again after %v", about, since)
		}
		last[about] = v.Timestamp
	}
	if told2 == 0 {
		t.Error("no event tells of the loss")
	}
}

// The four frames that end or hang a process that decodes carelessly, sent live through a rule that copies them to the controller.
func TestRecordMaliciousFrames(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(`
kind: Policy
name: all
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: everything, action: deny, log: true}]
`)
	pid := s.tw.Pid()
	frames := s.vm[1].MaliciousFrames(s.vm[2])
	for range 20 {
		for _, f := range frames {
			must(t, s.vm[1].Send(f))
		}
	}
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	lab.Eventually(t, 5*time.Second, "the next good frame is recorded", func() bool {
		for _, v := range s.events("--last", "200") {
			if v.Network.Transport == "tcp" && v.Rule.Name == "everything" {
				return true
			}
		}
		return false
	})
	if s.tw.Pid() != pid {
		t.Error("the process was restarted")
	}
}

// The stream gives new events, and after a reconnect the ones missed, once each.
func TestRecordFollow(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(loggedPolicy)
	out := filepath.Join(s.Dir, "follow.log")
	follow, err := s.Spawn("follow", "sh", "-c", "exec env TAPWALL_SERVER=unix:"+s.Socket()+" "+s.tw.Bin+" observe -f --last 0 -o json > "+out)
	must(t, err)
	lab.Eventually(t, 10*time.Second, "the follower follows", func() bool { return s.metric("tapwall_stream_clients") == 1 })
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	var followed string
	took := lab.Eventually(t, 2*time.Second, "the follower prints the verdict", func() bool {
		b, err := os.ReadFile(out)
		followed = string(b)
		return err == nil && strings.Contains(followed, "no-telnet")
	})
	t.Logf("followed within %v of the connection's end", took)
	lab.Kill(follow)
}

// resident is the memory of the process that is in use, in KiB.
func (s *stage) resident() int {
	s.t.Helper()
	b, err := os.ReadFile(sprintf("/proc/%d/status", s.tw.Pid()))
	must(s.t, err)
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	must(s.t, err)
	return n
}
