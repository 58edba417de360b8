package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/test/lab"
)

// benchRevoke deletes the rule of a live connection again and again, and takes the time from the request to the last message that arrived.
func benchRevoke() (out []line, err error) {
	l, err := lab.Start("")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.AddBridge("br0"); err != nil {
		return nil, err
	}
	var vm []*lab.VM
	for i := 1; i <= 2; i++ {
		m, err := l.AddVM(fmt.Sprintf("vm%d", i), "br0", i)
		if err != nil {
			return nil, err
		}
		if err := l.Serve(m, 5001); err != nil {
			return nil, err
		}
		vm = append(vm, m)
	}
	if _, err := l.StartTapwall("--bridge", "br0=owned", "--log-level", "warn"); err != nil {
		return nil, err
	}
	a := newAPI(l)
	with := []byte(`{"spec":{"appliesTo":[{"port":"vm2"}],"ingress":[{"name":"a","action":"allow","from":[{"port":"vm1"}]}]}}`)
	without := []byte(`{"spec":{"appliesTo":[{"port":"vm2"}],"defaultDeny":{"ingress":true}}}`)
	var silent []time.Duration
	times := scale(200)
	for range times {
		if _, err := a.send("PUT", "/v1/policies/p?wait=installed", with, "application/json"); err != nil {
			return nil, err
		}
		p, err := vm[0].EchoUDP(vm[1].IPv4, 5001, time.Millisecond)
		if err != nil {
			return nil, err
		}
		for end := time.Now().Add(3 * time.Second); p.Received() < 50; {
			if time.Now().After(end) {
				p.Stop()
				return nil, errors.New("the probe gets no answers")
			}
			time.Sleep(5 * time.Millisecond)
		}
		start := time.Now()
		if _, err := a.send("PUT", "/v1/policies/p?wait=installed", without, "application/json"); err != nil {
			return nil, err
		}
		answered := time.Now()
		for end := answered.Add(3 * time.Second); time.Since(latest(answered, p.LastArrival())) < 100*time.Millisecond; {
			if time.Now().After(end) {
				p.Stop()
				return nil, errors.New("the probe still gets answers")
			}
			time.Sleep(5 * time.Millisecond)
		}
		p.Stop()
		silent = append(silent, p.LastArrival().Sub(start))
	}
	p50, p99 := quantile(silent, 0.5), quantile(silent, 0.99)
	return []line{{what: fmt.Sprintf("rule deleted -> its live connection silent, p99 of %d", times),
		figure: fmt.Sprintf("%.2f of 50 ms (%v; p50 %v)",
			float64(p99)/float64(50*time.Millisecond), p99.Round(100*time.Microsecond), p50.Round(100*time.Microsecond)),
		was: "24 ms, p50 4.9 ms", budget: "<= 50 ms", ok: p99 <= 50*time.Millisecond}}, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

const (
	replacements = 100
	replaceIn    = 10 * time.Second
)

// replacePolicy is version n of a policy for vm2: other names, networks and ports each time. All versions allow one port, and none allows
// another one.
func replacePolicy(n int) map[string]any {
	rs := []map[string]any{allow(fmt.Sprintf("keep%d", n), []any{map[string]any{"port": "vm1"}}, tcp(1)),
		{"name": fmt.Sprintf("never%d", n), "action": "deny", "services": []any{map[string]any{"protocol": "udp",
			"ports": []string{"5002"}}}}}
	rs[0]["services"] = []any{map[string]any{"protocol": "udp", "ports": []string{"5001"}}}
	for i := range 98 {
		rs = append(rs, allow(fmt.Sprintf("r%d-%d", n, i), cidrs(fmt.Sprintf("10.%d.%d.0/24", n%250, i)), tcp(1000+n+i)))
	}
	return policyDoc("p", []any{map[string]any{"port": "vm2"}}, rs...)
}

// benchReplace replaces a policy of 100 rules whole, again and again, while two probes send 1,000 datagrams a second each: to a port that
// all versions allow and to one that all deny.
func benchReplace() (out []line, err error) {
	r, err := newRig(2, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Serve(r.VMs["vm2"], 5001, 5002); err != nil {
		return nil, err
	}
	if _, err := r.put("policies/p", replacePolicy(0)); err != nil {
		return nil, err
	}
	allowed, err := r.VMs["vm1"].EchoUDP(r.VMs["vm2"].IPv4, 5001, time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer allowed.Stop()
	denied, err := r.VMs["vm1"].EchoUDP(r.VMs["vm2"].IPv4, 5002, time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer denied.Stop()
	for end := time.Now().Add(3 * time.Second); allowed.Received() < 50; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return nil, errors.New("the probe gets no answers")
		}
	}
	lost, start := allowed.Sent()-allowed.Received(), time.Now()
	var took []time.Duration
	for n := range scale(replacements) {
		time.Sleep(time.Until(start.Add(time.Duration(n) * replaceIn / replacements)))
		d, err := r.put("policies/p", replacePolicy(1+n))
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	sent, wall := allowed.Sent(), time.Since(start)
	for end := time.Now().Add(2 * time.Second); allowed.Received() < sent && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	lost = max(sent-allowed.Received()-lost, 0)
	p50, p99 := median(took), quantile(took, 0.99)
	return []line{{what: fmt.Sprintf("policy of 100 rules replaced %d times in %v", len(took), wall.Round(100*time.Millisecond)),
		figure: fmt.Sprintf(
			"%d of %d allowed lost, %d of %d denied through; PUT p50 %v, p99 %v", lost, sent, denied.Received(), denied.Sent(),
			p50.Round(100*time.Microsecond),
			p99.Round(100*time.Microsecond)), budget: "0 lost, 0 through", ok: lost == 0 && denied.Received() == 0}}, nil
}

// benchEvents pushes packet-ins into a recorder and divides what was accepted by the CPU time that the process used for it.
func benchEvents() ([]line, error) {
	dir, err := os.MkdirTemp("", "twbench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	sp, err := spool.Open(spool.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	r, err := record.NewRecorder(record.Options{Host: "bench", Spool: sp})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	frame := synFrame()
	pi := record.PacketIn{Data: frame, TotalLen: len(frame), Table: 209, Reason: 1, UserData: []byte{0x7a, 2}, CtState: 0x21,
		CtZone:    0xe000,
		CtNwProto: 6,
		CtSrc:     netip.MustParseAddr("10.0.0.1"), CtDst: netip.MustParseAddr("10.0.0.2"), CtTpSrc: 40000, CtTpDst: 80, SrcEndpoint: 1,
		DstEndpoint: 2,
		Verdicts:    []record.VerdictSide{{Direction: event.Ingress, RuleID: 7, Drop: true}}}
	const n = 400_000
	cpu, start := cpuTime(), time.Now()
	for i := range n {
		r.HandlePacketIn("br0", pi)
		if i%1000 == 999 { // a switch does not send faster than it is read
			for c := r.Counters(); c.Observed-c.Accepted-c.Lost["of_queue"] > 4000; c = r.Counters() {
				time.Sleep(50 * time.Microsecond)
			}
		}
	}
	for end := time.Now().Add(5 * time.Second); r.Counters().Accepted+r.Counters().Lost["of_queue"] < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	used, wall := cpuTime()-cpu, time.Since(start)
	c := r.Counters()
	cancel()
	if err := <-done; err != nil {
		return nil, err
	}
	perCore := float64(c.Accepted) / used.Seconds()
	return []line{{what: "packet-ins -> events in the spool per core-second",
		figure: fmt.Sprintf("%.1f x 100k/s (%d accepted, %v lost, %v wall)",
			perCore/100e3, c.Accepted, c.Lost, wall.Round(time.Millisecond)),
		budget: ">= 1.5, all counted", ok: perCore >= 150e3 && c.Observed == n}}, nil
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// synFrame is a TCP SYN from 10.0.0.1:40000 to 10.0.0.2:80.
func synFrame() []byte {
	f := make([]byte, 54)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0})
	ip := f[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 64, 6
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	tcp[12], tcp[13] = 5<<4, 2
	return f
}
