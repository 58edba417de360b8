package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// minRounds is the smallest number of pairs that the design lets judge a ratio near 1: these machines spread by some percent from round
// to round.
const minRounds = 15

// What a slice of a round carries: enough that it takes about a tenth of a second, so that what the switch does at rest counts little.
const (
	udpRequests = 10_000
	bulkKiB     = 16 << 10
	connections = 100
)

// rivalFlows is what somebody writes by hand who wants a stateful firewall between two ports: 1 (vm1), which may open connections, and 2
// (vm2).
const rivalFlows = `
table=0,priority=100,arp,actions=normal
table=0,priority=10,ct_state=-trk,ip,actions=ct(table=1)
table=0,priority=0,actions=drop
table=1,priority=10,ct_state=+trk+inv,ip,actions=drop
table=1,priority=5,ct_state=+trk+new,ip,in_port=1,actions=ct(commit),output:2
table=1,priority=5,ct_state=+trk+est,ip,in_port=1,actions=output:2
table=1,priority=5,ct_state=+trk+est,ip,in_port=2,actions=output:1
table=1,priority=0,actions=drop
`

// allowPolicy lets the two machines reach each other, judged at both ends.
const allowPolicy = `{"kind":"Policy","name":"p","spec":{"appliesTo":[{"port":"vm1"},{"port":"vm2"}],
"ingress":[{"name":"in","action":"allow","from":[{"port":"vm1"},{"port":"vm2"}],
	"services":[{"protocol":"tcp","ports":["5001-5002"]},{"protocol":"udp","ports":["5001-5002"]}]}],
"egress":[{"name":"out","action":"allow","to":[{"port":"vm1"},{"port":"vm2"}],
	"services":[{"protocol":"tcp","ports":["5001-5002"]},{"protocol":"udp","ports":["5001-5002"]}]}]}}`

// contender is one of the two switches that are compared.
type contender struct {
	lab  *lab.Lab
	load *load
	also []int // processes whose CPU counts beside that of vswitchd
}

// newContender makes a switch with two machines and calls guard to put a firewall between them.
func newContender(guard func(*lab.Lab) error) (_ *contender, err error) {
	l, err := lab.Start("")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := l.AddBridge("br0", "fail_mode=secure"); err != nil {
		return nil, err
	}
	var vms []*lab.VM
	for i := 1; i <= 2; i++ {
		vm, err := l.AddVM("vm"+strconv.Itoa(i), "br0", i)
		if err != nil {
			return nil, err
		}
		vms = append(vms, vm)
	}
	for _, port := range []string{"vm1", "vm2"} { // rivalFlows names them by number
		if out, err := l.Vsctl("get", "interface", port, "ofport"); err != nil || strings.TrimSpace(out) != port[2:] {
			return nil, errors.Join(err, fmt.Errorf("port %s has number %q", port, out))
		}
	}
	if err := guard(l); err != nil {
		return nil, err
	}
	load, err := newLoad(vms[0], vms[1])
	if err != nil {
		return nil, err
	}
	return &contender{lab: l, load: load}, nil
}

// close stops the traffic and removes the lab.
func (c *contender) close() error {
	c.load.close()
	return c.lab.Close()
}

func guardByHand(l *lab.Lab) error {
	file := filepath.Join(l.Dir, "rival.txt")
	if err := os.WriteFile(file, []byte(rivalFlows), 0o600); err != nil {
		return err
	}
	_, err := l.Ofctl("add-flows", "br0", file)
	return err
}

// guardByTapwall runs the binary, or the one under test if bin is empty.
func guardByTapwall(bin string) func(*lab.Lab) error {
	return func(l *lab.Lab) error {
		flags := []string{"--bridge", "br0=owned", "--log-level", "warn", "--pickup-window", "1s"}
		start := l.StartTapwall
		if bin != "" {
			start = func(flags ...string) (*lab.Tapwall, error) { return l.StartTapwallFrom(bin, flags...) }
		}
		if _, err := start(flags...); err != nil {
			return err
		}
		if _, err := newAPI(l).send("POST", "/v1/apply?wait=installed&timeout=60s", []byte(allowPolicy), "application/json"); err != nil {
			return err
		}
		time.Sleep(3 * time.Second) // the pickup window closes
		return nil
	}
}

// sample is what a load cost.
type sample struct {
	cpu   time.Duration // of the contender
	units int           // packets, KiB or connections that were delivered
	wall  time.Duration // for the reader only
}

func (s sample) perUnit() time.Duration { return s.cpu / time.Duration(s.units) }

// slice runs a load once. Everything that was sent has to arrive: a switch that drops is not faster.
func (c *contender) slice(run func(*load) (units int, err error)) (s sample, err error) {
	before, err := c.cpu()
	if err != nil {
		return s, err
	}
	start := time.Now()
	if s.units, err = run(c.load); err != nil {
		return s, err
	}
	s.wall = time.Since(start)
	after, err := c.cpu()
	s.cpu = after - before
	return s, err
}

// cpu is what the processes of the contender have worked.
func (c *contender) cpu() (sum time.Duration, err error) {
	for _, pid := range append([]int{c.lab.VswitchdPid()}, c.also...) {
		t, err := threadTime(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// threadTime is the CPU time that the threads of a process have used (proc(5), schedstat: nanoseconds; the figure of the process
// directory is that of its first thread only).
func threadTime(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, errors.Join(err, fmt.Errorf("no threads of process %d", pid))
	}
	for _, t := range threads {
		b, err := os.ReadFile(t)
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", t, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// rival is what tapwall's pipeline is compared with. A limit of 0 is none.
type rival struct {
	name  string
	guard func(*lab.Lab) error
	// What tapwall may cost in relation to the rival for a packet or KiB, and for a connection.
	packet, connection float64
}

var (
	byHand   = rival{"8 flows by hand", guardByHand, 1.05, 1.05}
	byNormal = rival{"NORMAL", guardByNormal, 0, 0}
	byOVN    = rival{"OVN", guardByOVN, 0, 1}
)

// benchThroughput compares what the switch works for traffic through tapwall's pipeline with what it works for a rival, or instead of
// byHand, where TAPWALL_BIN_BEFORE names an earlier binary, through the pipeline of that one.
func benchThroughput(against rival, rounds int) (out []line, err error) {
	if quick {
		rounds = 3
	} else if rounds < minRounds {
		return nil, fmt.Errorf("-rounds %d: a ratio near 1 needs at least %d pairs", rounds, minRounds)
	}
	if bin := os.Getenv("TAPWALL_BIN_BEFORE"); bin != "" && against.name == byHand.name {
		against = rival{"tapwall before", guardByTapwall(bin), 1.03, 1.03}
	}
	ours, err := newContender(guardByTapwall(""))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ours.close()) }()
	theirs, err := newContender(against.guard)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, theirs.close()) }()
	for _, b := range []struct {
		unit   string
		budget float64
		run    func(*load) (int, error)
	}{
		{"packet, UDP 64 B echoed", against.packet, func(l *load) (int, error) { return l.echo(udpRequests) }},
		{"KiB, TCP bulk", against.packet, func(l *load) (int, error) { return l.bulk(bulkKiB) }},
		{"short TCP connection", against.connection, func(l *load) (int, error) { return l.connect(connections) }},
	} {
		l, err := compare(ours, theirs, rounds, b.budget, b.run)
		if err != nil {
			return out, fmt.Errorf("%s: %w", b.unit, err)
		}
		l.what = fmt.Sprintf("vswitchd CPU per %s / %s", b.unit, against.name)
		out = append(out, l)
	}
	return out, nil
}

// compare runs pairs of rounds and judges the median of their ratios. The two rounds of a pair are cut into slices that take turns, so
// that what else the machine does meets both alike.
func compare(ours, rival *contender, rounds int, budget float64, run func(*load) (int, error)) (line, error) {
	var cpu, wall []float64
	var our, their []time.Duration
	for n := -1; n < rounds; n++ { // the first pair fills the caches
		var a, b sample
		for _, ourTurn := range [...]bool{true, false, false, true, false, true, true, false} {
			side, sum := rival, &b
			if ourTurn {
				side, sum = ours, &a
			}
			s, err := side.slice(run)
			if err != nil {
				return line{}, err
			}
			sum.cpu, sum.wall, sum.units = sum.cpu+s.cpu, sum.wall+s.wall, sum.units+s.units
		}
		if n < 0 {
			continue
		}
		cpu = append(cpu, float64(a.perUnit())/float64(b.perUnit()))
		wall = append(wall, float64(a.wall)/float64(b.wall))
		our, their = append(our, a.perUnit()), append(their, b.perUnit())
	}
	m, low, high := medianInterval(cpu)
	w, _, _ := medianInterval(wall)
	l := line{figure: fmt.Sprintf("%.3f, 90 %% in %.3f-%.3f (%v / %v, %d pairs; wall %.2f)", m, low, high, median(our),
		median(their), rounds, w),
		budget: "-", ok: true}
	if budget > 0 {
		l.budget, l.ok = fmt.Sprintf("<= %.2f within the interval", budget), low <= budget
	}
	return l, nil
}

// medianInterval returns the median of xs and the narrowest pair of order statistics that holds the median of what they were drawn from
// with at least
// 90 %: the number of values below it has the binomial distribution with p = 1/2, whatever the distribution of the values.
func medianInterval(xs []float64) (mid, low, high float64) {
	s := slices.Sorted(slices.Values(xs))
	n := len(s)
	p := math.Ldexp(1, -n) // that exactly k of n values are below
	tail, k := 0.0, 0
	for ; k < n/2 && 2*(tail+p) <= 0.1; k++ {
		tail += p
		p = p * float64(n-k) / float64(k+1)
	}
	k = max(k, 1)
	return s[n/2], s[k-1], s[n-k]
}
