package engine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile"
)

// statsAge is how old counters may be that a status shows. OVS itself brings them up to date about twice a second.
const statsAge = 500 * time.Millisecond

// counter is what flows of one id counted.
type counter struct{ packets, bytes uint64 }

// bridgeStats are counters by rule id or default id.
type bridgeStats map[uint32]counter

// flowStats keeps the newest counters of a bridge and what ids that are gone had counted. turn is held while the switch is asked, so that many
// readers ask once.
type flowStats struct {
	turn sync.Mutex
	at   time.Time // guarded by turn

	mu      sync.Mutex
	current bridgeStats
	drops   map[pipeline.DropReason]uint64
	epoch   uint64 // connection that current was read on
	retired map[policy.RuleRef]counter
}

// Refresh implements api.Engine.
func (e *Engine) Refresh(ctx context.Context, kind policy.Kind) {
	if kind != policy.KindPolicy {
		return // mirrors' counters come with the topology
	}
	e.mu.RLock()
	bridges := e.published.bridges
	e.mu.RUnlock()
	for _, b := range bridges {
		if b.fw != nil {
			b.refresh(ctx)
		}
	}
}

func (b *bridge) refresh(ctx context.Context) {
	s := &b.stats
	s.turn.Lock()
	defer s.turn.Unlock()
	if time.Since(s.at) < statsAge {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	epoch := b.sw.State().Epoch
	flows, err := b.sw.Flows(ctx)
	s.at = time.Now()
	if err != nil {
		return // what there is stays; the status says that the bridge is not connected
	}
	next, drops := bridgeStats{}, map[pipeline.DropReason]uint64{}
	for _, f := range flows {
		kind, id, ours := pipeline.ParseCookie(f.Cookie)
		if ours && kind == pipeline.CookieDrop {
			drops[pipeline.DropReason(id)] += f.Stats.Packets
		}
		if !ours || kind != pipeline.CookieRule && kind != pipeline.CookieDefault {
			continue
		}
		c := next[id]
		c.packets += f.Stats.Packets
		c.bytes += f.Stats.Bytes
		next[id] = c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retire(b, next, epoch != s.epoch)
	s.current, s.drops, s.epoch = next, drops, epoch
}

// retire keeps what flows that went had counted, for the rule that bore their id, so that a rule's counters never go back. Behind a new connection
// that counts less is a switch that began anew; on the same one some of an id's flows went and the others count on.
func (s *flowStats) retire(b *bridge, next bridgeStats, reconnected bool) {
	if s.retired == nil {
		s.retired = map[policy.RuleRef]counter{}
	}
	for id, old := range s.current {
		now, there := next[id]
		if there && now.packets >= old.packets {
			continue
		}
		b.mu.Lock()
		info, ok := b.fw.Rule(id)
		b.mu.Unlock()
		if ok && pipeline.IsRule(id) {
			gone := old
			if !reconnected {
				gone.packets -= now.packets
				gone.bytes -= min(now.bytes, old.bytes)
			}
			sum := s.retired[info.Ref]
			sum.packets += gone.packets
			sum.bytes += gone.bytes
			s.retired[info.Ref] = sum
		}
	}
}

// countRules adds the rules of a policy with their counters to its status.
func countRules(h *policy.HostStatus, b *bridge, ps *compile.PolicyState) {
	b.stats.mu.Lock()
	defer b.stats.mu.Unlock()
	stats := b.stats.current
	for _, r := range ps.Rules {
		c, old := stats[r.ID], b.stats.retired[r.Ref]
		i := slices.IndexFunc(h.Rules, func(x policy.RuleStatus) bool { return x.Name == r.Ref.Rule && x.Direction == r.Ref.Direction })
		if i < 0 {
			i = len(h.Rules)
			h.Rules = append(h.Rules, policy.RuleStatus{Name: r.Ref.Rule, Direction: r.Ref.Direction, Action: r.Action})
		}
		h.Rules[i].ID = r.ID
		h.Rules[i].Flows += r.Flows
		h.Rules[i].Packets += c.packets + old.packets
		h.Rules[i].Bytes += c.bytes + old.bytes
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range ps.Endpoints {
		id := b.assignments.Endpoints[key].ID
		h.Counters["defaultDenyEgressPackets"] += int64(stats[pipeline.IDDefaultDeny|id].packets)
		h.Counters["defaultDenyIngressPackets"] += int64(stats[pipeline.IDDefaultDeny|pipeline.IDIngress|id].packets)
	}
}

// ruleOf names the rule or default that a flow was compiled from, POLICY/DIRECTION/RULE as events do; "" where there is none.
func (b *bridge) ruleOf(f *flow.Flow) string {
	kind, id, ours := pipeline.ParseCookie(f.Cookie)
	if !ours || kind != pipeline.CookieRule && kind != pipeline.CookieDefault && kind != pipeline.CookiePickup {
		return ""
	}
	r, ok := b.rule(id)
	if !ok {
		return ""
	}
	return strings.Join(slices.DeleteFunc([]string{r.Policy, r.Direction, r.Name}, func(s string) bool { return s == "" }), "/")
}

// Flows implements api.Engine.
func (e *Engine) Flows(ctx context.Context, q api.FlowQuery) ([]api.FlowEntry, error) {
	e.mu.RLock()
	bridges, topo := e.published.bridges, e.published.topo
	e.mu.RUnlock()
	out, names := []api.FlowEntry{}, pipeline.TableNames()
	for _, b := range bridges {
		if q.Bridge != "" && q.Bridge != b.cfg.Name {
			continue
		}
		installed, err := b.sw.Flows(ctx)
		if err != nil {
			return nil, err
		}
		owner := map[string]string{} // by key
		desired := map[string]flow.Flow{}
		for _, o := range b.sw.Owners() {
			for _, f := range b.sw.Desired(o) {
				k := string(f.AppendKey(nil))
				owner[k], desired[k] = o, f
			}
		}
		add := func(f *flow.Flow, state, o string, stats flow.Stats) {
			text := f.String()
			if q.Owner != "" && q.Owner != o || q.Table != nil && *q.Table != f.Table || q.Match != "" && !strings.Contains(text, q.Match) {
				return
			}
			out = append(out, api.FlowEntry{Host: topo.Host, Bridge: b.cfg.Name, Owner: o, Rule: b.ruleOf(f), Table: int(f.Table), TableName: names[f.Table], State: state,
				Text: text, Packets: stats.Packets, Bytes: stats.Bytes})
		}
		for i := range installed {
			f := &installed[i]
			k := string(f.AppendKey(nil))
			o, want := owner[k]
			if !b.sw.IsOurs(f.Cookie) || !want {
				add(&f.Flow, "foreign", "", f.Stats) // also in the place of one that is missing
				continue
			}
			delete(desired, k)
			add(&f.Flow, "installed", o, f.Stats)
		}
		for _, k := range slices.Sorted(maps.Keys(desired)) {
			f := desired[k]
			add(&f, "missing", owner[k], flow.Stats{})
		}
	}
	slices.SortStableFunc(out, func(a, b api.FlowEntry) int { return strings.Compare(a.Bridge, b.Bridge) })
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[:q.Limit]
	}
	return out, nil
}
