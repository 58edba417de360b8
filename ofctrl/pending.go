package ofctrl

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// pending holds the requests that wait for answers. One request may own a range of transaction ids, so that the 100,000
// adds of a bundle cost nothing here.
type pending struct {
	mu   sync.Mutex
	last uint32 // transaction id given out last; 0 is never given out, the switch uses it for what comes unasked
	ops  []*op  // few
	err  error  // once the connection has failed
}

// xids reserves n consecutive transaction ids and returns the first. n must be less than 2³¹.
func (p *pending) xids(n uint32) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reserve(n)
}

func (p *pending) reserve(n uint32) uint32 {
	first := p.last + 1
	if first == 0 || first+n-1 < first { // a range must not wrap
		first = 1
	}
	p.last = first + n - 1
	return first
}

// start reserves n transaction ids for o and lets it receive what answers them.
func (p *pending) start(o *op, n uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	o.done = make(chan struct{})
	o.first, o.n = p.reserve(n), n
	p.ops = append(p.ops, o)
	return nil
}

// any reports whether a request waits for answers, or has just been given up.
func (p *pending) any() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ops) > 0
}

// find returns the request that xid belongs to, or nil.
func (p *pending) find(xid uint32) *op {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.ops {
		if xid-o.first >= o.n {
			continue
		}
		if o.over.Load() { // ended: forget it
			p.ops = append(p.ops[:i], p.ops[i+1:]...)
			return nil
		}
		return o
	}
	return nil
}

// remove forgets o. Afterwards none of its functions runs any more.
func (p *pending) remove(o *op) {
	o.end(ErrClosed)
	p.forget(o)
}

// forget takes o from the requests that wait. It may be called while the mutex of o is held.
func (p *pending) forget(o *op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.ops {
		if p.ops[i] == o {
			p.ops = append(p.ops[:i], p.ops[i+1:]...)
			return
		}
	}
}

// fail ends all requests, now and later.
func (p *pending) fail(err error) {
	p.mu.Lock()
	p.err = err
	ops := p.ops
	p.ops = nil
	p.mu.Unlock()
	for _, o := range ops {
		o.end(err)
	}
}

// op is a request that waits for answers.
type op struct {
	first, n uint32

	// on is called on the reader for each message with a transaction id of the request, until it reports that this was the
	// last, with the request's result.
	on func(ofp.Message) (last bool, err error)
	// onEnd, if set, is called once when the request ends, whatever the way.
	onEnd func()
	// strict: an answer that cannot be decoded ends the connection, since nothing else can tell the outcome.
	strict bool

	mu   sync.Mutex // held while on and onEnd run; taken before the mutex of a Switch
	over atomic.Bool
	err  error         // valid once done is closed
	done chan struct{} // closed by end
}

func (o *op) message(m ofp.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over.Load() {
		return
	}
	if last, err := o.on(m); last {
		o.finish(err)
	}
}

func (o *op) malformed(err error) error {
	if o.strict {
		return errors.Join(ErrProtocol, err)
	}
	o.end(errors.Join(ErrProtocol, err))
	return nil
}

// end finishes the request with err unless it has finished. It waits until on is not running.
func (o *op) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over.Load() {
		o.finish(err)
	}
}

func (o *op) finish(err error) {
	o.err = err
	o.over.Store(true)
	if o.onEnd != nil {
		o.onEnd()
	}
	close(o.done)
}
