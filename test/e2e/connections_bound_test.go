package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// oneOfMany is the n-th of many, each the first of a connection of its own, to port 7777 of a machine.
func oneOfMany(t *testing.T, from, to *lab.VM, n int) []byte {
	t.Helper()
	src, err := net.ParseMAC(from.MAC)
	must(t, err)
	dst, err := net.ParseMAC(to.MAC)
	must(t, err)
	f := append(append(dst, src...), 8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, byte(n>>16), 1, 10, 77, 0, 2, byte(n>>8), byte(n),
		0x1e, 0x61, 0, 12, 0, 0, 1, 2, 3, 4)
	sum := uint32(0) // RFC 791; UDP goes without (RFC 768)
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(f[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(f[24:], ^uint16(sum+sum>>16))
	return f
}

// track adds n connections to those of a zone, from number first on, by a flow of somebody else; afterwards it has want or more.
func (s *stage) track(first, n, want, zone int) {
	s.t.Helper()
	_, err := s.Ofctl("add-flow", "br0", fmt.Sprintf("priority=10,udp,tp_dst=7777,actions=ct(commit,zone=%d)", zone))
	must(s.t, err)
	count := func() int {
		out, err := s.Appctl("dpctl/ct-stats-show", fmt.Sprintf("zone=%d", zone))
		must(s.t, err)
		_, total, _ := strings.Cut(out, "Total:")
		total, _, _ = strings.Cut(total, "\n")
		got, err := strconv.Atoi(strings.TrimSpace(total))
		must(s.t, err)
		return got
	}
	start := time.Now()
	for count() < want { // a burst may be too long for the switch; what it lost is sent again
		if time.Since(start) > time.Minute {
			s.t.Fatalf("%d of %d connections in zone %d", count(), want, zone)
		}
		for sent := 0; sent < n; {
			var burst [][]byte
			for ; len(burst) < 100 && sent < n; sent++ {
				burst = append(burst, oneOfMany(s.t, s.vm[1], s.vm[2], first+sent))
			}
			must(s.t, s.vm[1].Send(burst...))
			time.Sleep(time.Millisecond)
		}
	}
}

// ask asks the API, without a process of its own.
func (s *stage) ask(method, path string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://tapwall"+path, nil)
	must(s.t, err)
	resp, err := s.HTTP(0).Do(req)
	must(s.t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	must(s.t, err)
}

// stated is how long a listing may keep packets, by docs/policies.md.
const stated = 20 * time.Millisecond

// keptBy is the least of several of how long packets at 1 kHz were kept while f ran: others on this machine keep them, too.
func (s *stage) keptBy(p *lab.Probe, f func()) time.Duration {
	s.t.Helper()
	least := time.Hour
	for range 10 {
		since := time.Now()
		f()
		until := time.Now()
		lab.Eventually(s.t, 5*time.Second, "packets come again", func() bool { return p.ReceivedSince(until) > 3 })
		least = min(least, p.MaxGap(since))
	}
	return least
}

// What would keep packets for longer than is stated is refused with the figures, by zone; what is asked for all the same is there.
func TestConnectionsBounded(t *testing.T) {
	t.Parallel()
	s := open(t, 4)
	for _, vm := range []string{"vm3", "vm4"} {
		_, err := s.Vsctl("set", "port", vm, "tag=7")
		must(t, err)
	}
	s.pickupClosed()
	beside := s.datagrams(s.vm[1], s.vm[2], 5000, time.Millisecond)
	seven := s.datagrams(s.vm[3], s.vm[4], 5000, 10*time.Millisecond)
	s.running(beside, seven)

	s.track(1, 900, 900, 0xE000)
	if n := len(s.listed()); n < 900 {
		t.Errorf("%d connections are listed of 900 and more", n)
	}
	nothing := s.keptBy(beside, func() { s.ask("GET", "/v1/groups") })
	t.Logf("packets are kept for %v by nothing, and for %v by a listing of 900 connections", nothing,
		s.keptBy(beside, func() { s.ask("GET", "/v1/connections") }))

	s.track(0x10001, 2500, 3400, 0xE000)
	out := s.refused("", "connections", "--vlan", "0")
	for _, words := range []string{"zone 57344 (untagged)", "more than 1000", "20 ms", "--force"} {
		if !strings.Contains(out, words) {
			t.Errorf("without %q: %s", words, out)
		}
	}
	if got := s.listed("--endpoint", "vm4"); len(got) != 1 || *got[0].VLAN != 7 || got[0].Source.Endpoint != "vm3" {
		t.Errorf("in VLAN 7: %+v", got)
	}
	if got := s.tapwall("connections", "--limit", "5"); !strings.Contains(got, "vm4") || !strings.Contains(got, "zone 57344") {
		t.Errorf("what can be listed beside what cannot: %s", got)
	}
	if n := len(s.listed("--force", "--limit", "10000")); n < 3400 {
		t.Errorf("%d connections are listed by force", n)
	}
	for what, f := range map[string]func(){
		"a refusal":           func() { s.ask("GET", "/v1/connections?vlan=0") },
		"a VLAN beside it":    func() { s.ask("GET", "/v1/connections?vlan=7") },
		"a kill in that VLAN": func() { s.ask("DELETE", "/v1/connections?vlan=7&port=1") },
	} {
		if kept := s.keptBy(beside, f); kept > stated {
			t.Errorf("3,400 connections, %s: packets are kept for %v", what, kept)
		} else {
			t.Logf("3,400 connections, %s: packets are kept for %v", what, kept)
		}
	}

	s.track(0x20001, 45_000, 45_000, 1)
	for what, flags := range map[string][]string{"all": nil, "a VLAN": {"--vlan", "7"}} {
		if out := s.refused("", append([]string{"connections"}, flags...)...); !strings.Contains(out, "more than 40000") {
			t.Errorf("%s: %s", what, out)
		}
	}
	if kept := s.keptBy(beside, func() { s.ask("GET", "/v1/connections") }); kept > stated {
		t.Errorf("48,000 connections, a refusal: packets are kept for %v", kept)
	}
	since := time.Now()
	if got := s.listed("--vlan", "7", "--force"); len(got) != 1 {
		t.Errorf("in VLAN 7, by force: %+v", got)
	}
	until := time.Now()
	lab.Eventually(t, 5*time.Second, "packets come again", func() bool { return beside.ReceivedSince(until) > 3 })
	t.Logf("48,000 connections, a VLAN by force: packets are kept for %v", beside.MaxGap(since))
	lab.Eventually(t, endsWithin, "the status says that ends are not told", func() bool {
		text, _ := s.tw.Run("status")
		return strings.Contains(text, "ends of connections are not told: the datapath has") && strings.Contains(text, "more than 40000")
	})
}
