package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// TestCachesFollowChanges: whatever the order of changes, with traffic between them, the switch caches nothing afterwards that its flow
// tables say otherwise. What Open vSwitch 3.1.0 does wrong by itself (ofctrl.Renewal) shows here now and then; TestRenewal forces it.
func TestCachesFollowChanges(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	s := open(t, 4)
	var policies [3]bool
	held := false
	step := func() string {
		switch i := r.IntN(6); {
		case i >= 4:
			how := [][]string{{"release", "cell"}, {"add", "port=vm1", "--name", "cell"},
				{"add", "port=vm1", "--name", "cell", "--dns", "--pass", s.vm[2].IPv4},
				{"add", "port=vm1", "--name", "cell", "--pass", s.vm[2].IPv4 + ":tcp/5000"}}[r.IntN(4)]
			if how[0] == "release" && !held {
				how = []string{"add", "port=vm1", "--name", "cell", "--dns", "--pass", s.vm[3].IPv6}
			}
			held = how[0] == "add"
			s.tapwall(append(append([]string{"quarantine"}, how...), "--wait")...)
			if held {
				time.Sleep(1200 * time.Millisecond) // for half a second the switch is made to forget what it has learned
			}
			return strings.Join(how, " ")
		case i < 3 && policies[i]:
			policies[i] = false
			s.tapwall("delete", "policy", fmt.Sprintf("p%d", i), "--wait")
			return fmt.Sprintf("delete p%d", i)
		default:
			i %= 3
			policies[i] = true
			rules := ""
			for k := range 1 + r.IntN(3) {
				bits := 29 + r.IntN(4)
				cidr := fmt.Sprintf("{cidr: 10.77.0.%d/%d}", (1+r.IntN(4))&^(1<<(32-bits)-1), bits)
				from := []string{cidr, fmt.Sprintf("{port: vm%d}", 1+r.IntN(4))}[r.IntN(2)]
				rules += fmt.Sprintf("  - {name: r%d, action: %s, from: [%s], services: [{protocol: tcp, ports: [\"%d\"]}]}\n",
					k, []string{"allow", "deny"}[r.IntN(2)], from, 5000+r.IntN(3))
			}
			s.apply(fmt.Sprintf("kind: Policy\nname: p%d\nspec:\n  appliesTo: [{port: vm%d}]\n  ingress:\n%s", i, 1+r.IntN(4), rules))
			return fmt.Sprintf("apply p%d:\n%s", i, rules)
		}
	}
	odd := regexp.MustCompile(`recirc(_id)?[(=](0x)?[0-9a-f]+|dont_send=\d`)     // of the translation, not of the tables
	words := strings.NewReplacer("src_port=", "tp_src=", "dst_port=", "tp_dst=") // what ct_tuple6 is printed with and not read with
	lived := regexp.MustCompile(`, packets:\d+, bytes:\d+, used:[^,]+,( flags:[^,]*,)? actions:(.*)$`)
	compared := 0
	differ := func() (out []string) {
		t.Helper()
		s.effective()
		cached, err := s.Appctl("dpctl/dump-flows")
		must(t, err)
		for line := range strings.Lines(cached) {
			line = strings.TrimSpace(line)
			at := lived.FindStringSubmatchIndex(line)
			if at == nil {
				continue
			}
			got := line[at[4]:at[5]]
			trace, err := s.Appctl("ofproto/trace", words.Replace(line[:at[0]]))
			_, want, ok := strings.Cut(trace, "\nDatapath actions: ")
			if want, _, _ = strings.Cut(want, "\n"); !ok {
				want = fmt.Sprint("no trace of it: ", err, trace) // it may have gone meanwhile
			}
			if compared++; odd.ReplaceAllString(got, "") != odd.ReplaceAllString(want, "") {
				out = append(out, "cached:      "+line+"\ntables say:  "+want)
			}
		}
		return out
	}
	for n := range 10 {
		what := step()
		done := make(chan struct{})
		for from := 1; from <= 4; from++ {
			go func() {
				defer func() { done <- struct{}{} }()
				_, _ = s.vm[from].Run("ip", "neigh", "flush", "all")
				for to := 1; to <= 4; to++ {
					if to != from {
						for port := 5000; port < 5003; port++ {
							s.vm[from].CanConnect(s.vm[to].IPv4, port, 40*time.Millisecond)
						}
						s.vm[from].CanConnect(s.vm[to].IPv6, 5000, 40*time.Millisecond)
					}
				}
			}()
		}
		for range 4 {
			<-done
		}
		// What is learned or ends by itself meanwhile changes flow tables, too; what is left of a mistake stays for 10 s.
		wrong := differ()
		for try := 0; try < 3 && len(wrong) > 0; try++ {
			time.Sleep(500 * time.Millisecond)
			wrong = differ()
		}
		if len(wrong) > 0 {
			t.Errorf("step %d, %s\n%s", n, what, strings.Join(wrong, "\n"))
		}
	}
	if compared < 100 {
		t.Errorf("only %d cached flows were compared", compared)
	}
	t.Logf("%d cached flows were compared", compared)
}

// TestCachesOnGuestForgetMirrors: where two cached flows match the same packets, made under different rules of the bridge's owner, a mirror
// that is stopped copies nothing of either.
func TestCachesOnGuestForgetMirrors(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	_, err := s.Vsctl("add-port", "br0", "ids0", "--", "set", "Interface", "ids0", "type=internal")
	must(t, err)
	_, err = s.Switch.Run("ip", "link", "set", "ids0", "up")
	must(t, err)
	_, err = s.Vsctl("set", "Open_vSwitch", ".", "other_config:emc-insert-inv-prob=1") // as if all had run for long
	must(t, err)
	s.tw, err = s.StartTapwall("--bridge", "br0=guest")
	must(t, err)
	route := func(prefix string) {
		t.Helper()
		path := filepath.Join(s.Dir, "rules")
		must(t, os.WriteFile(path, []byte("priority=0,actions=NORMAL\npriority=10,udp,nw_dst=10.9.0.0/16,actions=output:vm3\n"+
			"priority=10,udp,nw_dst="+prefix+",actions=output:vm2\n"), 0o600))
		_, err := s.Ofctl("replace-flows", "br0", path, "--bundle")
		must(t, err)
		s.effective()
	}
	send := func(to string, n int) {
		t.Helper()
		frame, err := lab.CraftFrame(s.vm[1].MAC, s.vm[2].MAC, layers.EthernetTypeIPv4, &layers.IPv4{Version: 4, TTL: 64,
			Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(s.vm[1].IPv4), DstIP: net.ParseIP(to)},
			&layers.UDP{SrcPort: 1, DstPort: 9999}, gopacket.Payload("copied?"))
		must(t, err)
		for range n {
			must(t, s.vm[1].Send(frame))
		}
		time.Sleep(50 * time.Millisecond)
	}
	// The other network's cached flow comes first, so that those of 16 bits are looked at before those of 24. Running traffic finds its own
	// all the same, by the cache before that.
	route("10.1.2.0/24")
	s.force("kind: Mirror\nname: m\nspec: {sources: [{port: vm1}], targets: [{port: {name: ids0}}]}\n")
	s.becomes("mirror", "m", policy.PhaseActive, "", "")
	if w := s.status("mirror", "m").Warnings; len(w) > 0 {
		t.Errorf("warnings: %v", w)
	}
	ids := s.capture("ids0")
	copies := func() int { return len(ids.Frames(lab.UDPTo(9999))) }
	send("10.9.0.2", 2)
	send("10.1.2.2", 2)
	route("10.1.0.0/16")
	send("10.1.0.2", 2)
	send("10.1.2.2", 2)
	if n := copies(); n != 8 {
		t.Fatalf("%d copies of 8 frames, so that this shows nothing", n)
	}
	s.tapwall("mirror", "stop", "m", "--wait=effective")
	for range 3 {
		send("10.1.2.2", 2)
		send("10.1.0.2", 2)
	}
	if n := copies() - 8; n != 0 {
		cached, _ := s.Appctl("dpctl/dump-flows")
		t.Errorf("%d copies behind the end of the mirror\n%s", n, cached)
	}
}
