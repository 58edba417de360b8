package e2e

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/test/lab"
)

// What goes wrong around the program, and what others do to its switch.

// inStep waits until the switch holds what is desired and nothing else of ours.
func (s *stage) inStep(within time.Duration) time.Duration {
	s.t.Helper()
	var odd []string
	defer func() {
		if s.t.Failed() && len(odd) > 0 {
			s.t.Logf("%d flows are not as desired, the first is %s", len(odd), odd[0])
		}
	}()
	took := lab.Eventually(s.t, within, "the switch holds exactly what is desired", func() bool {
		h, ok := s.tryHealth()
		if !ok || h.OpenFlow != "connected" || h.DesiredFlows == 0 || h.DesiredFlows != h.InstalledFlows {
			return false
		}
		out, err := s.tw.Run("flows", "-o", "json")
		var list struct {
			Items []struct{ State, Flow, Owner string }
		}
		if err != nil || json.Unmarshal([]byte(out), &list) != nil {
			return false
		}
		odd = nil
		for _, f := range list.Items {
			if f.State != "installed" {
				odd = append(odd, f.State+": "+f.Owner+" "+f.Flow)
			}
		}
		return len(odd) == 0 // what is under way is over by one of the next looks
	})
	return took
}

// table is br0's flows in an order that does not depend on when they came.
func (s *stage) table() string {
	s.t.Helper()
	flows := s.flows()
	slices.Sort(flows)
	return strings.Join(flows, "\n")
}

// unchangedByRestart restarts tapwall, which compiles everything afresh and compares it with the switch, and expects that it finds
// nothing to do.
func (s *stage) unchangedByRestart() {
	s.t.Helper()
	before := s.table()
	must(s.t, s.tw.Stop())
	must(s.t, s.tw.Start())
	s.inStep(10 * time.Second)
	if n := s.health().FlowMods; n != 0 {
		s.t.Errorf("a restart sent %d flow-mods", n)
	}
	if after := s.table(); after != before {
		s.t.Errorf("the flow table differs after a restart\n%s", cmp.Diff(before, after))
	}
}

// many returns n policies of k rules each, numbered from first. They apply to vm2 and to machines that are not there.
func many(first, n, k int) string {
	var b strings.Builder
	for i := first; i < first+n; i++ {
		subject := "{port: vm2}"
		if i%10 > 0 {
			subject = sprintf("{port: vm2}, {port: absent%d}", i)
		}
		b.WriteString(sprintf("---\nkind: Policy\nname: m%d\nspec:\n  priority: %d\n  appliesTo: [%s]\n  ingress:\n", i, 1+i%900, subject))
		for j := range k {
			b.WriteString(sprintf("  - {name: r%d, action: allow, from: [{cidr: 10.%d.%d.0/24}], services: [{protocol: tcp, ports: [\"%d\"]}]}\n",
				j, i/250, i%250, 1000+j))
		}
	}
	return b.String()
}

// Killed at any moment while 500 policies are written and installed, it comes back to what was acknowledged, and then to rest.
func TestFaultKilledWhileApplying(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	live := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(live)
	for round, after := range []time.Duration{120, 260, 430, 700} {
		taken := make(chan int, 1)
		go func() {
			i := 0
			for ; i < 500; i += 50 {
				if _, err := s.tw.RunInput(many(i, 50, 1+round), "apply", "-f", "-"); err != nil {
					break
				}
			}
			taken <- i
		}()
		time.Sleep(after * time.Millisecond)
		s.tw.Kill()
		n := <-taken
		must(t, s.tw.Start())
		took := s.inStep(10 * time.Second)
		t.Logf("killed %v after the first write, %d policies were acknowledged: in step again after %v, %d flows", after*time.Millisecond, n,
			took, s.health().InstalledFlows)
		if out := s.tapwall("get", "policies", "-o", "json"); n > 0 && !strings.Contains(out, sprintf("%q", sprintf("m%d", n-1))) {
			t.Errorf("policy m%d was acknowledged and is not there", n-1)
		}
	}
	must(t, s.tw.Apply(many(0, 500, 1)))
	s.inStep(10 * time.Second)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	s.lossless(live, "a connection meanwhile")
	s.unchangedByRestart()
}

// 3,000 rules in one document, and away again.
func TestFaultManyPolicies(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	before := s.table()
	live := s.datagrams(s.vm[1], s.vm[2], 5001, 5*time.Millisecond)
	s.running(live)
	labelled := strings.ReplaceAll(many(0, 300, 10), "\nspec:", "\nlabels: {set: many}\nspec:")
	start := time.Now()
	out, err := s.tw.RunInput(labelled, "apply", "--wait", "--timeout", "60s", "-f", "-")
	if err != nil {
		t.Fatalf("%v: %.500s", err, out)
	}
	t.Logf("300 policies of 10 rules in force after %v, %d flows", time.Since(start).Round(time.Millisecond), s.health().InstalledFlows)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	start = time.Now()
	out, err = s.tw.RunInput("kind: Group\nname: rest\nlabels: {set: many}\nspec: {members: [{cidr: 192.0.2.0/24}]}\n", "apply", "--wait",
		"--timeout", "60s", "--prune", "set=many", "-f", "-")
	if err != nil {
		t.Fatalf("%v: %.500s", err, out)
	}
	s.inStep(30 * time.Second)
	t.Logf("and gone after %v", time.Since(start).Round(time.Millisecond))
	if after := s.table(); after != before {
		t.Error("the flow table is not what it was before")
	}
	s.lossless(live, "datagrams meanwhile")
}

// Rules change while the switch is away. What was allowed before and is no more does not pass for a moment when it is back.
func TestFaultChangeWhileSwitchIsDown(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001-5002"))
	old := s.datagrams(s.vm[1], s.vm[2], 5002, time.Millisecond)
	s.running(old)
	s.KillVswitchd()
	lab.Eventually(t, 5*time.Second, "what was on its way has arrived",
		func() bool { return time.Since(old.LastArrival()) > 100*time.Millisecond })
	down := time.Now()
	if out, err := s.tw.RunInput(allowPorts("p", "vm2", "vm1", "5003"), "apply", "--wait", "--timeout", "1s", "-f", "-"); err == nil {
		t.Errorf("a change that is not in force was said to be:\n%s", out)
	}
	if out, err := s.tw.RunInput(allowPorts("p", "vm2", "vm1", "5003"), "apply", "--wait", "--timeout", "1s", "-f", "-"); err == nil {
		t.Errorf("said once more, it was said to be in force:\n%s", out)
	}
	must(t, s.StartVswitchd())
	s.inStep(10 * time.Second)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
	time.Sleep(300 * time.Millisecond)
	if n := old.ReceivedSince(down); n > 0 {
		t.Errorf("%d datagrams of a rule that had gone came through a restarted switch", n)
	}
}

// Rules change while the database server is away. Then ovs-vswitchd, which has lost its lock in the database, serves no OpenFlow either,
// and the main thread of the userspace datapath polls no ports (bridge_run of OVS 3.1). So the change has to wait, is not said to be in
// force, and comes into force when the server is back.
func TestFaultChangeWhileDatabaseIsDown(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001-5002"))
	live, doomed := s.echo(s.vm[1], s.vm[2], 5001), s.echo(s.vm[1], s.vm[2], 5002)
	s.running(live, doomed)
	s.KillOVSDB()
	time.Sleep(300 * time.Millisecond)
	out, err := s.tw.RunInput(allowPorts("p", "vm2", "vm1", "5001"), "apply", "--wait", "--timeout", "1s", "-f", "-")
	if err == nil {
		t.Errorf("a change was said to be in force by a switch that cannot make it:\n%s", out)
	}
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
	must(t, s.StartOVSDB())
	took := s.inStep(15 * time.Second)
	back := time.Now()
	t.Logf("in step %v after the database came back", took)
	s.quiet(doomed, back, 300*time.Millisecond, "a revoked connection")
	lab.Eventually(t, 8*time.Second, "what is allowed goes on", func() bool { return live.ReceivedSince(back) > 50 })
}

// A bridge that is deleted and made again, also in one transaction, is walled again, with the fail mode first.
func TestFaultBridgeRecreated(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	again := []string{"--", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"}
	for _, vm := range s.vm[1:] {
		again = append(again, "--", "add-port", "br0", vm.Port, "--", "set", "interface", vm.Port, "external_ids:iface-id=if-"+vm.Port,
			`external_ids:attached-mac="`+vm.MAC+`"`)
	}
	walled := func(what string) {
		t.Helper()
		took := lab.Eventually(t, 10*time.Second, what+": the wall stands", func() bool {
			h, ok := s.tryHealth()
			mode, err := s.Vsctl("get", "bridge", "br0", "fail_mode")
			return ok && err == nil && strings.TrimSpace(mode) == "secure" && h.OpenFlow == "connected" && h.DesiredFlows > 40 &&
				h.InstalledFlows == h.DesiredFlows
		})
		t.Logf("%s: walled %v after ovs-vsctl returned", what, took)
		s.neighbours()
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	}
	_, err := s.Vsctl(append([]string{"--", "del-br", "br0"}, again...)...)
	must(t, err)
	walled("in one transaction")
	_, err = s.Vsctl("del-br", "br0")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the status says that the bridge is gone", func() bool {
		out, _ := s.tw.Run("status")
		return strings.Contains(out, "br0 does not exist")
	})
	_, err = s.Vsctl(again...)
	must(t, err)
	walled("one after the other")
	_, err = s.Vsctl(append([]string{"--", "del-br", "br0"}, append(again, "--", "set", "bridge", "br0", "fail_mode=secure")...)...)
	must(t, err)
	walled("with fail_mode already secure")
	s.inStep(10 * time.Second)
}

// A hundred ports come and go in bursts; in the end nothing of them is left, and each that is there has its flows once.
func TestFaultPortStorm(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	storm, err := s.tw.RunInput(`
kind: Policy
name: storm
spec:
  appliesTo: [{labels: {role: storm}}]
  ingress:
  - {name: in, action: allow, from: [{port: vm1}, {labels: {role: storm}}], services: [{protocol: tcp, ports: ["5001"]}]}
`, "apply", "-f", "-") // without a wait, which a policy that selects nobody yet would fail
	if err != nil {
		t.Fatal(storm)
	}
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	before := s.table()
	live := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(live)
	start := time.Now()
	for burst := range 5 {
		var add, del []string
		for i := range 20 {
			name := sprintf("st%d", burst*20+i)
			add = append(add, "--", "add-port", "br0", name, "--", "set", "interface", name, "type=internal", "external_ids:iface-id="+name,
				"external_ids:role=storm",
				sprintf(`external_ids:attached-mac="02:99:00:00:00:%02x"`, burst*20+i))
			del = append(del, "--", "--if-exists", "del-port", "br0", name)
		}
		_, err := s.Vsctl(add...)
		must(t, err)
		if burst%2 == 0 {
			_, err = s.Vsctl(del[:len(del)/2]...)
			must(t, err)
			_, err = s.Vsctl(del...)
			must(t, err)
		}
	}
	t.Logf("100 ports added and 60 removed in %v", time.Since(start).Round(time.Millisecond))
	lab.Eventually(t, 10*time.Second, "40 ports are endpoints", func() bool { return len(s.flows("table=202")) == 2+40+len(groupGuards(s)) })
	s.inStep(10 * time.Second)
	var del []string
	for i := range 100 {
		del = append(del, "--", "--if-exists", "del-port", "br0", sprintf("st%d", i))
	}
	_, err = s.Vsctl(del...)
	must(t, err)
	lab.Eventually(t, 10*time.Second, "nothing of them is left", func() bool { return s.table() == before })
	s.inStep(10 * time.Second)
	s.lossless(live, "a connection meanwhile")
	s.unchangedByRestart()
}

// groupGuards are the flows of DESTINATION that belong to no endpoint.
func groupGuards(s *stage) (out []string) {
	for _, f := range s.flows("table=202") {
		if !strings.Contains(f, "NXM_NX_REG9") {
			out = append(out, f)
		}
	}
	return out
}

// The data directory is lost while connections live. Ids that they carry must not stand for something else in the new life.
func TestFaultDataDirLost(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	// What vm2 sends must not open a connection of its own, of which the datagrams of vm1 would be replies.
	const shut = "---\nkind: Policy\nname: shut\nspec:\n  appliesTo: [{port: vm1}]\n  defaultDeny: {ingress: true}\n"
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001") + shut)
	live := s.everyWay(s.vm[1], s.vm[2], 5001)
	// One that is silent meanwhile still carries what it was given.
	c, err := s.vm[1].Dial("tcp", s.vm[2].IPv4, 5001, time.Second)
	must(t, err)
	defer c.Close()
	answer := func() error {
		must(t, c.SetDeadline(time.Now().Add(3*time.Second)))
		_, err := c.Write([]byte("12345678"))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 8))
		}
		return err
	}
	_, err = c.Write([]byte{'E'})
	must(t, err)
	must(t, answer())
	must(t, s.tw.Stop())
	must(t, os.RemoveAll(filepath.Join(s.Dir, "data")))
	must(t, s.tw.Start())
	// The same shape of policy, so that the same numbers would be given again; it allows something else.
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5003") + shut)
	s.mustBeCut(live, time.Now())
	if err := answer(); err == nil {
		t.Error("a connection of the earlier life passes under a rule that does not allow it")
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.inStep(5 * time.Second)
}

// A switch that stops answering, and one that answers again, is noticed; meanwhile nothing is said to be in force.
func TestFaultSwitchHangs(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	pid := s.pidOf("vswitchd")
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	out, err := s.tw.RunInput(allowPorts("p", "vm2", "vm1", "5003"), "apply", "--wait", "--timeout", "1s", "-f", "-")
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	if err == nil {
		t.Errorf("a change was said to be in force by a switch that hangs:\n%s", out)
	}
	s.inStep(10 * time.Second)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
}

// pidOf reads the pid of a program of the lab.
func (s *stage) pidOf(name string) int {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, name+".pid"))
	must(s.t, err)
	pid := 0
	for _, d := range strings.TrimSpace(string(b)) {
		pid = pid*10 + int(d-'0')
	}
	if pid <= 1 {
		s.t.Fatalf("%s has no pid: %q", name, b)
	}
	return pid
}
