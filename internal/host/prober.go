package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	icmp4 "golang.org/x/net/ipv4"
	icmp6 "golang.org/x/net/ipv6"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// A collector is asked every probeEvery and has probeWithin to answer. It is silent when it has missed so many answers in a row, and well
// again when it has given so many.
const (
	probeEvery  = time.Second
	probeWithin = 900 * time.Millisecond
	sickAfter   = 3
	wellAfter   = 2
)

// prober asks the collectors of mirrors that balance whether they are there, each in a task of its own, by sockets of the host.
type prober struct {
	ask           func(context.Context, tap.Probe) error // error = no answer
	every, within time.Duration
	tell          func() // somebody has fallen silent, or is well again

	mu      sync.Mutex
	asked   map[tap.Probe]context.CancelFunc
	silent  map[tap.Probe]string
	changed bool
}

func newProber(tell func()) *prober {
	return &prober{ask: askProbe, every: probeEvery, within: probeWithin, tell: tell, asked: map[tap.Probe]context.CancelFunc{},
		silent: map[tap.Probe]string{}}
}

// want has these questions asked from now on, until ctx ends, and no others.
func (p *prober) want(ctx context.Context, tasks *sync.WaitGroup, probes []tap.Probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for q, stop := range p.asked {
		if !slices.Contains(probes, q) {
			stop()
			delete(p.asked, q)
			delete(p.silent, q)
		}
	}
	for _, q := range probes {
		if p.asked[q] == nil {
			mine, stop := context.WithCancel(ctx)
			p.asked[q] = stop
			tasks.Go(func() { p.run(mine, q) })
		}
	}
}

// take returns who is silent and why.
func (p *prober) take() map[tap.Probe]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = false
	return maps.Clone(p.silent)
}

// fresh reports whether that has changed since it was taken.
func (p *prober) fresh() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *prober) run(ctx context.Context, q tap.Probe) {
	misses, answers := 0, 0
	for {
		mine, cancel := context.WithTimeout(ctx, p.within)
		start := time.Now()
		err := p.ask(mine, q)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			misses, answers = misses+1, 0
		} else {
			misses, answers = 0, answers+1
		}
		switch {
		case misses == sickAfter:
			p.note(ctx, q, fmt.Sprintf("no answer to %s, %d times: %v", q, sickAfter, err))
		case answers == wellAfter:
			p.note(ctx, q, "")
		}
		if !pause(ctx, max(0, p.every-time.Since(start))) {
			return
		}
	}
}

// note has a collector be silent for a reason; "" = it is well.
func (p *prober) note(ctx context.Context, q tap.Probe, why string) {
	p.mu.Lock()
	_, was := p.silent[q]
	if ctx.Err() != nil || was == (why != "") {
		p.mu.Unlock()
		return // nobody asks any more, or it is known
	}
	if p.changed = true; why != "" {
		p.silent[q] = why
	} else {
		delete(p.silent, q)
	}
	p.mu.Unlock()
	p.tell()
}

func askProbe(ctx context.Context, q tap.Probe) error {
	switch q.Kind {
	case policy.ProbeICMP:
		return ping(ctx, q.Remote, q.Local)
	case policy.ProbeARP:
		return meet(ctx, q.Remote)
	}
	d := net.Dialer{}
	if q.Local.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: q.Local.AsSlice()}
	}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(q.Remote, q.Port).String())
	if err != nil {
		return err
	}
	return c.Close()
}

// ping sends one echo request and waits for its answer. It takes a raw socket, or where that is not permitted one of the kernel's for
// pings.
func ping(ctx context.Context, to, from netip.Addr) error {
	raw, plain, proto := "ip4:icmp", "udp4", 1
	var request, reply icmp.Type = icmp4.ICMPTypeEcho, icmp4.ICMPTypeEchoReply
	if to.Is6() {
		raw, plain, proto = "ip6:ipv6-icmp", "udp6", 58
		request, reply = icmp6.ICMPTypeEchoRequest, icmp6.ICMPTypeEchoReply
	}
	local := ""
	if from.IsValid() {
		local = from.String()
	}
	var dst net.Addr = &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	c, err := icmp.ListenPacket(raw, local)
	if errors.Is(err, os.ErrPermission) {
		dst = &net.UDPAddr{IP: to.AsSlice(), Zone: to.Zone()}
		c, err = icmp.ListenPacket(plain, local)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	// Raw sockets hear all answers that come to the host, and sockets for pings have ids of the kernel's.
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	message := icmp.Message{Type: request, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: 1, Data: token}}
	b, err := message.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := c.WriteTo(b, dst); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		m, err := icmp.ParseMessage(proto, buf[:n])
		if err != nil || m.Type != reply {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && bytes.Equal(echo.Data, token) {
			return nil
		}
	}
}
