package record

import "github.com/tapwall/tapwall/event"

// Sink is a place events are copied to beside the ring. Append must not block: a sink has its own bounded queue and counts what
// does not fit. The recorder calls Append from one goroutine, and Close once, after the last Append. A sink that can lose events
// after Append took them also implements LossSource.
type Sink interface {
	Name() string
	// Append takes the batch. The slice belongs to the caller again when it returns; the events may be kept but never changed.
	// An error means that the whole batch was refused and counted by nobody: the recorder counts it at stage "sink".
	Append(batch []*event.Event) error
	// Status tells its health; safe for concurrent use. The recorder fills in the name.
	Status() event.SinkStatus
	Close() error
}

// Export is a place that reads the spool by itself, such as a server. It is closed by Run, before the spool.
type Export interface {
	Name() string
	// Status tells its health; safe for concurrent use.
	Status() event.SinkStatus
	Close() error
}

// LossSource is a Sink or Export that reports its losses. NewRecorder calls ReportLoss before the first Append.
type LossSource interface {
	ReportLoss(event.LossFunc)
}
