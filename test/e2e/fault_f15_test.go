package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// scrape reads /metrics: values by series, such as name{label="value"}.
func (s *stage) scrape() (map[string]float64, error) {
	resp, err := s.HTTP(10 * time.Second).Get("http://tapwall/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %w", resp.Status, err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if out[line[:i]], err = strconv.ParseFloat(strings.TrimSpace(line[i:]), 64); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// watch scrapes all the time and fails when a counter goes back. The function that it returns ends it and gives the last values.
func (s *stage) watch() (end func() map[string]float64) {
	s.t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	last := map[string]float64{}
	look := func() {
		now, err := s.scrape()
		if err != nil {
			s.t.Errorf("scrape: %v", err)
			return
		}
		for series, v := range now {
			if name, _, _ := strings.Cut(series, "{"); strings.HasPrefix(name, "tapwall_") && strings.HasSuffix(name, "_total") && v < last[series] {
				s.t.Errorf("%s went from %v back to %v", series, last[series], v)
			}
			last[series] = v
		}
	}
	wg.Go(func() {
		for {
			look()
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	var once sync.Once
	end = func() map[string]float64 {
		once.Do(func() { close(stop) })
		wg.Wait()
		time.Sleep(600 * time.Millisecond) // older figures are shown again
		look()
		return last
	}
	s.t.Cleanup(func() { once.Do(func() { close(stop) }); wg.Wait() })
	return end
}

// counted is what the status of a policy says.
type counted struct {
	rules    map[string]uint64
	counters map[string]int64
}

func (s *stage) counted(policy string) counted {
	s.t.Helper()
	var doc struct {
		Status struct {
			Hosts []struct {
				Rules    []rule
				Counters map[string]int64
			}
		}
	}
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", "policy", policy, "-o", "json")), &doc))
	c := counted{map[string]uint64{}, map[string]int64{}}
	for _, h := range doc.Status.Hosts {
		for _, r := range h.Rules {
			c.rules[r.Name] += r.Packets
		}
		for k, v := range h.Counters {
			c.counters[k] += v
		}
	}
	return c
}

// stable waits until two looks that are further apart than the switch's rounds of counting agree, and returns what they see.
func (s *stage) stable(policy string) counted {
	s.t.Helper()
	var c counted
	last := ""
	lab.Eventually(s.t, 15*time.Second, "the counters of "+policy+" come to rest", func() bool {
		time.Sleep(700 * time.Millisecond)
		c = s.counted(policy)
		now := fmt.Sprint(c)
		same := now == last
		last = now
		return same
	})
	return c
}

// lostCopies is how many copies tapwall says were lost, other than in the meter.
func (s *stage) lostCopies() int64 {
	s.t.Helper()
	var st struct {
		Events struct{ Lost map[string]int64 }
	}
	out, err := s.tw.Run("status", "-o", "json")
	if jerr := json.Unmarshal([]byte(out), &st); jerr != nil {
		s.t.Fatalf("status: %v %v", err, jerr)
	}
	return st.Events.Lost["switch_queue"]
}

// F15: a rule that gets a new id again and again under traffic never counts back, and its packets are all there, under its name or
// nobody's.
func TestFault_F15_RenewalKeepsCounting(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	renewed := func(i int) {
		s.apply(fmt.Sprintf(`
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: stream, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5001", "600%d"]}]}
`, i))
	}
	renewed(0)
	end := s.watch()
	stream := s.datagrams(s.vm[1], s.vm[2], 5001, 2*time.Millisecond)
	s.running(stream)
	ids := map[uint32]bool{}
	for i := range 6 {
		time.Sleep(400 * time.Millisecond)
		renewed(i + 1)
		ids[s.rule("p", "stream").ID] = true
	}
	if len(ids) != 6 {
		t.Fatalf("the rule had the ids %v: it was not renewed", ids)
	}
	// However long the caches took to follow each change, what comes behind the last is the rule's.
	nobody := int64(-1)
	lab.Eventually(t, 15*time.Second, "nobody's packets come to an end", func() bool {
		time.Sleep(700 * time.Millisecond)
		last := nobody
		nobody = s.counted("p").counters["unattributedIngressPackets"]
		return nobody == last
	})
	before, from := s.counted("p").rules["stream"], stream.Sent()+stream.Received()
	time.Sleep(time.Second)
	s.lossless(stream, "an allowed stream")
	stream.Stop()
	c := s.stable("p")
	end()
	if got, want := c.rules["stream"]-before, uint64(stream.Sent()+stream.Received()-from); got < want*8/10 ||
		c.counters["unattributedIngressPackets"] != nobody {
		t.Errorf("of %d packets behind the changes %d are the rule's, and nobody's went from %d to %d", want, got, nobody,
			c.counters["unattributedIngressPackets"])
	}
	// Datagrams and answers; a few more than the probe knows of, because some are on their way as it stops.
	all, rule, unattributed := uint64(stream.Sent()+stream.Received()), c.rules["stream"], uint64(c.counters["unattributedIngressPackets"])
	t.Logf("%d packets: %d of the rule, %d unattributed", all, rule, unattributed)
	if rule+unattributed > all+all/100 || rule+unattributed < all*9/10 {
		t.Errorf("of %d packets %d are the rule's and %d nobody's", all, rule, unattributed)
	}
	if c.counters["defaultDenyIngressPackets"] != 0 {
		t.Errorf("nothing was denied: %v", c.counters)
	}
}

// F15: a new deny does not inherit what the cached flows before it had delivered, neither as denied nor as lost; what comes once the
// caches have followed it counts exactly. The same for the default deny of a policy that allows what was there.
func TestFault_F15_NewDenyCountsWhatItDenies(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	streams := map[string]*lab.Probe{"v4": s.datagrams(s.vm[1], s.vm[2], 5001, 2*time.Millisecond)}
	v6, err := s.vm[1].EchoUDP(s.vm[2].IPv6, 5001, 2*time.Millisecond)
	must(t, err)
	t.Cleanup(v6.Stop)
	streams["v6"] = v6
	other := s.datagrams(s.vm[1], s.vm[3], 5001, 2*time.Millisecond)
	lab.Eventually(t, 10*time.Second, "traffic flows", func() bool {
		return v6.Received() > 200 && streams["v4"].Received() > 200 &&
			other.Received() > 200
	})
	end := s.watch()

	// Delivered before and after: nothing is denied.
	s.apply(`
kind: Policy
name: fresh
spec:
  appliesTo: [{port: vm3}]
  ingress: [{name: stream, action: allow, services: [{protocol: udp, ports: ["5001"]}], log: true}]
  egress: [{name: out, action: allow, log: true}]
  defaultDeny: {ingress: true, egress: true, log: true}
`)
	// Delivered before, denied behind it.
	s.apply(`
kind: Policy
name: closed
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: stream, action: deny, services: [{protocol: udp, ports: ["5001"]}], log: true}]
`)
	time.Sleep(time.Second)
	sent, received := int64(0), int64(0)
	for _, p := range streams {
		p.Stop()
		sent, received = sent+p.Sent(), received+p.Received()
	}
	c := s.stable("closed")
	denied, unattributed := int64(c.rules["stream"]), c.counters["unattributedIngressPackets"]
	t.Logf("%d sent, %d answered, %d denied, %d unattributed", sent, received, denied, unattributed)
	if denied > sent-received {
		t.Errorf("%d denied where at most %d were", denied, sent-received)
	}
	// An answer or two may have been on their way; what a busy machine drops before the switch is in neither figure.
	if all := received + denied + unattributed; all < sent*95/100 {
		t.Errorf("%d answered, %d denied and %d unattributed do not make up %d sent", received, denied, unattributed, sent)
	}
	if denied == 0 {
		t.Error("what was denied for a second is not counted")
	}
	if n := c.counters["defaultDenyIngressPackets"]; n != 0 {
		t.Errorf("the default deny counts %d packets that it did not see", n)
	}

	// Exact from here on.
	one, err := s.vm[1].Dial("udp", s.vm[2].IPv4, 5001, time.Second)
	must(t, err)
	defer one.Close()
	for range 50 {
		_, err := one.Write([]byte("denied"))
		must(t, err)
	}
	lab.Eventually(t, 10*time.Second, "exactly the 50 denied packets are counted",
		func() bool { return int64(s.counted("closed").rules["stream"]) == denied+50 })
	if now := s.stable("closed"); int64(now.rules["stream"]) != denied+50 || now.counters["unattributedIngressPackets"] != unattributed {
		t.Errorf("50 more were denied: %v, before %v", now, c)
	}

	s.lossless(other, "an allowed stream")
	other.Stop()
	f := s.stable("fresh")
	if f.counters["defaultDenyIngressPackets"] != 0 || f.counters["defaultDenyEgressPackets"] != 0 {
		t.Errorf("a policy that denied nothing counts %v", f.counters)
	}
	if f.rules["stream"] == 0 {
		t.Error("the rule of the fresh policy counts nothing")
	}
	if n := s.lostCopies(); n != 0 {
		t.Errorf("%d copies are told lost, none was", n)
	}
	end()
}

// F15: wiped flows, a restarted switch, a bridge made anew at once or after a pause, a rule made anew: no counter goes back, and all go
// on counting.
func TestFault_F15_SwitchBeginsAnew(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--events-per-second", "10000")
	const policy = `
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: good, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5001"]}]}
  - {name: bad, action: deny, services: [{protocol: udp, ports: ["5002"]}], log: true}
`
	s.apply(policy)
	// Until tapwall has set the fail mode of a bridge that is made anew, the switch forwards by itself. An answer to what came through then
	// must not open a connection of its own, of which all further datagrams would be replies.
	s.apply("kind: Policy\nname: sender\nspec: {appliesTo: [{port: vm1}], defaultDeny: {ingress: true}}")
	s.datagrams(s.vm[1], s.vm[2], 5001, 5*time.Millisecond)
	s.datagrams(s.vm[1], s.vm[2], 5002, 5*time.Millisecond) // denied by the rule
	s.datagrams(s.vm[1], s.vm[2], 5003, 5*time.Millisecond) // denied by default
	const (
		good    = `tapwall_rule_packets_total{direction="ingress",policy="p",rule="good"}`
		bad     = `tapwall_rule_packets_total{direction="ingress",policy="p",rule="bad"}`
		dropped = `tapwall_dropped_packets_total{bridge="br0",reason="ingress-policy"}`
	)
	end := s.watch()
	grows := func(after string) {
		t.Helper()
		var first map[string]float64
		var denied int64
		lab.Eventually(t, 30*time.Second, "everything counts on after "+after, func() bool {
			now, err := s.scrape()
			if err != nil {
				return false
			}
			out, err := s.tw.Run("get", "policy", "p", "-o", "json")
			if err != nil || !strings.Contains(out, "defaultDenyIngressPackets") {
				return false
			}
			d := s.counted("p").counters["defaultDenyIngressPackets"]
			if _, there := now[bad]; !there || d == 0 {
				return false
			}
			if first == nil {
				first, denied = now, d
			}
			if d < denied {
				t.Errorf("defaultDenyIngressPackets went from %d back to %d", denied, d)
			}
			time.Sleep(100 * time.Millisecond)
			return now[good] > first[good] && now[bad] > first[bad] && now[dropped] > first[dropped] && d > denied
		})
	}
	grows("the start")
	_, err := s.Ofctl("del-flows", "br0")
	must(t, err)
	grows("a wipe")
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	grows("a restart of the switch")

	again := []string{"--", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"}
	for _, vm := range s.vm[1:] {
		again = append(again, "--", "add-port", "br0", vm.Port, "--", "set", "interface", vm.Port, "external_ids:iface-id=if-"+vm.Port,
			`external_ids:attached-mac="`+vm.MAC+`"`)
	}
	before := s.lostCopies()
	_, err = s.Vsctl(append([]string{"--", "del-br", "br0"}, again...)...)
	must(t, err)
	grows("a bridge made anew in one transaction")
	_, err = s.Vsctl("del-br", "br0")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "the bridge is gone", func() bool { _, there := s.tryHealth(); return !there })
	_, err = s.Vsctl(again...)
	must(t, err)
	grows("a bridge that was away")
	s.tapwall("delete", "policy", "p")
	s.apply(policy)
	grows("a policy made anew")
	time.Sleep(4 * time.Second) // losses are told when they have lasted for some readings
	if n := s.lostCopies() - before; n > 9 {
		t.Errorf("%d copies are told lost; a bridge goes with the few that are on their way", n)
	}
	end()
}
