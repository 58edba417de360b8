package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// sink is the port that mirrors of the benchmarks deliver to.
const sink = "ids0"

// mirrorDoc copies what a machine sends and receives to the sink.
func mirrorDoc(name, machine string, more map[string]any) map[string]any {
	spec := map[string]any{"sources": []any{map[string]any{"port": machine}},
		"targets": []any{map[string]any{"port": map[string]any{"name": sink, "create": true}}}}
	for k, v := range more {
		spec[k] = v
	}
	return map[string]any{"kind": "Mirror", "name": name, "spec": spec}
}

// filterOf accepts the load's datagrams and connections by the last of n rules.
func filterOf(n int) map[string]any {
	var rules []any
	for i := range n - 1 {
		rules = append(rules, map[string]any{"priority": 10 + i, "action": "accept", "protocol": "tcp",
			"src": []string{fmt.Sprintf("10.9.%d.0/24", i)}, "dstPorts": []string{strconv.Itoa(10_000 + i)}})
	}
	rules = append(rules, map[string]any{"priority": 10 + n, "action": "accept", "src": []string{"10.77.0.0/24"}})
	return map[string]any{"filter": map[string]any{"rules": rules}}
}

// tappedByHand mirrors vm1 the way that people do with ovs-vsctl.
func tappedByHand(l *lab.Lab) error {
	if err := errors.Join(guardByNormal(l), l.AddTargetPort(sink)); err != nil {
		return err
	}
	_, err := l.Vsctl("--", "--id=@s", "get", "port", "vm1", "--", "--id=@t", "get", "port", sink, "--", "--id=@m", "create", "mirror",
		"name=m",
		"select-src-port=@s", "select-dst-port=@s", "output-port=@t", "--", "add", "bridge", "br0", "mirrors", "@m")
	return err
}

// tappedByTapwall has tapwall mirror vm1 on a bridge that it owns nothing of; a nil doc: it has nothing to do.
func tappedByTapwall(doc map[string]any) func(*lab.Lab) error {
	return func(l *lab.Lab) error {
		if err := guardByNormal(l); err != nil {
			return err
		}
		if _, err := l.StartTapwall("--bridge", "br0=guest", "--log-level", "warn"); err != nil || doc == nil {
			return err
		}
		body, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		_, err = newAPI(l).send("POST", "/v1/apply?wait=installed&timeout=30s", body, "application/json")
		return err
	}
}

// benchMirror compares what the switch works for production traffic that is mirrored with what it works for that without a mirror, and with
// one made by hand. Every copy has to arrive.
func benchMirror(rounds int) (out []line, err error) {
	if quick {
		rounds = 3
	}
	made := map[string]*contender{}
	defer func() {
		for _, c := range made {
			err = errors.Join(err, c.close())
		}
	}()
	for name, guard := range map[string]func(*lab.Lab) error{
		"no mirror": tappedByTapwall(nil), "by hand": tappedByHand, "native": tappedByTapwall(mirrorDoc("m", "vm1", nil)),
		"staged, 1 rule": tappedByTapwall(mirrorDoc("m", "vm1", filterOf(1))), "staged, 100 rules": tappedByTapwall(mirrorDoc("m", "vm1",
			filterOf(100))),
		"staged, snaplen": tappedByTapwall(mirrorDoc("m", "vm1", map[string]any{"snaplen": 64})),
	} {
		if made[name], err = newContender(guard); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, p := range []struct {
		ours, theirs string
		budget       float64
	}{
		{"native", "by hand", 1.05}, {"by hand", "no mirror", 0}, {"native", "no mirror", 0},
		{"staged, 1 rule", "by hand", 0}, {"staged, 1 rule", "no mirror", 0}, {"staged, 100 rules", "staged, 1 rule", 0},
		{"staged, snaplen", "staged, 1 rule", 0},
	} {
		l, err := compare(made[p.ours], made[p.theirs], rounds, p.budget, func(l *load) (int, error) { return l.echo(udpRequests) })
		if err != nil {
			return out, fmt.Errorf("%s: %w", p.ours, err)
		}
		l.what = fmt.Sprintf("vswitchd CPU per packet, %s / %s", p.ours, p.theirs)
		out = append(out, l)
	}
	for _, name := range []string{"by hand", "native", "staged, 1 rule", "staged, 100 rules"} {
		l, err := copies(made[name], scale(300_000))
		if err != nil {
			return out, fmt.Errorf("%s: %w", name, err)
		}
		l.what = "copies of all packets echoed at full rate, " + name
		out = append(out, l)
	}
	return out, nil
}

// copies echoes n datagrams and counts what came to the sink.
func copies(c *contender, n int) (line, error) {
	before, err := received(c.lab, sink)
	if err != nil {
		return line{}, err
	}
	s, err := c.slice(func(l *load) (int, error) { return l.echo(n) })
	if err != nil {
		return line{}, err
	}
	time.Sleep(200 * time.Millisecond)
	after, err := received(c.lab, sink)
	if err != nil {
		return line{}, err
	}
	got := after - before
	return line{figure: fmt.Sprintf("%d of %d, %.0f/s (%v of vswitchd for a packet and its copy)", got, s.units,
		float64(got)/s.wall.Seconds(), s.perUnit()), budget: "all, with what ARP adds", ok: got >= s.units}, nil
}

// received is how many packets a device of the switch's namespace got from the switch (/proc/net/dev).
func received(l *lab.Lab, device string) (int, error) {
	text, err := l.Switch.Run("cat", "/proc/net/dev")
	if err != nil {
		return 0, err
	}
	for row := range strings.Lines(text) {
		if name, counters, ok := strings.Cut(strings.TrimSpace(row), ":"); ok && name == device {
			if fields := strings.Fields(counters); len(fields) > 1 {
				return strconv.Atoi(fields[1])
			}
		}
	}
	return 0, fmt.Errorf("no device %s", device)
}

// benchTap takes how long mirrors need to begin and to end copying a flow that goes on at 1 kHz.
func benchTap() (out []line, err error) {
	l, err := lab.Start("")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.AddBridge("br0"); err != nil {
		return nil, err
	}
	for i := 1; i <= 3; i++ {
		if _, err := l.AddVM(fmt.Sprintf("vm%d", i), "br0", i); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(l.Serve(l.VMs["vm2"], 5001), l.AddTargetPort("ids1")); err != nil {
		return nil, err
	}
	if _, err := l.StartTapwall("--bridge", "br0=guest", "--log-level", "warn"); err != nil {
		return nil, err
	}
	t := tapper{l, newAPI(l)}
	probe, err := l.VMs["vm1"].EchoUDP(l.VMs["vm2"].IPv4, 5001, time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer probe.Stop()
	const limit = 50 * time.Millisecond
	first, err := t.first()
	if err != nil {
		return nil, err
	}
	out = append(out, atMost("PUT -> first copy, first staged mirror of the host", first.Round(time.Millisecond).String(), "", first,
		500*time.Millisecond))
	// A mirror of a silent machine keeps the bridge and the port of staged ones.
	if err := t.write("PUT", "stay", mirrorDoc("stay", "vm3", filterOf(1))); err != nil {
		return nil, err
	}
	native := mirrorDoc("m", "vm1", map[string]any{"targets": []any{map[string]any{"port": map[string]any{"name": "ids1"}}}})
	for _, form := range []struct {
		name, device string
		doc          map[string]any
	}{{"native", "ids1", native}, {"staged", sink, mirrorDoc("m", "vm1", filterOf(1))}} {
		begun, ended, err := t.turns(form.device, form.doc, scale(100))
		if err != nil {
			return out, fmt.Errorf("%s: %w", form.name, err)
		}
		for _, x := range []struct {
			what string
			took []time.Duration
		}{{"PUT -> first copy", begun}, {"DELETE -> last copy", ended}} {
			p50, p99 := median(x.took), quantile(x.took, 0.99)
			out = append(out, atMost(fmt.Sprintf("%s, %s, p99 of %d", x.what, form.name, len(x.took)),
				fmt.Sprintf("%v (p50 %v)", p99.Round(100*time.Microsecond), p50.Round(100*time.Microsecond)), "", p99, limit))
		}
	}
	return out, nil
}

// tapper makes mirrors and looks at what comes of them.
type tapper struct {
	*lab.Lab
	api *api
}

func (t tapper) write(method, name string, doc map[string]any) error {
	var body []byte
	if doc != nil {
		var err error
		if body, err = json.Marshal(map[string]any{"spec": doc["spec"]}); err != nil {
			return err
		}
	}
	_, err := t.api.send(method, "/v1/mirrors/"+name+"?wait=installed&timeout=20s", body, "application/json")
	return err
}

// first makes the first staged mirror, whose port is not there before, and takes it away again.
func (t tapper) first() (time.Duration, error) {
	arrived := make(chan time.Duration, 1)
	start := time.Now()
	go func() {
		for time.Since(start) < 10*time.Second {
			if n, err := received(t.Lab, sink); err == nil && n > 0 {
				arrived <- time.Since(start)
				return
			}
			time.Sleep(time.Millisecond)
		}
		arrived <- 0
	}()
	if err := t.write("PUT", "m", mirrorDoc("m", "vm1", filterOf(1))); err != nil {
		return 0, err
	}
	took := <-arrived
	if took == 0 {
		return 0, errors.New("no copy arrives")
	}
	return took, t.write("DELETE", "m", nil)
}

// turns makes the mirror and deletes it, n times.
func (t tapper) turns(device string, doc map[string]any, n int) (begun, ended []time.Duration, err error) {
	capture, err := t.Capture(t.Switch, device)
	if err != nil {
		return nil, nil, err
	}
	// Once the mirror is gone the port is one of the bridge like any other, and gets what machines say to all.
	since := func(at time.Time) []lab.Frame {
		return capture.Frames(func(f lab.Frame) bool { return f.At.After(at) && len(f.Data) > 14 && f.Data[0]&1 == 0 })
	}
	for range n {
		start := time.Now()
		if err := t.write("PUT", "m", doc); err != nil {
			return nil, nil, err
		}
		for len(since(start)) == 0 {
			if time.Since(start) > 5*time.Second {
				return nil, nil, errors.New("no copy arrives")
			}
			time.Sleep(time.Millisecond)
		}
		begun = append(begun, since(start)[0].At.Sub(start))
		time.Sleep(50 * time.Millisecond)
		end := time.Now()
		if err := t.write("DELETE", "m", nil); err != nil {
			return nil, nil, err
		}
		last := end
		for quiet := time.Now(); time.Since(quiet) < 200*time.Millisecond; time.Sleep(5 * time.Millisecond) {
			if late := since(last); len(late) > 0 {
				last, quiet = late[len(late)-1].At, time.Now()
			}
			if time.Since(end) > 5*time.Second {
				return nil, nil, errors.New("copies go on")
			}
		}
		ended = append(ended, last.Sub(end))
	}
	return begun, ended, nil
}

// benchSets writes 200 mirrors of 30 source sets and has a source re-plugged.
func benchSets() (out []line, err error) {
	const mirrors, sets = 200, 30
	var machines []labels
	for i := range sets {
		machines = append(machines, labels{"set": strconv.Itoa(i)})
	}
	r, err := newRig(0, machines)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var docs []any
	for i := range mirrors {
		d := mirrorDoc(fmt.Sprintf("m%d", i), "", filterOf(1+i%3))
		d["spec"].(map[string]any)["sources"] = []any{map[string]any{"labels": labels{"set": strconv.Itoa(i % sets)}}}
		docs = append(docs, d)
	}
	took, err := r.apply(docs)
	if err != nil {
		return nil, err
	}
	flows, err := flowCount(r.Lab, "tw-tap-netdev")
	if err != nil {
		return nil, err
	}
	out = append(out, line{what: fmt.Sprintf("%d mirrors of %d source sets on a bridge", mirrors, sets),
		figure: fmt.Sprintf("%d flows, installed %v after the request", flows, took.Round(time.Millisecond)), budget: "-", ok: true})
	var followed []time.Duration
	for range scale(20) {
		if _, err := r.Vsctl("del-port", "br0", "d0"); err != nil {
			return out, err
		}
		time.Sleep(300 * time.Millisecond)
		args := append([]string{}, dummyPort(0, machines[0])...)
		if _, err := r.Vsctl(args...); err != nil {
			return out, err
		}
		start := time.Now()
		for {
			uuid, err := r.Vsctl("get", "port", "d0", "_uuid")
			if err != nil {
				return out, err
			}
			rows, err := r.Vsctl("--bare", "--columns=_uuid", "find", "mirror", "select_src_port{>=}"+strings.TrimSpace(uuid))
			if err != nil {
				return out, err
			}
			if strings.TrimSpace(rows) != "" {
				break
			}
			if time.Since(start) > 10*time.Second {
				return out, errors.New("the mirrors do not follow")
			}
		}
		followed = append(followed, time.Since(start))
	}
	return append(out, line{what: "a source of 7 of them re-plugged -> it is in the row again",
		figure: fmt.Sprintf("p50 %v, max %v", median(followed).Round(time.Millisecond), quantile(followed, 1).Round(time.Millisecond)),
		budget: "-", ok: true}), nil
}
