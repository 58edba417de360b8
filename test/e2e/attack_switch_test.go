package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/test/lab"
)

// What others do to the switch under the wall.

// Somebody wipes all flows. Nothing passes until they are back, which is soon; connections go on.
func TestFaultFlowsWiped(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	live := s.everyWay(s.vm[1], s.vm[2], 5001)
	denied := s.datagrams(s.vm[1], s.vm[2], 5002, time.Millisecond)
	before := s.table()
	for range 3 {
		_, err := s.Ofctl("del-flows", "br0")
		must(t, err)
		wiped := time.Now()
		took := lab.Eventually(t, 3*time.Second, "all flows are back", func() bool { return len(s.flows()) >= strings.Count(before, "\n")+1 })
		t.Logf("flows back %v after the wipe", took)
		lab.Eventually(t, 5*time.Second, "traffic goes on", func() bool {
			for _, p := range live.probes {
				if p.ReceivedSince(wiped) < 20 {
					return false
				}
			}
			return true
		})
	}
	var after string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if after = s.table(); after == before {
			break
		}
	}
	if d := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")); d != "" {
		t.Errorf("the table is not as before when the pickup window is over (-want +got):\n%s", d)
	}
	for name, p := range live.probes {
		if p.Err() != nil {
			t.Errorf("%s broke: %v", name, p.Err())
		}
	}
	if n := denied.Received(); n > 0 {
		t.Errorf("%d denied datagrams passed", n)
	}
}

// Somebody changes the fail mode, which also wipes the tables. It is set back first; in between the bridge does what it was told to, as
// a switch does.
func TestFaultFailModeChanged(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	live := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(live)
	for _, args := range [][]string{{"set", "bridge", "br0", "fail_mode=standalone"}, {"clear", "bridge", "br0", "fail_mode"}} {
		_, err := s.Vsctl(args...)
		must(t, err)
		took := lab.Eventually(t, 5*time.Second, "the fail mode is secure again", func() bool {
			mode, err := s.Vsctl("get", "bridge", "br0", "fail_mode")
			return err == nil && strings.TrimSpace(mode) == "secure"
		})
		t.Logf("%s: set back after %v", args[0], took)
		s.inStep(5 * time.Second)
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	}
	now := time.Now()
	lab.Eventually(t, 5*time.Second, "the connection goes on", func() bool { return live.ReceivedSince(now) > 20 })
}

// The OpenFlow connection comes and goes under load and under changes.
func TestFaultConnectionFlaps(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	live := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(live)
	for i := range 6 {
		_, err := s.Vsctl("set", "bridge", "br0", "protocols=OpenFlow10")
		must(t, err)
		if i == 3 {
			lab.Eventually(t, 5*time.Second, "the status says what is wrong", func() bool {
				h, ok := s.tryHealth()
				return ok && h.OpenFlow != "connected"
			})
		}
		if out, err := s.tw.RunInput(many(i*10, 10, 2), "apply", "-f", "-"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, err = s.Vsctl("set", "bridge", "br0", "protocols=OpenFlow10,OpenFlow13,OpenFlow14")
		must(t, err)
	}
	_, err := s.Vsctl("clear", "bridge", "br0", "protocols")
	must(t, err)
	s.inStep(10 * time.Second)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	s.lossless(live, "a connection meanwhile")
	s.unchangedByRestart()
}

// The switch refuses flows: its table is limited. What is not in force is not said to be, and what can be is when the limit goes.
func TestFaultTableLimit(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	_, err := s.Vsctl("--", "--id=@t", "create", "Flow_Table", sprintf("flow_limit=%d", len(s.flows("table=206"))+3),
		"overflow_policy=refuse", "--", "set", "bridge", "br0", "flow_tables:206=@t")
	must(t, err)
	var peers strings.Builder
	for i := range 50 {
		peers.WriteString(sprintf("{cidr: 192.0.2.%d/32}, ", 2*i+1))
	}
	allow := strings.Replace(allowPorts("q", "vm2", "vm1", "5002"), "from: [", "from: ["+peers.String(), 1)
	live := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(live)
	out, err := s.tw.RunInput(allow, "apply", "--wait", "--timeout", "2s", "-f", "-")
	if err == nil {
		t.Errorf("a policy that the switch refused was said to be in force:\n%s", out)
	}
	time.Sleep(1500 * time.Millisecond) // and some attempts later
	var doc struct {
		Status struct{ Phase, Reason, Message string }
	}
	must(t, json.Unmarshal([]byte(s.tapwall("get", "policy", "q", "-o", "json")), &doc))
	if doc.Status.Phase == "Active" {
		t.Errorf("its status is %+v", doc.Status)
	}
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	// What is refused does not hold up the rest, a revocation least of all.
	if out, err := s.tw.RunInput(strings.ReplaceAll(allowPorts("p", "vm2", "vm1", "5001"), "5001", "5003"), "apply", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.quiet(live, time.Now(), time.Second, "a connection whose rule went while another was refused")
	_, err = s.Vsctl("clear", "bridge", "br0", "flow_tables")
	must(t, err)
	lab.Eventually(t, 15*time.Second, "the policy is in force when the limit is gone", func() bool {
		return s.vm[1].CanConnect(s.vm[2].IPv4, 5002, 300*time.Millisecond)
	})
	s.inStep(5 * time.Second)
}
