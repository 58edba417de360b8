package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Probe sends numbered messages at a fixed rate and notes which came back and when. Its figures may be read while it runs.
type Probe struct {
	sent, received atomic.Int64
	mu             sync.Mutex
	arrivals       []time.Time
	broken         atomic.Pointer[error]
	stop, hush     context.CancelFunc
	done, sender   sync.WaitGroup
}

// Sent is how many messages have been written (0 for a push stream, whose sender is the far side).
func (p *Probe) Sent() int64 { return p.sent.Load() }

// Received is how many messages have come back, each counted once.
func (p *Probe) Received() int64 { return p.received.Load() }

// Err is why the probe's connection broke, nil while it lives.
func (p *Probe) Err() error {
	if e := p.broken.Load(); e != nil {
		return *e
	}
	return nil
}

// LastArrival is when the newest message came, the zero time before the first.
func (p *Probe) LastArrival() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.arrivals) == 0 {
		return time.Time{}
	}
	return p.arrivals[len(p.arrivals)-1]
}

// ReceivedSince counts the messages that came after t.
func (p *Probe) ReceivedSince(t time.Time) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.arrivals) - 1; i >= 0 && p.arrivals[i].After(t); i-- {
		n++
	}
	return n
}

// MaxGap is the longest silence between two arrivals since t, the silence until now included.
func (p *Probe) MaxGap(since time.Time) time.Duration { return p.MaxGapIn(since, time.Now()) }

// MaxGapIn is the longest silence in a time, what of it is before the first and behind the last arrival included.
func (p *Probe) MaxGapIn(from, until time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest time.Duration
	last := from
	for _, a := range p.arrivals {
		if a.Before(from) || a.After(until) {
			continue
		}
		longest, last = max(longest, a.Sub(last)), a
	}
	return max(longest, until.Sub(last))
}

// Hush ends the sending, so that answers that are under way can come before Stop.
func (p *Probe) Hush() {
	p.hush()
	p.sender.Wait()
}

// Stop ends the probe and waits for it.
func (p *Probe) Stop() {
	p.stop()
	p.sender.Wait()
	p.done.Wait()
}

func (p *Probe) arrived() {
	p.received.Add(1)
	p.mu.Lock()
	p.arrivals = append(p.arrivals, time.Now())
	p.mu.Unlock()
}

func (p *Probe) fail(err error) { p.broken.CompareAndSwap(nil, &err) }

// Serve answers on tcp and udp port of the VM, on all addresses, until the lab closes. TCP: what comes is echoed; a client whose first
// byte is 'P' gets a numbered message every 10 ms instead. UDP: echo.
func (l *Lab) Serve(vm *VM, ports ...int) error {
	for _, port := range ports {
		addr := ":" + strconv.Itoa(port)
		var ln net.Listener
		var pc net.PacketConn
		err := vm.Do(func() (err error) {
			if ln, err = net.Listen("tcp", addr); err != nil {
				return err
			}
			pc, err = net.ListenPacket("udp", addr)
			return err
		})
		if err != nil {
			return fmt.Errorf("serve %s on %s: %w", addr, vm.Name, err)
		}
		l.onClose(func() error { return ln.Close() })
		l.onClose(func() error { return pc.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				l.onClose(func() error { _ = c.Close(); return nil })
				go serveTCP(c)
			}
		}()
		go func() {
			buf := make([]byte, 65536)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(buf[:n], from)
			}
		}()
	}
	return nil
}

func serveTCP(c net.Conn) {
	defer c.Close()
	mode := make([]byte, 1)
	if _, err := io.ReadFull(c, mode); err != nil {
		return
	}
	if mode[0] != 'P' { // the mode byte itself is not echoed
		_, _ = io.Copy(c, c)
		return
	}
	msg := make([]byte, 8)
	for n := uint64(1); ; n++ {
		binary.BigEndian.PutUint64(msg, n)
		if _, err := c.Write(msg); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Dial opens a connection from inside the VM.
func (vm *VM) Dial(network, host string, port int, timeout time.Duration) (c net.Conn, err error) {
	err = vm.Do(func() (err error) {
		c, err = net.DialTimeout(network, net.JoinHostPort(host, strconv.Itoa(port)), timeout)
		return err
	})
	return c, err
}

// connect is Dial for TCP. A machine that has asked in vain for the other's hardware address gives up what waits for the answer, also what
// came a moment before, although the other can be reached again: it tries anew until the time is over.
func (vm *VM) connect(host string, port int, timeout time.Duration) (net.Conn, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		c, err := vm.Dial("tcp", host, port, time.Until(end))
		if !errors.Is(err, syscall.EHOSTUNREACH) || time.Now().After(end) {
			return c, err
		}
	}
}

// CanConnect reports whether a TCP connection opens within the time. The connection is closed at once.
func (vm *VM) CanConnect(host string, port int, timeout time.Duration) bool {
	c, err := vm.connect(host, port, timeout)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// EchoTCP starts a probe that sends to a port that Serve answers, every interval.
func (vm *VM) EchoTCP(host string, port int, every time.Duration) (*Probe, error) {
	c, err := vm.connect(host, port, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{'E'}); err != nil {
		return nil, err
	}
	return startProbe(c, every, true), nil
}

// PushTCP starts a probe on a stream in which only the far side sends, every 10 ms.
func (vm *VM) PushTCP(host string, port int) (*Probe, error) {
	c, err := vm.connect(host, port, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{'P'}); err != nil {
		return nil, err
	}
	return startProbe(c, 0, true), nil
}

// EchoUDP starts a probe of datagrams.
func (vm *VM) EchoUDP(host string, port int, every time.Duration) (*Probe, error) {
	c, err := vm.Dial("udp", host, port, 2*time.Second)
	if err != nil {
		return nil, err
	}
	return startProbe(c, every, false), nil
}

// startProbe runs the sender (when every > 0) and the receiver of c. A stream's messages come in order; a datagram socket reports ICMP
// errors on later calls, which do not end it.
func startProbe(c net.Conn, every time.Duration, stream bool) *Probe {
	ctx, cancel := context.WithCancel(context.Background())
	sending, hush := context.WithCancel(ctx)
	p := &Probe{stop: func() { cancel(); _ = c.Close() }, hush: hush}
	if every > 0 {
		p.sender.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			msg := make([]byte, 8)
			for n := uint64(1); ; n++ {
				select {
				case <-sending.Done():
					return
				case <-tick.C:
				}
				binary.BigEndian.PutUint64(msg, n)
				if _, err := c.Write(msg); err != nil && ctx.Err() == nil && stream {
					p.fail(err)
					return
				}
				p.sent.Add(1)
			}
		})
	}
	p.done.Go(func() {
		msg := make([]byte, 8)
		seen := map[uint64]bool{}
		for {
			var err error
			if stream {
				_, err = io.ReadFull(c, msg)
			} else {
				_, err = c.Read(msg)
			}
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && stream:
				p.fail(err)
				return
			case err != nil:
				time.Sleep(time.Millisecond)
				continue
			}
			if n := binary.BigEndian.Uint64(msg); !seen[n] {
				seen[n] = true
				p.arrived()
			}
		}
	})
	return p
}
