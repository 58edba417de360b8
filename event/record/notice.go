package record

import (
	"time"

	"github.com/tapwall/tapwall/event"
)

// maxNotices bounds the notices that wait. They come seldom: their sources tell of many things at once.
const maxNotices = 256

// Notify records n as an event of its own. It never blocks; what finds no room is counted as lost at StageOFQueue.
func (r *Recorder) Notify(n event.Notice) {
	now := r.now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observed++
	switch {
	case r.closed:
		r.losses.add(event.StageOFQueue, event.P0, "stopped", 1, now, false)
		return
	case len(r.notices) >= maxNotices:
		r.losses.add(event.StageOFQueue, event.P0, "full", 1, now, false)
		return
	}
	r.pending++
	r.notices = append(r.notices, timedNotice{n, now})
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

type timedNotice struct {
	event.Notice
	at time.Time
}

func (b *builder) notice(n timedNotice, now time.Time) entry {
	id := b.ids.next()
	ev := &event.Event{Timestamp: n.at, ECS: event.ECS{Version: ecsVersion}}
	ev.Event = event.Meta{
		ID: id.String(), Sequence: id.Sequence, Kind: "event", Category: []string{"configuration"}, Type: []string{"change"}, Action: n.Action,
		Dataset: event.DatasetSwitch, Module: module, Provider: "switch", Created: now,
	}
	ev.Observer = &event.Observer{Name: b.host}
	ev.Tapwall = event.Tapwall{Schema: schemaVersion, Bridge: n.Bridge, Notice: &n.Notice}
	return entry{ev: ev, seq: id.Sequence, Facts: event.FactsOf(ev)}
}
