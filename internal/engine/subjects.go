package engine

import (
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile"
)

// subjects tells whom a bridge's flows count for, as of what is installed. It is for one goroutine at a time.
type subjects struct {
	policies   map[string]subject
	byEndpoint map[string]map[string]struct{} // policies by the key of an endpoint that they apply to
	rules      map[uint32]policy.RuleRef
	lookup     func(id uint32) (compile.RuleInfo, bool)
}

// subject is what counts for one policy.
type subject struct {
	endpoints []string
	ids       []uint32 // of rules
	isolates  map[policy.Direction]bool
}

func newSubjects() subjects {
	return subjects{policies: map[string]subject{}, byEndpoint: map[string]map[string]struct{}{}, rules: map[uint32]policy.RuleRef{}}
}

// set takes over what became of a policy; ps nil = it is gone.
func (s *subjects) set(name string, ps *compile.PolicyState, p *policy.Policy) {
	old := s.policies[name]
	for _, key := range old.endpoints {
		delete(s.byEndpoint[key], name)
		if len(s.byEndpoint[key]) == 0 {
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
	now := subject{endpoints: ps.Endpoints, isolates: map[policy.Direction]bool{policy.Ingress: p.Isolates(policy.Ingress), policy.Egress: p.Isolates(policy.Egress)}}
	for _, key := range ps.Endpoints {
		if s.byEndpoint[key] == nil {
			s.byEndpoint[key] = map[string]struct{}{}
		}
		s.byEndpoint[key][name] = struct{}{}
	}
	for _, r := range ps.Rules {
		if r.ID != 0 {
			now.ids = append(now.ids, r.ID)
			s.rules[r.ID] = r.Ref
		}
	}
	s.policies[name] = now
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
		for name := range s.byEndpoint[info.Endpoint] {
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
	return ours && (kind == pipeline.CookieDrop || kind == pipeline.CookieRule || kind == pipeline.CookieDefault && id&pipeline.IDKindMask == pipeline.IDDefaultDeny)
}

// maxTouched bounds how many rules and defaults a change may touch before it counts as touching everything.
const maxTouched = 512

// touch adds what counts for an endpoint, in what is installed: the rules of the policies that apply to it and its default denies.
func (s *subjects) touch(t *scope, key string, endpoint uint32) {
	for _, side := range []uint32{0, pipeline.IDIngress} {
		t.add(pipeline.NewCookie(pipeline.CookieDefault, pipeline.IDDefaultDeny|side|endpoint))
	}
	for name := range s.byEndpoint[key] {
		s.touchRules(t, name)
		if t.all = t.all || len(t.cookies) > maxTouched; t.all {
			return
		}
	}
}

func (s *subjects) touchRules(t *scope, name string) {
	for _, id := range s.policies[name].ids {
		t.add(pipeline.NewCookie(pipeline.CookieRule, id))
	}
}
