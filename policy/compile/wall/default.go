package wall

import (
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// isolation is what isolates a class in one direction: the first policy by name, and whether one of them records; or that it is shut.
type isolation struct {
	by        string
	log, shut bool
	// ends is when the last of the policies ends, as policyState.ends; 0 = something isolates without end.
	ends    int64
	endless bool
}

func (i isolation) is() bool { return i.by != "" || i.shut }

// name takes the first policy by name, and the last end.
func (i *isolation) name(ps *policyState) {
	if i.by == "" || ps.name < i.by {
		i.by = ps.name
	}
	i.endless = i.endless || i.shut || ps.ends == 0
	if i.ends = max(i.ends, ps.ends); i.endless {
		i.ends = 0
	}
}

// ending reports whether it ends by itself. Then the default allow stands beneath the default deny, which goes by a timeout where nobody
// takes it away.
func (i isolation) ending() bool { return i.is() && i.ends != 0 }

// isolate computes what isolates the classes that may be isolated otherwise than before, and returns, per direction, the endpoints whose
// default allow is gone.
func (f *Firewall) isolate() (lost [2][]*endpoint) {
	for c := range f.classes.dirty {
		if !c.stale {
			continue
		}
		c.stale = false
		shut := isolation{shut: c.shut(), log: c.shut() && f.opt.Record.Denies == policy.RecordAll}
		c.isolation, c.audit = [2]isolation{shut, shut}, [2]isolation{}
		for _, h := range c.hashes {
			x := f.choices.byHash[h]
			if x == nil {
				continue
			}
			for ps := range x.subjectOf {
				for side := range c.isolation {
					if i := &c.isolation[side]; ps.isolates[side] {
						i.log = i.log || ps.logs
						i.name(ps)
					}
					if ps.audits[side] {
						c.audit[side].name(ps)
					}
				}
			}
		}
		for e := range c.endpoints {
			for side := range c.isolation {
				if i := c.isolation[side]; e.open[side] && i.is() && !(e.beneath[side] && i.ending()) {
					lost[side] = append(lost[side], e)
				}
				e.open[side], e.beneath[side] = !c.isolation[side].is(), false
			}
		}
	}
	return lost
}

// settleDefaults gives each changed class the ids of its defaults.
func (f *Firewall) settleDefaults() {
	for _, c := range f.dirtyClasses() {
		one := c.keys()[0]
		for side := range c.allow {
			ref := policy.RuleRef{Direction: direction(side)}
			i, a := c.isolation[side], c.audit[side]
			if i.is() {
				deny := policy.RuleRef{Policy: i.by, Direction: ref.Direction, Rule: policy.RuleDefaultDeny}
				f.registry.set(denyID(side, c.number), RuleInfo{Ref: deny, Action: policy.Deny, Log: i.log, Endpoint: one})
			}
			switch {
			case i.ending():
			case i.is():
				f.registry.remove(allowID(c.allow[side]))
				c.allow[side] = 0
				continue
			case a.is():
				by := policy.RuleRef{Policy: a.by, Direction: direction(side), Rule: policy.RuleDefaultDeny}
				f.registry.set(denyID(side, c.number), RuleInfo{Ref: by, Action: policy.Deny, Audit: true, Endpoint: one})
			default:
				f.registry.remove(denyID(side, c.number))
			}
			if c.allow[side] == 0 {
				c.allow[side] = f.number()
			}
			ref.Rule = policy.RuleDefaultAllow
			f.registry.set(allowID(c.allow[side]), RuleInfo{Ref: ref, Action: policy.Allow, Endpoint: one})
		}
	}
}

// renewDefaults gives all default allows of a direction new ids: endpoints carry those of classes that they were in before, too.
func (f *Firewall) renewDefaults(side int) {
	for _, c := range f.classes.byNumber {
		if c.allow[side] != 0 {
			f.registry.remove(allowID(c.allow[side]))
			c.allow[side] = 0
			f.classes.dirty[c] = struct{}{}
		}
	}
}

func denyID(side int, class uint16) uint32 {
	if side == ingress {
		return pipeline.IDDefaultDeny | pipeline.IDIngress | uint32(class)
	}
	return pipeline.IDDefaultDeny | uint32(class)
}

// allowID is the id of a default allow; 0 has none.
func allowID(number uint32) uint32 {
	if number == 0 {
		return 0
	}
	return pipeline.IDDefaultAllow | number
}

// ending returns the default deny of a side that ends by itself.
func (c *class) ending(side int) []flow.Flow {
	if !c.isolation[side].ending() {
		return nil
	}
	return []flow.Flow{c.deny(side, pipeline.PriorityEnding)}
}

func (c *class) deny(side int, priority uint16) flow.Flow {
	id, d := denyID(side, c.number), dimensions(side)
	return flow.Flow{Table: d.table(), Priority: priority, Cookie: pipeline.NewCookie(pipeline.CookieDefault, id),
		Match:   d.subject().Is(nil, uint64(c.number)),
		Actions: pipeline.Decide(side == ingress, pipeline.VerdictDrop, id, wish(c.isolation[side].log, false))}
}

// flows are the defaults of the class, but for what ends.
func (c *class) flows() []flow.Flow {
	var out []flow.Flow
	for side := range c.allow {
		if i := c.isolation[side]; i.is() && !i.ending() {
			out = append(out, c.deny(side, pipeline.PriorityDefault))
			continue
		}
		id := allowID(c.allow[side])
		cookie := pipeline.NewCookie(pipeline.CookieDefault, id)
		d := dimensions(side)
		match := d.subject().Is(nil, uint64(c.number))
		if c.audit[side].is() && !c.isolation[side].is() {
			would := denyID(side, c.number)
			out = append(out, flow.Flow{
				Table: d.table(), Priority: pipeline.PriorityDefault, Cookie: pipeline.NewCookie(pipeline.CookieDefault, would),
				Match:   pipeline.BeforeAudit(match, pipeline.AuditIsolated),
				Actions: pipeline.AuditLeaf(side == ingress, true, would),
			})
			match = pipeline.AfterAudit(match, pipeline.AuditIsolated)
		}
		out = append(out, flow.Flow{
			Table: d.table(), Priority: pipeline.PriorityDefault, Cookie: cookie, Match: match,
			Actions: pipeline.Decide(side == ingress, pipeline.VerdictAllow, id, pipeline.Unsaid),
		}, pipeline.Gate(side == ingress, cookie, id))
	}
	return out
}
