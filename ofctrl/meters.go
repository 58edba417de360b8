package ofctrl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// meterRetry is how long a meter that the switch refused is not asked for again.
const meterRetry = 5 * time.Second

// meterInterval is how often it is looked whether our meters are still as we made them.
const meterInterval = time.Second

// meterClock is how far the age that OVS gives of a meter may be off: it reads the clock once in each turn of its main loop, which may
// take long.
const meterClock = time.Second

// meters holds the desired meters and those of our range that are installed. There are few.
type meters struct {
	want, have map[uint32]flow.MeterDesc
	refused    map[uint32]refusedMeter // desired ones
	age        map[uint32]meterAge     // of installed ones, as far as known
	made       int                     // meter-mods that no Apply has told of
	set        map[uint32]uint64       // how often each was made or set
	coming     map[uint32]bool         // those that differ because of the Apply under way
}

type refusedMeter struct {
	err   error
	again time.Time
}

// meterAge says how long ago a meter had been made when the switch was asked.
type meterAge struct {
	age time.Duration
	at  time.Time // when the answer had come
}

func newMeters() meters {
	return meters{
		want: map[uint32]flow.MeterDesc{}, have: map[uint32]flow.MeterDesc{}, refused: map[uint32]refusedMeter{},
		age: map[uint32]meterAge{}, coming: map[uint32]bool{}, set: map[uint32]uint64{},
	}
}

// setWant makes want the desired meters. What was refused is asked for again where something else is desired now.
func (m *meters) setWant(want map[uint32]flow.MeterDesc) {
	for id := range m.refused {
		if w, ok := want[id]; !ok || !sameMeter(w, m.want[id]) {
			delete(m.refused, id)
		}
	}
	lacked := m.differing()
	m.want = want
	m.coming = m.differing()
	for id := range lacked {
		delete(m.coming, id)
	}
}

// muted returns the desired meters that are not there because the switch refuses them.
func (m *meters) muted() map[uint32]bool {
	out := map[uint32]bool{}
	for id := range m.refused {
		if _, ok := m.have[id]; !ok {
			out[id] = true
		}
	}
	return out
}

// err says which meters the switch refuses, or "".
func (m *meters) err() string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(m.refused)) {
		out = append(out, m.refused[id].err.Error())
	}
	return strings.Join(out, "; ")
}

// meterMod is one change of a meter.
type meterMod struct {
	command ofp.MeterModCommand
	meter   flow.MeterDesc
}

func (m meterMod) label() Label {
	op := [...]string{ofp.MeterAdd: "add meter", ofp.MeterModify: "modify meter", ofp.MeterDelete: "delete meter"}[m.command]
	return Label{Op: op, Object: strings.ReplaceAll(m.meter.String(), "\n", " ")}
}

// diff returns what must be done before the flows that use the meters are sent, and what after those are gone that used them.
// Meter-mods cannot ride in a bundle (ONF error 2310).
func (m *meters) diff() (before, after []meterMod) {
	for id, w := range m.want {
		if _, ok := m.refused[id]; ok {
			continue
		}
		if h, ok := m.have[id]; !ok {
			before = append(before, meterMod{ofp.MeterAdd, w})
		} else if !sameMeter(w, h) {
			before = append(before, meterMod{ofp.MeterModify, w})
		}
	}
	for id, h := range m.have {
		if _, ok := m.want[id]; !ok {
			after = append(after, meterMod{ofp.MeterDelete, h})
		}
	}
	byID := func(a, b meterMod) int { return cmp.Compare(a.meter.ID, b.meter.ID) }
	slices.SortFunc(before, byID)
	slices.SortFunc(after, byID)
	return before, after
}

// differing returns the ids of what diff would return.
func (m *meters) differing() map[uint32]bool {
	out := map[uint32]bool{}
	before, after := m.diff()
	for _, mod := range append(before, after...) {
		out[mod.meter.ID] = true
	}
	return out
}

// missing counts what diff would return.
func (m *meters) missing() int { return len(m.differing()) }

// late counts it without what is coming.
func (m *meters) late() int {
	n := 0
	for id := range m.differing() {
		if !m.coming[id] {
			n++
		}
	}
	return n
}

// sameMeter compares as far as the switch reports: a burst size means nothing without its flag.
func sameMeter(a, b flow.MeterDesc) bool {
	return a.Flags == b.Flags && slices.EqualFunc(a.Bands, b.Bands, func(x, y flow.Band) bool {
		if a.Flags&flow.MeterBurst == 0 {
			x.Burst, y.Burst = 0, 0
		}
		return x == y
	})
}

func (s *Switch) ourMeter(id uint32) bool {
	return id != 0 && id >= s.opts.MeterFirst && id <= s.opts.MeterLast
}

// checkMeters returns the desired meters by id, or nil if there was none given.
func (s *Switch) checkMeters(ms []flow.MeterDesc) (map[uint32]flow.MeterDesc, error) {
	if ms == nil {
		return nil, nil
	}
	want := make(map[uint32]flow.MeterDesc, len(ms))
	for _, m := range ms {
		if !s.ourMeter(m.ID) {
			return nil, fmt.Errorf("meter %d is outside of %d..%d: %w", m.ID, s.opts.MeterFirst, s.opts.MeterLast, ErrInvalid)
		}
		if _, ok := want[m.ID]; ok {
			return nil, fmt.Errorf("meter %d is desired twice: %w", m.ID, ErrInvalid)
		}
		if _, err := ofp.AppendMeterMod(nil, 0, ofp.MeterAdd, &m); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		want[m.ID] = m
	}
	return want, nil
}

// readMeters returns the installed meters of our range and how old they are. A switch that knows no meters has none.
func (s *Switch) readMeters(ctx context.Context, conn *Conn) (have map[uint32]flow.MeterDesc, age map[uint32]time.Duration, err error) {
	have, age = map[uint32]flow.MeterDesc{}, map[uint32]time.Duration{}
	if s.opts.MeterLast == 0 {
		return have, age, nil
	}
	err = conn.Multipart(ctx, "meter configuration", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendMeterConfigRequest(dst, xid, ofp.AllMeters), nil
	}, func(m ofp.Multipart) {
		if part, ok := m.(*ofp.MeterConfigReply); ok {
			for _, m := range part.Meters {
				if s.ourMeter(m.ID) {
					have[m.ID] = m
				}
			}
		}
	})
	if err == nil && len(have) > 0 {
		err = conn.Multipart(ctx, "meter statistics", func(dst []byte, xid uint32) ([]byte, error) {
			return ofp.AppendMeterStatsRequest(dst, xid, ofp.AllMeters), nil
		}, func(m ofp.Multipart) {
			if part, ok := m.(*ofp.MeterStatsReply); ok {
				for _, m := range part.Meters {
					age[m.ID] = duration(m.DurationSec, m.DurationNsec)
				}
			}
		})
	}
	if errors.Is(err, ErrRejected) {
		err = nil
	}
	return have, age, err
}

func duration(sec, nsec uint32) time.Duration {
	return time.Duration(sec)*time.Second + time.Duration(nsec)
}

// sendMeters makes the changes mods and notes those that were made. A desired meter that the switch refuses is no error: the flows that
// copy under it are installed without their copies, and it is tried again later. The turn must be held.
func (s *Switch) sendMeters(ctx context.Context, conn *Conn, mods []meterMod) error {
	if len(mods) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err := conn.Do(ctx, len(mods), func(dst []byte, xid uint32, i int) ([]byte, error) {
		return ofp.AppendMeterMod(dst, xid, mods[i].command, &mods[i].meter)
	}, func(i int) Label { return mods[i].label() })
	refused, crossed := map[uint32]error{}, map[uint32]bool{}
	if err != nil {
		// Some may have been made. There are few: ask.
		have, _, err2 := s.readMeters(ctx, conn)
		if err2 != nil {
			s.askResync()
			return err
		}
		for _, e := range requestErrors(err) {
			switch {
			case e.Index >= len(mods):
				continue
			case errors.Is(e, ofp.MeterExists) || errors.Is(e, ofp.UnknownMeter):
				crossed[mods[e.Index].meter.ID] = true // somebody else was faster: what is to be done is another thing now
			case mods[e.Index].command != ofp.MeterDelete:
				refused[mods[e.Index].meter.ID] = e
			}
		}
		if len(refused)+len(crossed) > 0 {
			err = nil
		}
		s.mu.Lock()
		s.meters.have = have
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters.MeterModsSent += uint64(len(mods))
	if err != nil {
		return err
	}
	s.table.ordering = s.applying
	defer func() { s.table.ordering = false }()
	for _, m := range mods {
		id := m.meter.ID
		switch why := refused[id]; {
		case crossed[id]:
			continue
		case why != nil:
			if old := s.meters.refused[id]; old.err == nil || old.err.Error() != why.Error() {
				s.log.Warn("the switch refuses a meter: what is copied under it is not copied at all", "err", why)
			}
			s.meters.refused[id] = refusedMeter{why, time.Now().Add(meterRetry)}
			continue
		case m.command == ofp.MeterDelete:
			delete(s.meters.have, id)
			continue
		case m.command == ofp.MeterModify:
			s.log.Info("meter set", "was", describe(s.meters.have[id]), "is", describe(m.meter))
		}
		s.meters.have[id] = m.meter
		s.meters.set[id]++
		delete(s.meters.refused, id)
		if m.command == ofp.MeterAdd { // one that is modified keeps its age
			s.meters.age[id] = meterAge{at: time.Now()}
		}
		// A flow finds its meter when it is installed: one that was there before copies without limit. A modified meter counts anew,
		// and so should the flows that copy under it.
		s.table.resend(id)
	}
	s.table.mute(s.meters.muted())
	return nil
}

// MeterSets is how often a meter was made or set anew, so that it counts from then on.
func (s *Switch) MeterSets(id uint32) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meters.set[id]
}

func describe(m flow.MeterDesc) string { return strings.ReplaceAll(m.String(), "\n", " ") }

// watchMeters looks whether our meters are still there as we made them, since the switch tells nothing of meters, and asks again for
// those that it refused. It costs two small questions, for which nobody waits: what was read while meters were being set is not looked at.
// One that somebody makes anew as it was is known by its age, unless that is within meterClock after we had made it ourselves.
// What goes wrong with the connection is told elsewhere.
func (s *Switch) watchMeters(ctx context.Context, conn *Conn) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	if s.take(ctx) != nil {
		return
	}
	s.mu.Lock()
	none := len(s.meters.want) == 0 && len(s.meters.have) == 0
	sent := s.counters.MeterModsSent
	s.mu.Unlock()
	s.release()
	if none {
		return
	}
	asked := time.Now()
	have, age, err := s.readMeters(ctx, conn)
	now := time.Now()
	if err != nil || s.take(ctx) != nil {
		return
	}
	defer s.release()
	var again []meterMod
	s.mu.Lock()
	if s.counters.MeterModsSent != sent {
		s.mu.Unlock()
		return
	}
	for id, w := range s.meters.want {
		is, there := have[id]
		was, before := s.meters.have[id]
		if then, ok := s.meters.age[id]; there && ok && age[id] < then.age+asked.Sub(then.at)-meterClock {
			is.Bands = nil // made anew by somebody else: to be set again, so that its counters and flows begin together
			have[id] = is
		}
		if is := have[id]; before && (!there || !sameMeter(is, was)) {
			s.counters.LostMeters++
			s.changedMeters.add(&w)
		}
		if r, ok := s.meters.refused[id]; ok && now.After(r.again) {
			command := ofp.MeterAdd
			if there {
				command = ofp.MeterModify
			}
			again = append(again, meterMod{command, w})
		}
	}
	s.meters.have = have
	s.meters.seen(age, now)
	s.table.mute(s.meters.muted())
	s.mu.Unlock()
	err = s.sendMeters(ctx, conn, again)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range again {
		if _, ok := s.meters.refused[m.meter.ID]; !ok && err == nil {
			s.meters.made++
		}
	}
	if s.table.nDirty > 0 || s.meters.missing() > 0 {
		s.installed = 0
		s.soon.tell()
	}
}

// seen notes the ages of meters.
func (m *meters) seen(age map[uint32]time.Duration, at time.Time) {
	clear(m.age)
	for id, d := range age {
		m.age[id] = meterAge{d, at}
	}
}
