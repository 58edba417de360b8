package ofctrl

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// wakeGap is the least time between two wake-ups about what others do, so that whoever fights us cannot keep us busy. The first
// one comes at once.
const wakeGap = 50 * time.Millisecond

// spaced calls do, at once if it has not lately, else a little later, and once for all calls until then.
type spaced struct {
	do func()

	mu      sync.Mutex
	last    time.Time
	waiting bool
}

func (s *spaced) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting {
		return
	}
	rest := wakeGap - time.Since(s.last)
	if rest <= 0 {
		s.last = time.Now()
		s.do()
		return
	}
	s.waiting = true
	time.AfterFunc(rest, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting, s.last = false, time.Now()
		s.do()
	})
}

// hide notes a flow of a watched table that has no place. It reports whether the flow is one.
func (t *table) hide(f *flow.Flow, isOurs bool) bool {
	if !t.watched(f.Table) || isOurs && !t.own.Has(f.Table) {
		return false
	}
	t.opaque[opaque{f.Table, f.Cookie}] = *f
	return true
}

// nOpaque counts the kinds of opaque flows that are to be removed.
func (t *table) nOpaque() int {
	n := 0
	for o := range t.opaque {
		if t.own.Has(o.table) {
			n++
		}
	}
	return n
}

// Foreign calls visit for each foreign flow in the tables of [Options.Own] and in table 0, in no order. Without own tables none
// is known. visit must not call methods of s.
func (s *Switch) Foreign(visit func(*flow.Flow)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.table.others {
		visit(&f)
	}
	for _, f := range s.table.opaque {
		visit(&f)
	}
}

// changed is what others changed of ours since the last Apply.
type changed struct {
	count   int
	objects []string
}

func (c *changed) add(object fmt.Stringer) {
	if c.count++; c.count <= MaxObjects {
		c.objects = append(c.objects, object.String())
	}
}

// interfered tells OnInterference what others did.
func (s *Switch) interfered(what InterferenceKind, count int, objects []string) {
	if count > 0 && s.opts.OnInterference != nil {
		s.opts.OnInterference(Interference{What: what, Count: count, Objects: objects[:min(len(objects), MaxObjects)]})
	}
}

// unhide appends to changes what removes opaque flows from our own tables. They are deleted by table and cookie; if the cookie is
// ours, that hits flows of ours as well, which therefore come again behind it.
func (s *Switch) unhide(changes []change) []change {
	again := map[opaque]bool{}
	for o, f := range s.table.opaque {
		if !s.table.own.Has(o.table) {
			continue
		}
		changes = append(changes, change{command: ofp.FlowDelete, flow: &flow.Flow{Table: o.table, Cookie: o.cookie}, foreign: &f})
		again[o] = o.cookie&s.opts.CookieMask == s.opts.Cookie
	}
	if len(again) == 0 {
		return changes
	}
	planned := map[slot]bool{}
	for i := range changes {
		if changes[i].command != ofp.FlowDelete {
			planned[changes[i].slot] = true
		}
	}
	for _, own := range s.table.owners {
		for i, at := range own.slots {
			f, e := &own.flows[i], &s.table.entries[at]
			if again[opaque{f.Table, f.Cookie}] && !planned[at] && e.there != expired && !own.aside {
				planned[at] = true
				changes = append(changes, change{key: e.key, slot: at, owner: e.owner, command: ofp.FlowAdd, flow: f})
			}
		}
	}
	return changes
}

// countFlows asks how many flows there are and reports whether that is what is known. Every change is reported, so it should be:
// this finds what went wrong on the way. A difference that a read-back did not explain is not looked into again.
func (s *Switch) countFlows(ctx context.Context, conn *Conn) (ok bool, err error) {
	if err := s.take(ctx); err != nil {
		return false, err
	}
	defer s.release()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err = conn.Multipart(ctx, "count of flows", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendAggregateRequest(dst, xid, ofp.FlowFilter{Table: ofp.AllTables})
	}, func(m ofp.Multipart) {
		if sum, is := m.(*ofp.AggregateReply); is {
			s.mu.Lock()
			defer s.mu.Unlock()
			odd := int(sum.Flows) - s.table.nOurs - s.table.nForeign
			ok = odd == 0 || odd == s.odd
			s.odd = odd
		}
	})
	if err != nil {
		return false, unexpected("count flows", err)
	}
	if !ok {
		s.log.Warn("the switch holds another number of flows than it has reported; reading back", "more", s.odd)
	}
	return ok, nil
}
