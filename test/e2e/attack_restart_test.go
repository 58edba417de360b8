package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// earlier is the binary of a version that did not write the ends of connections.
func earlier(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("TAPWALL_BEFORE")
	if bin == "" {
		t.Skip("TAPWALL_BEFORE names no binary of an earlier version")
	}
	return bin
}

// An upgrade with live connections: what is allowed goes on, what is revoked afterwards dies, and the way back wedges nothing.
func TestAttackUpgradeAndBack(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	before := earlier(t)
	must(t, s.tw.Stop())
	must(t, os.RemoveAll(s.tw.DataDir()))
	_, err := s.Ofctl("del-flows", "br0")
	must(t, err)
	_, err = s.Appctl("dpctl/flush-conntrack")
	must(t, err)
	flags := []string{"--bridge", "br0=owned", "--pickup-window", "1s"}
	old, err := s.StartTapwallFrom(before, flags...)
	must(t, err)
	s.tw = old
	policies := func(port string) string {
		return allowPorts("p", "vm2", "vm1", port) + "---" + allowPorts("kept", "vm3", "vm2", "5005")
	}
	apply := func(docs string) {
		t.Helper()
		if out, err := s.tw.RunInput(docs, "apply", "--wait", "-f", "-"); err != nil {
			t.Fatal(out, err)
		}
	}
	apply(policies("5001"))
	s.pickupClosed()
	doomed, kept := s.everyWay(s.vm[1], s.vm[2], 5001), s.everyWay(s.vm[2], s.vm[3], 5005)
	answers := s.onlyAnswers(s.vm[3], s.vm[1], s.vm[1].IPv4)
	lab.Eventually(t, 3*time.Second, "answers come", func() bool { return answers.got.Load() > 50 })
	go_on := func(what string, trs ...traffic) {
		t.Helper()
		at := time.Now()
		for _, tr := range trs {
			for name, p := range tr.probes {
				lab.Eventually(t, 5*time.Second, what+": "+name+" goes on", func() bool { return p.ReceivedSince(at) > 20 })
			}
		}
	}
	must(t, s.tw.Stop())
	s.tw, err = s.StartTapwall(flags...)
	must(t, err)
	go_on("upgraded", doomed, kept)
	got := answers.got.Load()
	lab.Eventually(t, 5*time.Second, "answers alone go on", func() bool { return answers.got.Load() > got+50 })
	for _, e := range s.conntrack("dport=500") {
		if i := strings.Index(e.text, "labels=0x"); i < 0 || len(strings.SplitN(e.text[i+9:], ",", 2)[0]) < 17 {
			t.Errorf("not stamped: %s", e.text)
		}
	}
	must(t, s.tw.Stop())
	s.tw = old
	must(t, s.tw.Start())
	go_on("downgraded", doomed, kept)
	opened := s.everyWay(s.vm[2], s.vm[3], 5005)
	must(t, s.tw.Stop())
	s.tw, err = s.StartTapwall(flags...)
	must(t, err)
	go_on("upgraded again", doomed, kept, opened)
	cut := time.Now()
	apply(policies("5002"))
	for name, p := range doomed.probes {
		s.quiet(p, cut, time.Second, name)
	}
	go_on("after a revocation", kept, opened)
	for name, tr := range map[string]traffic{"kept": kept, "opened": opened} {
		for kind, p := range tr.probes {
			if kind != "push" && p.Received() < p.Sent()-3 {
				t.Errorf("%s %s: %d of %d", name, kind, p.Received(), p.Sent())
			}
		}
	}
	answers.end()
	if lost := answers.sent.Load() - answers.got.Load(); lost > 0 {
		t.Errorf("%d answers were lost", lost)
	}
}

// A connection that was revoked stays dead whatever is restarted in which order right after the answer.
func TestAttackRestartsAfterRevocation(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]func(s *stage){
		"tapwall killed": func(s *stage) { s.tw.Kill(); must(s.t, s.tw.Start()) },
		"switch, then tapwall": func(s *stage) {
			s.KillVswitchd()
			s.tw.Kill()
			must(s.t, s.StartVswitchd())
			must(s.t, s.tw.Start())
		},
		"tapwall, then switch": func(s *stage) {
			s.tw.Kill()
			s.KillVswitchd()
			must(s.t, s.StartVswitchd())
			must(s.t, s.tw.Start())
		},
		"switch twice": func(s *stage) { s.restartSwitch(); s.restartSwitch() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, 3, "--pickup-window", "2s")
			s.apply(isolatedVM2 + "  ingress:\n  - {name: door, action: allow, from: [{port: vm3}], " +
				"services: [{protocol: tcp, ports: [\"5001\"]}, {protocol: udp, ports: [\"5001\"]}]}\n")
			s.pickupClosed()
			doomed := s.everyWay(s.vm[3], s.vm[2], 5001)
			own := s.echo(s.vm[2], s.vm[1], 5002)
			s.running(own)
			s.remembered(time.Now(), s.vm[1].IPv4)
			cut := s.apply(isolatedVM2)
			restart(s)
			s.pickupClosed()
			at := time.Now()
			lab.Eventually(t, 10*time.Second, "the isolated machine's own goes on", func() bool { return own.ReceivedSince(at) > 20 })
			for kind, p := range doomed.probes {
				if n := p.ReceivedSince(cut.Add(time.Second)); n > 0 {
					t.Errorf("%s: %d messages after the revocation", kind, n)
				}
			}
		})
	}
}
