package event

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Bounds of Filter.Limit.
const (
	DefaultLimit = 20
	MaxLimit     = 10_000
)

// Matcher is a compiled filter; safe for concurrent use.
type Matcher struct {
	verdict                    []Verdict
	action, bridge             []string
	policy, rule, protocol     []string
	ip, fromIP, toIP           []netip.Prefix
	port, fromPort, toPort     []int
	endpoint, fromName, toName []string
	since, until               int64 // Unix nanoseconds; 0 = open
}

// Compile checks the filter. The error joins one *ParamError per value that makes no sense.
func (f Filter) Compile() (*Matcher, error) {
	var errs paramErrors
	m := &Matcher{
		action: f.Action, bridge: f.Bridge, policy: f.Policy, rule: f.Rule,
		port: f.Port, fromPort: f.FromPort, toPort: f.ToPort,
		endpoint: f.Endpoint, fromName: f.FromName, toName: f.ToName,
	}
	for _, v := range f.Verdict {
		w, ok := ParseVerdict(v)
		if !ok {
			errs.add("verdict", v, "not one of "+joinVerdicts())
		}
		m.verdict = append(m.verdict, w)
	}
	for _, p := range f.Protocol {
		m.protocol = append(m.protocol, normalProtocol(p))
	}
	m.ip = errs.prefixes("ip", f.IP)
	m.fromIP = errs.prefixes("from-ip", f.FromIP)
	m.toIP = errs.prefixes("to-ip", f.ToIP)
	errs.ports("port", f.Port)
	errs.ports("from-port", f.FromPort)
	errs.ports("to-port", f.ToPort)
	if !f.Since.IsZero() {
		m.since = f.Since.UnixNano()
	}
	if !f.Until.IsZero() {
		m.until = f.Until.UnixNano()
		if !f.Since.IsZero() && f.Until.Before(f.Since) {
			errs.add("until", f.Until.Format(time.RFC3339Nano), "before since")
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
func (m *Matcher) Texts() (groups [][][]byte) {
	add := func(keys []string, values []string) {
		var group [][]byte
		for _, v := range values {
			w := jsonWriter{}
			w.text(v)
			for _, k := range keys {
				group = append(group, append([]byte(`"`+k+`":`), w.b...))
			}
		}
		if group != nil {
			groups = append(groups, group)
		}
	}
	var verdicts []string
	for _, v := range m.verdict {
		verdicts = append(verdicts, string(v))
	}
	add([]string{"verdict"}, verdicts)
	add([]string{"action"}, m.action)
	add([]string{"bridge"}, m.bridge)
	add([]string{"transport", "iana_number"}, m.protocol)
	add([]string{"ruleset"}, m.policy)
	add([]string{"name", "id"}, m.rule)
	for _, names := range [][]string{m.endpoint, m.fromName, m.toName} {
		add([]string{"name", "port_name"}, names)
	}
	for _, prefixes := range [][]netip.Prefix{m.ip, m.fromIP, m.toIP} {
		var addresses []string
		for _, p := range prefixes {
			if !p.IsSingleIP() {
				addresses = nil
				break
			}
			addresses = append(addresses, p.Addr().String())
		}
		add([]string{"ip"}, addresses)
	}
	for _, ports := range [][]int{m.port, m.fromPort, m.toPort} {
		var group [][]byte
		for _, p := range ports {
			group = append(group, fmt.Appendf(nil, `"port":%d`, p))
		}
		if group != nil {
			groups = append(groups, group)
		}
	}
	return groups
}

// MatchFacts reports whether the filter selects the event with these facts.
func (m *Matcher) MatchFacts(f *Facts) bool {
	if m.since != 0 && f.Time < m.since || m.until != 0 && f.Time > m.until {
		return false
	}
	if !anyOf(m.verdict, f.Verdict) || !anyOf(m.action, f.Action) || !anyOf(m.bridge, f.Bridge) || !anyOf(m.protocol, f.Transport) {
		return false
	}
	if m.policy != nil && (f.Rule == nil || !slices.Contains(m.policy, f.Rule.Ruleset)) {
		return false
	}
	if m.rule != nil && (f.Rule == nil || !slices.Contains(m.rule, f.Rule.Name) && !slices.Contains(m.rule, f.Rule.ID)) {
		return false
	}
	if m.port != nil && !hasPort(m.port, f.SrcPort) && !hasPort(m.port, f.DstPort) {
		return false
	}
	if m.fromPort != nil && !hasPort(m.fromPort, f.SrcPort) || m.toPort != nil && !hasPort(m.toPort, f.DstPort) {
		return false
	}
	if m.ip != nil && !inAny(m.ip, f.Src) && !inAny(m.ip, f.Dst) {
		return false
	}
	if m.fromIP != nil && !inAny(m.fromIP, f.Src) || m.toIP != nil && !inAny(m.toIP, f.Dst) {
		return false
	}
	if m.endpoint != nil && !named(m.endpoint, f.SrcEndpoint) && !named(m.endpoint, f.DstEndpoint) {
		return false
	}
	return (m.fromName == nil || named(m.fromName, f.SrcEndpoint)) && (m.toName == nil || named(m.toName, f.DstEndpoint))
}

// MatchStream is MatchFacts for a reader that follows: what was lost might have been selected, so it is told of losses whatever
// the filter, unless the filter asks for other actions.
func (m *Matcher) MatchStream(f *Facts) bool {
	if f.Action != ActionLost {
		return m.MatchFacts(f)
	}
	return anyOf(m.action, f.Action) && (m.since == 0 || f.Time >= m.since) && (m.until == 0 || f.Time <= m.until)
}

func anyOf[T comparable](want []T, got T) bool { return want == nil || slices.Contains(want, got) }

func hasPort(want []int, got uint16) bool { return got != 0 && slices.Contains(want, int(got)) }

func inAny(want []netip.Prefix, got netip.Addr) bool {
	for _, p := range want {
		if p.Contains(got) {
			return true
		}
	}
	return false
}

func named(want []string, e *Endpoint) bool {
	if e == nil {
		return false
	}
	return e.Name != "" && slices.Contains(want, e.Name) || e.PortName != "" && slices.Contains(want, e.PortName)
}

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
}

// FactsOf reads them from the document.
func FactsOf(e *Event) Facts {
	f := Facts{
		Time: e.Timestamp.UnixNano(), Verdict: e.Tapwall.Verdict, Action: e.Event.Action, Bridge: e.Tapwall.Bridge,
		Rule: e.Rule, SrcEndpoint: e.Tapwall.Source, DstEndpoint: e.Tapwall.Destination,
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

func verdicts() []Verdict {
	return []Verdict{Forwarded, Dropped, Rejected, Audit, Mirrored, Sampled, Quarantined, Errored}
}

// ParseVerdict reads a verdict as documents spell it or as Compact prints it (DENIED is DROPPED), in any case.
func ParseVerdict(s string) (Verdict, bool) {
	for _, v := range verdicts() {
		if strings.EqualFold(s, string(v)) || strings.EqualFold(s, verdictWord(v)) {
			return v, true
		}
	}
	return Verdict(strings.ToUpper(s)), false
}

// VerdictWords lists what ParseVerdict reads.
func VerdictWords() []string {
	var out []string
	for _, v := range verdicts() {
		out = append(out, string(v))
		if w := verdictWord(v); w != string(v) {
			out = append(out, w)
		}
	}
	return out
}

func joinVerdicts() string { return strings.Join(VerdictWords(), ", ") }
