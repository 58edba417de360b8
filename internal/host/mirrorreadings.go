package host

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// What the flows of a tap bridge count stands in its account in the place of a policy's rules, by uid and without a direction.
func mirrorRef(uid string, d tap.Deed) policy.RuleRef {
	switch d {
	case tap.Accepted:
		return policy.RuleRef{Policy: uid, Rule: string(accepted)}
	case tap.Rejected:
		return policy.RuleRef{Policy: uid, Rule: string(rejected)}
	case tap.SampledOut:
		return policy.RuleRef{Policy: uid, Rule: string(sampledOut)}
	case tap.ToTargets:
		return policy.RuleRef{Policy: uid, Rule: allToTargets}
	}
	return policy.RuleRef{Policy: uid, Rule: fmt.Sprintf(toOnePrefix+"%d", d-tap.ToTarget)}
}

// countMirrors has the flows and meters of a tap bridge count for the mirrors whose uids have these numbers and ids. earlier tells what
// flows had counted when they were read last: what was read back is theirs, less that as far as they are the same flows.
func (k *book) countMirrors(numbers, limits, cuts map[uint32]string, earlier func() (map[policy.RuleRef]counter, time.Time)) {
	var before map[policy.RuleRef]counter
	var at time.Time
	if !k.isNamed() { // the loop alone names
		before, at = earlier()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.account.subjects = func(c flow.Cookie) []policy.RuleRef {
		if number, deed, ok := tap.ParseCookie(c); ok && numbers[number] != "" {
			return []policy.RuleRef{mirrorRef(numbers[number], deed)}
		}
		return nil
	}
	k.meters.limits, k.meters.cuts = limits, cuts
	if k.named {
		return
	}
	k.named = true
	now := k.account.clock()
	old := map[policy.RuleRef]counter{} // of flows that were there at that time
	for _, r := range k.first {
		if now.Add(-time.Duration(r.age) * time.Millisecond).After(at) {
			continue
		}
		for _, ref := range k.account.subjects(r.cookie) {
			old[ref] = old[ref].plus(r.counter)
		}
	}
	k.account.read(k.first, true)
	k.first = nil
	for ref, n := range old {
		k.account.totals[ref], _ = k.account.totals[ref].without(n.least(before[ref]))
	}
}

// least is the smaller of both.
func (c counter) least(d counter) counter {
	return counter{min(c.packets, d.packets), min(c.bytes, d.bytes)}
}

// mirrorMeters are the uids of the mirrors that have meters, by their ids: those that limit, and those that count what is cut.
type mirrorMeters struct{ limits, cuts map[uint32]string }

// mirrorSums are what the account of a tap bridge says in total, and what the flows that there are have counted of it. ok: it is known who
// counts.
func (k *book) mirrorSums() (totals, flows map[policy.RuleRef]counter, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.account.totals), k.account.counted(), k.named
}

// takeMeters reads what the meters of a tap bridge have counted. It goes ahead of the flows: what was passed is for the limit to take from.
func (e *Engine) takeMeters(ctx context.Context, l *link, mirrors map[string]*policy.Mirror, plan map[string]tap.Info) {
	k := l.book
	k.mu.Lock()
	meters := k.meters
	k.mu.Unlock()
	if len(meters.limits)+len(meters.cuts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	stats, err := l.sw.MeterStats(ctx)
	if err != nil {
		return // what there is stays; the status says that the bridge is not connected
	}
	e.counts.readMeters(l.cfg.Name, stats, meters, mirrors, plan)
}

// refreshMirrors brings what mirrors count up to date, and writes it down, at once or a little later. What rows count comes with the
// topology.
func (e *Engine) refreshMirrors(ctx context.Context, atOnce bool) {
	v := e.view.Load()
	mirrors := mirrorsByName(v.resources)
	for _, b := range v.bridges {
		if b.cfg.Mode == made {
			if linkTrouble(b.sw.State()) == "" {
				e.takeMeters(ctx, b.link, mirrors, v.taps)
				b.refresh(ctx)
			}
			e.counts.readFlows(b.cfg.Name, b.book, mirrors, v.taps)
		}
	}
	e.readSinks(ctx, v, mirrors)
	for port, r := range v.captures {
		if m := mirrors[r.mirror]; m != nil {
			s := r.Stats()
			e.counts.readDrops(m.UID, fmt.Sprintf(captureSource+"%s %d", port, r.since.UnixNano()), port, s.Dropped+s.Lost, true)
		}
	}
	if err := e.counts.save(atOnce); err != nil {
		e.log.Warn("what mirrors have counted cannot be written down", "err", err)
	}
}

// readSinks reads what ports that copies go out at have dropped, at most every sinksEvery. A port that several mirrors deliver to does not
// know whose it was: each is told of it.
func (e *Engine) readSinks(ctx context.Context, v *view, mirrors map[string]*policy.Mirror) {
	if !e.counts.sinksDue(time.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, b := range v.bridges {
		if linkTrouble(b.sw.State()) != "" {
			continue
		}
		read := map[int64]uint64{}
		for name, info := range v.taps {
			for _, to := range info.Sends {
				m := mirrors[name]
				if m == nil || to.Bridge != b.cfg.Name || to.OFPort <= 0 {
					continue
				}
				n, known := read[to.OFPort]
				if !known {
					s, err := b.sw.PortStats(ctx, uint32(to.OFPort))
					if err != nil {
						return
					}
					n = portDrops(&s)
					read[to.OFPort] = n
				}
				e.counts.readDrops(m.UID, "port "+to.Bridge+" "+to.Port, to.Port, n, false)
			}
		}
	}
}

// portDrops are the packets that a port should have sent and did not. Open vSwitch turns the counters of internal ports round, so that
// for each port those of sending are about what the switch hands to it.
func portDrops(s *ofp.PortStats) (n uint64) {
	for _, c := range [...]uint64{s.TxDropped, s.TxErrors} {
		if c != math.MaxUint64 { // which says that nobody counts
			n += c
		}
	}
	return n
}

// watchMirrors reads what mirrors count now and then, whether or not anybody asks, until ctx ends.
func (e *Engine) watchMirrors(ctx context.Context) {
	for wait := countEvery; pause(ctx, wait); {
		start := time.Now()
		e.refreshMirrors(ctx, false)
		wait = max(countEvery, 100*time.Since(start))
	}
	if err := e.counts.save(true); err != nil {
		e.log.Warn("what mirrors have counted cannot be written down", "err", err)
	}
}

// mirrorsByName are the mirrors.
func mirrorsByName(resources catalog) map[string]*policy.Mirror {
	out := map[string]*policy.Mirror{}
	for _, m := range ofKind[*policy.Mirror](resources, policy.KindMirror) {
		out[m.Name] = m
	}
	return out
}

// mirrorStages are the labels of metrics, with the counters of the status that they stand for.
var mirrorStages = map[string]string{"selected": "selectedPackets", "accepted": "acceptedPackets", "rejected": "rejectedPackets",
	"sampled_out": "sampledOutPackets", "rate_dropped": "rateDroppedPackets", "sent": "sentPackets", "cut": "cutPackets",
	"sink_dropped": "sinkDroppedPackets"}

// status is what a mirror has counted, as its status says it.
func (c *mirrorCounts) status(uid string) map[string]int64 {
	t := c.totals(uid)
	took := t[accepted].plus(t[rowSelected]) // a row takes all that it selects
	out := map[string]int64{}
	for name, n := range map[string]counter{"selected": took.plus(t[rejected]), "accepted": took, "rejected": t[rejected]} {
		out[name+"Packets"], out[name+"Bytes"] = int64(n.packets), int64(n.bytes)
	}
	for _, stage := range [...]stage{sampledOut, rateDropped, sent, cut, sinkDropped} {
		out[string(stage)+"Packets"] = int64(t[stage].packets)
	}
	return out
}

// mirrorCounters are what a mirror has counted, without what cannot be known of it.
func (v *view) mirrorCounters(m *policy.Mirror) map[string]int64 {
	out := v.counts.status(m.UID)
	if v.taps[m.Name].CutsUnknown {
		delete(out, "cutPackets")
	}
	return out
}

// countMirror adds to the status of a mirror what became of the packets that it selects.
func (v *view) countMirror(s *policy.Status, m *policy.Mirror) {
	if len(s.Hosts) == 0 {
		return
	}
	s.Hosts = slices.Clone(s.Hosts)
	h := &s.Hosts[0]
	t, sends := v.counts.totals(m.UID), v.taps[m.Name].Sends
	if len(t)+len(sends) == 0 {
		return // it has nothing to do with this host
	}
	h.Counters = v.mirrorCounters(m)
	for _, to := range sends {
		texts := map[string]string{}
		if to.Port != "" { // of the ports of a VLAN nobody knows what they dropped of the copies
			texts["sinkDroppedPackets"] = strconv.FormatUint(t[sinkDropped.at(to.Port)].packets, 10)
		}
		// Where each packet is for one of several, nobody knows for which those were that the limit dropped.
		if m.Spec.Balance == nil || t[rateDropped].packets == 0 {
			texts["sentPackets"] = strconv.FormatUint(t[sent.at(to.Port)].packets, 10)
		}
		tellTarget(h, to.Port, texts)
	}
}

// tellTarget adds to what a status says of the target that is a port. The maps there may have other readers and are replaced.
func tellTarget(h *policy.HostStatus, port string, more map[string]string) {
	if h.Target != nil && h.Target["port"] == port {
		h.Target = maps.Clone(h.Target)
		maps.Copy(h.Target, more)
	}
	for i, t := range h.Targets {
		if t["port"] == port {
			h.Targets = slices.Clone(h.Targets)
			h.Targets[i] = maps.Clone(t)
			maps.Copy(h.Targets[i], more)
		}
	}
}
