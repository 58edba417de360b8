package event

import "time"

// Notice is something that happened to a switch and is no packet, for [Recorder.Notify].
type Notice struct {
	Action  string `json:"-"` // event.action, such as ActionForeignFlows
	Bridge  string `json:"-"`
	Message string `json:"message"` // one sentence for people
	Count   int64  `json:"count"`   // of the flows or meters that it is about
	// Objects are the texts of some of them.
	Objects []string `json:"objects,omitempty"`
}

// maxNotices bounds the notices that wait. They come seldom: their sources tell of many things at once.
const maxNotices = 256

// Notify records n as an event of its own. It never blocks; what finds no room is counted as lost at StageOFQueue.
func (r *Recorder) Notify(n Notice) {
	now := r.now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observed++
	switch {
	case r.closed:
		r.losses.add(StageOFQueue, P0, "stopped", 1, now, false)
		return
	case len(r.notices) >= maxNotices:
		r.losses.add(StageOFQueue, P0, "full", 1, now, false)
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
	Notice
	at time.Time
}

func (b *builder) notice(n timedNotice, now time.Time) entry {
	id := b.ids.next()
	ev := &Event{Timestamp: n.at, ECS: ECS{ecsVersion}}
	ev.Event = Meta{
		ID: id.String(), Sequence: id.Sequence, Kind: "event", Category: []string{"configuration"}, Type: []string{"change"}, Action: n.Action,
		Dataset: DatasetSwitch, Module: module, Provider: "switch", Created: now,
	}
	ev.Observer = &Observer{Name: b.host}
	ev.Tapwall = Tapwall{Schema: schemaVersion, Bridge: n.Bridge, Notice: &n.Notice}
	return entry{ev: ev, seq: id.Sequence, view: viewOf(ev)}
}
