package record

import (
	"maps"
	"sync/atomic"

	"github.com/tapwall/tapwall/event"
)

// Directory is where an engine publishes what the numbers of one bridge stand for, and where the recorder looks when it makes an
// event of the bridge. The zero value names nothing. Safe for concurrent use; a reader never waits.
type Directory struct{ names atomic.Pointer[Names] }

// Publish replaces the names.
func (d *Directory) Publish(n *Names) { d.names.Store(n) }

// Names returns the names last published. A nil Directory has none; nil Names name nothing.
func (d *Directory) Names() *Names {
	if d == nil {
		return nil
	}
	return d.names.Load()
}

// Names says what the numbers of one bridge stand for. It never changes: With… make another one, which shares what is the same, so
// that a change costs what it changes. What it points to is shared with events.
type Names struct {
	rules     table[event.Rule]
	samples   table[int64]
	endpoints table[event.Endpoint]
}

// Rule names the rule or default with the id; nil = unknown.
func (n *Names) Rule(id uint32) *event.Rule {
	if n == nil {
		return nil
	}
	return n.rules.get(id)
}

// OneOf is of how many connections the rule with the id samples one; 0 = it samples none.
func (n *Names) OneOf(id uint32) int64 {
	if n != nil {
		if of := n.samples.get(id); of != nil {
			return *of
		}
	}
	return 0
}

// Endpoint names the endpoint with the id; nil = unknown.
func (n *Names) Endpoint(id uint32) *event.Endpoint {
	if n == nil {
		return nil
	}
	return n.endpoints.get(id)
}

// WithRules returns names in which these ids stand for something else; nil = for nothing.
func (n *Names) WithRules(changed map[uint32]*event.Rule) *Names {
	var out Names
	if n != nil {
		out = *n
	}
	out.rules = out.rules.with(changed)
	return &out
}

// WithSamples returns names in which the rules with these ids sample one of so many connections; nil = none.
func (n *Names) WithSamples(changed map[uint32]*int64) *Names {
	var out Names
	if n != nil {
		out = *n
	}
	out.samples = out.samples.with(changed)
	return &out
}

// WithEndpoints returns names in which these ids stand for other endpoints; nil = for none.
func (n *Names) WithEndpoints(changed map[uint32]*event.Endpoint) *Names {
	var out Names
	if n != nil {
		out = *n
	}
	out.endpoints = out.endpoints.with(changed)
	return &out
}

const pageLen = 256

// table maps ids to values. A changed copy shares the pages that did not change.
type table[V any] map[uint32]*[pageLen]*V

func (t table[V]) get(id uint32) *V {
	if p := t[id/pageLen]; p != nil {
		return p[id%pageLen]
	}
	return nil
}

func (t table[V]) with(changed map[uint32]*V) table[V] {
	out := maps.Clone(t)
	if out == nil {
		out = table[V]{}
	}
	own := map[uint32]*[pageLen]*V{} // the pages that are copied already
	for id, v := range changed {
		at := id / pageLen
		p := own[at]
		if p == nil {
			p = new([pageLen]*V)
			if old := t[at]; old != nil {
				*p = *old
			}
			own[at], out[at] = p, p
		}
		p[id%pageLen] = v
	}
	for at, p := range own {
		if *p == [pageLen]*V{} {
			delete(out, at)
		}
	}
	return out
}
