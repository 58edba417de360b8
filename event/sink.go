package event

// Sink is a place events are copied to beside the ring. Append must not block: a sink has its own bounded queue and counts what
// does not fit. The recorder calls Append from one goroutine, and Close once, after the last Append. A sink that can lose events
// after Append took them also implements LossSource.
type Sink interface {
	Name() string
	// Append takes the batch. The slice belongs to the caller again when it returns; the events may be kept but never changed.
	// An error means that the whole batch was refused and counted by nobody: the recorder counts it at stage "sink".
	Append(batch []*Event) error
	Close() error
}

// LossFunc reports n events lost at a stage; it never blocks and is safe for concurrent use.
type LossFunc func(stage Stage, class Class, reason string, n int64)

// LossSource is a Sink that reports its losses. NewRecorder calls ReportLoss before the first Append.
type LossSource interface {
	ReportLoss(LossFunc)
}

// SinkStatus is the health of a sink. Appended = Written + LostQueue + LostIO + Pending, in one consistent reading.
type SinkStatus struct {
	Path      string
	Bytes     int64 // size of the file being written
	Appended  int64
	Written   int64
	LostQueue int64 // did not fit into the sink's queue while it was writing
	LostIO    int64 // could not be written
	Pending   int64 // in the queue or being written
	TornLines int64 // cut off at start, from an earlier crash
	Error     string
}

// StatusSource is a Sink that can tell its health; safe for concurrent use.
type StatusSource interface {
	Status() SinkStatus
}
