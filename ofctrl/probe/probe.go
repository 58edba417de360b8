// Package probe asks a switch what its pipeline does with a packet, without the packet getting anywhere: see pipeline.Probe. What the
// switch says is what it would have done with the first packet of a connection, conntrack and caches included.
package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// Sender is a switch, see [ofctrl.Switch.PacketOut].
type Sender interface {
	PacketOut(ctx context.Context, p *ofp.PacketOut) error
}

// Answer is where the way of a probe ended and what had been written into it by then.
type Answer struct {
	Table  uint8               // VERDICT; EXIT of what passes without being judged
	Reason pipeline.CopyReason // CopyProbe, or why a copy went to the controller that is not a probe's alone
	regs   [16]uint32
	meta   uint64
}

// Judged reports whether policies had a say.
func (a *Answer) Judged() bool {
	return a.Reason == pipeline.CopyProbe && a.Table == pipeline.TableVerdict
}

// Side is what was decided on one side.
type Side struct {
	Verdict pipeline.Verdict
	Rule    uint32 // id of what decided
	Audited uint32 // id of what would have denied, but for mode audit; 0 = nothing
}

// Side returns what was decided on the side of the sender or, ingress, of the receiver. It means nothing unless the probe was judged.
func (a *Answer) Side(ingress bool) Side {
	verdict, rule, audit := pipeline.EgressVerdict, pipeline.EgressRule, pipeline.EgressAudit
	if ingress {
		verdict, rule, audit = pipeline.IngressVerdict, pipeline.IngressRule, pipeline.IngressAudit
	}
	s := Side{Verdict: pipeline.Verdict(a.field(verdict)), Rule: a.field(rule)}
	if id := uint32(a.meta >> audit.Ofs); id&pipeline.AuditNoted != 0 {
		s.Audited = id &^ pipeline.AuditNoted
	}
	return s
}

// Passes reports whether the packet would have gone on.
func (a *Answer) Passes() bool {
	if !a.Judged() {
		return a.Reason == pipeline.CopyProbe && a.Table == pipeline.TableExit
	}
	return a.Side(false).Verdict == pipeline.VerdictAllow && a.Side(true).Verdict == pipeline.VerdictAllow
}

func (a *Answer) field(f pipeline.Field) uint32 {
	return a.regs[f.Field-flow.Reg0] >> f.Ofs & uint32(flow.Ones(int(f.Bits)).Lo)
}

// ErrSilent: the switch has not told of the probe, so it was dropped before anything was decided, or by a switch that was too busy.
var ErrSilent = errors.New("the switch did not tell of the probe")

// Prober asks one switch. Its methods are safe for concurrent use.
type Prober struct {
	sw   Sender
	tags chan uint8 // free ones

	mu      sync.Mutex
	waiting map[uint8]chan Answer
}

// New returns a prober of a switch, whose packet-ins have to be shown to Take.
func New(sw Sender) *Prober {
	p := &Prober{sw: sw, tags: make(chan uint8, pipeline.ProbeTagN), waiting: map[uint8]chan Answer{}}
	for i := range uint8(pipeline.ProbeTagN) {
		p.tags <- pipeline.ProbeTagFirst + i
	}
	return p
}

// late is how long after the time was up a tag is not used again: the answer might still come.
const late = 2 * time.Second

// Ask sends a frame into the pipeline as if it had come in by a port, and returns what became of it. If the switch has not told of it
// within patience the error matches ErrSilent; others are those of the connection and of ctx.
func (p *Prober) Ask(ctx context.Context, port uint32, frame []byte, patience time.Duration) (Answer, error) {
	var tag uint8
	select {
	case tag = <-p.tags:
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
	got := make(chan Answer, 1)
	p.mu.Lock()
	p.waiting[tag] = got
	p.mu.Unlock()
	give := func() { p.tags <- tag }
	defer func() {
		p.mu.Lock()
		delete(p.waiting, tag)
		p.mu.Unlock()
		give()
	}()
	if err := p.sw.PacketOut(ctx, &ofp.PacketOut{InPort: port, Actions: pipeline.Probe(tag), Data: frame}); err != nil {
		return Answer{}, err
	}
	over := time.NewTimer(patience)
	defer over.Stop()
	select {
	case a := <-got:
		return a, nil
	case <-ctx.Done():
		give = func() { time.AfterFunc(late, func() { p.tags <- tag }) }
		return Answer{}, ctx.Err()
	case <-over.C:
		give = func() { time.AfterFunc(late, func() { p.tags <- tag }) }
		return Answer{}, fmt.Errorf("%w within %v", ErrSilent, patience)
	}
}

// Take looks at a packet-in and reports whether it is about a probe, of which nobody else should hear. It does not wait.
func (p *Prober) Take(pi *ofp.PacketIn) bool {
	a := Answer{Table: pi.Table}
	for _, t := range pi.Match {
		switch f := t.Field; {
		case f >= flow.Reg0 && f <= flow.Reg15:
			a.regs[f-flow.Reg0] = uint32(t.Value.Lo)
		case f == flow.Metadata:
			a.meta = t.Value.Lo
		}
	}
	tag := uint8(a.field(pipeline.ProbeTag))
	if tag < pipeline.ProbeTagFirst {
		return false
	}
	a.Reason, _ = pipeline.ParseUserData(pi.UserData)
	p.mu.Lock()
	defer p.mu.Unlock()
	if to := p.waiting[tag]; to != nil {
		select {
		case to <- a:
		default: // a second copy of one probe
		}
	}
	return true
}
