package host

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// holdings is what the handlers and watchers of a bridge know of its quarantines. It is safe for concurrent use.
type holdings struct {
	mu          sync.Mutex
	part, found map[uint32]bool   // ports whose quarantine flows were read back
	changed     bool              // a port may be configured otherwise
	names       map[uint32]string // by id in cookies
	last        map[flow.Key]counter
	dropped     map[string]quarantineCount
}

// quarantineCount is what a quarantine dropped.
type quarantineCount struct{ from, to counter }

// readBack takes a flow that is read back; nil = that was all.
func (h *holdings) readBack(f *flow.Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f == nil {
		h.found, h.part = h.part, nil
		return
	}
	if port, ok := pipeline.HeldPort(f); ok {
		if h.part == nil {
			h.part = map[uint32]bool{}
		}
		h.part[port] = true
	}
}

// marked are the ports with quarantine flows that the switch was found with.
func (h *holdings) marked() map[uint32]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.found)
}

// portChanged notes that the switch told of a port. It reports whether anybody wants to know.
func (h *holdings) portChanged() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed = true
	return len(h.names) > 0
}

func (h *holdings) takeChanged() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.changed
	h.changed = false
	return was
}

// publish says what the ids in cookies stand for.
func (h *holdings) publish(names map[uint32]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.names = names; len(names) == 0 {
		h.last = nil
	}
}

func (h *holdings) name(id uint32) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name, ok := h.names[id]
	return name, ok
}

func (h *holdings) count(name string) quarantineCount {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dropped[name]
}

// credit takes what the drops of a quarantine have counted since they were there.
func (h *holdings) credit(f *ofp.FlowStats) {
	_, id, _ := pipeline.ParseCookie(f.Cookie)
	h.mu.Lock()
	defer h.mu.Unlock()
	name, ok := h.names[id]
	if !ok || f.Priority != pipeline.PriorityQuarantine && f.Priority != pipeline.PriorityQuarantinedND {
		return
	}
	key, now := f.Flow.Key(), counter{f.Stats.Packets, f.Stats.Bytes}
	before := h.last[key]
	if now.packets < before.packets { // the flow is another one
		before = counter{}
	}
	if h.last == nil {
		h.last = map[flow.Key]counter{}
	}
	if h.dropped == nil {
		h.dropped = map[string]quarantineCount{}
	}
	h.last[key] = now
	more := counter{now.packets - before.packets, now.bytes - before.bytes}
	c := h.dropped[name]
	if id&1 != 0 {
		c.to = c.to.plus(more)
	} else {
		c.from = c.from.plus(more)
	}
	h.dropped[name] = c
}

// watchHeld counts what quarantines drop.
func (e *Engine) watchHeld(ctx context.Context, l *link) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.held.mu.Lock()
		any := len(l.held.names) > 0
		l.held.mu.Unlock()
		if any && l.sw.State().Ready {
			_ = l.readHeld(ctx) // the next second is soon enough
		}
	}
}

func (l *link) readHeld(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return l.sw.EachFlow(ctx, ofp.FlowFilter{Table: ofp.AllTables, Cookie: uint64(pipeline.NewCookie(pipeline.CookieQuarantine, 0)),
		CookieMask: uint64(pipeline.CookieMagicMask | 0xff<<32)}, func(f *ofp.FlowStats) { l.held.credit(f) })
}
