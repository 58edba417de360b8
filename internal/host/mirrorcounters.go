package host

import (
	"context"
	"maps"
	"slices"
	"time"

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

// rateLimits is how many packets the meters of mirrors dropped, in totals that never go back.
type rateLimits struct {
	mirrors map[uint32]string // by id of the meter
	last    map[uint32]uint64 // as read, likewise
	dropped map[string]uint64 // by mirror
}

// countMirrors has the flows and meters of a tap bridge count for the mirrors with these numbers and ids. What was read before is theirs.
func (k *book) countMirrors(numbers, meters map[uint32]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.account.subjects = func(c flow.Cookie) []policy.RuleRef {
		number, deed, ok := tap.ParseCookie(c)
		if name := numbers[number]; ok && name != "" && (deed == tap.Accepted || deed == tap.Rejected) {
			return []policy.RuleRef{mirrorRef(name, deed == tap.Accepted)}
		}
		return nil
	}
	k.limits.mirrors = meters
	if !k.named {
		k.named = true
		k.account.read(k.first, true)
		k.first = nil
	}
}

// readLimits reads what the meters of mirrors dropped. A meter that counts less than before is another one.
func (l *link) readLimits(ctx context.Context) {
	k := l.book
	k.mu.Lock()
	none := len(k.limits.mirrors) == 0
	k.mu.Unlock()
	if none {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	metered, err := l.metered(ctx)
	if err != nil {
		return // what there is stays; the status says that the bridge is not connected
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	x := &k.limits
	if x.dropped == nil {
		x.dropped = map[string]uint64{}
	}
	for id, n := range metered {
		if name, ok := x.mirrors[id]; ok {
			before := x.last[id]
			if n < before {
				before = 0
			}
			x.dropped[name] += n - before
		}
	}
	x.last = metered
}

// limited is how many packets of a mirror meters dropped.
func (v *view) limited(name string) (n uint64) {
	for _, k := range v.books {
		k.mu.Lock()
		n += k.limits.dropped[name]
		k.mu.Unlock()
	}
	return n
}

// countMirror adds to the status of a staged mirror what its filter and its limit did.
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
	if n := v.limited(name); n > 0 {
		c["rateDroppedPackets"] = int64(n)
	}
	s.Hosts[0].Counters = c
}
