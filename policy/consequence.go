package policy

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Consequence says what a change does to endpoints as a whole, which neither its fields nor its flows tell at a glance.
type Consequence struct {
	Code      Code      `json:"code"` // one of the Consequence constants
	Direction Direction `json:"direction"`
	// Endpoints are the first ones that it happens to, by the names that events give them, ordered; More counts the others. Names that
	// several hosts have say theirs: "tap7 on rack1".
	Endpoints []string `json:"endpoints"`
	More      int      `json:"more,omitempty"`
	// By are the first rules that let everybody in or out, with ConsequenceOpened; none = nothing denies it any more.
	By      []RuleRef `json:"by,omitempty"`
	Message string    `json:"message"` // all of it in a sentence
}

// Bounds of the lists of a Consequence.
const (
	maxConsequenceEndpoints = 10
	maxConsequenceRules     = 3
)

// Consequences compares what two sets mean for each endpoint, known by its Key and its host, in each direction:
//
//   - whether Evaluate denies, by default, what no rule allows (ConsequenceIsolated, ConsequenceReleased);
//   - whether there is a service, an address family given, that everybody may use after and could not before (ConsequenceOpened).
//     Everybody are strangers at most of the addresses of the family, see strangers; who is allowed by what it is, or from a part of
//     the addresses, is not meant. An endpoint that ConsequenceReleased names is not named again.
//
// Endpoints that are in one set only are compared with one that no policy selects. The sets hold the workloads that policies are
// enforced on. The cost grows with the policies that differ (resources are immutable: the same pointer is the same policy) and with whom
// they select.
func Consequences(before, after *Set) []Consequence {
	c := comparison{before: newStances(before), after: newStances(after)}
	c.after.crowds = c.before.crowds
	regrouped := c.regrouped()
	if len(regrouped) == 0 {
		c.after.rules = c.before.rules // the same policy says the same of strangers in both
	}
	touched := c.touched(regrouped)
	order := slices.SortedFunc(maps.Keys(touched), func(a, b identity) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.host, b.host))
	})
	var out []Consequence
	for _, dir := range [...]Direction{Ingress, Egress} {
		var isolated, released, opened []*Workload
		var by []RuleRef
		for _, key := range order {
			o, n := touched[key].before, touched[key].after
			was, is := c.before.of(o, dir), c.after.of(n, dir)
			switch {
			case n == nil: // it is gone, or no endpoint any more
			case !was.isolated && is.isolated:
				isolated = append(isolated, n)
			case was.isolated && !is.isolated:
				released = append(released, n)
			}
			if n == nil || was.isolated && !is.isolated {
				continue
			}
			if rules, ok := c.opens(was, is); ok {
				opened = append(opened, n)
				for _, r := range rules {
					if !slices.Contains(by, r) {
						by = append(by, r)
					}
				}
			}
		}
		out = append(out, consequence(ConsequenceIsolated, dir, isolated, nil)...)
		out = append(out, consequence(ConsequenceReleased, dir, released, nil)...)
		out = append(out, consequence(ConsequenceOpened, dir, opened, by)...)
	}
	return out
}

// consequence makes the sentence; nothing of nobody.
func consequence(code Code, dir Direction, whom []*Workload, by []RuleRef) []Consequence {
	if len(whom) == 0 {
		return nil
	}
	names, hosts := make([]string, len(whom)), make(map[string]string, len(whom))
	ambiguous := make(map[string]bool)
	for i, w := range whom {
		if names[i] = cmp.Or(w.Endpoint, w.Port, w.Key); !isPrintable(names[i]) {
			names[i] = quote(names[i]) // OVSDB takes any name
		}
		if host, ok := hosts[names[i]]; ok && host != w.Host {
			ambiguous[names[i]] = true
		}
		hosts[names[i]] = w.Host
	}
	for i, w := range whom {
		if ambiguous[names[i]] {
			names[i] += " on " + w.Host
		}
	}
	slices.Sort(names)
	e := Consequence{Code: code, Direction: dir, Endpoints: names}
	who := "1 endpoint"
	if len(names) > 1 {
		who = fmt.Sprintf("%d endpoints", len(names))
	}
	verb := map[bool]map[Code]string{
		true:  {ConsequenceIsolated: "becomes", ConsequenceReleased: "is"},
		false: {ConsequenceIsolated: "become", ConsequenceReleased: "are"},
	}[len(names) == 1][code]
	more := ""
	if e.More = max(0, len(names)-maxConsequenceEndpoints); e.More > 0 {
		e.Endpoints, more = names[:maxConsequenceEndpoints], fmt.Sprintf(" and %d more", e.More)
	}
	list := strings.Join(e.Endpoints, ", ") + more
	switch code {
	case ConsequenceIsolated:
		e.Message = fmt.Sprintf("%s %s default-deny for %s: %s", who, verb, dir, list)
	case ConsequenceReleased:
		e.Message = fmt.Sprintf("%s %s no longer default-deny for %s: %s", who, verb, dir, list)
	case ConsequenceOpened:
		e.Message = fmt.Sprintf("%s of %s opens to everybody: %s%s", dir, who, list, e.because(by))
	}
	return []Consequence{e}
}

// because names the rules that open, which it bounds.
func (e *Consequence) because(by []RuleRef) string {
	if len(by) == 0 {
		return " (nothing denies it any more)"
	}
	slices.SortFunc(by, func(a, b RuleRef) int { return cmp.Compare(a.String(), b.String()) })
	e.By = by[:min(len(by), maxConsequenceRules)]
	names := make([]string, len(e.By))
	for i, r := range e.By {
		names[i] = r.Policy + "/" + r.Rule
	}
	more := ""
	if n := len(by) - len(e.By); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return " (by " + strings.Join(names, ", ") + more + ")"
}

// comparison is two sets side by side.
type comparison struct {
	before, after *stances
	pairs         map[[2]*stance]opening // what opens is the same for all endpoints that the same policies select
}

// stances finds what a set means for endpoints.
type stances struct {
	coverIndex
	policies []*coverPolicy         // as in set, each made when it is first needed, see policy
	moved    map[identity]*Workload // the endpoints that are not the same pointers in the other set
	asked    map[*Workload][]int    // which policies select it, as far as somebody wanted to know
	inverse  map[*Workload][]int    // which policies select it; nil until it is worth the while
	known    map[stanceID]*stance
	rules    map[strangersOf][]strangerRule
	crowds   map[*Group]crowd // the strangers among the members of groups
}

// identity is what an endpoint is known by: keys of several hosts may be equal.
type identity struct{ key, host string }

func (w *Workload) identity() identity { return identity{w.Key, w.Host} }

type stanceID struct {
	dir      Direction
	policies string
}

type strangersOf struct {
	policy *Policy
	dir    Direction
}

// stance is what the policies that select an endpoint mean for it, in one direction and as far as strangers are concerned.
type stance struct {
	isolated bool
	rules    []strangerRule // in the order in which they decide
}

func newStances(set *Set) *stances {
	return &stances{coverIndex: coverIndex{set: set}, policies: make([]*coverPolicy, len(set.Policies)), asked: make(map[*Workload][]int),
		known: make(map[stanceID]*stance), rules: make(map[strangersOf][]strangerRule), crowds: make(map[*Group]crowd)}
}

// onHosts returns those of the workloads that are on a host.
func onHosts(ws []*Workload) map[identity]*Workload {
	out := make(map[identity]*Workload, len(ws))
	for _, w := range ws {
		if !w.Remote {
			out[w.identity()] = w
		}
	}
	return out
}

// ends are an endpoint in two sets; nil = it is not there.
type ends struct{ before, after *Workload }

// ends finds an endpoint of one of the sets in both.
func (c *comparison) ends(w *Workload) (identity, ends) {
	key := w.identity()
	o, n := c.before.moved[key], c.after.moved[key]
	if o == nil && n == nil {
		o, n = w, w
	}
	return key, ends{o, n}
}

// policy returns the i-th policy of the set with what was derived of it so far.
func (s *stances) policy(i int) *coverPolicy {
	if s.policies[i] == nil {
		s.policies[i] = newCoverPolicy(s.set.Policies[i])
	}
	return s.policies[i]
}

// regrouped returns the names of the groups that differ, in endpoints or in strangers. Most changes of a large one do neither.
func (c *comparison) regrouped() map[string]bool {
	out := make(map[string]bool)
	for _, pair := range [...][2]*stances{{c.before, c.after}, {c.after, c.before}} {
		for name, g := range pair[0].set.Groups {
			if !out[name] && !c.before.sameGroup(g, pair[1].set.Groups[name]) {
				out[name] = true
			}
		}
	}
	return out
}

// sameGroup reports whether two groups have the same endpoints and the same strangers for members.
func (s *stances) sameGroup(a, b *Group) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	x, y := a.Spec.Members, b.Spec.Members
	if c, ok := b.Spec.Since(&a.Spec); ok {
		x, y = c.Removed, c.Added
	} else if c, ok := a.Spec.Since(&b.Spec); ok {
		x, y = c.Added, c.Removed
	}
	for len(x) > 0 && len(y) > 0 && x[0].equal(&y[0]) {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && x[len(x)-1].equal(&y[len(y)-1]) {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	if !slices.EqualFunc(WithoutCIDRs(x), WithoutCIDRs(y), func(s, t Selector) bool { return s.equal(&t) }) {
		return false
	}
	return crowdAmong(x)|crowdAmong(y) == 0 || s.crowdOfGroup(a) == s.crowdOfGroup(b)
}

// equal reports whether two selectors read the same.
func (s *Selector) equal(o *Selector) bool {
	if s.CIDR != o.CIDR {
		return false
	}
	return s.CIDR != "" && len(s.Except)+len(o.Except) == 0 || reflect.DeepEqual(s, o)
}

// touched finds the endpoints for which something may differ: those that differ themselves, and those that a policy selects that differs
// or refers to one of the groups, which differ.
func (c *comparison) touched(groups map[string]bool) map[identity]ends {
	out := make(map[identity]ends)
	ahead, behind := alike(c.before.set.Policies, c.after.set.Policies)
	was, is := c.before.set.Workloads, c.after.set.Workloads
	same, last := alike(was, is)
	c.before.moved, c.after.moved = onHosts(was[same:len(was)-last]), onHosts(is[same:len(is)-last])
	for _, ws := range [...]map[identity]*Workload{c.before.moved, c.after.moved} {
		for _, w := range ws {
			if key, x := c.ends(w); x.before == nil || x.after == nil || !x.before.same(x.after) {
				out[key] = x
			}
		}
	}
	for _, pair := range [...][2]*stances{{c.before, c.after}, {c.after, c.before}} {
		s, other := pair[0], pair[1]
		byName := make(map[string]int) // those that may differ
		for i := ahead; i < len(other.policies)-behind; i++ {
			byName[other.set.Policies[i].Name] = i
		}
		for i, p := range s.set.Policies {
			same := i < ahead || i >= len(s.policies)-behind
			if j, ok := byName[p.Name]; !same && ok {
				same = other.set.Policies[j] == p || s.same(s.policy(i), other, other.policy(j))
			}
			if same && !p.RefersTo(groups) {
				continue
			}
			for _, w := range s.coverIndex.selected(s.policy(i)) {
				key, x := c.ends(w)
				out[key] = x
			}
		}
	}
	if len(out) > fewSelected {
		c.before.invert()
		c.after.invert()
	}
	return out
}

// alike returns how many elements at the beginning and at the end are the same in both. Sets that differ by a change of few mostly are
// the same but for those, in the same order.
func alike[T comparable](a, b []T) (ahead, behind int) {
	for n := min(len(a), len(b)); ahead < n && a[ahead] == b[ahead]; ahead++ {
	}
	for n := min(len(a), len(b)) - ahead; behind < n && a[len(a)-1-behind] == b[len(b)-1-behind]; behind++ {
	}
	return ahead, behind
}

// same reports whether two versions of a policy select by the same selectors and say the same about strangers, groups being the same.
func (s *stances) same(p *coverPolicy, other *stances, o *coverPolicy) bool {
	if !reflect.DeepEqual(o.Spec.AppliesTo, p.Spec.AppliesTo) {
		return false
	}
	for _, dir := range [...]Direction{Ingress, Egress} {
		if o.Shuts(dir) != p.Shuts(dir) || !slices.EqualFunc(s.strangerRules(p, dir), other.strangerRules(o, dir), strangerRule.equal) {
			return false
		}
	}
	return true
}

// same reports whether the same selectors select both.
func (w *Workload) same(o *Workload) bool {
	return w == o || w.Bridge == o.Bridge && w.Port == o.Port && w.MAC == o.MAC && w.VLAN == o.VLAN && w.Endpoint == o.Endpoint &&
		w.Audit == o.Audit &&
		slices.Equal(w.MACs, o.MACs) && maps.Equal(w.Labels, o.Labels)
}

// invert finds the policies of every endpoint at once.
func (s *stances) invert() {
	s.inverse = make(map[*Workload][]int, len(s.set.Workloads))
	for i := range s.policies {
		for _, w := range s.coverIndex.selected(s.policy(i)) {
			s.inverse[w] = append(s.inverse[w], i)
		}
	}
}

// selecting lists the policies that select an endpoint; none selects nil.
func (s *stances) selecting(w *Workload) (by []int) {
	switch {
	case w == nil:
	case s.inverse != nil:
		by = s.inverse[w]
	default:
		var known bool
		if by, known = s.asked[w]; known {
			return by
		}
		for i, p := range s.set.Policies {
			if AnyMatches(p.Spec.AppliesTo, s.set.Groups, w) {
				by = append(by, i)
			}
		}
		s.asked[w] = by
	}
	return by
}

// of returns the stance towards an endpoint.
func (s *stances) of(w *Workload, dir Direction) *stance {
	var by []int
	if w != nil && !w.Audit { // in mode audit everything passes
		by = s.selecting(w)
	}
	var id []byte
	for _, i := range by {
		id = binary.AppendUvarint(id, uint64(i))
	}
	key := stanceID{dir, string(id)}
	if st := s.known[key]; st != nil {
		return st
	}
	st := new(stance)
	for _, i := range by {
		p := s.policy(i)
		st.isolated = st.isolated || p.Shuts(dir)
		st.rules = append(st.rules, s.strangerRules(p, dir)...)
	}
	slices.SortFunc(st.rules, strangerRule.compare)
	s.known[key] = st
	return st
}
