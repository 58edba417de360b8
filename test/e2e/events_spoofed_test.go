package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// refusals are the events of what SPOOF refused, by rule.
func (s *stage) refusals() map[string][]event.Event {
	s.t.Helper()
	out := map[string][]event.Event{}
	all, order := s.observed("--drop-reason", "SPOOFED", "--all")
	for _, id := range order {
		e := all[id]
		out[e.Rule.ID] = append(out[e.Rule.ID], e)
	}
	return out
}

// TestEventsSpoofed: what an endpoint sends as somebody else, be it by MAC, IP, ARP or neighbour discovery, is an event that says who it
// was, where, and whose address was claimed. What is its own passes, and is recorded as that.
func TestEventsSpoofed(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(guarded(s.vm[1], ""))
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	f := forgery{t, s.vm[1]}
	mac, other, unknown := s.vm[1].MAC, s.vm[3].MAC, "02:00:00:00:0b:ad"
	lla := policy.LinkLocal(mac).String()
	claim := func(protocol, ip, mac string) event.Claim {
		return event.Claim{Protocol: protocol, IP: ip, MAC: ecsMAC(mac)}
	}
	sent := []struct {
		reason  string
		frame   []byte
		ip, mac string // of the source
		claim   event.Claim
		line    string
	}{
		{"spoofed-address", f.udp(mac, s.vm[3].IPv4, 4000, 5000), s.vm[3].IPv4, mac, event.Claim{}, "DENIED (UDP, SPOOFED)"},
		{"spoofed-address", f.udp(mac, s.vm[3].IPv6, 4000, 5000), s.vm[3].IPv6, mac, event.Claim{}, "DENIED (UDP, SPOOFED)"},
		{"spoofed-arp", f.arp(mac, s.vm[3].IPv4), s.vm[3].IPv4, mac, claim("arp", s.vm[3].IPv4, mac), "is at " + ecsMAC(mac)},
		{"spoofed-arp", f.arp(other, s.vm[1].IPv4), s.vm[1].IPv4, mac, claim("arp", s.vm[1].IPv4, other), "is at " + ecsMAC(other)},
		{"spoofed-nd", f.nd(136, lla, s.vm[3].IPv6, mac), lla, mac, claim("nd", s.vm[3].IPv6, mac), "ND: " + s.vm[3].IPv6 + " is at "},
		{"spoofed-nd", f.nd(136, lla, s.vm[1].IPv6, other), lla, mac, claim("nd", s.vm[1].IPv6, other), "is at " + ecsMAC(other)},
		{"rogue-router", f.nd(134, lla, "", mac), lla, mac, event.Claim{}, "ICMPv6 type 134"},
		{"unknown-mac", f.udp(unknown, s.vm[1].IPv4, 4000, 5000), s.vm[1].IPv4, unknown, event.Claim{}, "DENIED (UDP, SPOOFED)"},
		{"unknown-mac", f.arp(unknown, s.vm[1].IPv4), s.vm[1].IPv4, mac, claim("arp", s.vm[1].IPv4, unknown), "is at " + ecsMAC(unknown)},
	}
	last := len(sent) - 1
	copy(sent[last].frame[6:], mustMAC(t, unknown)) // f.arp sends under the endpoint's own
	sent[last].mac = unknown
	own := f.udp(mac, s.vm[1].IPv4, 4000, 5009)
	for i, x := range sent {
		if must(t, s.vm[1].Send(x.frame)); x.reason == "unknown-mac" && i < last {
			// The first is told of so that the address is known; then it has a flow of its own.
			lab.Eventually(t, 5*time.Second, "the address is known", func() bool { return s.warned(s.vm[1].Name)["UNKNOWN_MAC"] == 1 })
			s.revalidated()
		}
	}
	must(t, s.vm[1].Send(own))

	got := map[string][]event.Event{}
	lab.Eventually(t, 5*time.Second, "each is an event", func() bool {
		got = s.refusals()
		n := 0
		for _, of := range got {
			n += len(of)
		}
		return n >= len(sent)
	})
	lines := s.tapwall("observe", "--drop-reason", "SPOOFED", "--all", "--numeric")
	for _, x := range sent {
		of := got["guard/"+x.reason]
		if len(of) == 0 {
			t.Errorf("no event is left for %s from %s", x.reason, x.ip)
			continue
		}
		e := of[0]
		got["guard/"+x.reason] = of[1:]
		var is event.Claim
		if e.Tapwall.Claim != nil {
			is = *e.Tapwall.Claim
		}
		if e.Source == nil || e.Source.IP != x.ip || e.Source.MAC != ecsMAC(x.mac) || is != x.claim || e.Tapwall.Verdict != event.Dropped ||
			e.Event.Reason != event.Spoofed || e.Class() != event.P0 {
			t.Errorf("%s: %+v %+v %+v", x.reason, e.Source, is, e.Event)
		}
		if e.Tapwall.Source == nil || e.Tapwall.Source.Name != s.vm[1].Name || e.Observer.Ingress == nil ||
			e.Observer.Ingress.Interface.Name != "vm1" || e.Tapwall.Bridge != "br0" {
			t.Errorf("%s: who and where: %+v %+v", x.reason, e.Tapwall.Source, e.Observer)
		}
		if !strings.Contains(lines, x.line) {
			t.Errorf("no line of %s says %q:\n%s", x.reason, x.line, lines)
		}
	}
	for rule, of := range got {
		if len(of) > 0 {
			t.Errorf("%d events of %s too many", len(of), rule)
		}
	}
	// What is its own is no such event, and arrives; nothing that was forged does.
	arrived := func(frame []byte) int {
		return len(capture.Frames(func(g lab.Frame) bool { return strings.HasPrefix(string(g.Data), string(frame)) }))
	}
	lab.Eventually(t, 2*time.Second, "its own arrives", func() bool { return arrived(own) == 1 })
	if n := len(s.events("--type", "start", "--from", s.vm[1].Name, "--to-port", "5009", "--all")); n != 1 {
		t.Errorf("%d events of its own", n)
	}
	for _, x := range sent {
		if arrived(x.frame) > 0 {
			t.Errorf("%s from %s arrived", x.reason, x.ip)
		}
	}
}

// TestEventsSpoofedFlood: a flood of forged frames takes away the copies of no connection and of no other deny. What it was is counted:
// by the switch, and as lost from the record.
func TestEventsSpoofedFlood(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(guarded(s.vm[1], "") + "---\nkind: Policy\nname: shut\nspec: {appliesTo: [{port: vm2}], " +
		"ingress: [{name: closed, action: deny, services: [{protocol: tcp, ports: [\"5002\"]}]}], defaultDeny: {ingress: false}}\n")
	f := forgery{t, s.vm[1]}
	const unknown = "02:00:00:00:0b:ad"
	must(t, s.vm[1].Send(f.udp(unknown, s.vm[1].IPv4, 4000, 5000)))
	lab.Eventually(t, 5*time.Second, "the address is known", func() bool { return s.warned(s.vm[1].Name)["UNKNOWN_MAC"] == 1 })
	s.revalidated()
	frames := [][]byte{f.udp(unknown, s.vm[1].IPv4, 4000, 5000),
		f.udp(s.vm[1].MAC, s.vm[3].IPv4, 4000, 5000), f.arp(s.vm[1].MAC, s.vm[3].IPv4)}
	reasons := []string{"unknown-mac", "spoofed-address", "spoofed-arp"}
	before := droppedBy(s, reasons)
	had := len(s.refusals())
	batch := slices.Repeat(frames, 50)
	stop, flooded := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for ; ; n += len(batch) {
			select {
			case <-stop:
				flooded <- n
				return
			case <-time.After(50 * time.Millisecond): // 3,000 a second at most
			}
			if err := s.vm[1].Send(batch...); err != nil {
				t.Error(err)
			}
		}
	}()
	const connections = 30
	for range connections {
		s.mustConnect(s.vm[3], s.vm[2].IPv4, 5001)
		if s.vm[3].CanConnect(s.vm[2].IPv4, 5002, 50*time.Millisecond) {
			t.Fatal("what is shut is open")
		}
	}
	close(stop)
	n := <-flooded
	allowed, denied := 0, 0
	lab.Eventually(t, 5*time.Second, "each connection and each deny is an event", func() bool {
		allowed = len(s.events("--type", "start", "--to-port", "5001", "--all"))
		denied = len(s.events("--verdict", "DROPPED", "--to-port", "5002", "--all"))
		return allowed == connections && denied >= connections
	})
	var counted, told, lost int64
	lab.Eventually(t, 20*time.Second, "each is an event, or lost and counted", func() bool {
		counted, told = int64(droppedBy(s, reasons)-before), -int64(had)
		for _, of := range s.refusals() {
			told += int64(len(of))
		}
		lost = s.record().Lost["packet_in_meter"]
		// A busy machine drops some before they reach the switch.
		return counted >= int64(n)*9/10 && max(told+lost-counted, counted-told-lost) <= counted/100
	})
	t.Logf("%d frames sent, %d refused by the switch; %d events, %d lost; %d connections, %d denies", n, counted, told, lost, allowed,
		denied)
	if told < 50 || lost < 1000 {
		t.Errorf("%d events and %d lost: that was no flood", told, lost)
	}
}

func droppedBy(s *stage, reasons []string) (n float64) {
	for _, r := range reasons {
		n += s.dropped(r)
	}
	return n
}

// ecsMAC is a MAC as ECS spells it.
func ecsMAC(mac string) string { return strings.ToUpper(strings.ReplaceAll(mac, ":", "-")) }
