package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The pools that the rules of benchFirst draw from. Members of even and of odd number never meet in a rule.
const (
	firstRoles = 48 // classes of endpoints
	firstHosts = 40 // 10.9.0.0…
	firstPorts = 100
)

// firstRule is rule i of the mix: 5 % of 20 peer classes and 3 ports, half of 2 addresses and 3 ports, the others of one address and
// one port.
func firstRule(i int) map[string]any {
	parity, k := i/20%2, i/40
	pick := func(n, pool, at int) (out []int) {
		for j := range n {
			out = append(out, (2*(at+j)+parity)%pool)
		}
		return out
	}
	peers, ports := 1, 1
	switch {
	case i%20 == 0:
		var from []any
		for _, c := range pick(20, firstRoles, k) {
			from = append(from, selects(labels{"role": strconv.Itoa(c)})...)
		}
		return allow(fmt.Sprintf("r%d", i), from, tcp(firstPort(pick(3, firstPorts, k))...))
	case i%2 == 1:
		peers, ports = 2, 3
	}
	var from []any
	for _, h := range pick(peers, firstHosts, i) {
		from = append(from, cidrs(fmt.Sprintf("10.9.0.%d/32", h))...)
	}
	return allow(fmt.Sprintf("r%d", i), from, tcp(firstPort(pick(ports, firstPorts, i+k))...))
}

func firstPort(ns []int) []int {
	for i := range ns {
		ns[i] += 1000
	}
	return ns
}

// firstRig has so many rules on vm2, and vm1 in the class of one of their peers.
func firstRig(rules int) (*rig, error) {
	var ports []labels
	for i := range firstRoles {
		ports = append(ports, labels{"role": strconv.Itoa(i)})
	}
	r, err := newRig(2, ports)
	if err != nil {
		return nil, err
	}
	subject := []any{map[string]any{"port": "vm2"}}
	var docs []any
	for at := 0; at < rules; at += 100 {
		var rs []map[string]any
		for i := at; i < min(at+100, rules); i++ {
			rs = append(rs, firstRule(i))
		}
		docs = append(docs, policyDoc(fmt.Sprintf("p%d", at/100), subject, rs...))
	}
	// What no rule of the mix takes is allowed by one below them all.
	last := policyDoc("last", subject, map[string]any{"name": "r", "action": "allow"})
	last["spec"].(map[string]any)["tier"] = "baseline"
	docs = append(docs, last, endpointDoc("vm1", labels{"role": "0"}))
	if _, err := r.apply(docs); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, r.quiet()
}

// firstPacket is what vswitchd spends on a connection's first packet that its caches do not know, and how much of it is the upcall: what it
// costs more than one that they know.
func (r *rig) firstPacket(sourcePort uint16) (whole, upcall time.Duration, err error) {
	if _, err := r.Appctl("dpctl/del-flows"); err != nil {
		return 0, 0, err
	}
	cold, packets, misses, err := r.burst(sourcePort)
	if err != nil {
		return 0, 0, err
	}
	warm, _, known, err := r.burst(sourcePort + 1)
	if err != nil {
		return 0, 0, err
	}
	if misses-known < packets/2 {
		return 0, 0, fmt.Errorf("%d and %d upcalls for %d connections: the caches know them", misses, known, packets)
	}
	upcall = (cold - warm) / time.Duration(misses-known)
	return upcall + warm/time.Duration(packets), upcall, nil
}

// burst sends one SYN for each pair of an address and a port. The sender's class occurs in rules with the other ports, each address in
// rules with the other ports, each port in rules with other peers. It returns the CPU time of vswitchd and its upcalls.
func (r *rig) burst(sourcePort uint16) (cpu time.Duration, packets, misses int, err error) {
	var frames [][]byte
	for h := 0; h < firstHosts; h += 2 {
		for p := 1; p < firstPorts; p += 2 {
			f, err := r.VMs["vm1"].CraftTCP(fmt.Sprintf("10.9.0.%d", h), r.VMs["vm2"], sourcePort, uint16(1000+p), 2)
			if err != nil {
				return 0, 0, 0, err
			}
			frames = append(frames, f)
		}
	}
	upcalls, err := r.misses()
	if err != nil {
		return 0, 0, 0, err
	}
	before, err := threadTime(r.VswitchdPid())
	if err != nil {
		return 0, 0, 0, err
	}
	sent, err := r.VMs["vm2"].Received()
	if err != nil {
		return 0, 0, 0, err
	}
	for part := range slices.Chunk(frames, 100) { // no more than the socket holds
		if err := r.VMs["vm1"].Send(part...); err != nil {
			return 0, 0, 0, err
		}
		sent += len(part)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(500 * time.Microsecond) {
			got, err := r.VMs["vm2"].Received()
			if err != nil {
				return 0, 0, 0, err
			}
			if got >= sent {
				break
			}
			if time.Now().After(end) {
				return 0, 0, 0, fmt.Errorf("%d of %d packets were not delivered", sent-got, len(frames))
			}
		}
	}
	after, err := threadTime(r.VswitchdPid())
	if err != nil {
		return 0, 0, 0, err
	}
	now, err := r.misses()
	return after - before, len(frames), now - upcalls, err
}

// misses is how many packets no cache of the datapath knew.
func (r *rig) misses() (int, error) {
	out, err := r.Appctl("dpif-netdev/pmd-stats-show")
	if err != nil {
		return 0, err
	}
	return parseMisses(out)
}

// parseMisses adds up the lines "miss with success upcall: N" of all threads.
func parseMisses(text string) (sum int, err error) {
	found := false
	for l := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(l), "miss with success upcall: "); ok {
			v, err := strconv.Atoi(n)
			if err != nil {
				return 0, err
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		return 0, fmt.Errorf("no upcalls in %.200q", text)
	}
	return sum, nil
}

func benchFirst() (out []line, err error) {
	sizes := []int{10, 1000, scale(10_000)}
	if quick {
		sizes[1] = 100
	}
	took, upcalls := make([][]time.Duration, len(sizes)), make([][]time.Duration, len(sizes))
	var rigs []*rig
	for _, n := range sizes {
		r, err := firstRig(n)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		rigs = append(rigs, r)
	}
	for round := range 2 * minRounds {
		for i, r := range rigs {
			whole, upcall, err := r.firstPacket(uint16(20000 + 2*round))
			if err != nil {
				return nil, err
			}
			if round > 0 { // the first fills what can be filled
				took[i], upcalls[i] = append(took[i], whole), append(upcalls[i], upcall)
			}
		}
	}
	us := func(ds []time.Duration) time.Duration { return median(ds).Round(100 * time.Nanosecond) }
	growth := float64(median(took[2])) / float64(median(took[0]))
	return []line{{what: fmt.Sprintf("CPU of a first packet, %d rules / 10 on the endpoint", sizes[2]), figure: fmt.Sprintf(
		"%.2f (10: %v, %d: %v, %d: %v; of it the upcalls %v, %v, %v)", growth, us(took[0]), sizes[1], us(took[1]), sizes[2], us(took[2]),
		us(upcalls[0]), us(upcalls[1]), us(upcalls[2])), was: "20 us at 10, 283 us at 5,000; by hand 20-23",
		budget: "<= 1.5", ok: growth <= 1.5}}, nil
}
