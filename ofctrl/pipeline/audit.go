package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// Some leaves of EGRESS and INGRESS decide nothing and have the table looked up once more, without the rules that they end: a rule with
// action pass sets the bit of its tier, and the first rule of a policy in mode audit to match sets those of all such rules. If it denies,
// its id is noted, and VERDICT tells the controller. Rules match that their bit is 0 only where something can set it.
//
// What an endpoint in mode audit is denied passes: its verdict is looked at when it stands. The connection keeps the id of what denies,
// which has no gate, so each of its packets is judged again until the endpoint is no longer in mode audit.

// Tiers is how many there are, which policy.Tiers lists.
const Tiers = 4

// auditOver ends the rules of policies in mode audit, and what they isolate.
const auditOver = 1<<(Tiers+1) - 1

// BeforePass narrows m to packets that no pass has led out of a tier, 0 <= tier < Tiers.
func BeforePass(m flow.Match, tier int) flow.Match { return Passed.IsMasked(m, 0, 1<<tier) }

// BeforeAudit narrows m to packets for which rules in mode audit of a tier are still to be looked at; AuditIsolated stands for what
// their policies isolate.
func BeforeAudit(m flow.Match, tier int) flow.Match { return Audited.IsMasked(m, 0, 1<<tier) }

// AfterAudit narrows m to the others.
func AfterAudit(m flow.Match, tier int) flow.Match { return Audited.IsMasked(m, 1<<tier, 1<<tier) }

// AuditIsolated is the tier of what policies in mode audit isolate.
const AuditIsolated = Tiers

// Pass returns the actions of a leaf that leads to the next tier; audit: for rules in mode audit alone.
func Pass(ingress, audit bool, tier int) []flow.Action {
	f := Passed
	if audit {
		f = Audited
	}
	return []flow.Action{flow.Load{Dst: sub(f.Field, f.Ofs+uint16(tier), 1), Value: 1}, table(policyTable(ingress))}
}

// AuditLeaf returns the actions of a leaf in mode audit: it ends the rules of its kind and, if it denies, notes who it is.
func AuditLeaf(ingress, denies bool, id uint32) []flow.Action {
	out := []flow.Action{Audited.Load(auditOver)}
	if denies {
		out = append(out, auditOf(ingress).Load(uint64(id|AuditNoted)))
	}
	return append(out, table(policyTable(ingress)))
}

func policyTable(ingress bool) uint8 {
	if ingress {
		return TableIngress
	}
	return TableEgress
}

func auditOf(ingress bool) Field {
	if ingress {
		return IngressAudit
	}
	return EgressAudit
}

// noted narrows m to packets of which it is, or is not, noted who would have denied them.
func noted(m flow.Match, ingress, is bool) flow.Match {
	var v uint64
	if is {
		v = uint64(AuditNoted)
	}
	return auditOf(ingress).IsMasked(m, v, uint64(AuditNoted))
}

// Priorities in EGRESS and INGRESS of what looks at verdicts for endpoints in mode audit, above all rules.
const (
	priorityAuditEnd  = PriorityRuleMax + 1
	priorityAuditSide = PriorityRuleMax + 2
)

// AuditEndpoint returns the flows that let pass what an endpoint in mode audit is denied.
func AuditEndpoint(c flow.Cookie, endpoint uint32) []flow.Flow {
	var out []flow.Flow
	for _, ingress := range []bool{false, true} {
		side, verdict, rule, log := SourceEndpoint, EgressVerdict, EgressRule, EgressLog
		if ingress {
			side, verdict, rule, log = DestinationEndpoint, IngressVerdict, IngressRule, IngressLog
		}
		note := auditOf(ingress)
		// Drop and reject have the upper bit of the two.
		denied := verdict.IsMasked(anyGeneration(side, Audit.Is(nil, 1), endpoint), 2, 2)
		pass := []flow.Action{Audit.Load(0), verdict.Load(uint64(VerdictAllow)), log.Load(0)}
		out = append(out,
			flow.Flow{Table: policyTable(ingress), Priority: priorityAuditSide, Cookie: c, Match: noted(denied, ingress, true), Actions: pass},
			flow.Flow{Table: policyTable(ingress), Priority: priorityAuditSide, Cookie: c, Match: noted(denied, ingress, false),
				Actions: append([]flow.Action{flow.Move{Src: rule.SubField, Dst: note.SubField},
					flow.Load{Dst: sub(note.Field, note.Ofs+30, 1), Value: 1}}, pass...)})
	}
	return out
}

func (p *program) audits() bool { return p.opt.AuditPolicies || p.opt.AuditEndpoints }

// auditEnds is for endpoints that are not in mode audit.
func (p *program) auditEnds() {
	if p.opt.AuditEndpoints {
		p.system(TableEgress, priorityAuditEnd, Audit.Is(nil, 1), Audit.Load(0))
		p.system(TableIngress, priorityAuditEnd, Audit.Is(nil, 1), Audit.Load(0))
	}
}

// auditVerdict tells of what would have been denied, once per connection, and of what is denied anyhow.
func (p *program) auditVerdict(send func(CopyReason) flow.Action) {
	if !p.audits() {
		return
	}
	for _, x := range []struct {
		verdict Verdict
		egress  uint16
		ingress uint16
		more    []flow.Action
	}{{VerdictDrop, 395, 376, nil}, {VerdictReject, 365, 362, []flow.Action{askAnswer()}}} {
		tell := func(priority uint16, side DropReason, m flow.Match, r CopyReason) {
			p.add(TableVerdict, priority, side.Cookie(), m, append([]flow.Action{send(r)}, x.more...)...)
		}
		tell(x.egress, DropEgress, noted(EgressVerdict.Is(nil, uint64(x.verdict)), false, true), CopyEgressDrop)
		stopped := IngressVerdict.Is(nil, uint64(x.verdict))
		tell(x.ingress, DropIngress, noted(stopped, false, true), CopyIngressDrop)
		tell(x.ingress-1, DropIngress, noted(stopped, true, true), CopyIngressDrop)
	}
	for i, ingress := range []bool{false, true} {
		m := noted(bothAllow(nil), ingress, true)
		p.system(TableVerdict, 340-uint16(i), Recorded.Is(MarkAudit.Is(m, 0), 0), send(CopyAllow), Recorded.Load(1), Audit.Load(1),
			table(TableCommit))
		p.system(TableVerdict, 330-uint16(i), m, Audit.Load(1), table(TableCommit))
	}
}
