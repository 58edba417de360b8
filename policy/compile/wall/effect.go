package wall

import (
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// verdict is what the registers hold of an effect. What the pipeline cannot do yet, and validation refuses, is no verdict, which drops.
func verdict(e policy.Effect) pipeline.Verdict {
	switch e {
	case policy.Allow:
		return pipeline.VerdictAllow
	case policy.Deny:
		return pipeline.VerdictDrop
	case policy.Reject:
		return pipeline.VerdictReject
	}
	return pipeline.VerdictNone
}

// digits stand for effects in digests that outlive the process, so they must not change.
var digits = map[policy.Effect]int{policy.Deny: 0, policy.Allow: 1, policy.Reject: 2, policy.Pass: 3, policy.Audit: 4}
