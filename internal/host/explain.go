package host

import (
	"fmt"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/policy"
)

// Explain says what the numbers in a conntrack entry stand for on the bridges that it may be of: that of its zone or, of a label alone,
// those that know any of its numbers. It reads memory only. Errors match unixctl.ErrEntry.
func (e *Engine) Explain(q backend.ConnectionQuestion) ([]wire.Explanation, error) {
	x, err := entryOf(q)
	if err != nil {
		return nil, err
	}
	v := e.view.Load()
	var out []wire.Explanation
	for i := range v.walls {
		b := &v.walls[i]
		if q.Bridge != "" && q.Bridge != b.cfg.Name || q.Host != "" && q.Host != v.host {
			continue
		}
		d := newDirectory(v, b)
		if q.Label == "" {
			if _, ours := pipeline.OppositeZone(b.index, x.Zone); ours {
				out = append(out, d.explain(x, true))
			}
			continue
		}
		about := d.explain(x, false)
		for _, name := range []string{about.Source.PortName, about.Destination.PortName, d.ruleBeyondNobody(about.Egress),
			d.ruleBeyondNobody(about.Ingress)} {
			if name != "" {
				out = append(out, about)
				break
			}
		}
	}
	return out, nil
}

// entryOf reads what is asked about; a label alone is that of an entry of ours.
func entryOf(q backend.ConnectionQuestion) (x unixctl.Entry, err error) {
	if q.Label == "" {
		return unixctl.ParseEntry(strings.TrimSpace(q.Entry))
	}
	x.Mark = 1 << pipeline.MarkOurs.Ofs
	if x.LabelsHi, x.LabelsLo, err = unixctl.ParseLabels(q.Label); err != nil {
		err = fmt.Errorf("%w: label %.80q: %w", unixctl.ErrEntry, q.Label, err)
	}
	return x, err
}

// ruleBeyondNobody is the name of a rule, save for that of a side without an endpoint, whose id is the same on all bridges.
func (d *directory) ruleBeyondNobody(r wire.ConnectionRule) string {
	if r.ID == pipeline.IDNoEndpoint {
		return ""
	}
	return r.Rule
}

// explain says what the numbers of an entry stand for, and what becomes of the connection's packets. whole = there is a tuple.
func (d *directory) explain(x unixctl.Entry, whole bool) wire.Explanation {
	out := wire.Explanation{Connection: d.connection(x)}
	if !whole {
		out.Source.IP, out.Destination.IP, out.Protocol, out.VLAN, out.Zone = "", "", "", nil, 0
	}
	if !out.Ours {
		out.Why = []string{"tapwall has not committed it (bit 0 of ct_mark is not set), so its label says nothing"}
		return out
	}
	out.Passes = true
	side := func(what string, e wire.ConnectionEnd, r wire.ConnectionRule, rule string) {
		switch {
		case e.ID == pipeline.IDNoEndpoint:
			out.Why = append(out.Why, what+" is no endpoint of the bridge")
		case e.InForce:
			out.Why = append(out.Why, fmt.Sprintf("%s is %s, under the id that it has now (%#x)", what, e.Endpoint, e.ID))
		case e.Endpoint != "":
			out.Why = append(out.Why, fmt.Sprintf("%s is %s under an earlier id (%#x): it may have lost something since", what, e.Endpoint, e.ID))
		case e.PortName != "":
			out.Why = append(out.Why, fmt.Sprintf("%s is what was an endpoint at port %s (%#x)", what, e.PortName, e.ID))
		case e.ID == 0:
			out.Why = append(out.Why, what+" is not known: the connection is from before its ends were written down")
		default:
			out.Why = append(out.Why, fmt.Sprintf("%s has an id that stands for nothing here any more (%#x)", what, e.ID))
		}
		name := orElse(r.Rule, "something that is not known any more")
		if r.InForce {
			out.Why = append(out.Why, fmt.Sprintf("%s allowed it by %s (%#x), which is in force", rule, name, r.ID))
		} else {
			out.Why = append(out.Why, fmt.Sprintf("%s allowed it by %s under an id (%#x) that is not in force", rule, name, r.ID))
		}
		out.Passes = out.Passes && e.InForce && r.InForce
	}
	side("the initiator", out.Source, out.Egress, "egress")
	side("the responder", out.Destination, out.Ingress, "ingress")
	if out.Passes {
		out.Why = append(out.Why, "so its packets pass")
	} else {
		out.Why = append(out.Why, "so its next packet is judged anew")
	}
	if whole {
		out.Now = d.judge(x)
	}
	return out
}

// judge asks the policies about a new connection with the tuple of an entry, between those that its label names. nil = they are not there.
func (d *directory) judge(x unixctl.Entry) *wire.Judgement {
	p := policy.Packet{Bridge: d.b.cfg.Name, SrcIP: x.Orig.Src, DstIP: x.Orig.Dst, Proto: x.Proto, SrcPort: x.Orig.SrcPort,
		DstPort: x.Orig.DstPort}
	for end, f := range map[**policy.Workload]pipeline.Field{&p.Src: pipeline.LabelInitiator, &p.Dst: pipeline.LabelResponder} {
		id := labelled(x, f)
		if id == pipeline.IDNoEndpoint {
			continue
		}
		if *end = d.endpoints[pipeline.EndpointBase(id)]; *end == nil || id == 0 {
			return nil
		}
	}
	verdict := policy.Evaluate(d.v.set(), p)
	name := func(s policy.SideDecision) string {
		if !s.Judged {
			return ""
		}
		return strings.TrimLeft(ruleName(s.Ref).ID, "/")
	}
	return &wire.Judgement{Effect: string(verdict.Effect), Egress: name(verdict.Egress), Ingress: name(verdict.Ingress)}
}
