package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// The kinds of cases by which network policies of clusters are tested: in and out, each kind of peers with each kind of services, allowed
// and denied, with changes of policies, labels and members in between. After each change every machine tries every other, and what passes
// is what the reference evaluator says of the documents. `make soak` takes all of them, `make test` some that are different each time.
func TestFirewallCases(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	_, err := s.Vsctl("--", "clear", "interface", "vm5", "external_ids") // no endpoint
	must(t, err)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TAPWALL_SEED"); text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	c := cases{stage: s, rand: rand.New(rand.NewPCG(seed, 0)), docs: map[string]string{}}
	t.Logf("TAPWALL_SEED=%d", seed)
	for i := 1; i <= 4; i++ {
		c.label(i)
	}
	c.docs["group/nobody"] = "kind: Group\nname: nobody\nspec: {members: []}\n"
	c.member()
	must(t, s.tw.Apply(c.text()))

	rules := c.rules()
	steps := (len(rules) + 2) / 3
	if os.Getenv("TAPWALL_SOAK") == "" {
		steps = 14
	}
	for step := range steps {
		for i := range 3 {
			c.policy(i, rules[(step*3+i)%len(rules)])
		}
		what := "policies"
		c.try(what)
		if what = "a label"; step%2 == 0 {
			what = "a member"
			c.member()
		} else {
			c.label(1 + c.rand.IntN(4))
		}
		c.try(what)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d connections passed, %d did not", c.passed, c.stopped)
	if c.passed < 200 || c.stopped < 200 {
		t.Error("too few of a kind to tell")
	}
}

type cases struct {
	*stage
	rand            *rand.Rand
	docs            map[string]string
	passed, stopped int
}

// text is all documents.
func (c *cases) text() string {
	var all []string
	for _, d := range c.docs {
		all = append(all, d)
	}
	return strings.Join(all, "---\n")
}

// label gives a machine other labels.
func (c *cases) label(vm int) {
	c.docs[sprintf("endpoint/vm%d", vm)] = sprintf("kind: Endpoint\nname: vm%d\nspec: {match: {port: vm%d}, labels: {app: %c, env: %c}}\n",
		vm, vm,
		'a'+rune(c.rand.IntN(3)), 'x'+rune(c.rand.IntN(2)))
}

// member gives the group other members.
func (c *cases) member() {
	members := []string{"{labels: {app: a}}", "{labels: {app: b, env: y}}", "{cidr: 10.77.0.2/31}", `{cidr: "fd77::3/128"}`, "{port: vm4}"}
	c.rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	c.docs["group/some"] = sprintf("kind: Group\nname: some\nspec: {members: [%s]}\n", strings.Join(members[:1+c.rand.IntN(2)], ", "))
}

// rules returns all cases, in any order: DIRECTION and PEERS stand for what is said by the direction.
func (c *cases) rules() (all []string) {
	for _, dir := range []string{"ingress", "egress"} {
		for _, action := range []string{"allow", "deny"} {
			for _, peers := range []string{
				"", "{group: nobody}", "{labels: {app: a}}", "{cidr: 10.77.0.0/29, except: [10.77.0.2/32]}", "{group: some}", "{entity: world}",
				"{labels: {app: b}}, {labels: {env: y}}", `{cidr: "fd77::/125"}, {labels: {app: c, env: x}}`,
			} {
				for _, services := range []string{
					"", "{protocol: tcp}", `{protocol: tcp, ports: ["5001"]}`, `{protocol: tcp, ports: ["5002-5003"]}`, "{protocol: udp}",
					`{protocol: udp, ports: ["5001"]}`, "{protocol: icmp}, {protocol: icmpv6}",
					`{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5002"]}`,
				} {
					rule := "name: r, action: " + action
					if peers != "" {
						rule += ", " + map[string]string{"ingress": "from", "egress": "to"}[dir] + ": [" + peers + "]"
					}
					if services != "" {
						rule += ", services: [" + services + "]"
					}
					all = append(all, sprintf("  %s: [{%s}]\n", dir, rule))
				}
			}
		}
	}
	c.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// policy replaces the i-th policy. Half of them isolate what they apply to.
func (c *cases) policy(i int, rule string) {
	applies := []string{"{labels: {app: a}}, {port: vm1}", "{labels: {app: b}}, {port: vm4}", "{labels: {env: x}}, {port: vm2}"}[i]
	isolates := ""
	if c.rand.IntN(2) == 0 {
		isolates = "  defaultDeny: {ingress: false, egress: false}\n"
	}
	c.docs[sprintf("policy/p%d", i)] = sprintf("kind: Policy\nname: p%d\nspec:\n  priority: %d\n  appliesTo: [%s]\n%s%s", i,
		100+c.rand.IntN(2), applies, rule, isolates)
}

// set is what the documents say, for the reference evaluator: the machines are told to it by hand.
func (c *cases) set() *policy.Set {
	docs, err := policy.Load(strings.NewReader(c.text()))
	must(c.t, err)
	set := &policy.Set{Groups: map[string]*policy.Group{}}
	for _, d := range docs {
		switch r := d.Resource.(type) {
		case *policy.Policy:
			set.Policies = append(set.Policies, r)
		case *policy.Group:
			set.Groups[r.Name] = r
		case *policy.Endpoint:
			var i int
			_, err := fmt.Sscanf(r.Name, "vm%d", &i)
			must(c.t, err)
			set.Workloads = append(set.Workloads, &policy.Workload{Key: r.Name, Host: "h", Bridge: "br0", Port: r.Name, MAC: c.vm[i].MAC,
				Endpoint: r.Name, Labels: r.Spec.Labels})
		}
	}
	return set
}

// attempt is a connection that somebody tries.
type attempt struct {
	from, to int
	address  string
	proto    uint8
	port     int
	passes   bool // what the evaluator says
}

// try applies the documents and has everybody try everybody.
func (c *cases) try(what string) {
	c.t.Helper()
	if out, err := c.tw.RunInput(c.text(), "apply", "--wait=effective", "-f", "-"); err != nil {
		c.t.Fatalf("apply: %v\n%s\n%s", err, out, c.text())
	}
	set := c.set()
	workload := map[int]*policy.Workload{}
	for _, w := range set.Workloads {
		i, _ := strconv.Atoi(strings.TrimPrefix(w.Port, "vm"))
		workload[i] = w
	}
	var all []attempt
	for from := 1; from <= 5; from++ {
		for to := 1; to <= 5; to++ {
			if from == to {
				continue
			}
			src, dst, icmp := c.vm[from].IPv4, c.vm[to].IPv4, policy.ProtoICMP
			if c.rand.IntN(2) == 0 {
				src, dst, icmp = c.vm[from].IPv6, c.vm[to].IPv6, policy.ProtoICMPv6
			}
			for _, x := range []attempt{
				{proto: policy.ProtoTCP, port: 5001}, {proto: policy.ProtoTCP, port: 5003}, {proto: policy.ProtoUDP, port: 5001},
				{proto: policy.ProtoUDP, port: 5002}, {proto: icmp},
			} {
				x.from, x.to, x.address = from, to, dst
				x.passes = policy.Evaluate(set, policy.Packet{Bridge: "br0", Src: workload[from], Dst: workload[to], SrcIP: netip.MustParseAddr(src),
					DstIP: netip.MustParseAddr(dst), Proto: x.proto, SrcPort: 40000, DstPort: uint16(x.port)}).Effect.Passes()
				all = append(all, x)
			}
		}
	}
	got := make([]bool, len(all))
	var wg sync.WaitGroup
	for i, x := range all {
		wg.Go(func() { got[i] = c.passes(x) })
	}
	wg.Wait()
	for i, x := range all {
		if got[i] != x.passes {
			c.t.Errorf("after a change of %s, vm%d to vm%d (%s) protocol %d port %d: passes is %t, and should be %t\n%s", what, x.from, x.to,
				x.address,
				x.proto, x.port, got[i], x.passes, c.text())
			return
		}
		if x.passes {
			c.passed++
		} else {
			c.stopped++
		}
	}
}

// passes tries a connection. What should pass has more time for it: a busy machine is slow, not closed.
func (c *cases) passes(x attempt) bool {
	within := 400 * time.Millisecond
	if x.passes {
		within = 5 * time.Second
	}
	from := c.vm[x.from]
	for end := time.Now().Add(within); ; {
		var ok bool
		switch x.proto {
		case policy.ProtoTCP:
			ok = from.CanConnect(x.address, x.port, within)
		case policy.ProtoUDP:
			ok = echoes(from, x.address, x.port, min(within, time.Second))
		default:
			_, err := from.Run("ping", "-c", "1", "-W", fmt.Sprint(min(within, time.Second).Seconds()), x.address)
			ok = err == nil
		}
		if ok || time.Now().After(end) {
			return ok
		}
	}
}

// echoes sends a datagram and waits for its echo.
func echoes(from *lab.VM, address string, port int, within time.Duration) bool {
	conn, err := from.Dial("udp", address, port, within)
	if err != nil {
		return false
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(within)) != nil {
		return false
	}
	if _, err := conn.Write([]byte("?")); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil
}
