package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// Scenario 19: a flood of SYNs fills the conntrack zone of its VLAN up to the limit. Established connections there lose nothing, others
// begin in other zones, an alarm tells of it, and when the half-open connections are forgotten, which a timeout policy has happen soon,
// all is as before. Limits come back after a restart of the switch and go when they are configured no more; those of others stay.
func TestFirewallScenario19SYNFlood(t *testing.T) {
	t.Parallel()
	// Open vSwitch 3.1 forgets a connection in time, and counts it in its zone until it sweeps, which it does every 20 s.
	const limit, synSent, sweep = 1000, 3, 20
	config := filepath.Join(t.TempDir(), "tapwall.yaml")
	must(t, os.WriteFile(config, []byte(sprintf("limits:\n  connections-per-zone: %d\n  timeouts: {tcp_syn_sent: %d}\n", limit, synSent)),
		0o600))
	s := open(t, 5, "--config", config, "--pickup-window", "300ms")
	for _, vm := range s.vm[4:6] {
		_, err := s.Vsctl("set", "port", vm.Port, "tag=10")
		must(t, err)
	}
	limits := func() string {
		out, err := s.Appctl("dpctl/ct-get-limits", "netdev@ovs-netdev")
		if err != nil {
			return "" // the switch is starting
		}
		return out
	}
	_, err := s.Appctl("dpctl/ct-set-limits", "netdev@ovs-netdev", "zone=5,limit=77")
	must(t, err)
	limited := func() bool {
		return strings.Contains(limits(), "zone=57344,limit=1000") && strings.Contains(limits(), "zone=57354,limit=1000")
	}
	lab.Eventually(t, 5*time.Second, "both zones have the limit", limited)
	policies := func() string {
		out, err := s.Vsctl("list-zone-tp", "netdev")
		if err != nil {
			return "" // the datapath has no row when nothing is wanted of it
		}
		return out
	}
	lab.Eventually(t, 5*time.Second, "both zones have the timeout", func() bool { return strings.Count(policies(), "tcp_syn_sent=3") == 2 })
	s.pickupClosed()

	tcp, udp, push := s.echo(s.vm[1], s.vm[2], 5001), s.datagrams(s.vm[3], s.vm[2], 5002, 10*time.Millisecond), s.push(s.vm[3], s.vm[2], 5003)
	s.running(tcp, udp, push)
	frames := make([][]byte, 5000)
	for i := range frames {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(s.vm[1].IPv4),
			DstIP: net.ParseIP("10.77.0.99")}
		frames[i], err = lab.CraftFrame(s.vm[1].MAC, s.vm[2].MAC, layers.EthernetTypeIPv4, ip, &layers.TCP{SrcPort: layers.TCPPort(10000 + i),
			DstPort: 80, SYN: true, Seq: 1, Window: 1024})
		must(t, err)
	}
	alarms := func() map[string]bool {
		var st struct {
			Hosts []struct{ Warnings []struct{ Code string } }
		}
		must(t, json.Unmarshal([]byte(s.tapwall("status", "-o", "json")), &st))
		out := map[string]bool{}
		for _, w := range st.Hosts[0].Warnings {
			out[w.Code] = true
		}
		return out
	}
	began := time.Now()
	refused := false
	for i := 0; i < len(frames); i += 100 { // some seconds, so that the zone stays full meanwhile
		must(t, s.vm[1].Send(frames[i:i+100]...))
		if i == 2500 {
			refused = !s.vm[3].CanConnect(s.vm[2].IPv4, 5001, 300*time.Millisecond)
			s.mustConnect(s.vm[4], s.vm[5].IPv4, 5001)
		}
		time.Sleep(20 * time.Millisecond)
	}
	ended := time.Now()
	took := lab.Eventually(t, 5*time.Second-min(4*time.Second, time.Since(began)), "the alarm tells of the full zone",
		func() bool { return alarms()["CT_ZONE_FULL"] })
	t.Logf("flood of %v; alarm %v after it", ended.Sub(began), took)
	if !refused {
		t.Error("a new connection began in the full zone")
	}
	if n := len(s.events("--last", "20", "--action", "ct-zone-full")); n != 1 {
		t.Errorf("%d events tell of the full zone", n)
	}
	lab.Eventually(t, (synSent+sweep+5)*time.Second-time.Since(ended), "new connections begin again", func() bool {
		return s.vm[3].CanConnect(s.vm[2].IPv4, 5001, 300*time.Millisecond)
	})
	s.lossless(tcp, "an established connection of the flooder")
	s.lossless(udp, "established datagrams of another")
	if push.Err() != nil || push.MaxGap(began) > time.Second+lab.Late(began) {
		t.Errorf("an established stream stood still for %v: %v", push.MaxGap(began), push.Err())
	}
	lab.Eventually(t, 10*time.Second, "the alarm goes", func() bool { a := alarms(); return !a["CT_ZONE_FULL"] && !a["CT_ZONE_NEAR_FULL"] })

	s.KillVswitchd()
	must(t, s.StartVswitchd())
	lab.Eventually(t, 10*time.Second, "a restarted switch has the limits again", limited)
	_, err = s.Appctl("dpctl/ct-set-limits", "netdev@ovs-netdev", "zone=5,limit=77", "zone=57345,limit=78")
	must(t, err)
	must(t, s.tw.Stop())
	s.tw, err = s.StartTapwall("--bridge", "br0=owned")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "limits and timeouts are gone when they are not configured", func() bool {
		return !strings.Contains(limits(), "limit=1000") && !strings.Contains(policies(), "tcp_syn_sent")
	})
	if got := limits(); !strings.Contains(got, "zone=5,limit=77") || !strings.Contains(got, "zone=57345,limit=78") {
		t.Errorf("limits of others are gone: %s", got)
	}
}
