package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// What examples/firewall says of itself, by traffic: each document applied alone, and taken away again.
func TestExamplesOfTheFirewall(t *testing.T) {
	t.Parallel()
	s := open(t, 4)
	for _, vm := range s.vm[1:] {
		must(t, s.Serve(vm, 22, 80, 443, 5432, 8080))
	}
	type try struct {
		from, to, port int
		passes         bool
	}
	all := []try{}
	for from := 1; from <= 4; from++ {
		for to := 1; to <= 4; to++ {
			if from != to {
				all = append(all, try{from, to, 80, true})
			}
		}
	}
	check := func(what string, tries ...try) {
		t.Helper()
		for _, x := range tries {
			from, to := s.vm[x.from], s.vm[x.to]
			for _, address := range []string{to.IPv4, to.IPv6} {
				if x.passes {
					s.mustConnect(from, address, x.port)
				} else {
					s.mustNotConnect(from, address, x.port)
				}
			}
			if t.Failed() {
				t.Fatalf("%s: %+v", what, x)
			}
		}
	}
	ping := func(from, to *lab.VM, answered bool) {
		t.Helper()
		if s.ping(from, to.IPv4) != answered || s.ping(from, to.IPv6) != answered {
			t.Errorf("ping from %s to %s is not as it should be (answered: %t)", from.Port, to.Port, answered)
		}
	}
	check("without policies", all...)
	for _, x := range []struct {
		file  string
		tries []try
		more  func()
	}{
		{"three-tier.yaml", []try{{4, 1, 443, true}, {4, 1, 80, false}, {1, 2, 8080, true}, {4, 2, 8080, false}, {2, 3, 5432, true},
			{1, 3, 5432, false}, {3, 1, 443, false}, {2, 1, 443, false}, {1, 4, 80, true}}, func() {}},
		{"default-deny.yaml", []try{{1, 2, 22, true}, {3, 2, 22, false}, {1, 2, 80, false}, {2, 1, 80, false}}, func() {
			ping(s.vm[3], s.vm[2], true)
			s.tapwall("apply", "--wait=effective", "-f", "../../examples/firewall/three-tier.yaml")
			check("default-deny.yaml below three-tier.yaml", try{1, 2, 8080, true}, try{4, 2, 8080, false}, try{1, 4, 80, false})
			s.tapwall("delete", "-f", "../../examples/firewall/three-tier.yaml")
		}},
		{"audit-first.yaml", all[:3], func() {
			audited := func(dst string) bool {
				return strings.Contains(s.tapwall("observe", "--verdict", "AUDIT", "--port", dst), "default-deny")
			}
			lab.Eventually(t, 5*time.Second, "what would be cut is recorded", func() bool { return audited("80") })
			check("audit-first.yaml", try{1, 2, 22, true}, try{3, 2, 443, true})
			lab.Eventually(t, 5*time.Second, "this too", func() bool { return audited("443") })
			if audited("22") {
				t.Error("what the policy allows is recorded as what it would cut")
			}
			stream, kept := s.echo(s.vm[3], s.vm[2], 80), s.echo(s.vm[1], s.vm[2], 22)
			s.running(stream, kept)
			text, err := os.ReadFile("../../examples/firewall/audit-first.yaml")
			must(t, err)
			enforced := strings.Replace(string(text), "  mode: audit\n", "  mode: enforce\n", 1)
			if out, err := s.tw.RunInput(enforced, "apply", "--wait=effective", "-f", "-"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			s.quiet(stream, time.Now(), time.Second, "enforced")
			s.lossless(kept, "allowed by the policy")
			check("enforced", try{1, 2, 80, false}, try{1, 2, 22, true}, try{3, 2, 22, false})
		}},
		{"threat-feed.yaml", all[:3], func() {
			stream := s.datagrams(s.vm[4], s.vm[2], 80, 10*time.Millisecond)
			s.running(stream)
			s.tapwall("group", "add", "blocklist", s.vm[4].IPv4, s.vm[4].IPv6, "--wait=effective")
			s.quiet(stream, time.Now(), time.Second, "on the blocklist")
			check("an address of the blocklist", try{4, 2, 80, false}, try{2, 4, 80, false}, try{1, 2, 80, true})
			s.tapwall("group", "remove", "blocklist", s.vm[4].IPv4, s.vm[4].IPv6, "--wait=effective")
			check("off the blocklist", try{4, 2, 80, true})
		}},
		{"quarantine.yaml", []try{{1, 2, 80, false}, {2, 1, 80, false}, {1, 4, 22, true}, {4, 1, 22, true}, {2, 3, 80, true}}, func() {
			ping(s.vm[1], s.vm[2], false)
		}},
		{"lockdown.yaml", []try{{1, 2, 80, true}, {2, 1, 80, true}, {3, 2, 80, false}, {2, 3, 80, false}, {3, 4, 80, true}}, func() {
			ping(s.vm[1], s.vm[2], true)
			ping(s.vm[3], s.vm[2], false)
		}},
		// The tutorial of the README, with the labels of its endpoints.
		{"../one-way.yaml", []try{{1, 2, 80, true}, {1, 2, 443, true}, {1, 2, 22, false}, {2, 1, 80, false}, {3, 2, 80, false}, {3, 1, 80, true},
			{2, 3, 80, true}}, func() {
			ping(s.vm[3], s.vm[2], true)
			stream := s.echo(s.vm[1], s.vm[2], 80)
			s.running(stream)
			s.lossless(stream, "what vm1 has opened, with the replies")
		}},
	} {
		files := []string{"-f", filepath.Join("../../examples/firewall", x.file)}
		if x.file == "../one-way.yaml" {
			files = append(files, "-f", "../../examples/endpoints.yaml")
		}
		s.tapwall(append([]string{"apply", "--wait=effective"}, files...)...)
		check(x.file, x.tries...)
		x.more()
		s.tapwall(append([]string{"delete"}, files...)...)
		s.revalidated()
	}
	check("without policies again", all[:4]...)
}
