package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	bulkWrites = 100 // of 100 rules
	bulkRules  = 10_000
	changeFor  = 60 * time.Second
)

// bulkPolicy is policy n of so many rules with other networks than all others', and 500 ports between all of them, for one machine.
func bulkPolicy(n, rules int) map[string]any {
	var rs []map[string]any
	for r := range rules {
		i := n*rules + r
		rs = append(rs, map[string]any{"name": fmt.Sprintf("r%d", r), "action": "allow",
			"from":     []any{map[string]any{"cidr": fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)}},
			"services": []any{map[string]any{"protocol": "tcp", "ports": []string{strconv.Itoa(1000 + i%500)}}}})
	}
	return map[string]any{"kind": "Policy", "name": fmt.Sprintf("b%d", n),
		"spec": map[string]any{"appliesTo": []any{map[string]any{"port": "vm1"}}, "ingress": rs}}
}

// benchBulk writes 10,000 rules, each write when the one before is installed: policies of 100 rules, and 100 policies of one rule at a
// time. With the former in place it changes rules for a minute and reads what the process costs.
func benchBulk() (out []line, err error) {
	for _, rules := range []int{1, 100} {
		l, tw, a, err := ruleLab(0)
		if err != nil {
			return nil, err
		}
		lines, err := bulk(a, tw.Pid(), rules)
		out = append(out, lines...)
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func bulk(a *api, pid, rules int) (out []line, err error) {
	before, err := threadTime(pid)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for w := range bulkWrites {
		var docs []any
		for n := range bulkRules / bulkWrites / rules {
			docs = append(docs, bulkPolicy(w*bulkRules/bulkWrites/rules+n, rules))
		}
		body, err := json.Marshal(docs)
		if err != nil {
			return nil, err
		}
		if _, err := a.send("POST", "/v1/apply?wait=installed&timeout=60s", body, "application/json"); err != nil {
			return nil, err
		}
	}
	took := time.Since(start)
	after, err := threadTime(pid)
	if err != nil {
		return nil, err
	}
	out = []line{{fmt.Sprintf("10,000 rules in 100 writes of %d x %d rules", bulkRules/bulkWrites/rules, rules),
		fmt.Sprintf("%v (CPU of tapwall %v)", took.Round(10*time.Millisecond), (after - before).Round(10*time.Millisecond)), "<= 4 s",
		took <= 4*time.Second, ""}}
	if rules == 1 {
		return out, nil
	}
	changes := 0
	for end := time.Now().Add(changeFor); time.Now().Before(end); changes++ {
		p := bulkPolicy(changes%(bulkRules/rules), rules)
		rule := p["spec"].(map[string]any)["ingress"].([]map[string]any)[changes%rules]
		rule["services"] = []any{map[string]any{"protocol": "tcp", "ports": []string{strconv.Itoa(20000 + changes)}}}
		body, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		if _, err := a.send("PUT", fmt.Sprintf("/v1/policies/%s?wait=installed&timeout=10s", p["name"]), body, "application/json"); err != nil {
			return nil, err
		}
	}
	rss, peak, err := resident(pid)
	if err != nil {
		return nil, err
	}
	text, err := a.send("GET", "/metrics", nil, "")
	if err != nil {
		return nil, err
	}
	flows, err := metric(string(text), "tapwall_flows_installed")
	if err != nil {
		return nil, err
	}
	budget := int64(50<<20 + 6000*bulkRules + 1000*flows)
	return append(out, line{fmt.Sprintf("RSS with 10,000 rules after %d changes in 60 s", changes),
		fmt.Sprintf("%d MiB, peak %d MiB (%.0f flows)", rss>>20, peak>>20, flows), fmt.Sprintf("<= %d MiB, peak <= %d", budget>>20,
			2*budget>>20), rss <= budget && peak <= 2*budget, ""}), nil
}

// resident returns a process's resident bytes, now and at most so far (proc(5)).
func resident(pid int) (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for text := range strings.Lines(string(b)) {
		f := strings.Fields(text)
		switch f[0] {
		case "VmRSS:":
			now, err = strconv.ParseInt(f[1], 10, 64)
		case "VmHWM:":
			peak, err = strconv.ParseInt(f[1], 10, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return now << 10, peak << 10, nil
}

// metric returns the sum over all labels of a metric in the text format of Prometheus.
func metric(text, name string) (sum float64, err error) {
	found := false
	for l := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(l, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			f := strings.Fields(rest)
			v, err := strconv.ParseFloat(f[len(f)-1], 64)
			if err != nil {
				return 0, err
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return sum, nil
}
