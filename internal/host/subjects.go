package host

import (
	"maps"

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
	endpoints []string
	ids       []uint32 // of rules, those that deny first
	denies    int      // how many
	isolates  map[policy.Direction]bool
}

func newSubjects() subjects {
	return subjects{policies: map[string]subject{}, byEndpoint: map[string]*appliers{}, rules: map[uint32]policy.RuleRef{}}
}

// set takes over what became of a policy; ps nil = it is gone.
func (s *subjects) set(name string, ps *wall.PolicyState, p *policy.Policy) {
	old := s.policies[name]
	for _, key := range old.endpoints {
		a := s.byEndpoint[key]
		delete(a.policies, name)
		if a.denies -= old.denies; len(a.policies) == 0 {
			delete(s.byEndpoint, key)
		}
	}
	for _, id := range old.ids {
		if s.rules[id].Policy == name {
			delete(s.rules, id)
		}
	}
	if ps == nil || p == nil {
		delete(s.policies, name)
		return
	}
	now := subject{endpoints: ps.Endpoints, isolates: map[policy.Direction]bool{policy.Ingress: p.Isolates(policy.Ingress),
		policy.Egress: p.Isolates(policy.Egress)}}
	for _, r := range ps.Rules {
		if r.ID == 0 {
			continue
		}
		s.rules[r.ID] = r.Ref
		if now.ids = append(now.ids, r.ID); !r.Action.Passes() {
			last := len(now.ids) - 1
			now.ids[now.denies], now.ids[last] = now.ids[last], now.ids[now.denies]
			now.denies++
		}
	}
	for _, key := range ps.Endpoints {
		a := s.byEndpoint[key]
		if a == nil {
			a = &appliers{policies: map[string]struct{}{}}
			s.byEndpoint[key] = a
		}
		a.policies[name] = struct{}{}
		a.denies += now.denies
	}
	s.policies[name] = now
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
	return ours && (kind == pipeline.CookieDrop || kind == pipeline.CookieRule || kind == pipeline.CookieDefault &&
		id&pipeline.IDKindMask == pipeline.IDDefaultDeny)
}

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
