package policy

import "time"

// RuleHits is what all hosts together say of when a rule was hit.
type RuleHits struct {
	Direction Direction
	Name      string
	Packets   uint64
	Last      time.Time // zero = never since Since
	// Since is since when all hosts have counted without a gap; zero = that of one of them is not known.
	Since time.Time
}

// Hits puts together what the hosts say of the rules of a policy, in the order of its status.
func (s *Status) Hits() []RuleHits {
	type key struct {
		direction Direction
		name      string
	}
	var out []RuleHits
	at := map[key]int{}
	for i := range s.Hosts {
		for j := range s.Hosts[i].Rules {
			r := &s.Hosts[i].Rules[j]
			k := key{r.Direction, r.Name}
			n, known := at[k]
			if !known {
				n, at[k] = len(out), len(out)
				out = append(out, RuleHits{Direction: r.Direction, Name: r.Name})
			}
			h := &out[n]
			h.Packets += r.Packets
			switch {
			case r.CountedSince == nil:
				h.Since = time.Time{}
			case !known || !h.Since.IsZero() && r.CountedSince.After(h.Since):
				h.Since = *r.CountedSince
			}
			if r.LastHit != nil && r.LastHit.After(h.Last) {
				h.Last = *r.LastHit
			}
		}
	}
	return out
}

// Unused reports whether no packet has met the rule for so long, as far as it was counted for so long; 0 = never since it is counted.
func (h *RuleHits) Unused(long time.Duration, now time.Time) bool {
	if h.Since.IsZero() {
		return false // nobody knows
	}
	return h.Last.IsZero() && now.Sub(h.Since) >= long || long > 0 && now.Sub(h.Since) >= long && now.Sub(h.Last) >= long
}
