package record

import (
	"context"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// Export is a place that reads the spool by itself, such as a file or a server. Run closes it, after the spool was written to its end.
type Export interface {
	Name() string
	// Status tells its health; safe for concurrent use.
	Status() event.SinkStatus
	// ReportLoss has f told of events that will never be there, though they were accepted. It is called once, by NewRecorder.
	ReportLoss(f event.LossFunc)
	Close() error
}

// Archive is an Export that keeps events longer than the spool, and can be asked for them.
type Archive interface {
	Name() string
	// Search calls f with the events of an installation that q chooses, but for q.Texts, in the order of their sequence or the other way
	// round, until it returns false. oldest is the time of the oldest event that q chooses but for its times; zero = there is none. The
	// error is that of ctx, or says why not all could be looked at.
	Search(ctx context.Context, install uint32, q spool.Query, f func(*event.Event) (more bool)) (oldest time.Time, err error)
}
