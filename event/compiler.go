package event

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// compiler compiles the values of one parameter.
type compiler struct {
	errs *paramErrors
	name string
}

func (c *compiler) add(value, reason string) { c.errs.add(c.name, value, reason) }

func (c *compiler) verdicts(values []string) match {
	var want []Verdict
	for _, v := range values {
		w, ok := ParseVerdict(v)
		if !ok {
			c.add(v, "not one of "+strings.Join(VerdictWords(), ", "))
		}
		want = append(want, w)
	}
	return func(f *Facts) bool { return slices.Contains(want, f.Verdict) }
}

// sorts are words for events of which one thing is true.
var sorts = []struct {
	word string
	is   func(*Event) bool
}{
	{"verdict", func(e *Event) bool { return e.Event.Action == ActionVerdict }},
	{"allow", func(e *Event) bool { return slices.Contains(e.Event.Type, "allowed") }},
	{"deny", func(e *Event) bool { return slices.Contains(e.Event.Type, "denied") }},
	{"connection", func(e *Event) bool { return slices.Contains(e.Event.Type, "connection") }},
	{"start", func(e *Event) bool {
		return e.Event.Action == ActionVerdict && slices.Contains(e.Event.Type, "allowed")
	}},
	{"end", func(e *Event) bool { return e.Event.Action == ActionEnded }},
	{"packet", func(e *Event) bool { return e.Event.Dataset == DatasetPacket }},
	{"dns", func(e *Event) bool { return e.DNS != nil }},
	{"tls", func(e *Event) bool { return e.TLS != nil }},
	{"http", func(e *Event) bool { return e.HTTP != nil }},
	{"flow", func(e *Event) bool { return e.Event.Dataset == DatasetFlow }},
	{"loss", func(e *Event) bool { return e.Event.Dataset == DatasetLoss }},
	{"switch", func(e *Event) bool { return e.Event.Dataset == DatasetSwitch }},
	{"change", func(e *Event) bool { return e.Event.Dataset == DatasetChange }},
	{"notice", func(e *Event) bool { return e.Tapwall.Notice != nil }},
}

func typeWords() (out []string) {
	for _, s := range sorts {
		out = append(out, s.word)
	}
	return out
}

// types reads sorts of events, actions and datasets.
func (c *compiler) types(values []string) match {
	var want []func(*Event) bool
	for _, v := range values {
		word := strings.TrimPrefix(strings.ToLower(v), "tapwall.")
		at := -1
		for i, s := range sorts {
			if s.word == word {
				at = i
			}
		}
		switch {
		case at >= 0:
			want = append(want, sorts[at].is)
		case slices.Contains(Actions(), word):
			want = append(want, func(e *Event) bool { return e.Event.Action == word })
		default:
			c.add(v, "not one of "+strings.Join(append(typeWords(), Actions()...), ", "))
		}
	}
	return func(f *Facts) bool {
		return f.Event != nil && slices.ContainsFunc(want, func(is func(*Event) bool) bool { return is(f.Event) })
	}
}

func (c *compiler) policies(values []string) match {
	return func(f *Facts) bool { return f.ruled(func(r *Rule) bool { return slices.Contains(values, r.Ruleset) }) }
}

func (c *compiler) users(values []string) match {
	return func(f *Facts) bool {
		if f.Event == nil || f.Event.User == nil {
			return false
		}
		u := f.Event.User
		return slices.Contains(values, u.Name) || slices.Contains(values, u.ID)
	}
}

func (c *compiler) resources(values []string) match {
	return func(f *Facts) bool {
		return f.Event != nil && f.Event.Tapwall.Notice != nil &&
			slices.ContainsFunc(f.Event.Tapwall.Notice.Objects, func(o string) bool {
				return slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(o, v) })
			})
	}
}

// rules also reads what is printed, policy/rule.
func (c *compiler) rules(values []string) match {
	return func(f *Facts) bool {
		return f.ruled(func(r *Rule) bool {
			return slices.ContainsFunc(values, func(v string) bool {
				if v == r.Name || v == r.ID {
					return true
				}
				policy, ok := strings.CutSuffix(v, "/"+r.Name)
				return ok && policy == r.Ruleset
			})
		})
	}
}

func (c *compiler) protocols(values []string) match {
	var want []string
	for _, v := range values {
		p := normalProtocol(v)
		if _, err := strconv.ParseUint(p, 10, 8); err != nil && !slices.Contains(protocolNames(), p) {
			c.add(v, "not a number below 256 or one of "+strings.Join(protocolNames(), ", "))
		}
		want = append(want, p)
	}
	return func(f *Facts) bool { return slices.Contains(want, f.Transport) }
}

// names reads whatever people call an endpoint.
func (c *compiler) names(values []string) func(side) bool {
	type name struct {
		text, mac string
		ip        netip.Addr
	}
	var want []name
	for _, v := range values {
		n := name{text: v, mac: macText(v)}
		if ip, err := netip.ParseAddr(v); err == nil {
			n.ip = ip.Unmap()
		}
		want = append(want, n)
	}
	labels := NameLabels()
	return func(s side) bool {
		for i := range want {
			n := &want[i]
			if n.ip.IsValid() && n.ip == s.ip() || n.mac != "" && n.mac == s.mac() {
				return true
			}
			if n.text == "" {
				continue
			}
			e := s.endpoint()
			if e == nil {
				e = &Endpoint{}
			}
			if e.Name == n.text || e.PortName == n.text || s.domain() == n.text {
				return true
			}
			for _, l := range labels {
				if e.Labels[l] == n.text {
					return true
				}
			}
		}
		return false
	}
}

func (c *compiler) labels(values []string) func(side) bool {
	for _, v := range values {
		if key, _, _ := strings.Cut(v, "="); key == "" {
			c.add(v, "not a label: give key=value, or key")
		}
	}
	return func(s side) bool {
		e := s.endpoint()
		return e != nil && slices.ContainsFunc(values, func(v string) bool {
			key, want, any := strings.Cut(v, "=")
			have, ok := e.Labels[key]
			return ok && (!any || have == want)
		})
	}
}

func (c *compiler) prefixes(values []string) func(side) bool {
	var want []netip.Prefix
	for _, v := range values {
		p, err := parsePrefix(v)
		if err != nil {
			c.add(v, err.Error())
			continue
		}
		want = append(want, p)
	}
	return func(s side) bool {
		for _, p := range want {
			if p.Contains(s.ip()) {
				return true
			}
		}
		return false
	}
}

var errPrefix = errors.New("not an address or CIDR")

// parsePrefix reads an address or CIDR.
func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, errPrefix
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (c *compiler) ports(values []string) func(side) bool {
	want := c.spans(values, 1, 65535, "a port or range")
	return func(s side) bool { return in(want, int(s.port())) }
}

func (c *compiler) macs(values []string) func(side) bool {
	var want []string
	for _, v := range values {
		mac := macText(v)
		if mac == "" {
			c.add(v, "not a MAC, like 52:54:00:12:34:56")
			continue
		}
		want = append(want, mac)
	}
	return func(s side) bool { return slices.Contains(want, s.mac()) }
}

// macText is a MAC as documents spell it, "" of what is none.
func macText(s string) string {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return ""
	}
	return strings.ToUpper(strings.ReplaceAll(mac.String(), ":", "-"))
}

func (c *compiler) vlans(values []string) match {
	want := c.spans(values, 0, 4094, "a VLAN or range")
	return func(f *Facts) bool {
		if f.Event == nil || f.Event.Network == nil {
			return false
		}
		vlan := 0
		if v := f.Event.Network.VLAN; v != nil {
			vlan, _ = strconv.Atoi(v.ID)
		}
		return in(want, vlan)
	}
}

func (c *compiler) cookies(values []string) match {
	var want []uint64
	for _, v := range values {
		n, err := strconv.ParseUint(strings.ToLower(v), 0, 64)
		if err != nil {
			c.add(v, "not a cookie: give 0x and up to 16 digits")
			continue
		}
		want = append(want, n)
	}
	return func(f *Facts) bool {
		if f.Event == nil || f.Event.Tapwall.Cookie == "" {
			return false
		}
		n, err := strconv.ParseUint(f.Event.Tapwall.Cookie, 0, 64)
		return err == nil && slices.Contains(want, n)
	}
}
