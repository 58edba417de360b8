package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

const (
	echoPort = 5001 // udp and tcp: what comes is sent back
	bulkPort = 5002 // tcp: what comes is read, and answered with one byte at its end

	// echoWindow is how many datagrams are under way at most. All queues between the two machines hold more, so that nothing is lost.
	echoWindow = 192
	// patience is how long a round waits for a datagram or a connection.
	patience = 10 * time.Second
)

// load makes traffic between two machines, from the first to the second. One of its methods may run at a time.
type load struct {
	from, to *lab.VM
	udp      net.Conn
	servers  []io.Closer
	running  sync.WaitGroup
}

// newLoad starts the servers of to.
func newLoad(from, to *lab.VM) (l *load, err error) {
	l = &load{from: from, to: to}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	var pc net.PacketConn
	if err := to.Do(func() (err error) {
		pc, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", echoPort))
		return err
	}); err != nil {
		return l, err
	}
	l.servers = append(l.servers, pc)
	l.running.Go(func() { echoDatagrams(pc.(*net.UDPConn)) })
	for port, serve := range map[int]func(net.Conn){
		echoPort: func(c net.Conn) { _, _ = io.Copy(c, c) },
		bulkPort: func(c net.Conn) {
			if _, err := io.Copy(io.Discard, c); err == nil {
				_, _ = c.Write([]byte{1})
			}
		},
	} {
		var ln net.Listener
		if err := to.Do(func() (err error) {
			ln, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
			return err
		}); err != nil {
			return l, err
		}
		l.servers = append(l.servers, ln)
		l.running.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				l.running.Go(func() { defer c.Close(); serve(c) })
			}
		})
	}
	l.udp, err = from.Dial("udp4", to.IPv4, echoPort, patience)
	return l, err
}

func echoDatagrams(c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], from)
	}
}

func (l *load) close() {
	for _, s := range l.servers {
		_ = s.Close()
	}
	if l.udp != nil {
		_ = l.udp.Close()
	}
	l.running.Wait()
}

// echo sends n datagrams of 64 bytes and waits until all have come back. It returns how many packets the switch has delivered.
func (l *load) echo(n int) (packets int, err error) {
	window := make(chan struct{}, echoWindow)
	var sendErr error
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		msg := make([]byte, 64)
		for range n {
			select {
			case window <- struct{}{}:
			case <-time.After(patience):
				sendErr = errors.New("no answers")
				return
			}
			if _, sendErr = l.udp.Write(msg); sendErr != nil {
				return
			}
		}
	}()
	if err := l.udp.SetReadDeadline(time.Now().Add(6 * patience)); err != nil {
		return 0, err
	}
	buf := make([]byte, 2048)
	back := 0
	for ; back < n; back++ {
		if _, err = l.udp.Read(buf); err != nil {
			break
		}
		<-window
	}
	<-sent
	if err := errors.Join(err, sendErr); err != nil {
		return 0, fmt.Errorf("%d of %d datagrams came back: %w", back, n, err)
	}
	return 2 * back, nil
}

// bulk sends kib KiB over one TCP connection and waits until the other side has read them.
func (l *load) bulk(kib int) (int, error) {
	c, err := l.from.Dial("tcp4", l.to.IPv4, bulkPort, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(6 * patience)); err != nil {
		return 0, err
	}
	chunk := make([]byte, 64<<10)
	for range kib / 64 {
		if _, err := c.Write(chunk); err != nil {
			return 0, err
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(c, chunk[:1]); err != nil {
		return 0, fmt.Errorf("the receiver did not confirm: %w", err)
	}
	return kib, nil
}

// connect opens n TCP connections, four at a time, each of which carries one message there and back.
func (l *load) connect(n int) (int, error) {
	const workers = 4
	var done atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			errs[w] = l.from.Do(func() error {
				for range n / workers {
					if err := l.exchange(); err != nil {
						return err
					}
					done.Add(1)
				}
				return nil
			})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("%d of %d connections: %w", done.Load(), n, err)
	}
	return n, nil
}

// exchange is one connection, from inside the namespace.
func (l *load) exchange() error {
	c, err := net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", l.to.IPv4, echoPort), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	msg := make([]byte, 64)
	if _, err := c.Write(msg); err != nil {
		return err
	}
	_, err = io.ReadFull(c, msg)
	return err
}
