package wire

import (
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Finding is something about the wording or the use of a rule that is probably not meant.
type Finding struct {
	Code    policy.Code     `json:"code"` // of a warning: SHADOWED, NEVER_MATCHES, WIDER, CONTRADICTS, ONE_FAMILY; or UNUSED
	Policy  string          `json:"policy"`
	Rule    string          `json:"rule,omitempty"` // "ingress/NAME"
	Message string          `json:"message"`
	By      *policy.RuleRef `json:"by,omitempty"` // the other rule
	// LastHit and CountedSince are those of a rule that is UNUSED, over all hosts; LastHit nil = never since then.
	LastHit      *time.Time `json:"lastHit,omitempty"`
	CountedSince *time.Time `json:"countedSince,omitempty"`
}
