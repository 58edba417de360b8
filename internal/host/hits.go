package host

import (
	"context"
	"net/url"
	"path/filepath"
	"time"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// Counters are read at least every readEvery, and no more than a hundredth of the time; that is how exact the time of a hit is. What is
// known of hits is written down every saveHitsEvery, and at the end.
const (
	readEvery     = time.Minute
	saveHitsEvery = 5 * time.Minute
	maxHitsFile   = 64 << 20 // bytes: more than the rules of a bridge take
)

// hit says when a rule was hit.
type hit struct {
	Since time.Time `json:"since"`         // it has been counted without a gap since then
	Last  time.Time `json:"last,omitzero"` // zero = never since
	// Flows is what the flows of the rule had counted when this was written: a restart finds out by it whether they have counted since.
	Flows uint64 `json:"flows,omitempty"`

	judged uint64 // packets that met the rule itself, and not what it let pass before
}

// begin notes which rules of a policy there are now; what is known of others of it is forgotten.
func (a *account) begin(name string, rules map[policy.RuleRef]bool, now time.Time) {
	for ref := range a.rulesOf[name] {
		if !rules[ref] {
			delete(a.hits, ref)
		}
	}
	if a.rulesOf[name] = rules; len(rules) == 0 {
		delete(a.rulesOf, name)
	}
	for ref := range rules {
		if a.hits[ref] == nil {
			a.hits[ref] = &hit{Since: now}
		}
	}
}

// met notes that packets have met a rule: judged ones by itself, others by what it let pass.
func (a *account) met(ref policy.RuleRef, table uint8, packets uint64, now time.Time) {
	h := a.hits[ref]
	if h == nil || packets == 0 {
		return
	}
	h.Last = now
	if table != pipeline.TableLiveEgress && table != pipeline.TableLiveIngress {
		h.judged += packets
	}
}

// perhaps notes that a flow of a rule has counted packets of which nobody knows whether they met it: from now on counting has no gap.
func (a *account) perhaps(ref policy.RuleRef, now time.Time) {
	if h := a.hits[ref]; h != nil {
		h.Since = now
	}
}

// counted sums what the flows of each rule have counted, as they were read last.
func (a *account) counted() map[policy.RuleRef]counter {
	out := make(map[policy.RuleRef]counter, len(a.hits))
	for _, r := range a.last {
		for _, ref := range a.subjects(r.cookie) {
			out[ref] = out[ref].plus(r.counter)
		}
	}
	return out
}

// resume takes up what an earlier process knew, right behind the first reading of all flows. Flows that have counted more than then were
// hit meanwhile, at the latest now. Those that have counted less have begun anew, and what came before that was not counted.
func (a *account) resume(earlier map[string]hit, now time.Time) {
	counted := a.counted()
	for ref, h := range a.hits {
		was, known := earlier[ref.String()]
		if !known {
			continue
		}
		switch n := counted[ref].packets; {
		case n == was.Flows:
			h.Since, h.Last = was.Since, was.Last
		case n > was.Flows:
			h.Since, h.Last = was.Since, now
		case n > 0:
			h.Last = now
		default:
			h.Last = was.Last
		}
	}
}

// hitsFile is where what is known of the hits on a bridge is kept; "" = nowhere.
func (e *Engine) hitsFile(bridge string) string {
	if e.opt.HitsDir == "" {
		return ""
	}
	return filepath.Join(e.opt.HitsDir, url.PathEscape(bridge)+".json")
}

// recallHits reads what an earlier process has left. A file that cannot be read is as good as none.
func (e *Engine) recallHits(bridge string) (out map[string]hit) {
	path := e.hitsFile(bridge)
	if path == "" {
		return nil
	}
	if _, err := readJSON(path, maxHitsFile, &out); err != nil {
		e.log.Warn("what an earlier process knew of hits is lost", "bridge", bridge, "err", err)
		return nil
	}
	return out
}

// saveHits writes down what is known of hits on a bridge.
func (e *Engine) saveHits(bridge string, k *book) {
	path := e.hitsFile(bridge)
	if path == "" {
		return
	}
	k.mu.Lock()
	named := k.named
	counted, out := k.account.counted(), make(map[string]hit, len(k.account.hits))
	for ref, h := range k.account.hits {
		x := *h
		x.Flows = counted[ref].packets
		out[ref.String()] = x
	}
	k.mu.Unlock()
	if !named {
		return // what the earlier process left is not taken up yet
	}
	if err := replaceJSON(path, out); err != nil {
		e.log.Warn("when rules were hit cannot be written down", "bridge", bridge, "err", err)
	}
}

// watchHits reads the counters now and then, whether or not anybody asks for them, until ctx ends.
func (e *Engine) watchHits(ctx context.Context) {
	saved, wait := time.Now(), readEvery
	save := func() {
		for name, k := range e.view.Load().books {
			e.saveHits(name, k)
		}
		saved = time.Now()
	}
	for pause(ctx, wait) {
		start := time.Now()
		e.Refresh(ctx, policy.KindPolicy)
		wait = max(readEvery, 100*time.Since(start))
		if time.Since(saved) >= saveHitsEvery {
			save()
		}
	}
	save()
}

// hit returns when a rule was hit on any bridge, and since when it has been counted on all of those that have it.
func (k *book) hit(ref policy.RuleRef) (hit, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.account.hits[ref]
	if h == nil {
		return hit{}, false
	}
	return *h, true
}

// hit puts together what the bridges say of a rule.
func (v *view) hit(ref policy.RuleRef) (all hit) {
	for _, k := range v.books {
		h, known := k.hit(ref)
		if !known {
			continue
		}
		if all.judged += h.judged; h.Since.After(all.Since) {
			all.Since = h.Since
		}
		if h.Last.After(all.Last) {
			all.Last = h.Last
		}
	}
	return all
}

// rulesOf are the names of all rules of a policy.
func rulesOf(p *policy.Policy) map[policy.RuleRef]bool {
	if p == nil {
		return nil
	}
	out := map[policy.RuleRef]bool{}
	for _, d := range [...]policy.Direction{policy.Ingress, policy.Egress} {
		rules := p.Rules(d)
		for i := range rules {
			out[policy.RuleRef{Policy: p.Name, Direction: d, Rule: rules[i].Name}] = true
		}
	}
	return out
}
