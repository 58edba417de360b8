package wall

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// A number must not be given a second time by a later run, whatever became of this one: conntrack entries may carry it. So numbers are
// reserved in blocks, ahead of their use, by a bound that is kept safe. Nothing waits while the block lasts. When it is used up, flows
// that would put a number beyond the bound on a packet are held back until the bound has moved; what takes access away carries no new
// number and is not.

// Reserve says that no later run gives the numbers before bound, so that flows may carry them. The first call, before the first Compile,
// puts the firewall under this rule; without it no number waits. After a call the next Compile returns what was held back.
func (f *Firewall) Reserve(bound uint32) {
	f.bounded, f.bound = true, bound
	maps.DeleteFunc(f.beyond, func(n uint32, _ struct{}) bool { return before(n, bound) })
	f.dirtyRetired = f.dirtyRetired || len(f.held) > 0
	for owner := range f.held {
		if name, ok := PolicyOf(owner); ok && f.policies[name] != nil {
			f.policies[name].changed = true
			f.told[f.policies[name]] = struct{}{}
		} else if key, ok := EndpointOf(owner); ok {
			f.dirtyEndpoints[key] = struct{}{}
		} else if n, ok := ClassOf(owner); ok && f.classes.byNumber[n] != nil {
			f.classes.dirty[f.classes.byNumber[n]] = struct{}{}
		}
	}
}

// Reservation returns the bound of a block of so many numbers from here, and whether it is time to reserve it: half of a block is used up.
func (f *Firewall) Reservation(block uint32) (bound uint32, due bool) {
	return (f.next+block-1)%pipeline.MaxNumber + 1, f.bounded && !before((f.next+block/2-1)%pipeline.MaxNumber+1, f.bound)
}

// Next returns the next number that was never given; all before it were, or may have been.
func (f *Firewall) Next() uint32 { return f.next }

// Held returns the owners some of whose flows wait for a Reserve, sorted.
func (f *Firewall) Held() []string { return slices.Sorted(maps.Keys(f.held)) }

// before reports whether n comes before bound, where one of them is at most half the numbers away from the other: they go round.
func before(n, bound uint32) bool {
	const round = pipeline.MaxNumber
	ahead := (bound + round - n) % round
	return ahead > 0 && ahead < round/2
}

// gave notes a number that was given.
func (f *Firewall) gave(n uint32) {
	if f.bounded && !before(n, f.bound) {
		f.beyond[n] = struct{}{}
	}
}

// released returns those of an owner's flows that need not wait.
func (f *Firewall) released(owner string, flows []flow.Flow) []flow.Flow {
	delete(f.held, owner)
	if len(f.beyond) == 0 || len(flows) == 0 {
		return flows
	}
	out := make([]flow.Flow, 0, len(flows))
	for _, fl := range flows {
		if _, waits := f.beyond[number(fl.Cookie)]; !waits {
			out = append(out, fl)
			continue
		}
		f.held[owner] = struct{}{}
		if fl.Table == pipeline.TableDestination { // without this flow, frames to the endpoint would be judged as frames to nobody
			fl.Cookie, fl.Actions = pipeline.DropUndecided.Cookie(), nil
			out = append(out, fl)
		}
	}
	return out
}

// number returns the number that packets get from a flow with this cookie, or that it lets pass; 0 = none.
func number(c flow.Cookie) uint32 {
	switch kind, id, _ := pipeline.ParseCookie(c); kind {
	case pipeline.CookieDefault:
		if id&pipeline.IDDefaultDeny != 0 {
			return 0 // of a class, which is in no connection
		}
		return id & pipeline.MaxNumber
	case pipeline.CookieRule, pipeline.CookieEndpoint:
		return id & pipeline.MaxNumber
	}
	return 0
}
