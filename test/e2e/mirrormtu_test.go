package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// Scenario 6 of mirrors: frames that are larger than a tunnel carries are cut to fit, each of them arrives, and what is copied does not
// notice; or the mirror is refused.
func TestMirrorScenario06MTU(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	collector := s.underlay()
	s.ping3(s.vm[1], s.vm[2])
	rooms := map[string]int{}
	var docs []string
	for _, w := range encapsulations() {
		rooms[w.name] = 1514 - w.bytes
		docs = append(docs, sprintf("kind: Mirror\nname: %s\nspec: {sources: [{port: vm1}], direction: fromSource, targets: [%s]}\n", w.name,
			w.target))
	}
	s.force(strings.Join(docs, "---\n"))
	for name, room := range rooms {
		s.becomes("mirror", name, policy.PhaseActive, "", "")
		m := s.mirror(name)
		if got := m.Target["maxInnerBytes"]; got != fmt.Sprint(room) {
			t.Errorf("%s: maxInnerBytes %q, want %d", name, got, room)
		}
	}
	s.acquainted()
	if out := s.tapwall("describe", "mirror", "vxlan4"); !strings.Contains(out, "COPIES_MAY_BE_CUT") || !strings.Contains(out, "1464 bytes") {
		t.Errorf("the status does not tell of cutting:\n%s", out)
	}
	far, err := s.Capture(collector.NS, "eth0")
	must(t, err)
	read := s.recordFrames(collector.NS, "eth0")
	const n = 20
	out, err := s.vm[1].Run("ping", "-c", fmt.Sprint(n), "-i", "0.02", "-W", "2", "-s", "1472", "-M", "do", s.vm[2].IPv4)
	if err != nil || !strings.Contains(out, " 0% packet loss") {
		t.Errorf("production suffers: %v\n%s", err, out)
	}
	// A frame that just fits is not cut: the bytes behind it tell.
	fit := []int{1464, 1465}
	for _, room := range fit {
		if out, err := s.vm[1].Run("ping", "-c", "1", "-W", "2", "-s", fmt.Sprint(room-42), "-p", "ab", s.vm[2].IPv4); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	packets := read("icmp.type == 8", "frame.protocols", "frame.len", "vxlan.vni", "erspan.version")
	for _, w := range encapsulations() {
		cut := 0
		for _, p := range packets {
			if strings.HasPrefix(p[0], w.layers+":eth:ethertype:ip:icmp") && p[1] == "1514" &&
				(w.fields["erspan.version"] == "" || w.fields["erspan.version"] == p[3]) {
				cut++
			}
		}
		// Those of 1,464 and 1,465 bytes fill some tunnels, too.
		if cut < n || cut > n+2 {
			t.Errorf("%s: %d of %d large frames fill what the tunnel carries", w.name, cut, n)
		}
	}
	counts := &counterWatch{s, map[string]map[string]int64{}}
	for name, room := range rooms {
		cut := n
		for _, length := range fit {
			if length > room {
				cut++
			}
		}
		counts.becomes("frames were cut", name, map[string]int64{"cutPackets": int64(cut)})
	}
	whole := 0
	for _, f := range far.Frames(lab.UDPTo(4789)) {
		if len(f.Data) == 1514 && bytes.HasSuffix(f.Data, bytes.Repeat([]byte{0xab}, 1000)) {
			whole++
		}
	}
	if whole != 2 {
		t.Errorf("%d of the frames that fill the tunnel came, want one whole and one cut by a byte", whole)
	}

	// With mtuPolicy: fail it is refused, and what runs goes on.
	answer := s.refused(strings.Replace(docs[0], "direction:", "mtuPolicy: fail, direction:", 1), "apply", "-f", "-")
	if !strings.Contains(answer, "/spec/targets/0/vxlan/remote") || !strings.Contains(answer, "at most 1464 bytes") {
		t.Errorf("mtuPolicy: fail: %s", answer)
	}
	// So are tunnels that lead to the host itself or to everybody.
	for remote, what := range map[string]string{underHost: "address of the host itself", underHost6: "address of the host itself",
		"10.99.0.255": "an address of many"} {
		answer := s.refused(sprintf("kind: Mirror\nname: own\nspec: {sources: [{port: vm1}], targets: [{gre: {remote: %q}}]}\n", remote),
			"apply", "-f", "-")
		if !strings.Contains(answer, "/spec/targets/0/gre/remote") || !strings.Contains(answer, what) {
			t.Errorf("a tunnel to %s: %s", remote, answer)
		}
	}
	before := len(far.Frames(lab.UDPTo(4789)))
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if got := len(far.Frames(lab.UDPTo(4789))) - before; got < 3 {
		t.Errorf("after refusals %d copies of 3 came", got)
	}

	// The MTU of the way is followed.
	_, err = s.Switch.Run("ip", "link", "set", "br-under", "mtu", "1400")
	must(t, err)
	lab.Eventually(t, 12*time.Second, "the smaller MTU is in force",
		func() bool { return s.mirror("vxlan4").Target["maxInnerBytes"] == "1364" })
}

// A collector that does not answer, or to which there is no route, is told of, and again of when it is there.
func TestMirrorScenario12UnreachableTarget(t *testing.T) {
	t.Parallel()
	s := open(t, 1)
	collector := s.underlay()
	out, err := s.tw.RunInput("kind: Mirror\nname: far\nspec: {sources: [{port: vm1}], targets: [{vxlan: {remote: 10.99.0.3, vni: 7}}]}\n"+
		"---\nkind: Mirror\nname: nowhere\nspec: {sources: [{port: vm1}], targets: [{geneve: {remote: 198.51.100.7, vni: 7}}]}\n"+
		"---\nkind: Mirror\nname: good\nspec: {sources: [{port: vm1}], targets: [{vxlan: {remote: 10.99.0.2, vni: 7}}]}\n", "apply", "-f", "-")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.becomes("mirror", "nowhere", policy.PhaseDegraded, policy.ReasonTargetUnresolved, "198.51.100.7: there is no route to it")
	took := lab.Eventually(t, 10*time.Second, "the collector that does not answer is told of", func() bool {
		return s.mirror("far").Reason == string(policy.ReasonTargetUnresolved)
	})
	t.Logf("told after %v", took.Round(100*time.Millisecond))
	s.becomes("mirror", "far", policy.PhaseDegraded, policy.ReasonTargetUnresolved, "it does not answer ARP on device \"br-under\"")
	s.becomes("mirror", "good", policy.PhaseActive, "", "")
	_, err = collector.Run("ip", "addr", "add", "10.99.0.3/24", "dev", "eth0")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "it recovers", func() bool { return s.mirror("far").Phase == string(policy.PhaseActive) })
}
