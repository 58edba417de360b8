package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// onePolicy is rulePolicy for vm1 alone.
func onePolicy(n int) map[string]any {
	p := rulePolicy(n, 10)
	p["spec"].(map[string]any)["appliesTo"] = []any{map[string]any{"port": "vm1"}}
	return p
}

// benchRules puts 100, 1,000 and 10,000 rules on one endpoint, each number on a switch of its own, and changes one of them in turn.
func benchRules() (out []line, err error) {
	sizes := []int{100, 1000, scale(10_000)}
	rigs := make([]*rig, len(sizes))
	var all time.Duration
	flows := 0
	for i, rules := range sizes {
		r, err := newRig(1, nil)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		before, err := flowCount(r.Lab, "br0")
		if err != nil {
			return nil, err
		}
		var docs []any
		for n := range rules / 10 {
			docs = append(docs, onePolicy(n))
		}
		if all, err = r.apply(docs); err != nil {
			return nil, err
		}
		after, err := flowCount(r.Lab, "br0")
		if err != nil {
			return nil, err
		}
		flows = after - before
		if err := r.quiet(); err != nil {
			return nil, err
		}
		rigs[i] = r
	}
	took := make([][]time.Duration, len(sizes))
	for round := range scale(200) {
		for i, r := range rigs {
			p := onePolicy(7)
			p["spec"].(map[string]any)["ingress"].([]map[string]any)[3]["services"] = tcp(20000 + round)
			d, err := r.put("policies/p7", p)
			if err != nil {
				return nil, err
			}
			took[i] = append(took[i], d)
		}
	}
	rss, err := memory(rigs[len(rigs)-1].tw.Pid())
	if err != nil {
		return nil, err
	}
	most := sizes[len(sizes)-1]
	per := float64(flows) / float64(most)
	p50 := func(i int) time.Duration { return median(took[i]).Round(10 * time.Microsecond) }
	growth := float64(median(took[2])) / float64(median(took[0]))
	out = []line{
		{what: fmt.Sprintf("flows per rule, %d rules on one endpoint", most),
			figure: fmt.Sprintf("%.2f (%d; RSS of tapwall %d MiB)", per, flows, rss),
			was:    "5.0; OVN 2.0", budget: "<= 2.2", ok: per <= 2.2},
		{what: fmt.Sprintf("PUT -> installed, p50 at %d / at 100 rules", most),
			figure: fmt.Sprintf("%.2f (100: %v, 1,000: %v, %d: %v)", growth, p50(0),
				p50(1), most, p50(2)), was: "3.0 / 2.8 / 6.4 ms; OVN 5 / 17 / 169", budget: "<= 1.3", ok: growth <= 1.3},
		atMost(fmt.Sprintf("all %d rules in one apply", most), all.Round(10*time.Millisecond).String(),
			"10.3 s in 100 writes; OVN 8.1 s", all,
			2*time.Second),
	}
	theirs, err := ovnRules(most)
	if err != nil {
		return out, fmt.Errorf("OVN: %w", err)
	}
	return append(out, theirs.line(p50(2), all)), nil
}

// ovnFigures are what OVN takes for the same rules.
type ovnFigures struct {
	rules int
	one   []time.Duration // one ACL more
	all   time.Duration
	flows int
	rss   int64 // of all its processes, MiB
}

func (f ovnFigures) line(one, all time.Duration) line {
	return line{what: fmt.Sprintf("tapwall / OVN in this run, %d rules", f.rules), figure: fmt.Sprintf(
		"one change %.2f (OVN p50 %v), all %.2f (OVN %v); OVN %d flows, RSS %d MiB", float64(one)/float64(median(f.one)),
		median(f.one).Round(100*time.Microsecond), float64(all)/float64(f.all), f.all.Round(10*time.Millisecond), f.flows, f.rss),
		was: "0.04, 1.3; OVN 285 MiB", budget: "-", ok: true}
}

// ovnRules gives one port of an OVN switch the rules of onePolicy, and some more one by one.
func ovnRules(rules int) (f ovnFigures, err error) {
	l, err := switchLab()
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if _, err := l.AddVM("vm1", "br0", 1); err != nil {
		return f, err
	}
	o, err := startOVN(l)
	if err != nil {
		return f, err
	}
	if err := o.ports("vm1"); err != nil {
		return f, err
	}
	acl := func(net, port int) []string {
		return []string{"acl-add", "sw", "to-lport", "1000",
			fmt.Sprintf(`outport == "if-vm1" && ip4.src == 10.%d.%d.0/24 && tcp.dst == %d`, net/250, net%250,
				port), "allow-related"}
	}
	f.rules = rules
	start := time.Now()
	var batch [][]string
	for i := range rules {
		batch = append(batch, acl(i/10, 1000+i%10))
	}
	if err := o.run(batch...); err != nil {
		return f, err
	}
	f.all = time.Since(start)
	for i := range scale(30) {
		start := time.Now()
		if err := o.run(acl(7, 20000+i)); err != nil {
			return f, err
		}
		f.one = append(f.one, time.Since(start))
	}
	if f.flows, err = flowCount(l, "br0"); err == nil {
		f.rss, err = o.memory()
	}
	return f, err
}

// size is that of a document as it is sent.
func size(doc any) int {
	b, _ := json.Marshal(doc)
	return len(b)
}
