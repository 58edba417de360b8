package wall

import (
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// A selection is what one selector chooses among the workloads. Selectors that read the same share it, however many rules use them, so a
// changed workload is compared with each selector once, and only the policies that use a selector which answers differently are
// compiled again.
type selection struct {
	sel     policy.Selector
	members map[string]*policy.Workload // by key
	users   map[*policyState]struct{}

	// ids and addrs are computed from members when asked for: endpoint ids on this bridge, and the addresses of workloads that are
	// not on it.
	fresh bool
	ids   []uint32
	addrs []netip.Prefix
}

// selections holds the workloads and the selections among them.
type selections struct {
	workloads map[string]*policy.Workload
	byLabel   map[label]map[string]*policy.Workload
	bySel     map[string]*selection
	// endpointID returns the id of a workload that is on the bridge.
	endpointID func(key string) (uint32, bool)
}

type label struct{ key, value string }

func newSelections(endpointID func(string) (uint32, bool)) *selections {
	return &selections{
		workloads: map[string]*policy.Workload{}, byLabel: map[label]map[string]*policy.Workload{}, bySel: map[string]*selection{},
		endpointID: endpointID,
	}
}

// use returns the selection of sel and notes that ps uses it.
func (s *selections) use(sel policy.Selector, ps *policyState) *selection {
	key := sel.String()
	x := s.bySel[key]
	if x == nil {
		x = &selection{sel: sel, members: map[string]*policy.Workload{}, users: map[*policyState]struct{}{}}
		for k, w := range s.candidates(sel) {
			if sel.MatchesWorkload(w) {
				x.members[k] = w
			}
		}
		s.bySel[key] = x
	}
	x.users[ps], ps.selections[x] = struct{}{}, struct{}{}
	return x
}

// release gives up those of the selections that ps no longer uses.
func (s *selections) release(old map[*selection]struct{}, ps *policyState) {
	for x := range old {
		if _, still := ps.selections[x]; still {
			continue
		}
		if delete(x.users, ps); len(x.users) == 0 {
			delete(s.bySel, x.sel.String())
		}
	}
}

// candidates returns a set of workloads that holds at least those that sel selects.
func (s *selections) candidates(sel policy.Selector) map[string]*policy.Workload {
	least := s.workloads
	for k, v := range sel.Labels {
		if have := s.byLabel[label{k, v}]; len(have) <= len(least) {
			least = have
		}
	}
	return least
}

// replace changes one workload, nil = none; moved says that its endpoint id changed though nothing else did. It calls touch for each
// policy that uses a selection which has thereby changed.
func (s *selections) replace(key string, w *policy.Workload, moved bool, touch func(*policyState)) {
	old := s.workloads[key]
	if old != nil {
		for k, v := range old.Labels {
			l := label{k, v}
			if delete(s.byLabel[l], key); len(s.byLabel[l]) == 0 {
				delete(s.byLabel, l)
			}
		}
		delete(s.workloads, key)
	}
	if w != nil {
		s.workloads[key] = w
		for k, v := range w.Labels {
			l := label{k, v}
			if s.byLabel[l] == nil {
				s.byLabel[l] = map[string]*policy.Workload{}
			}
			s.byLabel[l][key] = w
		}
	}
	for _, x := range s.bySel {
		_, was := x.members[key]
		is := w != nil && x.sel.MatchesWorkload(w)
		if !was && !is {
			continue
		}
		if is {
			x.members[key] = w
		} else {
			delete(x.members, key)
		}
		if was == is && !moved && slices.Equal(old.Addresses, w.Addresses) {
			continue
		}
		x.fresh = false
		for ps := range x.users {
			touch(ps)
		}
	}
}

// resolve computes ids and addrs.
func (s *selections) resolve(x *selection) {
	if x.fresh {
		return
	}
	x.fresh = true
	x.ids, x.addrs = nil, nil
	for key, w := range x.members {
		if id, ok := s.endpointID(key); ok {
			x.ids = append(x.ids, id)
			continue
		}
		for _, a := range w.Addresses {
			x.addrs = append(x.addrs, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.Sort(x.ids)
	x.addrs = policy.JoinPrefixes(x.addrs)
}
