package oftest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

var be = binary.BigEndian

// Kind is what a request to a [Fake] asks for.
type Kind string

// The kinds of requests that a Fake tells apart.
const (
	Hello         Kind = "hello"
	Echo          Kind = "echo"
	Features      Kind = "features"
	SetConfig     Kind = "set-config"
	Barrier       Kind = "barrier"
	FlowMod       Kind = "flow-mod"
	MeterMod      Kind = "meter-mod"
	PacketOut     Kind = "packet-out"
	FlowStats     Kind = "flow-stats"
	MeterConfig   Kind = "meter-config"
	Monitor       Kind = "monitor"
	BundleOpen    Kind = "bundle-open"
	BundleAdd     Kind = "bundle-add"
	BundleCommit  Kind = "bundle-commit"
	BundleDiscard Kind = "bundle-discard"
	Other         Kind = "other"
)

// Request is a message that a Fake received.
type Request struct {
	Kind Kind
	XID  uint32
	N    int // how many of this kind came before, on all connections
	Body []byte
}

// Reaction is what a Fake does with one request. The zero value is to serve it.
type Reaction struct {
	Delay  time.Duration // before anything else
	Before []byte        // bytes sent first, whatever they are
	Error  ofp.ErrorCode // answer this error and do nothing; 0 = none
	Ignore bool          // do nothing and answer nothing
	Close  bool          // close the connection, after serving the request unless it is ignored
	// ExpireBundles drops all open bundles first, with error 2314 for the message that opened each, as Open vSwitch does
	// after 10 s without an add.
	ExpireBundles bool
	// FailXID makes a commit fail: this error for the message with that transaction id, then ONF error 2313.
	FailXID uint32
	Fail    ofp.ErrorCode
}

// FakeOptions adjusts a [Fake].
type FakeOptions struct {
	DatapathID uint64
	// Hello is sent instead of a hello for OpenFlow 1.3; see ofp.AppendHello.
	Hello []byte
	// React decides on each request. It is called by one goroutine per connection.
	React func(Request) Reaction
}

// Fake is a small switch. It keeps flows and meters, takes bundles apart as Open vSwitch does, answers what an OpenFlow 1.3
// client of tapwall asks, and reports changes to flow monitors; it forwards nothing. All methods are safe for concurrent
// use.
type Fake struct {
	opts FakeOptions

	mu       sync.Mutex // guards what follows
	table    fakeTable
	meters   map[uint32][]byte
	seen     map[Kind]int
	sessions map[*fakeSession]struct{}
	outs     [][]byte
	wg       sync.WaitGroup
}

// NewFake returns a switch without connections; see Serve and Listen.
func NewFake(opts FakeOptions) *Fake {
	if opts.React == nil {
		opts.React = func(Request) Reaction { return Reaction{} }
	}
	return &Fake{opts: opts, table: fakeTable{}, meters: map[uint32][]byte{}, seen: map[Kind]int{}, sessions: map[*fakeSession]struct{}{}}
}

// Listen lets clients connect to a unix socket until the test ends, and returns its address unix:PATH. At the end it closes
// all connections and waits for their goroutines.
func (f *Fake) Listen(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tw") // short, as in StartOVS
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "of.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { _ = f.Serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.Disconnect()
		f.wg.Wait()
		os.RemoveAll(dir)
	})
	return "unix:" + path
}

// Disconnect closes all connections.
func (f *Fake) Disconnect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sessions {
		s.conn.Close()
	}
}

// Reset forgets all flows and meters without telling anybody, like a switch that was started anew.
func (f *Fake) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.table)
	clear(f.meters)
}

// DeleteMeters forgets all meters; no switch tells of that.
func (f *Fake) DeleteMeters() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.meters)
}

// Count returns how many requests of a kind have come.
func (f *Fake) Count(k Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[k]
}

// PacketOuts returns the bodies of the packet-outs received.
func (f *Fake) PacketOuts() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([][]byte(nil), f.outs...)
}

// Meters returns the number of meters.
func (f *Fake) Meters() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.meters)
}

// Flows returns the flows in no order.
func (f *Fake) Flows() []flow.Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []flow.Flow
	for _, part := range f.table.stats(0) {
		m, err := ofp.Decode(part)
		if err != nil {
			panic("oftest: " + err.Error())
		}
		for _, s := range m.(*ofp.FlowStatsReply).Flows {
			out = append(out, s.Flow)
		}
	}
	return out
}

// Change does a flow-mod as another client would, and reports it to the monitors.
func (f *Fake) Change(cmd ofp.FlowModCommand, fl flow.Flow, opt ofp.FlowModOptions) error {
	b, err := ofp.AppendFlowMod(nil, 0, cmd, &fl, opt)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report(f.table.mod(b[8:]), nil)
	return nil
}

// Send sends bytes on all connections.
func (f *Fake) Send(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sessions {
		s.send(b)
	}
}

// report tells monitors on all sessions but by.
func (f *Fake) report(events []fakeEvent, by *fakeSession) {
	for s := range f.sessions {
		if s == by || !s.monitor {
			continue
		}
		for _, e := range events {
			s.send(e.encode())
		}
	}
}

// fakeSession is one connection.
type fakeSession struct {
	conn    net.Conn
	monitor bool
	bundles map[uint32]*fakeBundle

	// Sent by a goroutine of its own, so that a client that does not read never blocks the Fake.
	mu     sync.Mutex
	ready  sync.Cond
	queue  []byte
	closed bool
}

type fakeBundle struct {
	openXID uint32
	adds    []fakeAdd
}

type fakeAdd struct {
	xid  uint32
	body []byte // of the flow-mod, after its header
}

func (s *fakeSession) send(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, b...)
	s.ready.Signal()
}

func (s *fakeSession) write() {
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.closed {
			s.ready.Wait()
		}
		b, closed := s.queue, s.closed
		s.queue = nil
		s.mu.Unlock()
		if len(b) > 0 {
			if _, err := s.conn.Write(b); err != nil {
				return
			}
		} else if closed {
			return
		}
	}
}

// Serve speaks with one client until the connection ends, and closes it.
func (f *Fake) Serve(conn net.Conn) error {
	s := &fakeSession{conn: conn, bundles: map[uint32]*fakeBundle{}}
	s.ready.L = &s.mu
	f.mu.Lock()
	f.sessions[s] = struct{}{}
	f.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(s.write)
	defer func() {
		f.mu.Lock()
		delete(f.sessions, s)
		f.mu.Unlock()
		s.mu.Lock()
		s.closed = true
		s.ready.Signal()
		s.mu.Unlock()
		time.AfterFunc(100*time.Millisecond, func() { conn.Close() }) // so that the last words are read
		wg.Wait()
		conn.Close()
	}()
	hello := f.opts.Hello
	if hello == nil {
		hello = ofp.AppendHello(nil, 0, ofp.Version13)
	}
	s.send(hello)
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		n := int(be.Uint16(head[2:]))
		if n < 8 {
			return errors.New("client sent a message shorter than its header")
		}
		body := make([]byte, n-8)
		if _, err := io.ReadFull(conn, body); err != nil {
			return err
		}
		if !f.serve(s, ofp.Type(head[1]), be.Uint32(head[4:]), body) {
			return nil
		}
	}
}
