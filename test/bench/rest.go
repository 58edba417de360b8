package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/test/lab"
)

// api is a keep-alive client of a lab's tapwall.
type api struct{ http.Client }

func newAPI(l *lab.Lab) *api {
	return &api{http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn,
		error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.Socket())
	}}}}
}

func (a *api) send(method, path string, body []byte, contentType string) ([]byte, error) {
	req, err := http.NewRequest(method, "http://tapwall"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := a.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, b)
	}
	return b, err
}

// rulePolicy is policy n with rules rules for machine vm1 or vm2.
func rulePolicy(n, rules int) map[string]any {
	var rs []map[string]any
	for r := range rules {
		rs = append(rs, map[string]any{"name": fmt.Sprintf("r%d", r), "action": "allow",
			"from":     []any{map[string]any{"cidr": fmt.Sprintf("10.%d.%d.0/24", n/250, n%250)}},
			"services": []any{map[string]any{"protocol": "tcp", "ports": []string{strconv.Itoa(1000 + r)}}}})
	}
	return map[string]any{"kind": "Policy", "name": fmt.Sprintf("p%d", n), "spec": map[string]any{
		"appliesTo": []any{map[string]any{"port": fmt.Sprintf("vm%d", 1+n%2)}}, "ingress": rs}}
}

// ruleLab is a lab with two machines, tapwall, and policies × 10 rules installed.
func ruleLab(policies int) (*lab.Lab, *lab.Tapwall, *api, error) {
	l, err := lab.Start("")
	if err != nil {
		return nil, nil, nil, err
	}
	fail := func(err error) (*lab.Lab, *lab.Tapwall, *api, error) {
		return nil, nil, nil, errors.Join(err, l.Close())
	}
	if err := l.AddBridge("br0"); err != nil {
		return fail(err)
	}
	for i := 1; i <= 2; i++ {
		if _, err := l.AddVM(fmt.Sprintf("vm%d", i), "br0", i); err != nil {
			return fail(err)
		}
	}
	tw, err := l.StartTapwall("--bridge", "br0=owned", "--log-level", "warn", "--pickup-window", "1s")
	if err != nil {
		return fail(err)
	}
	a := newAPI(l)
	var docs []any
	for n := range policies {
		docs = append(docs, rulePolicy(n, 10))
	}
	if len(docs) > 0 {
		body, err := json.Marshal(docs)
		if err != nil {
			return fail(err)
		}
		if _, err := a.send("POST", "/v1/apply?wait=installed&timeout=60s", body, "application/json"); err != nil {
			return fail(err)
		}
	}
	time.Sleep(3 * time.Second) // the pickup window closes, caches settle
	return l, tw, a, nil
}

// puts changes one rule n times, waits each time until it is installed, and returns how long each took.
func puts(a *api, n int) ([]time.Duration, error) {
	var took []time.Duration
	for i := range n {
		p := rulePolicy(7, 10)
		rules := p["spec"].(map[string]any)["ingress"].([]map[string]any)
		rules[3]["services"] = []any{map[string]any{"protocol": "tcp", "ports": []string{strconv.Itoa(20000 + i)}}}
		body, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if _, err := a.send("PUT", "/v1/policies/p7?wait=installed&timeout=10s", body, "application/json"); err != nil {
			return nil, err
		}
		if i >= 20 { // the first ones warm up
			took = append(took, time.Since(start))
		}
	}
	return took, nil
}

func benchPut() (out []line, err error) {
	results := map[int][]time.Duration{}
	var flows, keys []time.Duration
	var cpu time.Duration
	for _, policies := range []int{10, 1000} {
		l, tw, a, err := ruleLab(policies)
		if err != nil {
			return nil, err
		}
		before, err := threadTime(tw.Pid())
		if err == nil {
			results[policies], err = puts(a, putsEach)
		}
		if err == nil && policies == 1000 {
			after, errTime := threadTime(tw.Pid())
			cpu, err = (after-before)/putsEach, errTime
		}
		if err == nil && policies == 1000 {
			flows, err = oneFlowBundles(l)
		}
		if err == nil && policies == 1000 {
			keys, err = bareStorePuts(l.Dir)
		}
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, err
		}
	}
	few, many := results[10], results[1000]
	p50, p99 := quantile(many, 0.5), quantile(many, 0.99)
	growth := float64(p50) / float64(quantile(few, 0.5))
	bare := median(flows) + median(keys)
	ratio := float64(p50) / float64(bare)
	return []line{
		{"PUT of a rule -> installed, 10k rules, p50", fmt.Sprintf("%v = %.1f x (bare etcd put %v + one-flow bundle %v)",
			p50.Round(10*time.Microsecond), ratio,
			median(keys).Round(10*time.Microsecond), median(flows).Round(10*time.Microsecond)), "<= 2 ms or <= 5 x", p50 <= 2*time.Millisecond ||
			ratio <= 5, "5.6 ms; OVN 169"},
		{"the same, p99", fmt.Sprintf("%v (bare %v + %v); CPU of tapwall per PUT %v", p99.Round(10*time.Microsecond),
			quantile(keys, 0.99).Round(10*time.Microsecond),
			quantile(flows, 0.99).Round(10*time.Microsecond), cpu.Round(10*time.Microsecond)), "<= 8 ms", p99 <= 8*time.Millisecond,
			"21 ms"},
		{"p50 with 10k rules / with 100 rules", fmt.Sprintf("%.2f", growth), "<= 1.3", growth <= 1.3, ""},
	}, nil
}

const putsEach = 520

// bareStorePuts measures the other part: a value of the size of a policy's in an etcd that does nothing else, on the same disk.
func bareStorePuts(dir string) (took []time.Duration, err error) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "bare")
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.LogLevel = "error"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	c := v3client.New(e.Server)
	defer c.Close()
	value := strings.Repeat("x", 1500)
	for range 300 {
		start := time.Now()
		if _, err := c.Put(context.Background(), "/policies/p7", value); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// oneFlowBundles measures the part of a PUT that no controller can do without: a bundle with one flow, on the same switch.
func oneFlowBundles(l *lab.Lab) ([]time.Duration, error) {
	sw, stop, err := connect(l)
	if err != nil {
		return nil, err
	}
	defer stop()
	// Flows of another table than the pipeline's, so that tapwall's own are not in the way; they are removed with the lab.
	f := flows(1)[0]
	f.Table = 229
	var took []time.Duration
	for i := range 300 {
		f.Actions = []flow.Action{flow.Load{Dst: flow.SubField{Field: flow.Reg0, Bits: 32}, Value: uint64(i)}}
		start := time.Now()
		if _, err := sw.Apply(context.Background(), ofctrl.Update{Revision: int64(i), Owners: map[string][]flow.Flow{"bench": {f}}}); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// benchFootprint reads what the process costs at rest.
func benchFootprint() (out []line, err error) {
	l, tw, _, err := ruleLab(0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	rss, cpu, err := rest(tw.Pid(), 10*time.Second)
	return []line{{"at rest without rules, embedded store", fmt.Sprintf("RSS %d MiB, CPU %.2f %%", rss>>20, cpu*100),
		"<= 50 MiB, CPU <= 1 %", rss <= 50<<20 && cpu <= 0.01, "40 MiB, 0.6 %"}}, err
}

// rest returns a process's resident bytes and its share of one CPU over d.
func rest(pid int, d time.Duration) (rss int64, cpu float64, err error) {
	ticks := func() (int64, error) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// Field 2 is in parentheses and may hold spaces; user and system time are fields 14 and 15 (proc(5)).
		_, after, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(after)
		u, err1 := strconv.ParseInt(f[11], 10, 64)
		s, err2 := strconv.ParseInt(f[12], 10, 64)
		return u + s, errors.Join(err1, err2)
	}
	before, err := ticks()
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(d)
	after, err := ticks()
	if err != nil {
		return 0, 0, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	const hz = 100 // USER_HZ of every Linux port that Go runs on
	return pages * int64(os.Getpagesize()), float64(after-before) / hz / d.Seconds(), err
}
