package ofctrl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// Switch keeps the flow tables of one bridge. [Switch.Run] holds the connection; [Switch.Apply] says what is desired. Nothing
// is sent that Apply did not ask for: when the connection comes back or others change our flows, Wake tells the caller, who
// applies again, if only an empty Update. All methods are safe for concurrent use.
//
// Flows whose cookie is not ours are never changed, but for [Options.Own]. A desired flow in the place of such a flow is left out
// and reported ([ErrForeignFlow]); the rest is installed all the same, because a revocation must not wait for a flow that somebody
// else put in the way. When the place becomes free, Wake tells.
//
// A flow that goes by its own timeout is not missed: it comes back only when its owner's flows are replaced.
type Switch struct {
	opts Options
	log  *slog.Logger
	wake chan struct{}
	soon spaced // tells, for what others do
	// resync asks Run to read everything back.
	resync chan struct{}
	// turn is held by whoever sends changes or reads back: what is known and what is sent must not cross.
	turn chan struct{}
	// underway is closed when the last bundle sent has been settled. Guarded by turn.
	underway chan struct{}
	// applying: an Apply has recorded its update. Guarded by turn.
	applying bool

	mu         sync.Mutex // guards what follows; taken after the mutex of an op, and never held while waiting
	conn       *Conn      // nil while not connected
	ready      bool
	table      *table
	meters     meters
	refused    map[string]error // by owner, until it is in an Update again
	revision   int64            // of what is desired
	installed  int64
	renewalDue bool   // the next bundle is to be sent for the sake of its renewal
	renewalSet uint16 // number of the set of Options.Renewal that is wanted
	state      State  // the parts that are not kept elsewhere
	counters   Counters
	changed    changed // flows
	// changedMeters are those that others changed.
	changedMeters changed
	odd           int // flows more than known, by the last count

	packetIns atomic.Uint64
}

// New returns a Switch that is not connected yet. The error lists all that is wrong with opts.
func New(opts Options) (*Switch, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s := &Switch{
		opts: opts, log: opts.Logger.With("bridge", opts.Bridge),
		wake: make(chan struct{}, 1), resync: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		table: newTable(opts.Own), meters: newMeters(), refused: map[string]error{},
		renewalSet: uint16(rand.Uint32()), // not as the last one of an earlier life, of which something may be cached
	}
	s.soon.do = s.tell
	s.state.Since = time.Now()
	return s, nil
}

// String names the switch in logs.
func (s *Switch) String() string { return "switch " + s.opts.Bridge }

// Wake returns a channel that receives after something happened that the caller should look at: connected and read back,
// disconnected, flows lost or changed by others. Several happenings may be told at once.
func (s *Switch) Wake() <-chan struct{} { return s.wake }

func (s *Switch) tell() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run connects, and connects again for ever with a growing pause, until ctx ends; then it returns nil. It must be called once.
func (s *Switch) Run(ctx context.Context) error {
	pause := s.opts.BackoffMin
	for ctx.Err() == nil {
		wasReady, err := s.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if wasReady {
			pause = s.opts.BackoffMin
		}
		s.mu.Lock()
		again := s.state.Err == err.Error()
		s.state.Err = err.Error()
		s.mu.Unlock()
		if !again { // an unchanged reason every two seconds tells nothing new
			s.log.Warn("switch not connected", "address", s.opts.Address, "err", err)
			s.tell()
		}
		// Spread, so that the bridges of a restarted vswitchd do not come back in lock step.
		t := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		pause = min(2*pause, s.opts.BackoffMax)
	}
	return nil
}

// session is one connection from dialling to its end, which has a reason. It reports whether the connection was of use.
func (s *Switch) session(ctx context.Context) (wasReady bool, err error) {
	conn, err := Dial(ctx, ConnOptions{
		Address: s.opts.Address, TLS: s.opts.TLS, Logger: s.log, ControllerID: s.opts.ControllerID,
		Timeout: s.opts.Timeout, ProbeInterval: s.opts.ProbeInterval, ProbeTimeout: s.opts.ProbeTimeout,
		Handlers: Handlers{
			PacketIn: s.packetIn, PortStatus: s.opts.OnPortStatus, FlowRemoved: s.opts.OnFlowRemoved,
			FlowUpdates: s.flowUpdates, MonitorPaused: s.monitorPaused,
		},
	})
	if err != nil {
		return false, err
	}
	s.connected(conn)
	defer func() {
		conn.Close() // and waits, so that nothing of this connection is told after it
		s.disconnected(conn)
	}()

	monitored, err := s.monitor(ctx, conn)
	if err != nil {
		return false, err
	}
	if err := s.askVersion(ctx, conn); err != nil {
		return false, err
	}
	if err := s.readBack(ctx, conn); err != nil {
		return false, err
	}
	s.log.Info("switch connected", "datapath_id", fmt.Sprintf("%016x", conn.Features().DatapathID), "monitored", monitored)

	var meters <-chan time.Time
	if s.opts.MeterLast > 0 {
		t := time.NewTicker(meterInterval)
		defer t.Stop()
		meters = t.C
	}
	audit := time.NewTicker(s.opts.AuditInterval)
	defer audit.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-conn.Done():
			return true, conn.Err()
		case <-s.resync:
		case <-meters:
			s.watchMeters(ctx, conn)
			continue
		case <-audit.C:
			if !monitored {
				break
			}
			if ok, err := s.countFlows(ctx, conn); err != nil {
				return true, err
			} else if ok {
				continue
			}
		}
		if err := s.readBack(ctx, conn); err != nil {
			return true, err
		}
	}
}

func (s *Switch) connected(conn *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Epoch > 0 {
		s.counters.Reconnects++
	}
	s.state.Epoch++
	s.state.Connected, s.state.Since = true, time.Now()
	f := conn.Features()
	s.state.DatapathID, s.state.Tables = f.DatapathID, f.Tables
	s.conn, s.ready = conn, false
	for name := range s.refused {
		if o := s.table.owners[name]; o != nil && o.aside { // it may be another switch by now
			o.aside = false
			delete(s.refused, name)
		}
	}
	clear(s.meters.refused)
}

func (s *Switch) disconnected(conn *Conn) {
	s.mu.Lock()
	s.conn, s.ready = nil, false
	s.state.Connected, s.state.Since = false, time.Now()
	s.counters.DecodeErrors += conn.DecodeErrors()
	s.counters.LateErrors += conn.LateErrors()
	s.mu.Unlock()
	select { // what it asked for is done by the next connection anyway
	case <-s.resync:
	default:
	}
	s.tell()
}

// State returns a snapshot.
func (s *Switch) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	st.Ready = s.ready
	st.OurFlows, st.ForeignFlows, st.Desired = s.table.nOurs, s.table.nForeign, s.table.nDesired
	st.ForeignFlows += len(s.table.opaque)
	st.Missing, st.Blocked = s.table.nDirty-s.table.nComing+s.table.nOpaque()+s.meters.late(), s.table.nBlocked
	st.Installed = s.installed
	st.MeterErr = s.meters.err()
	st.Stats = s.counters
	st.Stats.PacketIns = s.packetIns.Load()
	if s.conn != nil {
		st.Silent = s.conn.Silent()
		st.Stats.DecodeErrors += s.conn.DecodeErrors()
		st.Stats.LateErrors += s.conn.LateErrors()
	}
	if st.Connected && st.Err == "" {
		for _, err := range s.refused {
			st.Err = err.Error()
			break
		}
	}
	return st
}

// Has reports whether a flow of ours with f's table, priority and match is installed, as last read back and told by the
// switch; its cookie and actions may differ from f's. It is false while not connected.
func (s *Switch) Has(f flow.Flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, _, err := s.table.digest(&f)
	return err == nil && s.ready && s.table.get(k).there == ours
}

// Desired returns the flows of an owner as last applied; they must not be changed.
func (s *Switch) Desired(name string) []flow.Flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.table.owners[name]; o != nil {
		return o.flows
	}
	return nil
}

// Owners returns the names of all owners that have flows, in no order.
func (s *Switch) Owners() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.table.owners))
	for name := range s.table.owners {
		names = append(names, name)
	}
	return names
}

// Missing calls visit for each place of the flow tables where what is installed is not what is desired: with the owner and
// the desired flow, or with "" and a flow without actions that is installed and to go. visit must not call methods of s.
func (s *Switch) Missing(visit func(owner string, f *flow.Flow)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.eachDirty(func(at slot, e *entry) {
		if e.owner == 0 {
			f := s.table.strays[at]
			visit("", &f)
			return
		}
		o, f := s.table.desired(e)
		visit(o.name, f)
	})
}

// take waits for the turn to send changes or to read back, and for what the one before has left under way. The turn is
// given back by release.
func (s *Switch) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.underway != nil {
		select {
		case <-s.underway: // settled by its answer, by its timeout or by the end of its connection
			s.underway = nil
		case <-ctx.Done():
			s.release()
			return ctx.Err()
		}
	}
	return nil
}

func (s *Switch) release() { <-s.turn }

// takeConn is take for who has to send something. Errors are those of ctx, or match ErrNotConnected; then there is nothing to give back.
func (s *Switch) takeConn(ctx context.Context) (*Conn, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	if conn := s.current(); conn != nil {
		return conn, nil
	}
	s.release()
	return nil, fmt.Errorf("%v: %w", s, ErrNotConnected)
}

// current returns the connection, which is nil unless it has been read back.
func (s *Switch) current() *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		return nil
	}
	return s.conn
}

// settleLocked notes the desired revision as installed if nothing is missing or refused.
func (s *Switch) settleLocked() {
	if s.ready && len(s.refused) == 0 && s.table.nDirty == 0 && s.table.nOpaque() == 0 && s.meters.missing() == 0 {
		s.installed = s.revision
	}
}

// unexpected is the end of a session for a refusal of what every Open vSwitch does.
func unexpected(what string, err error) error {
	if errors.Is(err, ErrRejected) {
		return fmt.Errorf("%s: %w: %w", what, ErrProtocol, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (s *Switch) packetIn(m *ofp.PacketIn) {
	s.packetIns.Add(1)
	if s.opts.OnPacketIn != nil {
		s.opts.OnPacketIn(m)
	}
}
