package event

import "time"

// Ended is what is known of the end of a connection beside its time.
type Ended struct {
	How     string    `json:"how"`      // closed | cut | gone | replaced | unwatched
	StartID string    `json:"start_id"` // event.id of the event that told of its beginning
	Seen    time.Time `json:"seen"`     // when it was known to be open last
}

// How a connection ended.
const (
	EndClosed    = "closed"    // both sides of TCP closed it, or one reset it
	EndCut       = "cut"       // a policy denied one of its packets
	EndGone      = "gone"      // the switch forgot it: it was silent for too long, or was removed, or the switch restarted
	EndReplaced  = "replaced"  // another one began between the same addresses and ports
	EndUnwatched = "unwatched" // its bridge went, or is not tapwall's any more; the connection may go on
)

// How well the end of a connection is known.
const (
	EndExact     = "exact"              // to the second
	EndBounded   = "bounded"            // between Ended.Seen and Meta.End
	EndRestarted = "controller_restart" // likewise, and tapwall did not run for some of the time
)
