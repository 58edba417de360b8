package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// One-way datagrams: how many a slice of a round sends, and at which rate.
const (
	oneWayPackets = 20_000
	oneWayEvery   = time.Millisecond
	oneWayAtOnce  = 50
	oneWayPort    = 5003 // nobody reads it
)

// newRecording makes a switch whose connections and denies are recorded as word says. tapwall's CPU counts as well.
func newRecording(word string) (*contender, error) {
	pid := 0
	c, err := newContender(func(l *lab.Lab) error {
		path := filepath.Join(l.Dir, "tapwall.yaml")
		text := fmt.Sprintf("bridges: [{name: br0, mode: owned, record: {connections: %s, denies: %[1]s}}]\n", word)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
		tw, err := l.StartTapwall("--config", path, "--log-level", "warn", "--pickup-window", "1s")
		if err != nil {
			return err
		}
		pid = tw.Pid()
		time.Sleep(3 * time.Second) // the pickup window closes
		return nil
	})
	if err == nil {
		c.also = []int{pid}
	}
	return c, err
}

// oneWay sends n datagrams by a socket of its own, which nobody answers, and returns how many arrived.
func (l *load) oneWay(n int) (int, error) {
	before, err := l.to.Received()
	if err != nil {
		return 0, err
	}
	c, err := l.from.Dial("udp4", l.to.IPv4, oneWayPort, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	msg := make([]byte, 64)
	start := time.Now()
	for i := range n {
		if i%oneWayAtOnce == 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i/oneWayAtOnce) * oneWayEvery)))
		}
		if _, err := c.Write(msg); err != nil {
			return 0, err
		}
	}
	time.Sleep(20 * time.Millisecond) // the last ones arrive
	after, err := l.to.Received()
	if err == nil && after-before < n/20 {
		err = fmt.Errorf("%d of %d datagrams arrived", after-before, n)
	}
	return after - before, err
}

// benchRecord compares what a switch and tapwall work with all connections recorded, and with none.
func benchRecord(rounds int) (out []line, err error) {
	if quick {
		rounds = 3
	}
	var both [2]*contender
	for i, word := range []string{"all", "none"} {
		c, err := newRecording(word)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		var pc net.PacketConn
		if err := c.load.to.Do(func() (err error) {
			pc, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", oneWayPort))
			return err
		}); err != nil {
			return nil, err
		}
		c.load.servers = append(c.load.servers, pc)
		both[i] = c
	}
	for _, b := range []struct {
		unit   string
		budget float64
		run    func(*load) (int, error)
	}{
		{"short TCP connection", 1.25, func(l *load) (int, error) { return l.connect(connections) }},
		{fmt.Sprintf("packet, one-way UDP at %d/s", oneWayAtOnce*int(time.Second/oneWayEvery)), 1.05,
			func(l *load) (int, error) { return l.oneWay(oneWayPackets) }},
		{"packet, UDP 64 B echoed", 1.05, func(l *load) (int, error) { return l.echo(udpRequests) }},
	} {
		l, err := compare(both[0], both[1], rounds, b.budget, b.run)
		if err != nil {
			return out, fmt.Errorf("%s: %w", b.unit, err)
		}
		l.what = fmt.Sprintf("CPU of vswitchd and tapwall per %s, record all / none", b.unit)
		out = append(out, l)
	}
	return out, nil
}
