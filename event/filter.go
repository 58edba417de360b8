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
	v := viewOf(e)
	return m.match(&v)
}

func (m *Matcher) match(v *view) bool {
	if m.since != 0 && v.time < m.since || m.until != 0 && v.time > m.until {
		return false
	}
	if !anyOf(m.verdict, v.verdict) || !anyOf(m.action, v.action) || !anyOf(m.bridge, v.bridge) || !anyOf(m.protocol, v.transport) {
		return false
	}
	if m.policy != nil && (v.rule == nil || !slices.Contains(m.policy, v.rule.Ruleset)) {
		return false
	}
	if m.rule != nil && (v.rule == nil || !slices.Contains(m.rule, v.rule.Name) && !slices.Contains(m.rule, v.rule.ID)) {
		return false
	}
	if m.port != nil && !hasPort(m.port, v.sport) && !hasPort(m.port, v.dport) {
		return false
	}
	if m.fromPort != nil && !hasPort(m.fromPort, v.sport) || m.toPort != nil && !hasPort(m.toPort, v.dport) {
		return false
	}
	if m.ip != nil && !inAny(m.ip, v.src) && !inAny(m.ip, v.dst) {
		return false
	}
	if m.fromIP != nil && !inAny(m.fromIP, v.src) || m.toIP != nil && !inAny(m.toIP, v.dst) {
		return false
	}
	if m.endpoint != nil && !named(m.endpoint, v.srcEP) && !named(m.endpoint, v.dstEP) {
		return false
	}
	return (m.fromName == nil || named(m.fromName, v.srcEP)) && (m.toName == nil || named(m.toName, v.dstEP))
}

// matchStream is match for a reader that follows: what was lost might have been selected, so it is told of losses whatever the
// filter, unless the filter asks for other actions.
func (m *Matcher) matchStream(v *view) bool {
	if v.action != ActionLost {
		return m.match(v)
	}
	return anyOf(m.action, v.action) && (m.since == 0 || v.time >= m.since) && (m.until == 0 || v.time <= m.until)
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

// viewOf reads an event back, as from a file.
func viewOf(e *Event) view {
	v := view{
		time: e.Timestamp.UnixNano(), verdict: e.Tapwall.Verdict, action: e.Event.Action, bridge: e.Tapwall.Bridge,
		rule: e.Rule, srcEP: e.Tapwall.Source, dstEP: e.Tapwall.Destination,
	}
	if e.Source != nil {
		v.src, _ = netip.ParseAddr(e.Source.IP)
		v.sport = uint16(e.Source.Port)
	}
	if e.Destination != nil {
		v.dst, _ = netip.ParseAddr(e.Destination.IP)
		v.dport = uint16(e.Destination.Port)
	}
	if e.Network != nil {
		v.transport = e.Network.Transport
		if v.transport == "" {
			v.transport = e.Network.IANANumber
		}
	}
	return v
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
