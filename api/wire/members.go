package wire

import "github.com/tapwall/tapwall/policy"

// Members is a group after some of its members were added or removed: all but the members, of which there may be many.
type Members struct {
	Kind policy.Kind `json:"kind"`
	policy.Meta
	Members int `json:"members"` // how many there are
	Added   int `json:"added"`
	Removed int `json:"removed"`
	// Present are those to be added that were members already, Absent those to be removed that were none.
	Present int           `json:"present"`
	Absent  int           `json:"absent"`
	Status  policy.Status `json:"status"`
}
