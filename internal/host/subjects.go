package host

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// subjects tells whom a bridge's flows count for, as of what is installed. It is for one goroutine at a time.
type subjects struct {
	policies   map[string]subject
	byEndpoint map[string]*appliers // by the key of an endpoint
	rules      map[uint32]policy.RuleRef
	lookup     func(id uint32) (wall.RuleInfo, bool)
}

// appliers are the policies that apply to one endpoint.
type appliers struct {
	policies map[string]struct{} // by name
	denies   int                 // how many of their rules deny
}

// subject is what counts for one policy.
type subject struct {
	endpoints []string // in order
	ids       []uint32 // of rules, those that deny first
	denies    int      // how many
	isolates  map[policy.Direction]bool
}

func newSubjects() subjects {
	return subjects{policies: map[string]subject{}, byEndpoint: map[string]*appliers{}, rules: map[uint32]policy.RuleRef{}}
}

// set takes over what became of a policy; ps nil = it is gone. An endpoint more or less may be news of hundreds of policies that apply to
// hundreds of endpoints each, so the cost grows with what differs.
func (s *subjects) set(name string, ps *wall.PolicyState, p *policy.Policy) {
	old := s.policies[name]
	if ps == nil || p == nil {
		for _, key := range old.endpoints {
			s.apply(key, name, false, -old.denies)
		}
		s.forget(name, old.ids)
		delete(s.policies, name)
		return
	}
	now := subject{endpoints: ps.Endpoints, isolates: old.isolates}
	if in, out := p.Isolates(policy.Ingress), p.Isolates(policy.Egress); now.isolates == nil || in != now.isolates[policy.Ingress] ||
		out != now.isolates[policy.Egress] {
		now.isolates = map[policy.Direction]bool{policy.Ingress: in, policy.Egress: out}
	}
	now.ids = make([]uint32, 0, len(ps.Rules))
	for _, r := range ps.Rules {
		if r.ID == 0 {
			continue
		}
		if now.ids = append(now.ids, r.ID); !r.Action.Passes() {
			last := len(now.ids) - 1
			now.ids[now.denies], now.ids[last] = now.ids[last], now.ids[now.denies]
			now.denies++
		}
	}
	if !slices.Equal(now.ids, old.ids) {
		s.forget(name, old.ids)
	}
	for _, r := range ps.Rules {
		if r.ID != 0 && s.rules[r.ID] != r.Ref {
			s.rules[r.ID] = r.Ref
		}
	}
	for a, b := old.endpoints, now.endpoints; len(a) > 0 || len(b) > 0; {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0] == b[0]:
			if now.denies != old.denies {
				s.apply(a[0], name, true, now.denies-old.denies)
			}
			a, b = a[1:], b[1:]
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			s.apply(a[0], name, false, -old.denies)
			a = a[1:]
		default:
			s.apply(b[0], name, true, now.denies)
			b = b[1:]
		}
	}
	s.policies[name] = now
}

// apply notes whether a policy applies to an endpoint, and how many rules that deny there are more.
func (s *subjects) apply(key, name string, applies bool, denies int) {
	a := s.byEndpoint[key]
	if a == nil {
		a = &appliers{policies: map[string]struct{}{}}
		s.byEndpoint[key] = a
	}
	a.denies += denies
	if applies {
		a.policies[name] = struct{}{}
	} else if delete(a.policies, name); len(a.policies) == 0 {
		delete(s.byEndpoint, key)
	}
}

// forget gives up the ids of a policy's rules that are not another one's by now.
func (s *subjects) forget(name string, ids []uint32) {
	for _, id := range ids {
		if s.rules[id].Policy == name {
			delete(s.rules, id)
		}
	}
}

// appliers returns the policies that apply to an endpoint.
func (s *subjects) appliers(key string) map[string]struct{} {
	if a := s.byEndpoint[key]; a != nil {
		return a.policies
	}
	return nil
}

// of says whom a cookie counts for.
func (s *subjects) of(c flow.Cookie) []policy.RuleRef {
	kind, id, ours := pipeline.ParseCookie(c)
	switch {
	case !ours:
	case kind == pipeline.CookieDrop:
		return []policy.RuleRef{{Rule: pipeline.DropReason(id).String()}}
	case kind == pipeline.CookieGuard:
		return []policy.RuleRef{guardRef(id)}
	case kind == pipeline.CookieRule:
		if ref, ok := s.rules[id]; ok {
			return []policy.RuleRef{ref}
		}
	case kind == pipeline.CookieDefault && id&pipeline.IDKindMask == pipeline.IDDefaultDeny:
		info, _ := s.lookup(id)
		var refs []policy.RuleRef
		for name := range s.appliers(info.Endpoint) {
			if s.policies[name].isolates[info.Ref.Direction] {
				refs = append(refs, policy.RuleRef{Policy: name, Direction: info.Ref.Direction, Rule: policy.RuleDefaultDeny})
			}
		}
		return refs
	}
	return nil
}

// counts reports whether a flow with the cookie counts for anybody, whoever that is.
func counts(c flow.Cookie) bool {
	kind, id, ours := pipeline.ParseCookie(c)
	return ours && (kind == pipeline.CookieDrop || kind == pipeline.CookieSample || kind == pipeline.CookieGuard ||
		kind == pipeline.CookieRule ||
		kind == pipeline.CookieDefault &&
			id&pipeline.IDKindMask == pipeline.IDDefaultDeny)
}

// uncounted is a bit that cookies of most flows that do not count have, and none that does: a feed of 100,000 addresses is not to be read
// after each change.
const uncounted flow.Cookie = 8 << 32

const (
	// maxTouched bounds how many rules and defaults a change may touch before it counts as touching everything.
	maxTouched = 512
	// maxAllows is up to how many are touched rules that allow among them, too; see touching.
	maxAllows = 20
)

// touching says what changed policies and endpoints touch, in what is installed: the rules of the policies that apply to the same
// endpoints, and the default denies there. Where that is a great many, rules that allow and have not changed themselves are left out:
// they may be credited with some of each other's packets. changed are the drops and rules that did.
func (s *subjects) touching(changed scope, endpoints map[string]uint16) scope {
	t := scope{all: changed.all, cookies: maps.Clone(changed.cookies)}
	names := map[string]struct{}{}
	allows := 0
	for key, class := range endpoints {
		for _, side := range []uint32{0, pipeline.IDIngress} {
			t.add(pipeline.NewCookie(pipeline.CookieDefault, pipeline.IDDefaultDeny|side|uint32(class)))
		}
		if a := s.byEndpoint[key]; a != nil && a.denies > maxTouched {
			return scope{all: true}
		}
		for name := range s.appliers(key) {
			if _, seen := names[name]; seen {
				continue
			}
			names[name] = struct{}{}
			p := s.policies[name]
			allows += len(p.ids) - p.denies
			for _, id := range p.ids[:p.denies] {
				t.add(pipeline.NewCookie(pipeline.CookieRule, id))
			}
		}
		if t.all = t.all || len(t.cookies) > maxTouched; t.all {
			return scope{all: true}
		}
	}
	if len(t.cookies)+allows <= maxAllows {
		for name := range names {
			for _, id := range s.policies[name].ids {
				t.add(pipeline.NewCookie(pipeline.CookieRule, id))
			}
		}
	}
	return t
}
