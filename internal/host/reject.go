package host

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/reject"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// maxAnswers is how many answers of a bridge wait for its connection: more than a burst of a few milliseconds has.
const maxAnswers = 256

// answer is a frame that tells the sender of a packet that it was rejected. It leaves by the port that the packet came in by: no table is
// asked, so it meets neither conntrack nor a policy, and the frame's tags are the packet's.
type answer struct {
	port  uint32
	frame []byte
}

// answerCounters count the copies of rejected packets of a bridge by what became of them.
type answerCounters struct{ asked, sent, unanswerable, metered, queue, failed atomic.Uint64 }

// all returns the counters by the names that metrics give them.
func (c *answerCounters) all() map[string]uint64 {
	return map[string]uint64{"sent": c.sent.Load(), "unanswerable": c.unanswerable.Load(), "metered": c.metered.Load(),
		"queue": c.queue.Load(), "failed": c.failed.Load()}
}

// takeRejected makes the answer to a rejected packet and leaves it to be sent.
func takeRejected(_ *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	c := &l.book.answers
	c.asked.Add(1)
	frame := reject.Answer(in.Data)
	if frame == nil {
		c.unanswerable.Add(1)
		return
	}
	select {
	case l.answers <- answer{in.InPort, frame}:
	default:
		c.queue.Add(1)
	}
}

// answer sends the answers of a bridge until ctx ends. One that the connection has no room for is late, and useless soon.
func (e *Engine) answer(ctx context.Context, l *link) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-l.answers:
			limit, cancel := context.WithTimeout(ctx, time.Second)
			err := l.sw.PacketOut(limit, &ofp.PacketOut{InPort: flow.PortController, Actions: []flow.Action{flow.Output{Port: a.port}},
				Data: a.frame})
			cancel()
			switch {
			case err == nil:
				l.book.answers.sent.Add(1)
			case !errors.Is(err, context.Canceled):
				l.book.answers.failed.Add(1)
			}
		}
	}
}
