package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

const (
	manyEndpoints = 1000
	manyPolicies  = 1000 // of 10 rules
)

func selects(ls labels) []any { return []any{map[string]any{"labels": ls}} }

func tcp(ports ...int) []any {
	var text []string
	for _, p := range ports {
		text = append(text, strconv.Itoa(p))
	}
	return []any{map[string]any{"protocol": "tcp", "ports": text}}
}

func allow(name string, from, services []any) map[string]any {
	return map[string]any{"name": name, "action": "allow", "from": from, "services": services}
}

func policyDoc(name string, appliesTo []any, ingress ...map[string]any) map[string]any {
	return map[string]any{"kind": "Policy", "name": name, "spec": map[string]any{"appliesTo": appliesTo, "ingress": ingress}}
}

func cidrs(text ...string) (out []any) {
	for _, c := range text {
		out = append(out, map[string]any{"cidr": c})
	}
	return out
}

// usualLabels are such as people use: ten applications, of each a front and a back.
func usualLabels(i int) labels {
	return labels{"app": fmt.Sprintf("a%d", i%10), "tier": fmt.Sprintf("t%d", i/10%2)}
}

// usualPolicy is policy n of 10 rules for one application, that is for every tenth endpoint. Of ten rules four have half an application
// for a peer, three an application, three a network; each has one of 500 ports.
func usualPolicy(n int) map[string]any {
	var rs []map[string]any
	for r := range 10 {
		from := cidrs(fmt.Sprintf("10.%d.%d.0/24", n/250, n%250))
		peer := labels{"app": fmt.Sprintf("a%d", (n+r+1)%10)}
		switch r % 3 {
		case 0:
			peer["tier"] = fmt.Sprintf("t%d", r%2)
			from = selects(peer)
		case 1:
			from = selects(peer)
		}
		rs = append(rs, allow(fmt.Sprintf("r%d", r), from, tcp(1000+(n*10+r)%500)))
	}
	return policyDoc(fmt.Sprintf("p%d", n), selects(labels{"app": fmt.Sprintf("a%d", n%10)}), rs...)
}

// usualRig has the endpoints and policies of the case that by members would be 1,088,000 flows; its policies are not yet applied.
func usualRig(vms int) (r *rig, policies []any, err error) {
	var ports []labels
	for i := range scale(manyEndpoints) {
		ports = append(ports, usualLabels(i))
	}
	for n := range scale(manyPolicies) {
		policies = append(policies, usualPolicy(n))
	}
	r, err = newRig(vms, ports)
	return r, policies, err
}

func benchClasses() (out []line, err error) {
	r, policies, err := usualRig(0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	out, err = r.install(fmt.Sprintf("%d endpoints x %d policies x 10 rules", scale(manyEndpoints), len(policies)), policies,
		limits{flows: 60_000,
			install: 5 * time.Second, restart: 2 * time.Second, memory: 200}, formerly{flows: "1,088,000; by hand 41,104",
			install: "13-55 s per 100 policies; by hand 1.2 s", restart: "21 s", memory: "1,600 / 900 MiB"})
	if err != nil {
		return out, err
	}
	l, err := ovnClasses()
	if err == nil {
		out = append(out, l)
	}
	return out, err
}

// binaryLabels has 20 labels of two values each, independent of each other, so that a thousand endpoints are as many classes.
func binaryLabels(n int) (ports []labels, policies []any) {
	random := rand.New(rand.NewPCG(20, 3))
	for range n {
		ls := labels{}
		for b := range 20 {
			ls[fmt.Sprintf("b%d", b)] = strconv.Itoa(random.IntN(2))
		}
		ports = append(ports, ls)
	}
	for p := range scale(manyPolicies) {
		subject := labels{}
		for _, b := range random.Perm(20)[:3] {
			subject[fmt.Sprintf("b%d", b)] = strconv.Itoa(random.IntN(2))
		}
		var rs []map[string]any
		for i := range 10 {
			rs = append(rs, allow(fmt.Sprintf("r%d", i), cidrs(fmt.Sprintf("10.%d.%d.0/24", p/250, p%250)), tcp(1000+(p*10+i)%500)))
		}
		policies = append(policies, policyDoc(fmt.Sprintf("p%d", p), selects(subject), rs...))
	}
	return ports, policies
}

// benchWorst is the worst case for classes: every endpoint is its own, and each policy applies to an eighth of them.
func benchWorst() (out []line, err error) {
	ports, policies := binaryLabels(scale(manyEndpoints))
	r, err := newRig(0, ports)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.install(fmt.Sprintf("%d classes, %d policies x 10 rules x 1/8 of them", len(ports), len(policies)), policies,
		limits{flows: 200_000, install: 15 * time.Second}, formerly{flows: "1.33 M by formula; by hand 179,178",
			install: "50 s by hand, 7.1 s with the fallback",
			memory:  "- / 1,400 MiB; by hand - / 267"})
}

// limits are budgets, 0 = none. Memory is that of tapwall, in MiB.
type limits struct {
	flows, memory    int
	install, restart time.Duration
}

// formerly is what was measured before rules were compiled by classes.
type formerly struct{ flows, install, restart, memory string }

// install writes policies at once into a tapwall that has none, and reads what they cost; then it restarts tapwall.
func (r *rig) install(what string, policies []any, limit limits, was formerly) ([]line, error) {
	var spent [2][2]time.Duration
	read := func(at int) (err error) {
		if spent[at][0], err = threadTime(r.tw.Pid()); err == nil {
			spent[at][1], err = threadTime(r.VswitchdPid())
		}
		return err
	}
	if err := read(0); err != nil {
		return nil, err
	}
	took, err := r.apply(policies)
	if err != nil {
		return nil, err
	}
	if err := read(1); err != nil {
		return nil, err
	}
	flows, ours, peak, err := r.weigh()
	if err != nil {
		return nil, err
	}
	theirs, err := memory(r.VswitchdPid())
	if err != nil {
		return nil, err
	}
	back, mods, err := r.restart()
	if err != nil {
		return nil, err
	}
	again, err := memory(r.tw.Pid())
	if err != nil {
		return nil, err
	}
	ours, peak = ours>>20, peak>>20
	return []line{
		atMost(what+": flows", fmt.Sprint(flows), was.flows, flows, limit.flows),
		atMost("from nothing to installed", fmt.Sprintf("%v (CPU of tapwall %v, of vswitchd %v)", took.Round(10*time.Millisecond),
			(spent[1][0]-spent[0][0]).Round(10*time.Millisecond), (spent[1][1]-spent[0][1]).Round(10*time.Millisecond)),
			was.install, took,
			limit.install),
		atMost("restart to ready", fmt.Sprintf("%v, %.0f flow-mods", back.Round(10*time.Millisecond), mods), was.restart, back,
			limit.restart,
			"0 flow-mods").and(mods == 0),
		atMost("RSS of tapwall / of vswitchd", fmt.Sprintf("%d (peak %d, %d after the restart) / %d MiB", ours, peak, again,
			theirs), was.memory,
			int(ours), limit.memory),
	}, nil
}
