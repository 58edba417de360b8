package e2e

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// flood sends datagrams from vm1 to vm2 as fast as it can, and returns when the mirror has copied them.
func (s *stage) flood(n int) {
	s.t.Helper()
	c, err := s.vm[1].Dial("udp", s.vm[2].IPv4, 9, time.Second)
	must(s.t, err)
	defer c.Close()
	msg := make([]byte, 1400)
	for i := range n {
		_, _ = c.Write(msg) // vm2 answers that nobody listens
		if i%200 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	time.Sleep(300 * time.Millisecond)
}

// The flight recorder: what came before the event is saved behind it, and not what is older or more than the bounds; also of a mirror that
// has been stopped meanwhile. A reader that follows from before gets each packet once.
func TestMirrorScenario12Buffer(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: flight\nspec: {sources: [{port: vm1}], targets: [{buffer: {duration: 10s, size: 1MB}}]}\n")
	s.becomes("mirror", "flight", policy.PhaseActive, "", "")
	saved := func(query string) string {
		file := filepath.Join(t.TempDir(), "saved.pcapng")
		data, err := io.ReadAll(s.stream("flight" + query))
		must(t, err)
		must(t, os.WriteFile(file, data, 0o600))
		return file
	}
	s.say(s.vm[1], s.vm[2], 40001, 9, "too old")
	time.Sleep(12 * time.Second) // it is looked at every second
	s.say(s.vm[1], s.vm[2], 40002, 9, "before the event")
	follows := s.follow("flight?follow=true&since=1h&duration=2s")
	time.Sleep(100 * time.Millisecond)
	between := time.Now().UTC().Format(time.RFC3339Nano)
	s.say(s.vm[1], s.vm[2], 40003, 9, "the event")
	ports := func(file string) []string {
		return tshark(t, file, "udp && !icmp && udp.dstport == 9", "udp.srcport", "frame.interface_name", "frame.packet_flags_direction")
	}
	lab.Eventually(t, 8*time.Second, "both packets are held", func() bool { return len(ports(saved(""))) == 2 })
	all, since, until := saved(""), saved("?since="+between), saved("?until="+between) // before they are too old
	if got := ports(all); len(got) != 2 || got[0] != "40002\tvm1\t0x00000002" || got[1] != "40003\tvm1\t0x00000002" {
		t.Errorf("saved %q", got)
	}
	if got := ports(since); len(got) != 1 || got[0] != "40003\tvm1\t0x00000002" {
		t.Errorf("from then on: %q", got)
	}
	if got := ports(until); len(got) != 1 || got[0] != "40002\tvm1\t0x00000002" {
		t.Errorf("until then: %q", got)
	}
	follows.ends(5 * time.Second)
	if got := ports(follows.file); len(got) != 2 || got[0] != "40002\tvm1\t0x00000002" || got[1] != "40003\tvm1\t0x00000002" {
		t.Errorf("followed from before: %q", got)
	}

	// It stays when the mirror is stopped, and goes with it.
	s.tapwall("mirror", "stop", "flight", "--wait")
	time.Sleep(10500 * time.Millisecond)
	if got := ports(saved("")); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "40003") {
		t.Errorf("of a stopped mirror: %q", got)
	}
	s.tapwall("mirror", "start", "flight", "--wait")
	before := s.resident()
	var list struct {
		Items []struct{ HeldBytes, HeldPackets, Evicted int }
	}
	lab.Eventually(t, 20*time.Second, "the flood is taken in, and most of it is evicted", func() bool {
		s.flood(2500) // a busy machine loses much of it on the way
		_, body := s.request("GET", "/v1/captures?mirror=flight", "")
		must(t, json.Unmarshal([]byte(body), &list))
		return len(list.Items) == 1 && list.Items[0].Evicted >= 1000
	})
	if c := list.Items[0]; c.HeldBytes > 1_000_000 || c.HeldBytes < 500_000 || c.HeldPackets < 300 {
		t.Errorf("after a flood: %+v", c)
	}
	if got := len(tshark(t, saved(""), "udp.dstport == 9 && !icmp", "frame.number")); got < 300 || got > 720 {
		t.Errorf("%d packets of a flood are saved", got)
	}
	if n := int(s.metric(`tapwall_buffer_held_bytes{mirror="flight"}`)); n > 1_000_000 || n < 500_000 {
		t.Errorf("the metric says that %d bytes are held", n)
	}
	if n := int(s.metric(`tapwall_buffer_evicted_packets_total{mirror="flight"}`)); n < list.Items[0].Evicted {
		t.Errorf("the metric says that %d packets were evicted, want at least %d", n, list.Items[0].Evicted)
	}
	if grown := s.resident() - before; grown > 24<<10 {
		t.Errorf("tapwall grew by %d KiB", grown)
	}
	s.tells("captures-read", "packets of mirror flight of its buffer were read by root")
	s.tapwall("delete", "mirror", "flight", "--wait")
	if code, body := s.request("GET", "/v1/captures/flight", ""); code != 404 {
		t.Errorf("of a mirror that is gone: %d %s", code, body)
	}
	if code, body := s.request("POST", "/v1/apply", `{"kind": "Mirror", "name": "much", "spec": {"sources": [{"port": "vm1"}], "targets": [`+
		`{"buffer": {"size": "16GiB"}}]}}`); code != 409 || !strings.Contains(body, "half of this machine's memory") {
		t.Errorf("a buffer of 16 GiB: %d %s", code, body)
	}
}
