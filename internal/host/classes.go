package host

import (
	"cmp"
	"slices"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// Classes lists the classes of endpoints, by bridge and number, with the rules that name them.
func (e *Engine) Classes(q backend.ClassQuery) []wire.Class {
	v := e.view.Load()
	out := []wire.Class{}
	for i := range v.walls {
		if b := &v.walls[i]; q.Bridge == "" || q.Bridge == b.cfg.Name {
			out = v.classes(out, b, q)
		}
	}
	return out
}

func (v *view) classes(out []wire.Class, b *wallView, q backend.ClassQuery) []wire.Class {
	only, known := b.numbers.endpoints.Get(q.Endpoint)
	if q.Endpoint != "" && !known {
		return out
	}
	keys := map[uint16][]string{}
	for key, a := range each(b.numbers.endpoints) {
		keys[a.Class] = append(keys[a.Class], key)
	}
	naming := newNaming(b, q.Policy)
	for number, a := range each(b.numbers.classes) {
		if q.Endpoint != "" && number != only.Class {
			continue
		}
		c := wire.Class{Host: v.host, Bridge: b.cfg.Name, Number: int(number), Endpoints: []string{}, ChosenBy: []string{}, Policies: []string{},
			Rules: []wire.ClassRule{}}
		for _, key := range keys[number] {
			c.Endpoints = append(c.Endpoints, nameOf(v.inventory.Workloads, key))
		}
		slices.Sort(c.Endpoints)
		for _, id := range a.Choices {
			if text, there := naming.texts[id]; there {
				c.ChosenBy = append(c.ChosenBy, text)
			}
			c.Policies = append(c.Policies, naming.policies[id]...)
			c.Rules = append(c.Rules, naming.rules[id]...)
		}
		slices.Sort(c.ChosenBy)
		slices.Sort(c.Policies)
		c.Policies = slices.Compact(c.Policies)
		slices.SortFunc(c.Rules, func(a, b wire.ClassRule) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), -cmp.Compare(a.As, b.As)) })
		c.Rules = slices.Compact(c.Rules)
		if q.Policy == "" || len(c.ChosenBy) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// naming says what choices stand for, and what names them, by their ids.
type naming struct {
	texts    map[string]string
	policies map[string][]string
	rules    map[string][]wire.ClassRule
}

// newNaming is about one policy, or all of them (only = "").
func newNaming(b *wallView, only string) *naming {
	n := &naming{texts: map[string]string{}, policies: map[string][]string{}, rules: map[string][]wire.ClassRule{}}
	for name, ps := range each(b.policies) {
		if only == "" || name == only {
			n.add(name, ps)
		}
	}
	return n
}

func (n *naming) add(policy string, ps *wall.PolicyState) {
	for _, x := range ps.Subjects {
		n.texts[x.ID] = x.Text
		n.policies[x.ID] = append(n.policies[x.ID], policy)
	}
	for _, r := range ps.Rules {
		if r.ID == 0 {
			continue
		}
		rule := ruleName(r.Ref).ID
		for _, x := range ps.Subjects {
			n.rules[x.ID] = append(n.rules[x.ID], wire.ClassRule{Rule: rule, As: "subject"})
		}
		for _, x := range r.Peers {
			n.texts[x.ID] = x.Text
			n.rules[x.ID] = append(n.rules[x.ID], wire.ClassRule{Rule: rule, As: "peer"})
		}
	}
}
