package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	groupSize  = 1000
	groupRules = 100 // that use the group
	splits     = 8
)

func endpointDoc(port string, ls labels) map[string]any {
	return map[string]any{"kind": "Endpoint", "name": port, "spec": map[string]any{"match": map[string]any{"port": port}, "labels": ls}}
}

func groupDoc(name string, members []any) map[string]any {
	return map[string]any{"kind": "Group", "name": name, "spec": map[string]any{"members": members}}
}

// hosts returns n addresses as members of a group.
func hosts(n int) (members []any) {
	for i := range n {
		members = append(members, map[string]any{"cidr": fmt.Sprintf("10.200.%d.%d/32", i>>8, i&255)})
	}
	return members
}

// benchMember changes who belongs to what among the endpoints and policies of benchClasses.
func benchMember() (out []line, err error) {
	r, docs, err := usualRig(0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	// Nobody has these labels yet: who gets one becomes a class of its own.
	for s := range splits {
		docs = append(docs, policyDoc(fmt.Sprintf("split%d", s), selects(labels{"special": fmt.Sprintf("s%d", s)}),
			allow("r", cidrs("10.250.0.0/16"), tcp(22))))
	}
	// A group that a hundred rules of one class use.
	docs = append(docs, groupDoc("g", hosts(groupSize)))
	for n := range groupRules / 10 {
		var rs []map[string]any
		for i := range 10 {
			rs = append(rs, allow(fmt.Sprintf("r%d", i), []any{map[string]any{"group": "g"}}, tcp(3000+n*10+i)))
		}
		docs = append(docs, policyDoc(fmt.Sprintf("g%d", n), selects(usualLabels(0)), rs...))
	}
	// The labels that these endpoints have anyway, so that the resource itself is no change.
	moves := endpointDoc("d0", usualLabels(0))
	docs = append(docs, moves)
	for s := range splits {
		docs = append(docs, endpointDoc(fmt.Sprintf("d%d", 1+s), usualLabels(1+s)))
	}
	if _, err := r.apply(docs); err != nil {
		return nil, err
	}
	if err := r.quiet(); err != nil {
		return nil, err
	}
	add := func(e effects, err error, what, was string, mods int, within time.Duration) error {
		if err == nil {
			l := e.line(what, mods, within)
			l.was = was
			out = append(out, l)
		}
		return err
	}
	e, err := r.measure(20, func(i int) (time.Duration, error) {
		return r.put("endpoints/d0", endpointDoc("d0", usualLabels(1-i%2)))
	})
	if err := add(e, err, "endpoint to and from an existing class", "1,014 flows", 10, 5*time.Millisecond); err != nil {
		return out, err
	}
	e, err = r.measure(splits, func(i int) (time.Duration, error) {
		ls := usualLabels(1 + i)
		ls["special"] = fmt.Sprintf("s%d", i)
		return r.put(fmt.Sprintf("endpoints/d%d", 1+i), endpointDoc(fmt.Sprintf("d%d", 1+i), ls))
	})
	if err := add(e, err, "endpoint that splits its class", "by hand 13 with blocks, 214 without", 20, 0); err != nil {
		return out, err
	}
	many := hosts(groupSize + 20)
	e, err = r.measure(20, func(i int) (time.Duration, error) { return r.put("groups/g", groupDoc("g", many[:groupSize+1+i])) })
	if err := add(e, err, "address added to a group of 1,000", "", 4, 0); err != nil {
		return out, err
	}
	e, err = r.measure(20, func(i int) (time.Duration, error) { return r.put("groups/g", groupDoc("g", many[:groupSize+19-i])) })
	if err := add(e, err, fmt.Sprintf("address removed, %d rules use the group", groupRules),
		"every flow of each rule; by hand 302, 26 ms",
		4+3*groupRules, 30*time.Millisecond); err != nil {
		return out, err
	}
	var rows []time.Duration
	e, err = r.measure(10, func(i int) (time.Duration, error) {
		p, err := r.newPort(i)
		rows = append(rows, p.numbered)
		return p.flows, err
	})
	what := fmt.Sprintf("new port with known labels among %d", scale(manyEndpoints))
	if err := add(e, err, what+", number -> flows", "", 10, 20*time.Millisecond); err != nil {
		return out, err
	}
	out = append(out, line{"the same, Open vSwitch's part: row -> number", fmt.Sprintf("p50 %v, max %v",
		median(rows).Round(10*time.Microsecond), slices.Max(rows).Round(10*time.Microsecond)), "-", true, ""})
	l, err := ovnSetLine(ovnHosts(groupSize), groupRules, 1)
	if err == nil {
		out = append(out, l)
	}
	return out, err
}

// arrival is what becomes of a port's row in the database.
type arrival struct {
	numbered time.Duration // until Open vSwitch has made the port and given it its OpenFlow port number, without which there are no flows
	flows    time.Duration // from then until the switch has its flows
}

// newPort adds a dummy port. Its number is seen in the database, and its flows by the switch's own monitor.
func (r *rig) newPort(i int) (out arrival, err error) {
	n := 5000 + i
	numbers, err := r.watchNumbers()
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, numbers.Close()) }()
	flows, err := r.watchFlows()
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, flows.Close()) }()
	if _, err := r.Vsctl(append([]string{"--no-wait"}, dummyPort(n, usualLabels(n))...)...); err != nil {
		return out, err
	}
	start := time.Now()
	row, err := numbers.await(fmt.Sprintf(`,new,d%d,\d`, n))
	if err != nil {
		return out, err
	}
	number := row.text[strings.LastIndex(row.text, ",")+1:]
	// Where it is a destination, and where it is a source.
	flow, err := flows.await("dl_dst="+dummyMAC(n), `table=200 .*in_port=`+number+`\b`)
	return arrival{row.at.Sub(start), flow.at.Sub(row.at)}, err
}

// watch is a monitor.
type watch struct {
	*exec.Cmd
	lines chan printed
}

// printed is a line and when it came.
type printed struct {
	text string
	at   time.Time
}

// watchFlows follows the flows of br0.
func (r *rig) watchFlows() (*watch, error) {
	return r.watch("FLOW_MONITOR reply", // the answer to its request: from here on it tells
		"ovs-ofctl", "-O", "OpenFlow13", "monitor", filepath.Join(r.Dir, "br0.mgmt"), "watch:!initial")
}

// watchNumbers follows the numbers of ports, as id,action,name,number; "new" is what a row becomes.
func (r *rig) watchNumbers() (*watch, error) {
	return r.watch(",initial,br0,", "ovsdb-client", "--format=csv", "monitor", "unix:"+filepath.Join(r.Dir, "db.sock"), "Open_vSwitch",
		"Interface", "name,ofport")
}

// watch runs a monitor and returns when it has printed a text.
func (r *rig) watch(begun, name string, args ...string) (*watch, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+r.Dir) // where it makes its control socket
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w := &watch{cmd, make(chan printed, 20_000)}
	go func() {
		defer out.Close()
		defer close(w.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			w.lines <- printed{s.Text(), time.Now()}
		}
	}()
	_, err = w.await(begun)
	return w, err
}

// await returns the line with which each pattern has been in one.
func (w *watch) await(patterns ...string) (printed, error) {
	deadline, last := time.After(10*time.Second), ""
	for {
		select {
		case l, more := <-w.lines:
			patterns = slices.DeleteFunc(patterns, func(p string) bool { return regexp.MustCompile(p).MatchString(l.text) })
			if len(patterns) == 0 {
				return l, nil
			}
			if !more {
				return l, fmt.Errorf("the monitor ended before %q: %s", patterns, last)
			}
			last = l.text
		case <-deadline:
			return printed{}, fmt.Errorf("no %q within 10 s", patterns)
		}
	}
}

func (w *watch) Close() error {
	err := w.Process.Kill()
	_ = w.Wait()
	return err
}
