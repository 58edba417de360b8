package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// Refresh brings the counters of resources of a kind up to date, if they are older than half a second; of no kind, those of what was
// dropped, by reason.
func (e *Engine) Refresh(ctx context.Context, kind policy.Kind) {
	if kind == policy.KindMirror { // those of rows come with the topology
		e.refreshMirrors(ctx, false)
		return
	}
	if kind != policy.KindPolicy && kind != policy.KindEndpoint && kind != "" {
		return
	}
	for _, b := range e.view.Load().walls {
		switch {
		case linkTrouble(b.sw.State()) != "":
		case kind == "":
			b.refreshDrops(ctx)
		default:
			b.refresh(ctx)
		}
	}
}

// listRules adds the rules of a policy to its status.
func listRules(h *policy.HostStatus, ps *wall.PolicyState) {
	for _, r := range ps.Rules {
		i := slices.IndexFunc(h.Rules, func(x policy.RuleStatus) bool { return x.Name == r.Ref.Rule && x.Direction == r.Ref.Direction })
		if i < 0 {
			i = len(h.Rules)
			h.Rules = append(h.Rules, policy.RuleStatus{Name: r.Ref.Rule, Direction: r.Ref.Direction, Action: r.Action})
		}
		h.Rules[i].ID = r.ID
		h.Rules[i].Flows += r.Flows
	}
}

// countRules adds the counters to a policy's status, those from bridges that are away included.
func (v *view) countRules(h *policy.HostStatus, name string) {
	for i := range h.Rules {
		r := &h.Rules[i]
		ref := policy.RuleRef{Policy: name, Direction: r.Direction, Rule: r.Name}
		c := v.total(ref)
		r.Packets, r.Bytes = c.packets, c.bytes
		hit := v.hit(ref)
		switch r.New = min(hit.judged, r.Packets); {
		case r.Action.Passes() || r.Action == policy.Pass:
			r.Established = r.Packets - r.New
		default:
			r.New, r.Denied = 0, r.Packets
		}
		if !hit.Since.IsZero() {
			r.CountedSince = &hit.Since
		}
		if !hit.Last.IsZero() {
			r.LastHit = &hit.Last
		}
	}
	for _, d := range directions {
		ref := policy.RuleRef{Policy: name, Direction: d.direction, Rule: policy.RuleDefaultDeny}
		h.Counters[d.denied] = int64(v.total(ref).packets)
		ref.Rule = unattributedOf(ref)
		h.Counters[d.unattributed] = int64(v.total(ref).packets)
	}
}

// directions names the counters of a policy's status.
var directions = []struct {
	direction            policy.Direction
	denied, unattributed string
}{
	{policy.Egress, "defaultDenyEgressPackets", "unattributedEgressPackets"},
	{policy.Ingress, "defaultDenyIngressPackets", "unattributedIngressPackets"},
}

// Flows reads the flows of all managed bridges back.
func (e *Engine) Flows(ctx context.Context, q backend.FlowQuery) ([]wire.FlowEntry, error) {
	v := e.view.Load()
	out, names := []wire.FlowEntry{}, pipeline.TableNames()
	for _, b := range v.bridges {
		if q.Bridge != "" && q.Bridge != b.cfg.Name {
			continue
		}
		installed, err := b.sw.Flows(ctx)
		if err != nil {
			if errors.Is(err, ofctrl.ErrNotConnected) {
				err = fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
			}
			return nil, err
		}
		key := &legend{workloads: v.inventory.Workloads, b: v.wallOf(b.cfg.Name)}
		owner := map[string]string{} // by key
		desired := map[string]flow.Flow{}
		for _, o := range b.sw.Owners() {
			for _, f := range b.sw.Desired(o) {
				k := string(f.AppendKey(nil))
				owner[k], desired[k] = o, f
				if f.Table == pipeline.TableAddressSource || f.Table == pipeline.TableAddressDestination {
					key.addressed = append(key.addressed, &f)
				}
			}
		}
		add := func(f *flow.Flow, state, o string, stats flow.Stats) {
			text := f.String()
			if q.Owner != "" && q.Owner != o || q.Table != nil && *q.Table != f.Table || q.Match != "" && !strings.Contains(text, q.Match) {
				return
			}
			if q.Limit > 0 && len(out) == q.Limit {
				return
			}
			entry := wire.FlowEntry{Host: v.host, Bridge: b.cfg.Name, Owner: o, Rule: key.rule(f), Table: int(f.Table),
				TableName: names[f.Table], State: state, Text: text, Packets: stats.Packets, Bytes: stats.Bytes}
			if state != "foreign" {
				entry.Names = key.names(f, entry.Rule)
			}
			out = append(out, entry)
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
	return out, nil
}
