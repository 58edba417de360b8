package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
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
	for range 40 {
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
		time.Sleep(300 * time.Millisecond)
		p.Stop()
		silent = append(silent, p.LastArrival().Sub(start))
	}
	p50, p99 := quantile(silent, 0.5), quantile(silent, 0.99)
	return []line{{"rule deleted -> its live connection silent, p99 of 40", fmt.Sprintf("%.2f of 50 ms (%v; p50 %v)",
		float64(p99)/float64(50*time.Millisecond),
		p99.Round(100*time.Microsecond), p50.Round(100*time.Microsecond)), "<= 50 ms", p99 <= 50*time.Millisecond}}, nil
}

// benchEvents pushes packet-ins into a recorder and divides what was accepted by the CPU time that the process used for it.
func benchEvents() ([]line, error) {
	r, err := record.NewRecorder(record.Options{Host: "bench"})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	frame := synFrame()
	pi := record.PacketIn{Data: frame, TotalLen: len(frame), Table: 209, Reason: 1, UserData: []byte{0x7a, 2}, CtState: 0x21, CtZone: 0xe000,
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
	return []line{{"packet-ins -> accepted events per core-second", fmt.Sprintf("%.1f x 100k/s (%d accepted, %v lost, %v wall)",
		perCore/100e3, c.Accepted, c.Lost, wall.Round(time.Millisecond)),
		">= 1.5, all counted", perCore >= 150e3 && c.Observed == n}}, nil
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
