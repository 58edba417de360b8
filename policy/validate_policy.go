package policy

// Validate implements Resource.
func (p *Policy) Validate() Faults {
	var c checker
	var root pointer
	c.meta(&root, &p.Meta)
	spec := root.field("spec")
	s := &p.Spec
	c.oneOf(spec.field("tier"), string(s.Tier), strs(Tiers())...)
	if s.Priority != nil && (*s.Priority < 0 || *s.Priority > MaxPriority) {
		c.addf(spec.field("priority"), *s.Priority, "priority %d is outside the range 0-%d", *s.Priority, MaxPriority)
	}
	c.oneOf(spec.field("mode"), s.Mode, ModeEnforce, ModeAudit)
	c.schedule(spec, s)
	c.record(spec.field("record"), s.Record)
	if len(s.AppliesTo) == 0 {
		c.addf(spec.field("appliesTo"), nil, "is required and must not be empty: for all endpoints of a bridge write [{bridge: NAME}]")
	}
	for i := range s.AppliesTo {
		c.selector(spec.path("appliesTo", i), &s.AppliesTo[i], asSubject)
	}
	c.rules(spec.field("ingress"), Ingress, s.Ingress)
	c.rules(spec.field("egress"), Egress, s.Egress)
	c.isolation(&spec, p)
	return c.faults
}

// isolation refuses what looks as if it isolated endpoints, or recorded what that drops, and does nothing of the sort.
func (c *checker) isolation(spec *pointer, p *Policy) {
	dd := p.Spec.DefaultDeny
	if dd == nil {
		dd = new(DefaultDeny)
	}
	n := len(c.faults)
	for _, side := range [...]struct {
		direction Direction
		asked     *bool
	}{{Ingress, dd.Ingress}, {Egress, dd.Egress}} {
		if rules := p.Rules(side.direction); rules != nil && len(rules) == 0 && side.asked == nil {
			c.addf(spec.field(string(side.direction)), nil,
				"an empty list isolates nobody: to deny all %[1]s write defaultDeny: {%[1]s: true}, else leave it out", side.direction)
		}
	}
	if n < len(c.faults) || p.Isolates(Ingress) || p.Isolates(Egress) {
		return
	}
	at, rules := *spec, len(p.Spec.Ingress)+len(p.Spec.Egress)
	if p.Spec.DefaultDeny != nil {
		at = spec.field("defaultDeny")
	}
	switch {
	case rules == 0:
		c.addf(at, nil, "there is no rule, and nothing is denied by default, so the policy would do nothing: to deny all ingress write "+
			"defaultDeny: {ingress: true}")
	case dd.Log:
		c.addf(at.field("log"), true,
			"nothing is denied by default, so there would be nothing to record: leave it out, or write {ingress: true} beside it")
	}
}

func (c *checker) rules(at pointer, d Direction, rules []Rule) {
	names := make(map[string]int, len(rules))
	for i := range rules {
		r, at := &rules[i], at.at(i)
		c.name(at.field("name"), r.Name)
		if j, dup := names[r.Name]; dup && r.Name != "" {
			c.addf(at.field("name"), r.Name, "rule %d of %s has the same name", j, d)
		} else {
			names[r.Name] = i
		}
		c.action(at.field("action"), r.Action)
		if d == Ingress {
			c.peers(at.field("from"), r.From)
			if r.To != nil {
				c.addf(at.field("to"), nil, "an ingress rule has from, not to: the receiver is whom the policy applies to")
			}
		} else {
			c.peers(at.field("to"), r.To)
			if r.From != nil {
				c.addf(at.field("from"), nil, "an egress rule has to, not from: the sender is whom the policy applies to")
			}
		}
		if r.Services != nil && len(r.Services) == 0 {
			c.addf(at.field("services"), nil, "an empty list matches nothing; leave it out for every protocol and port")
		}
		c.services(at.field("services"), r.Services)
		c.ruleLog(at.field("log"), r)
		if r.Stateless {
			c.later(at.field("stateless"), true, "rules without connection tracking", "leave it out: answers then pass with what they answer")
		}
	}
}

func (c *checker) action(at pointer, a Effect) {
	switch a {
	case Allow, Deny, Reject, Pass:
	case Audit:
		c.addf(at, string(a), "audit is the mode of a policy, no action: must be allow, deny, reject or pass")
	case "":
		c.addf(at, nil, "is required: allow, deny, reject or pass")
	default:
		c.addf(at, string(a), "unknown action %s: must be allow, deny, reject or pass", quote(string(a)))
	}
}

func (c *checker) peers(at pointer, peers []Selector) {
	if peers != nil && len(peers) == 0 {
		c.addf(at, nil, "an empty list selects nobody; leave it out for everybody")
	}
	for i := range peers {
		c.selector(at.at(i), &peers[i], asPeer)
	}
}

// maxNarrow is how many services of a rule may name source ports, or types of messages: each takes matches of its own on a switch.
const maxNarrow = 256

// maxPairs is how many matches these may take, for each IP version.
const maxPairs = 1024

func (c *checker) services(at pointer, services []Service) {
	n, narrow := len(c.faults), 0
	for j := range services {
		s := &services[j]
		c.service(at.at(j), s)
		if s.SourcePorts != nil || s.Type != nil || s.Ports != nil && isSCTP(s.Protocol) {
			narrow++
		}
	}
	switch {
	case len(c.faults) > n:
	case narrow > maxNarrow:
		c.addf(at, nil, "%d services name source ports, ICMP types or SCTP ports: at most %d of a rule may", narrow, maxNarrow)
	case narrow > 0:
		set := NewServiceSet(services)
		if n := set.matches(); n > maxPairs {
			c.addf(at, nil, "the services by source port, ICMP type or SCTP port take %d matches on a switch, which is more than %d: use ranges "+
				`such as "1024-65535" that begin at multiples of a power of two, or fewer ranges`, n, maxPairs)
		}
	}
}

func (c *checker) service(at pointer, s *Service) {
	proto, err := s.Protocol.Number()
	if s.Protocol == "" {
		c.addf(at.field("protocol"), nil, "is required: a number or one of %s", orList(ProtocolNames()))
	} else if err != nil {
		c.addf(at.field("protocol"), string(s.Protocol), "%v", err)
	}
	known := err == nil
	c.ports(at.field("ports"), s.Protocol, known && !hasPorts(proto), s.Ports)
	c.ports(at.field("sourcePorts"), s.Protocol, known && !hasPorts(proto), s.SourcePorts)
	for _, x := range [...]struct {
		name string
		n    *int
	}{{"type", s.Type}, {"code", s.Code}} {
		switch {
		case x.n == nil:
		case known && !isICMP(proto):
			c.addf(at.field(x.name), *x.n, "%s has none: only icmp and icmpv6 have types and codes", s.Protocol)
		case *x.n < 0 || *x.n > 255:
			c.addf(at.field(x.name), *x.n, "%d is outside the range 0-255", *x.n)
		case x.name == "code" && s.Type == nil:
			c.addf(at.field(x.name), *x.n, "a code goes with a type: each type has codes of its own")
		}
	}
}

func (c *checker) ports(at pointer, of Protocol, none bool, ports []string) {
	switch {
	case ports == nil:
	case none:
		c.addf(at, nil, "%s has no ports: leave them out", of)
	case len(ports) == 0:
		c.addf(at, nil, "an empty list matches nothing; leave it out for all ports")
	}
	if none {
		return
	}
	for i, text := range ports {
		if _, err := ParsePortRange(text); err != nil {
			c.addf(at.at(i), text, "%v", err)
		}
	}
}
