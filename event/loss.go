package event

// Stage is where an event was lost.
type Stage string

// The stages. The first group lies before acceptance and enters the identity of Counters; the second loses copies of events
// that were accepted.
const (
	StagePacketInMeter Stage = "packet_in_meter" // the switch's meter dropped the copy
	StageSwitchQueue   Stage = "switch_queue"    // the switch's queue towards the controller overflowed
	StageOFQueue       Stage = "of_queue"        // the recorder's queue was full, or the recorder had stopped
	StageCaptureRing   Stage = "capture_ring"    // the kernel had no room for a packet that a mirror copied
	StageDecode        Stage = "decode"          // a fault in tapwall itself: no malformed packet is lost here
	StageSpoolShed     Stage = "spool_shed"      // the disk is nearly full: the less important ones are not kept
	StageSpoolIO       Stage = "spool_io"        // the disk did not take it
	StageConnections   Stage = "connections"     // the end of a connection that could not be remembered

	StageRingOverwrite Stage = "ring_overwrite" // a reader asked for events the ring had overwritten
	StageStreamClient  Stage = "stream_client"  // a reader was too slow
	StageSpoilt        Stage = "spool_corrupt"  // kept once, and cannot be read any more
	StageExpired       Stage = "expired"        // it fell to the bounds of the spool before a sink had it
	StageDeadLetter    Stage = "dead_letter"    // a dead letter fell to the bound of their file
)

// BeforeAcceptance reports whether what is lost at the stage never reached the ring.
func (s Stage) BeforeAcceptance() bool {
	switch s {
	case StagePacketInMeter, StageSwitchQueue, StageOFQueue, StageCaptureRing, StageDecode,
		StageSpoolShed, StageSpoolIO, StageConnections:
		return true
	case StageRingOverwrite, StageStreamClient, StageSpoilt, StageExpired, StageDeadLetter:
	}
	return false
}

// Class says how much an event matters; when a mixture was lost, a loss event names the most important class.
type Class string

// The classes, most important first.
const (
	P0      Class = "P0" // deny verdicts, losses, notices
	P1      Class = "P1" // allow verdicts, ends of connections
	P2      Class = "P2" // packets
	NoClass Class = ""   // not known, as for what a switch dropped
)

// Class is the class of the event.
func (e *Event) Class() Class {
	switch {
	case e.Event.Action == ActionLost, e.Tapwall.Notice != nil:
		return P0
	case e.Tapwall.Ended != nil: // as what it allowed, or would have denied
		return P1
	}
	switch e.Tapwall.Verdict {
	case Dropped, Rejected, Audit, Quarantined, Errored:
		return P0
	case Mirrored, Sampled:
		return P2
	case Forwarded:
	}
	return P1
}

// LossFunc reports n events lost at a stage; it never blocks and is safe for concurrent use.
type LossFunc func(stage Stage, class Class, reason string, n int64)
