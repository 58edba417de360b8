package ofctrl

import (
	"context"
	"errors"
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// connection returns the connection, read back or not, or ErrNotConnected.
func (s *Switch) connection() (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil, fmt.Errorf("%v: %w", s, ErrNotConnected)
	}
	return s.conn, nil
}

// gone makes the end of a connection match ErrNotConnected.
func gone(err error) error {
	if errors.Is(err, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	return err
}

// EachFlow reads the selected flows with their counters from the switch and calls visit for each, on the reader: visit must
// not block and must not call methods of s that wait for the switch. Flows that hold what this version does not know are
// visited with what it does know. Errors match [ErrNotConnected] or [ErrRejected], or are those of ctx.
func (s *Switch) EachFlow(ctx context.Context, filter ofp.FlowFilter, visit func(*ofp.FlowStats)) error {
	return s.ReadFlows(ctx, []ofp.FlowFilter{filter}, visit, func() {})
}

// ReadFlows is EachFlow for several selections, whose requests go out together. The switch takes each of them at one instant; end is
// called on the reader behind the last flow of each, so what it does is in order with other readings and with Options.OnCommit.
func (s *Switch) ReadFlows(ctx context.Context, filters []ofp.FlowFilter, visit func(*ofp.FlowStats), end func()) error {
	wait, err := s.AskFlows(ctx, filters, visit, end)
	if err != nil {
		return err
	}
	return wait()
}

// AskFlows is ReadFlows that returns once the requests are on their way: what is sent later, a bundle for one, comes behind them at the
// switch. wait must be called; it returns what ReadFlows does.
func (s *Switch) AskFlows(ctx context.Context, filters []ofp.FlowFilter, visit func(*ofp.FlowStats), end func()) (wait func() error,
	err error) {
	conn, err := s.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	answer, err := conn.ask(ctx, "flow statistics", len(filters), func(dst []byte, xid uint32, i int) ([]byte, error) {
		return ofp.AppendFlowStatsRequest(dst, xid, filters[i])
	}, func(m ofp.Multipart) {
		part, ok := m.(*ofp.FlowStatsReply)
		if !ok {
			return
		}
		for i := range part.Flows {
			part.Flows[i].Flags &= stateFlags // Open vSwitch keeps and reports those of the flow-mod, too
			visit(&part.Flows[i])
		}
		if !part.MultipartHead().More {
			end()
		}
	})
	if err != nil {
		cancel()
		return nil, gone(err)
	}
	return func() error {
		defer cancel()
		return gone(answer())
	}, nil
}

// Flows returns all flows of the bridge, also foreign ones, with their counters. For large tables use EachFlow.
func (s *Switch) Flows(ctx context.Context) ([]flow.Installed, error) {
	var fs []flow.Installed
	err := s.EachFlow(ctx, ofp.FlowFilter{Table: ofp.AllTables}, func(f *ofp.FlowStats) { fs = append(fs, f.Installed) })
	return fs, err
}

// IsOurs reports whether flows with the cookie c are ours.
func (s *Switch) IsOurs(c flow.Cookie) bool { return c&s.opts.CookieMask == s.opts.Cookie }

// MeterStats returns the counters of our meters. Errors are those of EachFlow.
func (s *Switch) MeterStats(ctx context.Context) ([]ofp.MeterStats, error) {
	conn, err := s.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var ms []ofp.MeterStats
	err = conn.Multipart(ctx, "meter statistics", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendMeterStatsRequest(dst, xid, ofp.AllMeters), nil
	}, func(m ofp.Multipart) {
		if part, ok := m.(*ofp.MeterStatsReply); ok {
			for _, m := range part.Meters {
				if s.ourMeter(m.ID) {
					ms = append(ms, m)
				}
			}
		}
	})
	return ms, gone(err)
}

// PortStats returns the counters of a port of the bridge; one that it does not have has none. Errors are those of EachFlow.
func (s *Switch) PortStats(ctx context.Context, port uint32) (stats ofp.PortStats, err error) {
	conn, err := s.connection()
	if err != nil {
		return stats, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err = conn.Multipart(ctx, "port statistics", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendPortStatsRequest(dst, xid, port), nil
	}, func(m ofp.Multipart) {
		if part, ok := m.(*ofp.PortStatsReply); ok && len(part.Ports) == 1 {
			stats = part.Ports[0]
		}
	})
	return stats, gone(err)
}

// Ports returns the ports of the bridge as OpenFlow knows them. Errors are those of EachFlow.
func (s *Switch) Ports(ctx context.Context) ([]ofp.Port, error) {
	conn, err := s.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	var ps []ofp.Port
	err = conn.Multipart(ctx, "port description", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendPortDescRequest(dst, xid), nil
	}, func(m ofp.Multipart) {
		if part, ok := m.(*ofp.PortDescReply); ok {
			ps = append(ps, part.Ports...)
		}
	})
	return ps, gone(err)
}

// PacketOut sends a packet or runs it through the pipeline, and does not wait: what the switch has against it is counted
// in Counters.LateErrors only. It waits for room in the connection's buffer, as long as ctx allows.
func (s *Switch) PacketOut(ctx context.Context, p *ofp.PacketOut) error {
	return s.sendOut(ctx, func(dst []byte, xid uint32) ([]byte, error) { return ofp.AppendPacketOut(dst, xid, p) })
}

// Resume lets a packet go on whose controller action said pause; p must be that packet-in, with its continuation.
func (s *Switch) Resume(ctx context.Context, p *ofp.PacketIn) error {
	return s.sendOut(ctx, func(dst []byte, xid uint32) ([]byte, error) { return ofp.AppendResume(dst, xid, p) })
}

func (s *Switch) sendOut(ctx context.Context, encode func([]byte, uint32) ([]byte, error)) error {
	conn, err := s.connection()
	if err != nil {
		return err
	}
	if err := conn.Send(ctx, encode); err != nil {
		return gone(err)
	}
	s.mu.Lock()
	s.counters.PacketOuts++
	s.mu.Unlock()
	return nil
}

// Barrier returns when the switch has done all that was sent before. Errors are those of EachFlow.
func (s *Switch) Barrier(ctx context.Context) error {
	conn, err := s.connection()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	return gone(conn.Barrier(ctx))
}

// Nudge makes the switch look at every cached flow again, by adding and deleting the flow of Options.NudgeFlow. Open
// vSwitch does that of itself when its flow tables change, but not when a mirror does: the packets of a warm flow are
// mirrored, or go on being mirrored, until something else changes. Errors match [ErrInvalid] if there is no such flow or it
// has the place of a desired one, and [ErrForeignFlow] if it has that of a foreign one; else they are those of EachFlow. Its
// flow-mods change nothing and are not counted.
func (s *Switch) Nudge(ctx context.Context) error {
	f := s.opts.NudgeFlow
	if f.Cookie == 0 {
		return fmt.Errorf("no nudge flow: %w", ErrInvalid)
	}
	conn, err := s.takeConn(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	s.mu.Lock()
	k, _, err := s.table.digest(&f)
	e := s.table.get(k)
	s.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("nudge flow: %w: %w", ErrInvalid, err)
	case e.owner != 0:
		return fmt.Errorf("nudge flow is desired: %w", ErrInvalid)
	case e.there == foreign:
		return fmt.Errorf("nudge flow: %w", ErrForeignFlow)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	// In a bundle, so that the end of the connection does not leave the flow behind.
	err = conn.Commit(ctx, Bundle{
		N: 2,
		Add: func(dst []byte, xid, bundle uint32, flags ofp.BundleFlags, i int) ([]byte, error) {
			if i == 0 {
				return ofp.AppendBundleFlowMod(dst, xid, bundle, flags, ofp.FlowAdd, &f, ofp.FlowModOptions{})
			}
			return ofp.AppendBundleFlowMod(dst, xid, bundle, flags, ofp.FlowDeleteStrict, &f, ofp.FlowModOptions{CookieMask: ^uint64(0)})
		},
		Label: func(i int) Label {
			return Label{Op: []string{"add nudge flow", "delete nudge flow"}[i], Object: f.String()}
		},
		Timeout: s.opts.Timeout,
	})
	return gone(err)
}
