package record

import (
	"context"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// Sink is a place events are copied to beside the ring. Append must not block: a sink has its own bounded queue and counts what
// does not fit. The recorder calls Append from one goroutine, and Close once, after the last Append. A sink that can lose events
// after Append took them also implements LossSource.
type Sink interface {
	Export
	// Append takes the batch. The slice belongs to the caller again when it returns; the events may be kept but never changed.
	// An error means that the whole batch was refused and counted by nobody: the recorder counts it at stage "sink".
	Append(batch []*event.Event) error
}

// Export is a place that reads the spool by itself, such as a server. It is closed by Run, before the spool.
type Export interface {
	Name() string
	// Status tells its health; safe for concurrent use. The recorder fills in the name.
	Status() event.SinkStatus
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

// LossSource is a Sink or Export that reports its losses. NewRecorder calls ReportLoss before the first Append.
type LossSource interface {
	ReportLoss(event.LossFunc)
}
