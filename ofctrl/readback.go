package ofctrl

import (
	"context"
	"errors"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// monitorID is the id of our flow monitor on its connection.
const monitorID = 1

// monitor asks the switch to report every change of its flow tables by others; our own come abbreviated. It is started
// before the read-back, so that no change falls between the two.
func (s *Switch) monitor(ctx context.Context, conn *Conn) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	flags := ofp.MonitorAdd | ofp.MonitorDelete | ofp.MonitorModify
	if s.opts.Own != (Tables{}) {
		flags |= ofp.MonitorActions // to tell of foreign flows; else what others changed is wrong whatever they made of it
	}
	err = conn.Multipart(ctx, "flow monitor", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendFlowMonitorRequest(dst, xid, ofp.FlowMonitor{ID: monitorID, Table: ofp.AllTables, Flags: flags})
	}, func(ofp.Multipart) {})
	if errors.Is(err, ErrRejected) {
		s.log.Warn("switch reports no changes of its flows; reading back instead", "every", s.opts.AuditInterval, "err", err)
		err = nil
	} else if err != nil {
		return false, unexpected("flow monitor", err)
	} else {
		ok = true
	}
	s.mu.Lock()
	s.state.Monitored = ok
	s.mu.Unlock()
	return ok, nil
}

// askVersion asks the switch what software it is. One that does not say is taken for unknown.
func (s *Switch) askVersion(ctx context.Context, conn *Conn) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	software := ""
	err := conn.Multipart(ctx, "description", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendDescRequest(dst, xid), nil
	}, func(m ofp.Multipart) {
		if part, ok := m.(*ofp.DescReply); ok {
			software = part.Software
		}
	})
	if err != nil && !errors.Is(err, ErrRejected) {
		return unexpected("description", err)
	}
	s.mu.Lock()
	s.state.Software = software
	s.mu.Unlock()
	return nil
}

// readBack reads all flows and meters. Afterwards what is known of the switch is what it holds, up to changes that it
// reports later. The switch collects a whole reply at once and queues it before any later change, so no change can fall
// between its parts.
func (s *Switch) readBack(ctx context.Context, conn *Conn) error {
	if err := s.take(ctx); err != nil { // however long what holds the turn takes: it has a deadline
		return err
	}
	defer s.release()
	s.mu.Lock()
	s.table.beginReadBack()
	s.counters.Resyncs++
	n := s.table.nDesired + s.table.nOurs + s.table.nForeign
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, deadline(s.opts.Timeout, n))
	defer cancel()

	undecodable := 0
	oldest := map[uint32]time.Duration{} // flow of ours that copies under a meter
	err := conn.Multipart(ctx, "flow statistics", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendFlowStatsRequest(dst, xid, ofp.FlowFilter{Table: ofp.AllTables})
	}, func(m ofp.Multipart) {
		part, ok := m.(*ofp.FlowStatsReply)
		if !ok {
			return
		}
		if s.opts.OnReadBack != nil {
			defer s.tellCounters(part)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range part.Flows {
			f := &part.Flows[i]
			isOurs := f.Cookie&s.opts.CookieMask == s.opts.Cookie
			if isOurs {
				for _, a := range f.Actions {
					if c, ok := a.(flow.Controller); ok && s.ourMeter(c.MeterID) {
						oldest[c.MeterID] = max(oldest[c.MeterID], duration(f.Stats.DurationSec, f.Stats.DurationNsec))
					}
				}
			}
			err := f.Err
			hidden := err != nil && s.table.hide(&f.Flow, isOurs)
			if !hidden && (err == nil || !isOurs) {
				// What a foreign flow does need not be known to leave it alone.
				err = errors.Join(err, s.table.installed(&f.Flow, isOurs, true))
			}
			if err != nil && isOurs {
				// Without its whole match it cannot be named to the switch without hitting others.
				undecodable++
				s.log.Warn("installed flow of ours is not understood", "flow", f.Flow.String(), "err", err)
			}
		}
	})
	if err != nil {
		return unexpected("read flows back", err)
	}
	have, age, err := s.readMeters(ctx, conn)
	if err != nil {
		return unexpected("read meters back", err)
	}
	now := time.Now()
	for id, d := range age {
		if m, ok := have[id]; ok && d < oldest[id] {
			m.Bands = nil // made anew behind a flow that copies under it: see sendMeters
			have[id] = m
		}
	}

	s.mu.Lock()
	s.table.endReadBack()
	s.meters.have = have
	s.meters.seen(age, now)
	s.table.mute(s.meters.muted())
	s.state.Undecodable = undecodable
	s.state.Err = ""
	s.ready = true
	if s.table.nDirty > 0 {
		s.installed = 0
	}
	s.settleLocked()
	s.mu.Unlock()
	s.tell()
	return nil
}

// tellCounters hands one part of what is read back on.
func (s *Switch) tellCounters(part *ofp.FlowStatsReply) {
	for i := range part.Flows {
		s.opts.OnReadBack(&part.Flows[i])
	}
	if !part.MultipartHead().More {
		s.opts.OnReadBack(nil)
	}
}

// flowUpdates takes what the flow monitor reports, on the reader.
func (s *Switch) flowUpdates(m *ofp.FlowUpdates) {
	lost, look := 0, false
	s.mu.Lock()
	for i := range m.Updates {
		u := &m.Updates[i]
		l, f := s.flowUpdateLocked(u)
		lost += l
		look = look || f
		if l > 0 && u.Flow.Cookie&s.opts.CookieMask == s.opts.Cookie {
			s.changed.add(&u.Flow)
		}
	}
	if lost > 0 {
		s.state.Lost += lost
		s.counters.LostFlows += uint64(lost)
		s.installed = 0
	}
	s.mu.Unlock()
	if lost > 0 || look {
		s.soon.tell()
	}
}

// flowUpdateLocked returns how many of our flows somebody took from us, and whether there is another reason to look: a place became
// free that is desired, or a foreign flow came or went where such flows are watched.
func (s *Switch) flowUpdateLocked(u *ofp.FlowUpdate) (lost int, look bool) {
	if u.Event == ofp.FlowAbbrev {
		return 0, false // ours; its own reply tells
	}
	isOurs := u.Flow.Cookie&s.opts.CookieMask == s.opts.Cookie
	if u.Err != nil && (isOurs || s.table.watched(u.Flow.Table)) {
		s.askResync()
		return 0, false
	}
	k, _, err := s.table.digest(&u.Flow)
	if err != nil {
		s.askResync()
		return 0, false
	}
	before := s.table.get(k)
	switch u.Event {
	case ofp.FlowAddedEvent, ofp.FlowModifiedEvent:
		// Flows of ours that others made or changed count as wrong, whatever they are.
		if err := s.table.installed(&u.Flow, isOurs, false); err != nil {
			s.askResync()
		}
		if e := s.table.get(k); u.Event == ofp.FlowModifiedEvent && isOurs && before.there == ours && e.owner != 0 {
			// A modify leaves everything but the actions, so a modify puts it right and the counters survive.
			if _, want := s.table.desired(&e); want.Cookie == u.Flow.Cookie {
				e.have.attrs = before.have.attrs
				s.table.put(s.table.place(k), e)
			}
		}
		if isOurs || before.there == ours {
			lost = 1
		}
		if isOurs && u.Event == ofp.FlowAddedEvent {
			s.counters.Impostors++
		}
		look = !isOurs && s.table.watched(u.Flow.Table)
	case ofp.FlowRemovedEvent:
		e := before
		switch {
		case e.there == absent || e.there == expired || isOurs != (e.there == ours):
			return 0, false
		case e.there == foreign || e.there == intruder:
			look = e.owner != 0 || u.Flow.Table == 0
			e.there = absent
		case u.Reason == ofp.RemovedIdle || u.Reason == ofp.RemovedHard:
			e.there = expired
		default:
			e.there = absent
			lost = 1
		}
		e.have = content{}
		s.table.put(s.table.place(k), e)
	}
	return lost, look
}

// monitorPaused is called on the reader when the switch had no room for updates, and when it has again: reports may be
// missing from in between.
func (s *Switch) monitorPaused(paused bool) {
	if !paused {
		s.askResync()
	}
}

func (s *Switch) askResync() {
	select {
	case s.resync <- struct{}{}:
	default:
	}
}
