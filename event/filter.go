package event

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Bounds of a filter.
const (
	DefaultLimit = 20
	MaxLimit     = 10_000
	// MaxValues is how many values a field may have: each is looked for in every event.
	MaxValues = 1000
)

// Matcher is a compiled filter; safe for concurrent use.
type Matcher struct {
	conditions   []condition
	texts        [][][]byte
	since, until int64 // Unix nanoseconds; 0 = open
}

// condition is what one field of a filter asks for.
type condition struct {
	match match
	not   bool
	kind  bool // of Param
}

func (c *condition) holds(f *Facts) bool { return c.match(f) != c.not }

// Compile checks the filter. The error joins one *ParamError per value that makes no sense.
func (f Filter) Compile() (*Matcher, error) {
	var errs paramErrors
	m := &Matcher{}
	for i := range params {
		p := &params[i]
		if values := errs.bounded(p.Name, *p.list(&f)); len(values) > 0 {
			m.conditions = append(m.conditions, condition{p.compile(&compiler{&errs, p.Name}, values), false, p.kind})
			if group := p.group(values); group != nil {
				m.texts = append(m.texts, group)
			}
		}
		if f.Not == nil {
			continue
		}
		if values := errs.bounded(notPrefix+p.Name, *p.list(f.Not)); len(values) > 0 {
			m.conditions = append(m.conditions, condition{p.compile(&compiler{&errs, notPrefix + p.Name}, values), true, p.kind})
		}
	}
	if !f.Since.IsZero() {
		m.since = nanoseconds(f.Since)
	}
	if !f.Until.IsZero() {
		m.until = nanoseconds(f.Until)
		if !f.Since.IsZero() && f.Until.Before(f.Since) {
			errs.add("until", f.Until.Format(time.RFC3339), "before since, "+f.Since.Format(time.RFC3339))
		}
	}
	if f.After != "" {
		if _, err := ParseID(f.After); err != nil {
			errs.add("after", f.After, ErrBadID.Error())
		}
	}
	if f.Limit < 0 || f.Limit > MaxLimit {
		errs.add("limit", fmt.Sprint(f.Limit), fmt.Sprintf("not between 1 and %d", MaxLimit))
	}
	return m, errs.err()
}

// nanoseconds are those since 1970, one at least. Of times that they cannot say, such as 9999-12-31, they are the nearest that they can.
func nanoseconds(t time.Time) int64 {
	switch {
	case t.Unix() < 0:
		return 1
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return max(t.UnixNano(), 1)
}

// Chooses reports whether the filter leaves events out by what they say, whatever its times and bounds.
func (f Filter) Chooses() bool {
	for i := range params {
		if len(*params[i].list(&f)) > 0 || f.Not != nil && len(*params[i].list(f.Not)) > 0 {
			return true
		}
	}
	return false
}

// Match reports whether the filter selects e. It compiles the filter each time: for many events use Compile. A filter with an
// impossible value selects nothing.
func (f Filter) Match(e *Event) bool {
	m, err := f.Compile()
	return err == nil && m.Match(e)
}

// Match reports whether the filter selects e.
func (m *Matcher) Match(e *Event) bool {
	f := FactsOf(e)
	return m.MatchFacts(&f)
}

// Times are the bounds of Event.Timestamp, both inclusive, in Unix nanoseconds; 0 = open.
func (m *Matcher) Times() (since, until int64) { return m.since, m.until }

// Texts are groups of texts: of each group one at least stands in the JSON (AppendJSON) of every event that m selects. Where that cannot be
// said of a condition, it has no group.
func (m *Matcher) Texts() (groups [][][]byte) { return m.texts }

// group is what Texts says of the values.
func (p *Param) group(values []string) (group [][]byte) {
	if p.keys == nil && p.json == nil {
		return nil
	}
	for _, v := range values {
		if p.json != nil {
			group = append(group, []byte(p.json(v)))
			continue
		}
		in := []string{v}
		if p.texts != nil {
			in = p.texts(v)
		}
		if in == nil {
			return nil
		}
		for _, text := range in {
			w := jsonWriter{}
			w.text(text)
			for _, k := range p.keys {
				group = append(group, append([]byte(`"`+k+`":`), w.b...))
			}
		}
	}
	return group
}

func (m *Matcher) inTime(f *Facts) bool {
	return (m.since == 0 || f.Time >= m.since) && (m.until == 0 || f.Time <= m.until)
}

// MatchFacts reports whether the filter selects the event with these facts.
func (m *Matcher) MatchFacts(f *Facts) bool {
	if !m.inTime(f) {
		return false
	}
	for i := range m.conditions {
		if !m.conditions[i].holds(f) {
			return false
		}
	}
	return true
}

// MatchStream is MatchFacts for a reader that follows: what was lost might have been selected, so it is told of losses whatever
// the filter.
func (m *Matcher) MatchStream(f *Facts) bool {
	if f.Action == ActionLost {
		return m.inTime(f)
	}
	return m.MatchFacts(f)
}

// MatchKind reports whether what the filter says of actions and types selects e.
func (m *Matcher) MatchKind(e *Event) bool {
	f := FactsOf(e)
	for i := range m.conditions {
		if c := &m.conditions[i]; c.kind && !c.holds(&f) {
			return false
		}
	}
	return true
}

// MayMatch reports false of the JSON of a document that m does not select, as far as its text tells; see Texts. Losses may be anything's.
func (m *Matcher) MayMatch(doc []byte) bool {
	for _, group := range m.texts {
		if !slices.ContainsFunc(group, func(text []byte) bool { return bytes.Contains(doc, text) }) {
			return bytes.Contains(doc, lostText)
		}
	}
	return true
}

var lostText = []byte(`"action":"` + ActionLost + `"`)

// Facts are what filters ask of an event, so that a scan of many need not touch each.
type Facts struct {
	Time                     int64 // Unix nanoseconds
	Src, Dst                 netip.Addr
	SrcPort, DstPort         uint16
	Verdict                  Verdict
	Action                   string
	Bridge                   string
	Transport                string // network.transport, or network.iana_number of a protocol without a name
	Rule                     *Rule
	SrcEndpoint, DstEndpoint *Endpoint
	// Event is the document, for what is asked of it seldom. Nil = these are the facts of something else, of which that says nothing.
	Event *Event
}

// ruled reports whether one of the rules that decided is wanted.
func (f *Facts) ruled(wanted func(*Rule) bool) bool {
	if f.Rule != nil && wanted(f.Rule) {
		return true
	}
	if f.Event == nil {
		return false
	}
	egress, ingress := f.Event.Tapwall.EgressRule, f.Event.Tapwall.IngressRule
	return egress != nil && wanted(egress) || ingress != nil && wanted(ingress)
}

// FactsOf reads them from the document.
func FactsOf(e *Event) Facts {
	f := Facts{
		Time: e.Timestamp.UnixNano(), Verdict: e.Tapwall.Verdict, Action: e.Event.Action, Bridge: e.Tapwall.Bridge,
		Rule: e.Rule, SrcEndpoint: e.Tapwall.Source, DstEndpoint: e.Tapwall.Destination, Event: e,
	}
	if e.Source != nil {
		f.Src, _ = netip.ParseAddr(e.Source.IP)
		f.SrcPort = uint16(e.Source.Port)
	}
	if e.Destination != nil {
		f.Dst, _ = netip.ParseAddr(e.Destination.IP)
		f.DstPort = uint16(e.Destination.Port)
	}
	if e.Network != nil {
		f.Transport = e.Network.Transport
		if f.Transport == "" {
			f.Transport = e.Network.IANANumber
		}
	}
	return f
}
