package host

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// What the filter of a staged mirror does stands in the account of its tap bridge in the place of a policy's rules, without a direction.
const (
	filterAccepted = "accepted"
	filterRejected = "rejected"
)

func mirrorRef(name string, accepted bool) policy.RuleRef {
	if accepted {
		return policy.RuleRef{Policy: name, Rule: filterAccepted}
	}
	return policy.RuleRef{Policy: name, Rule: filterRejected}
}

// countMirrors has the flows of a tap bridge count for the mirrors with these numbers. What was read before is theirs.
func (k *book) countMirrors(numbers map[uint32]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.account.subjects = func(c flow.Cookie) []policy.RuleRef {
		number, accepts, ok := tap.ParseCookie(c)
		if name := numbers[number]; ok && name != "" {
			return []policy.RuleRef{mirrorRef(name, accepts)}
		}
		return nil
	}
	if !k.named {
		k.named = true
		k.account.read(k.first, true)
		k.first = nil
	}
}

// countMirror adds what the filter of a staged mirror did to its status.
func (v *view) countMirror(s *policy.Status, name string) {
	accepted, rejected := v.total(mirrorRef(name, true)), v.total(mirrorRef(name, false))
	if len(s.Hosts) == 0 || accepted == (counter{}) && rejected == (counter{}) {
		return
	}
	s.Hosts = slices.Clone(s.Hosts)
	c := maps.Clone(s.Hosts[0].Counters)
	c["acceptedPackets"], c["acceptedBytes"] = int64(accepted.packets), int64(accepted.bytes)
	c["rejectedPackets"], c["rejectedBytes"] = int64(rejected.packets), int64(rejected.bytes)
	c["selectedPackets"] += c["acceptedPackets"] + c["rejectedPackets"]
	c["selectedBytes"] += c["acceptedBytes"] + c["rejectedBytes"]
	s.Hosts[0].Counters = c
}
