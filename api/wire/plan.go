package wire

import "time"

// ConnectionPlan says what changes of policy would do to live connections, by what conntrack tracks and the reference evaluator.
type ConnectionPlan struct {
	// Cut counts connections that pass and would be dropped at their next packet; Cuts are the first 100 of them.
	Cut  int                 `json:"cut"`
	Cuts []PlannedConnection `json:"cuts,omitempty"`
	// Kept counts those that would go on, Moved those of them under another rule than now.
	Kept  int `json:"kept"`
	Moved int `json:"moved"`
	// Allowed counts connections that were denied in the last ten minutes, as far as the record in memory tells, and would be allowed; each
	// only once, whatever port it came from. Allows are the first 100 of them.
	Allowed int                 `json:"allowed"`
	Allows  []PlannedConnection `json:"allows,omitempty"`
	// Untold counts connections of which nothing can be said: not tapwall's, or of an endpoint that is not known any more.
	Untold int `json:"untold,omitempty"`
	// Problems say which connections were not looked at, and why.
	Problems []string `json:"problems,omitempty"`
}

// PlannedConnection is a connection that changes would cut or allow.
type PlannedConnection struct {
	Host        string        `json:"host"`
	Bridge      string        `json:"bridge"`
	Protocol    string        `json:"protocol"` // as events have it
	Source      ConnectionEnd `json:"source"`
	Destination ConnectionEnd `json:"destination"`
	// Side and Rule are what would cut it, or what would allow it: egress or ingress, and the rule or default.
	Side string `json:"side"`
	Rule string `json:"rule"`
	// Last is when it was last denied; of Allows only.
	Last time.Time `json:"last,omitzero"`
}

// MaxPlanned bounds the lists of a ConnectionPlan.
const MaxPlanned = 100
