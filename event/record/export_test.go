package record

import (
	"time"

	"github.com/tapwall/tapwall/internal/packet"
)

// FailOn puts a fault into the making of events of a rule. It comes before Run.
func (r *Recorder) FailOn(rule uint32) {
	verdicts := r.verdicts
	r.verdicts = func(pi *PacketIn, now time.Time, out []entry) ([]entry, packet.Layer) {
		for _, side := range pi.Verdicts {
			if side.RuleID == rule {
				panic("a fault in tapwall")
			}
		}
		return verdicts(pi, now, out)
	}
}

// QuestionsWaiting is how many DNS questions have no answer yet, while nothing is recorded.
func (r *Recorder) QuestionsWaiting() int { return len(r.builder.domains.waiting) }

// HoldAtMost bounds the connections whose end is waited for. It comes before the first.
func (r *Recorder) HoldAtMost(n int) { r.open.most = n }
