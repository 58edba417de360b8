package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// quick makes every benchmark small, to see that it works. Its figures are not judged.
var quick bool

// scale is n, or a tenth of it in a quick run.
func scale(n int) int {
	if quick {
		return max(n/10, 1)
	}
	return n
}

// rig is a lab with tapwall whose bridge br0 has dummy ports beside the real machines: ports of Open vSwitch's test device
// (--enable-dummy; the datapath and all other ports stay what they are), a thousand of which are made in seconds.
type rig struct {
	*lab.Lab
	tw  *lab.Tapwall
	api *api
}

// labels are external_ids of a port, and so labels of its endpoint.
type labels map[string]string

// newRig makes vms machines vm1… with the labels vm=1…, and the dummy ports d0… with the given ones.
func newRig(vms int, dummies []labels) (r *rig, err error) {
	l, err := dummyLab()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	for i := 1; i <= vms; i++ {
		if _, err := l.AddVM(fmt.Sprintf("vm%d", i), "br0", i, fmt.Sprintf("vm=%d", i)); err != nil {
			return nil, err
		}
	}
	for at := 0; at < len(dummies); at += 200 {
		var args []string
		for i, ls := range dummies[at:min(at+200, len(dummies))] {
			args = append(args, dummyPort(at+i, ls)...)
		}
		if _, err := l.Vsctl(args...); err != nil {
			return nil, err
		}
	}
	r = &rig{Lab: l, api: newAPI(l)}
	if r.tw, err = l.StartTapwall("--bridge", "br0=owned", "--log-level", "warn", "--pickup-window", "1s"); err != nil {
		return nil, err
	}
	return r, r.quiet()
}

// dummyLab is a lab whose switch knows dummy ports, with the bridge br0.
func dummyLab() (*lab.Lab, error) {
	l, err := lab.Start("")
	if err != nil {
		return nil, err
	}
	l.KillVswitchd()
	l.VswitchdArgs = []string{"--enable-dummy"}
	if err := errors.Join(l.StartVswitchd(), l.AddBridge("br0", "fail_mode=secure")); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func dummyMAC(i int) string { return fmt.Sprintf("02:78:00:00:%02x:%02x", i>>8, i&255) }

// dummyPort returns what ovs-vsctl makes port d<i> of.
func dummyPort(i int, ls labels) []string {
	name := fmt.Sprintf("d%d", i)
	args := []string{"--", "add-port", "br0", name, "--", "set", "interface", name, "type=dummy", "external_ids:iface-id=if-" + name,
		`external_ids:attached-mac="` + dummyMAC(i) + `"`}
	for _, k := range slices.Sorted(maps.Keys(ls)) {
		args = append(args, "external_ids:"+k+"="+ls[k])
	}
	return args
}

// quiet waits until the pickup window is closed, what numbers stand for is in the store, and the switch has been left alone for longer than
// the mark of what was not may stay there.
func (r *rig) quiet() error {
	last, since := -1.0, time.Now()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		mods, err := r.mods()
		if err != nil {
			return err
		}
		unsaved, err := r.metric("tapwall_assignments_unsaved")
		if err != nil {
			return err
		}
		if mods != last || unsaved > 0 {
			last, since = mods, time.Now()
		} else if time.Since(since) > 2500*time.Millisecond {
			return nil
		}
	}
	return errors.New("flows still change after a minute")
}

// metric returns the sum of a metric of tapwall.
func (r *rig) metric(name string) (float64, error) {
	text, err := r.api.send("GET", "/metrics", nil, "")
	if err != nil {
		return 0, err
	}
	return metric(string(text), name)
}

// mods is how many flow-mods tapwall says it has sent since it started.
func (r *rig) mods() (float64, error) { return r.metric("tapwall_flow_mods_total") }

// apply writes documents, a list or a single one, and returns how long it took until all were installed.
func (r *rig) apply(docs any) (time.Duration, error) {
	return r.write("POST", "/v1/apply?wait=installed&timeout=55s", docs)
}

// put writes one resource and returns how long it took until it was installed.
func (r *rig) put(path string, doc map[string]any) (time.Duration, error) {
	return r.write("PUT", "/v1/"+path+"?wait=installed&timeout=55s", doc)
}

func (r *rig) write(method, path string, doc any) (time.Duration, error) {
	body, err := json.Marshal(doc)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	_, err = r.api.send(method, path, body, "application/json")
	return time.Since(start), err
}

// dump returns the flows of the switch by what identifies them.
func (r *rig) dump() (map[string]string, error) {
	out, err := r.Ofctl("dump-flows", "br0", "--no-stats")
	if err != nil {
		return nil, err
	}
	return parseDump(out), nil
}

// parseDump splits the flows as ovs-ofctl prints them into what identifies a flow (table, priority, match) and the rest.
func parseDump(text string) map[string]string {
	flows := map[string]string{}
	for l := range strings.Lines(text) {
		cookie, rest, ok := strings.Cut(strings.TrimSpace(l), ", ")
		rest = strings.Replace(rest, "reset_counts ", "", 1) // of the flow-mod
		id, actions, ok2 := strings.Cut(rest, " actions=")
		if ok && ok2 {
			flows[id] = cookie + " " + actions
		}
	}
	return flows
}

// differences is how many flow-mods at least lead from one dump to another.
func differences(a, b map[string]string) (n int) {
	for id, f := range a {
		if g, there := b[id]; !there || g != f {
			n++
		}
	}
	for id := range b {
		if _, there := a[id]; !there {
			n++
		}
	}
	return n
}

// effects are those of changes of one sort.
type effects struct {
	took []time.Duration
	told int // the most flow-mods of a change, as tapwall counts them
	seen int // the most flows of the switch that were not the same before and after a change
}

// measure calls change n times and notes what each did to the switch.
func (r *rig) measure(n int, change func(i int) (time.Duration, error)) (e effects, err error) {
	before, err := r.dump()
	if err != nil {
		return e, err
	}
	for i := range n {
		told, err := r.mods()
		if err != nil {
			return e, err
		}
		took, err := change(i)
		if err != nil {
			return e, err
		}
		if err := r.settle(told); err != nil {
			return e, err
		}
		after, err := r.dump()
		if err != nil {
			return e, err
		}
		now, err := r.mods()
		if err != nil {
			return e, err
		}
		e.took = append(e.took, took)
		e.told, e.seen = max(e.told, int(now-told)), max(e.seen, differences(before, after))
		before = after
	}
	return e, nil
}

// settle waits until a change has sent its flow-mods: more than before, and no more for 50 ms.
func (r *rig) settle(before float64) error {
	last, since := before, time.Now()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		now, err := r.mods()
		if err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		} else if now > before && time.Since(since) > 50*time.Millisecond {
			return nil
		}
	}
	return fmt.Errorf("a change sent no flow-mod, or does not end: %.0f before, %.0f now", before, last)
}

// line judges effects by the flow-mods of each and the median of their times; a limit of 0 is none.
func (e effects) line(what string, mods int, within time.Duration) line {
	l := line{what: what, figure: fmt.Sprintf("%d flow-mods (%d flows differ), p50 %v, max %v", e.told, e.seen,
		median(e.took).Round(10*time.Microsecond), slices.Max(e.took).Round(10*time.Microsecond))}
	l.budget = fmt.Sprintf("<= %d", mods)
	l.ok = max(e.told, e.seen) <= mods
	if within > 0 {
		l.budget += fmt.Sprintf(", <= %v", within)
		l.ok = l.ok && median(e.took) <= within
	}
	return l
}

// weigh returns how many flows br0 has, and, once the switch is left alone, the resident bytes of tapwall, now and at most so far.
func (r *rig) weigh() (flows int, now, peak int64, err error) {
	if flows, err = flowCount(r.Lab, "br0"); err != nil {
		return 0, 0, 0, err
	}
	if err = r.quiet(); err != nil {
		return 0, 0, 0, err
	}
	now, peak, err = resident(r.tw.Pid())
	return flows, now, peak, err
}

// flowCount is how many flows the switch has.
func flowCount(l *lab.Lab, bridge string) (int, error) {
	out, err := l.Ofctl("dump-aggregate", bridge)
	if err != nil {
		return 0, err
	}
	_, n, _ := strings.Cut(out, "flow_count=")
	return strconv.Atoi(strings.TrimSpace(n))
}

// memory is what a process has resident, in MiB.
func memory(pid int) (int64, error) {
	now, _, err := resident(pid)
	return now >> 20, err
}

// restart kills tapwall, starts it again and returns how long it took until it was ready and how many flow-mods it then sent.
func (r *rig) restart() (took time.Duration, mods float64, err error) {
	r.tw.Kill()
	start := time.Now()
	if err := r.tw.Start(); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	r.api = newAPI(r.Lab)
	if err := r.quiet(); err != nil {
		return 0, 0, err
	}
	mods, err = r.mods()
	return took, mods, err
}
