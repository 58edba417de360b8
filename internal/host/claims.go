package host

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// maxClaims bounds the claims of a bridge between two looks of the loop.
const maxClaims = 1024

// claims are what machines of a bridge have said of their addresses since the loop last looked. They are safe for concurrent use.
type claims struct {
	mu       sync.Mutex
	known    map[claim]struct{}
	heard    []claim // in this order: the first to claim an address has it
	looked   time.Time
	received atomic.Uint64
}

// claim is one of them, with the first of the ids of the endpoint that made it; 0 = a DHCP server, who speaks for others.
type claim struct {
	endpoint uint32
	vlan     int
	learn.Claim
}

// report notes a claim, and reports whether the loop is to look at once. More than it keeps up with are dropped, as they are repeated.
func (c *claims) report(x claim, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[claim]struct{}{}
	}
	if !has(c.known, x) && len(c.heard) < maxClaims {
		c.known[x] = struct{}{}
		c.heard = append(c.heard, x)
	}
	return now.Sub(c.looked) > learnEvery
}

// take returns what was heard since the last call.
func (c *claims) take(now time.Time) []claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.heard
	c.known, c.heard, c.looked = nil, nil, now
	return out
}

func (c *claims) waiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.heard) > 0
}

// takeAddress notes what a machine says of its address.
func takeAddress(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	l.spoken.received.Add(1)
	c, ok := learn.Read(in.Data)
	if !ok {
		return
	}
	x := claim{vlan: int(register(in, pipeline.ZoneVLAN)), Claim: c}
	if c.Source != learn.DHCP {
		x.endpoint = pipeline.EndpointBase(register(in, pipeline.SourceEndpoint))
	}
	if l.spoken.report(x, time.Now()) {
		e.poke()
	}
}
