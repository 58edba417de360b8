package wall

import (
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// A selection is what one selector chooses among the workloads. Selectors that read the same share it, however many choices use them, so a
// changed workload is compared with each selector once, and only the choices that use a selection which has changed are resolved again.
type selection struct {
	sel     policy.Selector
	members map[string]*policy.Workload // by key
	users   map[*choice]struct{}
	// endpoints are those of the members that are on the bridge, by serial. It is immutable.
	endpoints []*endpoint
}

// selections holds the workloads and the selections among them.
type selections struct {
	workloads map[string]*policy.Workload
	byLabel   map[label]map[string]*policy.Workload
	bySel     map[string]*selection
	// here returns the endpoint of a workload that is on the bridge.
	here map[string]*endpoint
}

type label struct{ key, value string }

func newSelections(here map[string]*endpoint) *selections {
	return &selections{
		workloads: map[string]*policy.Workload{}, byLabel: map[label]map[string]*policy.Workload{}, bySel: map[string]*selection{},
		here: here,
	}
}

// use returns the selection of sel and notes that c uses it.
func (s *selections) use(sel policy.Selector, c *choice) *selection {
	key := sel.String()
	x := s.bySel[key]
	if x == nil {
		x = &selection{sel: sel, members: map[string]*policy.Workload{}, users: map[*choice]struct{}{}}
		for k, w := range s.candidates(sel) {
			if e := s.here[k]; matches(&sel, w, e != nil) {
				x.members[k] = w
				if e != nil {
					x.endpoints = append(x.endpoints, e)
				}
			}
		}
		slices.SortFunc(x.endpoints, bySerial)
		s.bySel[key] = x
	}
	x.users[c], c.selections[x] = struct{}{}, struct{}{}
	return x
}

// matches reports whether a selector selects a workload, which may be on the bridge.
func matches(sel *policy.Selector, w *policy.Workload, here bool) bool {
	switch sel.Entity {
	case "":
		return sel.MatchesWorkload(w)
	case policy.EntityHost:
		return here && w.Port == w.Bridge
	}
	return here && sel.Entity == policy.EntitySameNetwork // frames that meet it are in its VLAN
}

func sameAddresses(a, b *policy.Workload) bool {
	return slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Learned, b.Learned)
}

// release gives up those of the selections that c no longer uses.
func (s *selections) release(old map[*selection]struct{}, c *choice) {
	for x := range old {
		if _, still := c.selections[x]; still {
			continue
		}
		if delete(x.users, c); len(x.users) == 0 {
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

// replace changes one workload, nil = none; was is its endpoint before, if it had one. It calls members and addresses for each choice
// whose endpoints or addresses may thereby have changed.
func (s *selections) replace(key string, w *policy.Workload, was *endpoint, members, addresses func(*choice)) {
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
	is := s.here[key]
	for _, x := range s.bySel {
		_, had := x.members[key]
		has := w != nil && matches(&x.sel, w, is != nil)
		if !had && !has {
			continue
		}
		if has {
			x.members[key] = w
		} else {
			delete(x.members, key)
		}
		from, to := was, is
		if !had {
			from = nil
		}
		if !has {
			to = nil
		}
		if from != to {
			x.exchange(from, to)
			tell(x.users, members)
		}
		if from == nil && to == nil && !(had && has && sameAddresses(old, w)) ||
			(from == nil) != (to == nil) && had && has { // addresses count while there is no endpoint
			tell(x.users, addresses)
		}
	}
}

func tell(users map[*choice]struct{}, what func(*choice)) {
	for c := range users {
		what(c)
	}
}

// exchange replaces an endpoint by another; either may be nil.
func (x *selection) exchange(from, to *endpoint) {
	x.endpoints = slices.Clone(x.endpoints)
	if from != nil {
		if i, found := slices.BinarySearchFunc(x.endpoints, from, bySerial); found {
			x.endpoints = slices.Delete(x.endpoints, i, i+1)
		}
	}
	if to != nil {
		i, _ := slices.BinarySearchFunc(x.endpoints, to, bySerial)
		x.endpoints = slices.Insert(x.endpoints, i, to)
	}
}

// addresses returns those of the members that are not on the bridge.
func (s *selections) addresses(x *selection) []netip.Prefix {
	var out []netip.Prefix
	for key, w := range x.members {
		if s.here[key] != nil {
			continue
		}
		w.EachAddress(func(a netip.Addr) { out = append(out, netip.PrefixFrom(a, a.BitLen())) })
	}
	return out
}
