package ofctrl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// meters holds the desired meters and those of our range that are installed. There are few.
type meters struct{ want, have map[uint32]flow.MeterDesc }

func newMeters() meters { return meters{map[uint32]flow.MeterDesc{}, map[uint32]flow.MeterDesc{}} }

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
func (m meters) diff() (before, after []meterMod) {
	for id, w := range m.want {
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

func (m meters) missing() int {
	n := 0
	for id, w := range m.want {
		if h, ok := m.have[id]; !ok || !sameMeter(w, h) {
			n++
		}
	}
	for id := range m.have {
		if _, ok := m.want[id]; !ok {
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

// readMeters returns the installed meters of our range.
func (s *Switch) readMeters(ctx context.Context, conn *Conn) (map[uint32]flow.MeterDesc, error) {
	have := map[uint32]flow.MeterDesc{}
	if s.opts.MeterLast == 0 {
		return have, nil
	}
	err := conn.Multipart(ctx, "meter configuration", func(dst []byte, xid uint32) ([]byte, error) {
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
	return have, err
}

// sendMeters makes the changes mods and notes those that were made. The turn must be held.
func (s *Switch) sendMeters(ctx context.Context, conn *Conn, mods []meterMod) error {
	if len(mods) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err := conn.Do(ctx, len(mods), func(dst []byte, xid uint32, i int) ([]byte, error) {
		return ofp.AppendMeterMod(dst, xid, mods[i].command, &mods[i].meter)
	}, func(i int) Label { return mods[i].label() })
	s.mu.Lock()
	s.counters.MeterModsSent += uint64(len(mods))
	s.mu.Unlock()
	if err != nil {
		// Some may have been made. There are few: ask.
		have, err2 := s.readMeters(ctx, conn)
		if err2 != nil {
			s.askResync()
			return err
		}
		s.mu.Lock()
		s.meters.have = have
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range mods {
		if m.command == ofp.MeterDelete {
			delete(s.meters.have, m.meter.ID)
		} else {
			s.meters.have[m.meter.ID] = m.meter
		}
	}
	return nil
}
