package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// The classic recipe, as people type it: every packet that a mirror copies becomes a document, by tshark, sed and curl. It gets what can be
// given to it: a large buffer, a filter of layers so that no JSON key comes twice, and a thousand packets in a request. An index of its own
// takes every field as tshark names it.
const recipe = `tshark -Q -i ids0 -B 256 -l -n -T ek -J "ip tcp udp dns http tls" 2>>"$DIR/tshark.txt" |
	sed -u 's/"_type":"[a-z]*",\?//; s/"index":{"_index":"[^"]*",\?/"index":{"_index":"recipe",/; s/,}/}/' |
	split -l 2000 --filter='curl -sS -H "Content-Type: application/x-ndjson" --data-binary @- \
		"$URL/_bulk?filter_path=errors" >>"$DIR/curl.txt"'`

// benchRecipe has the packets of a mirror indexed, by the recipe and by tapwall's target events, in turns on the same machine, server and
// load; then the server is killed in the middle.
func benchRecipe() (out []line, err error) {
	server, err := lab.StartOpenSearch()
	if err != nil {
		return nil, err
	}
	defer server.Close()
	var tw *lab.Tapwall
	near := ""
	c, err := newContender(func(l *lab.Lab) error {
		if err := guardByNormal(l); err != nil {
			return err
		}
		if near, err = relay(l, strings.TrimPrefix(server.URL, "http://")); err != nil {
			return err
		}
		config := filepath.Join(l.Dir, "bench.yaml")
		text := fmt.Sprintf("sinks: {jsonl: {disabled: true}, opensearch: {urls: ['http://%s'], index-prefix: ours}}\n", near)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return err
		}
		tw, err = l.StartTapwall("--config", config, "--bridge", "br0=guest", "--log-level", "warn")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	b := &recipeBench{server: server, c: c, tw: tw, api: newAPI(c.lab), near: near, n: scale(10_000)}
	if err := b.recipeIndex(); err != nil {
		return nil, err
	}
	if _, _, err := b.ours(false); err != nil { // warms the server up
		return nil, err
	}
	oursTook, oursCPU, err := b.ours(false)
	if err != nil {
		return nil, err
	}
	theirsTook, theirsCPU, theirsKept, err := b.theirs(false)
	if err != nil {
		return nil, err
	}
	packets := float64(b.packets)
	speed := theirsTook.Seconds() / oursTook.Seconds() * packets / float64(theirsKept)
	per100k := func(d time.Duration) float64 { return d.Seconds() * 1e5 / packets }
	out = []line{
		{what: "packets/s as documents, tapwall / tshark + curl", figure: fmt.Sprintf("%.1f x (%.0f/s, %.0f/s; %d and %d of %d indexed)", speed,
			packets/oursTook.Seconds(), float64(theirsKept)/theirsTook.Seconds(), b.packets, theirsKept, b.packets),
			budget: ">= 1.5 x", ok: speed >= 1.5},
		{what: "CPU of 100k packets, tapwall / tshark + curl", figure: fmt.Sprintf("1/%.1f (%.2f s, %.1f s)",
			theirsCPU.Seconds()/oursCPU.Seconds(),
			per100k(oursCPU), per100k(theirsCPU)), budget: "<= 1/15", ok: oursCPU*15 <= theirsCPU},
	}
	if quick {
		return out, nil
	}
	if _, _, err := b.ours(true); err != nil {
		return out, err
	}
	_, _, kept, err := b.theirs(true)
	if err != nil {
		return out, err
	}
	lost := fmt.Sprintf("tapwall 0, none doubled; recipe %d of %d", b.packets-kept, b.packets)
	return append(out, line{what: "documents lost when the server is killed in the middle", figure: lost,
		budget: "0 of tapwall", ok: true}), nil
}

type recipeBench struct {
	server  *lab.OpenSearch
	c       *contender
	tw      *lab.Tapwall
	api     *api
	near    string // the server, seen from the switch
	n       int    // datagrams that are echoed
	packets int    // that the mirror copies of them
	seen    int    // documents of earlier rounds
}

// recipeIndex is an index that takes whatever fields there are.
func (b *recipeBench) recipeIndex() error {
	return b.server.JSON(http.MethodPut, "/recipe", `{"settings":{"number_of_replicas":0,"index.mapping.total_fields.limit":10000},
		"mappings":{"properties":{"timestamp":{"type":"date"}}}}`, nil)
}

// relay forwards connections to loopback of the lab to an address of this machine.
func relay(l *lab.Lab, to string) (near string, err error) {
	var in net.Listener
	if err := l.Switch.Do(func() (err error) {
		in, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		return "", err
	}
	go func() {
		for {
			a, err := in.Accept()
			if err != nil {
				return
			}
			go func() {
				defer a.Close()
				z, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer z.Close()
				go func() { _, _ = io.Copy(z, a); _ = z.Close() }()
				_, _ = io.Copy(a, z)
			}()
		}
	}()
	return in.Addr().String(), nil
}

// traffic has the load sent in portions, so that a reader which is a little behind is not flooded; half is called in the middle.
func (b *recipeBench) traffic(half func() error) error {
	b.packets = 0
	for sent, portion := 0, 1000; sent < b.n; sent += portion {
		if sent >= b.n/2 && half != nil {
			if err := half(); err != nil {
				return err
			}
			half = nil
		}
		n, err := b.c.load.echo(portion)
		if err != nil {
			return err
		}
		b.packets += n
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func (b *recipeBench) apply(target any) error {
	body, err := json.Marshal(mirrorDoc("m", "vm1", map[string]any{"targets": []any{target}}))
	if err != nil {
		return err
	}
	_, err = b.api.send("POST", "/v1/apply?wait=installed&timeout=30s", body, "application/json")
	return err
}

// killed kills the server, starts it again, and returns when it answers.
func (b *recipeBench) killed() error {
	b.server.Kill()
	return b.server.Start()
}

// settled waits until an index has want documents, or no more come, and says how many there are, and when the last came.
func (b *recipeBench) settled(index, query string, want int) (n int, last time.Time, err error) {
	for quiet := time.Now(); time.Since(quiet) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		now, err := b.server.Count(index, query)
		if err != nil {
			return 0, last, err
		}
		if now > n {
			n, last, quiet = now, time.Now(), time.Now()
		}
		if n >= want {
			break
		}
	}
	return n, last, nil
}

// ours has every packet indexed by the target events, and checks that each is there once.
func (b *recipeBench) ours(kill bool) (took, cpu time.Duration, err error) {
	if err := b.apply(map[string]any{"events": map[string]any{"sample": "1/1"}}); err != nil {
		return 0, 0, err
	}
	before, err := threadTime(b.tw.Pid())
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	var half func() error
	if kill {
		half = b.killed
	}
	if err := b.traffic(half); err != nil {
		return 0, 0, err
	}
	const query = `{"bool":{"filter":[{"term":{"tapwall.mirror":"m"}},{"term":{"network.transport":"udp"}}]}}`
	n, last, err := b.settled("ours-packet", query, b.seen+b.packets)
	if err != nil {
		return 0, 0, err
	}
	after, err := threadTime(b.tw.Pid())
	if err != nil {
		return 0, 0, err
	}
	distinct, all := 0, 1
	for range 10 { // neighbour discovery of the machines comes in between
		if all, err = b.server.Count("ours-packet", ""); err != nil {
			return 0, 0, err
		}
		if distinct, err = b.server.Distinct("ours-packet", "event.id"); err != nil {
			return 0, 0, err
		}
		if distinct == all {
			break
		}
		time.Sleep(300 * time.Millisecond)
	}
	if n-b.seen != b.packets || distinct != all {
		said, _ := b.tw.Run("status")
		return 0, 0, fmt.Errorf("tapwall: %d documents of %d packets, %d ids of %d documents\n%s", n-b.seen, b.packets, distinct, all, said)
	}
	b.seen = n
	return last.Sub(begin), after - before, nil
}

// theirs has them indexed by the recipe.
func (b *recipeBench) theirs(kill bool) (took, cpu time.Duration, kept int, err error) {
	if err := b.apply(map[string]any{"port": map[string]any{"name": sink, "create": true}}); err != nil {
		return 0, 0, 0, err
	}
	seen, err := b.server.Count("recipe", `{"exists":{"field":"layers.udp"}}`)
	if err != nil {
		return 0, 0, 0, err
	}
	cmd := exec.Command("sh", "-c", recipe)
	cmd.Env = append(os.Environ(), "DIR="+b.c.lab.Dir, "URL=http://"+b.near)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.c.lab.Switch.Do(cmd.Start); err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(3 * time.Second) // tshark needs a while before it reads
	begin := time.Now()
	var half func() error
	if kill {
		half = b.killed
	}
	err = b.traffic(half)
	var last time.Time
	n := 0
	if err == nil {
		n, last, err = b.settled("recipe", `{"exists":{"field":"layers.udp"}}`, seen+b.packets-2000) // the last request is sent at the end
	}
	// tshark first: the others end with their input, and the last request is sent.
	_ = exec.Command("pkill", "-INT", "-g", fmt.Sprint(cmd.Process.Pid), "tshark").Run()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
	if err != nil {
		return 0, 0, 0, err
	}
	rest, at, err := b.settled("recipe", `{"exists":{"field":"layers.udp"}}`, seen+b.packets)
	if err != nil {
		return 0, 0, 0, err
	}
	if rest > n {
		n = rest
		if at.Sub(last) < 2*time.Second {
			last = at
		}
	}
	if n == seen && !kill {
		said, _ := os.ReadFile(filepath.Join(b.c.lab.Dir, "curl.txt"))
		heard, _ := os.ReadFile(filepath.Join(b.c.lab.Dir, "tshark.txt"))
		return 0, 0, 0, fmt.Errorf("the recipe indexed nothing: %.300s %.300s", said, heard)
	}
	u := cmd.ProcessState
	return last.Sub(begin), u.UserTime() + u.SystemTime(), n - seen, nil
}
