package event

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Param is one way to choose events by what they say: a query parameter of the API and a flag of the CLI.
type Param struct {
	Name string
	Doc  string   // what its values are
	Like []string // all values there are or, where there are more, some; nil = nobody can tell

	list    func(*Filter) *[]string
	compile func(*compiler, []string) match
	kind    bool                  // says which sorts of events are meant, and so whether losses are
	keys    []string              // keys in the document, one of which has the value as its text
	texts   func(string) []string // what a value may be in the document; nil = nobody can tell
	json    func(string) string   // instead of both, a text of the document of whatever has the value
}

// List is where f holds the values of the parameter.
func (p *Param) List(f *Filter) *[]string { return p.list(f) }

// match says whether an event with these facts is chosen.
type match func(*Facts) bool

// Params lists the parameters that choose events, in the order of importance. It is shared and must not be changed.
func Params() []Param { return params }

var params = slices.Concat(packetParams, l7Params)

// packetParams are about packets, who they are between, and what became of them.
var packetParams = []Param{
	{Name: "verdict", Doc: strings.Join(VerdictWords(), ", "), Like: VerdictWords(), list: func(f *Filter) *[]string { return &f.Verdict },
		compile: (*compiler).verdicts, keys: []string{"verdict"}, texts: one(func(s string) string {
			v, _ := ParseVerdict(s)
			return string(v)
		})},
	{Name: "type", Doc: "sort of event: " + strings.Join(typeWords(), ", ") + ", or an action", Like: append(typeWords(), Actions()...),
		list: func(f *Filter) *[]string { return &f.Type }, compile: (*compiler).types, kind: true},
	{Name: "action", Doc: "what happened: " + strings.Join(Actions(), ", "), Like: Actions(),
		list:    func(f *Filter) *[]string { return &f.Action },
		compile: words(Actions(), func(f *Facts) string { return f.Action }), kind: true, keys: []string{"action"}, texts: one(strings.ToLower)},
	{Name: "drop-reason", Doc: "why it was dropped: " + strings.Join(DropReasons(), ", "), Like: DropReasons(),
		list:    func(f *Filter) *[]string { return &f.DropReason },
		compile: words(DropReasons(), tapwall(func(t *Tapwall) string { return t.DropReason })), keys: []string{"drop_reason"},
		texts: one(strings.ToUpper)},
	{Name: "policy", Doc: "name of a policy that decided, about either side", list: func(f *Filter) *[]string { return &f.Policy },
		compile: (*compiler).policies, keys: []string{"ruleset"}},
	{Name: "rule", Doc: "name of a rule that decided, or policy/direction/rule, about either side",
		list:    func(f *Filter) *[]string { return &f.Rule },
		compile: (*compiler).rules, keys: []string{"name", "id"}, texts: ruleTexts},
	{Name: "mirror", Doc: "name of the mirror that copied the packet", list: func(f *Filter) *[]string { return &f.Mirror },
		compile: texts(tapwall(func(t *Tapwall) string { return t.Mirror })), keys: []string{"mirror"}},
	{Name: "traffic-direction", Doc: "side that decided: ingress or egress", Like: []string{"ingress", "egress"},
		list:    func(f *Filter) *[]string { return &f.Direction },
		compile: words([]string{"ingress", "egress"}, direction), keys: []string{"direction"}, texts: one(strings.ToLower)},

	{Name: "endpoint", Doc: "endpoint on either side, by any name: of the Endpoint, the port, the VM or DNS, iface-id, uuid, address",
		list: func(f *Filter) *[]string { return &f.Endpoint }, compile: either((*compiler).names), keys: nameKeys(), texts: one(nameText)},
	{Name: "from", Doc: "endpoint that is the initiator, likewise", list: func(f *Filter) *[]string { return &f.FromName },
		compile: source((*compiler).names), keys: nameKeys(), texts: one(nameText)},
	{Name: "to", Doc: "endpoint on the other side, likewise", list: func(f *Filter) *[]string { return &f.ToName },
		compile: destination((*compiler).names), keys: nameKeys(), texts: one(nameText)},
	{Name: "label", Doc: "label of the endpoint on either side: key=value, or key", list: func(f *Filter) *[]string { return &f.Label },
		compile: either((*compiler).labels)},
	{Name: "from-label", Doc: "label of the initiator", list: func(f *Filter) *[]string { return &f.FromLabel },
		compile: source((*compiler).labels)},
	{Name: "to-label", Doc: "label of the other side", list: func(f *Filter) *[]string { return &f.ToLabel },
		compile: destination((*compiler).labels)},

	{Name: "ip", Doc: "address or CIDR of either side", list: func(f *Filter) *[]string { return &f.IP },
		compile: either((*compiler).prefixes), keys: []string{"ip"}, texts: one(addressText)},
	{Name: "from-ip", Doc: "address or CIDR of the initiator", list: func(f *Filter) *[]string { return &f.FromIP },
		compile: source((*compiler).prefixes), keys: []string{"ip"}, texts: one(addressText)},
	{Name: "to-ip", Doc: "address or CIDR of the other side", list: func(f *Filter) *[]string { return &f.ToIP },
		compile: destination((*compiler).prefixes), keys: []string{"ip"}, texts: one(addressText)},
	{Name: "port", Doc: "port of either side, or a range such as 80-90", list: func(f *Filter) *[]string { return &f.Port },
		compile: either((*compiler).ports), json: number("port")},
	{Name: "from-port", Doc: "port or range of the initiator", list: func(f *Filter) *[]string { return &f.FromPort },
		compile: source((*compiler).ports), json: number("port")},
	{Name: "to-port", Doc: "port or range of the other side", list: func(f *Filter) *[]string { return &f.ToPort },
		compile: destination((*compiler).ports), json: number("port")},
	{Name: "mac", Doc: "MAC of either side", list: func(f *Filter) *[]string { return &f.MAC },
		compile: either((*compiler).macs), keys: []string{"mac"}, texts: one(macText)},
	{Name: "from-mac", Doc: "MAC of the initiator", list: func(f *Filter) *[]string { return &f.FromMAC },
		compile: source((*compiler).macs), keys: []string{"mac"}, texts: one(macText)},
	{Name: "to-mac", Doc: "MAC of the other side", list: func(f *Filter) *[]string { return &f.ToMAC },
		compile: destination((*compiler).macs), keys: []string{"mac"}, texts: one(macText)},

	{Name: "protocol", Doc: "tcp, udp, icmp, ipv6-icmp, … or a number", Like: protocolNames(),
		list: func(f *Filter) *[]string { return &f.Protocol }, compile: (*compiler).protocols, keys: []string{"transport", "iana_number"},
		texts: one(normalProtocol)},
	{Name: "ip-version", Doc: "4 or 6", Like: []string{"4", "6"}, list: func(f *Filter) *[]string { return &f.IPVersion },
		compile: words([]string{"4", "6"}, ipVersion)},
	{Name: "tcp-flags", Doc: "flags that are set: SYN, or several together: SYN+ACK", Like: tcpFlags,
		list: func(f *Filter) *[]string { return &f.TCPFlags }, compile: sets(tcpFlags, func(t *Tapwall) []string {
			if t.TCP == nil {
				return nil
			}
			return t.TCP.Flags
		})},
	{Name: "ct-state", Doc: "state of the connection: " + strings.Join(ctStates, ", ") + ", or several together: est+rpl", Like: ctStates,
		list: func(f *Filter) *[]string { return &f.CTState }, compile: sets(ctStates, func(t *Tapwall) []string {
			if t.CT == nil {
				return nil
			}
			return t.CT.State
		})},

	{Name: "bridge", Doc: "name of the bridge", list: func(f *Filter) *[]string { return &f.Bridge },
		compile: texts(func(f *Facts) string { return f.Bridge }), keys: []string{"bridge"}},
	{Name: "interface", Doc: "port where the packet came in", list: func(f *Filter) *[]string { return &f.Interface },
		compile: texts(observer(func(o *Observer) string {
			if o.Ingress == nil {
				return ""
			}
			return o.Ingress.Interface.Name
		})), keys: []string{"name"}},
	{Name: "node", Doc: "host that saw it", list: func(f *Filter) *[]string { return &f.Node },
		compile: texts(observer(func(o *Observer) string { return o.Name })), keys: []string{"name"}},
	{Name: "vlan", Doc: "VLAN of the packet, or a range; 0 = untagged", list: func(f *Filter) *[]string { return &f.VLAN },
		compile: (*compiler).vlans},
	{Name: "cookie", Doc: "cookie of the flow that decided, 0x and digits", list: func(f *Filter) *[]string { return &f.Cookie },
		compile: (*compiler).cookies},
	{Name: "user", Doc: "who asked for a change: name or number of a user", list: func(f *Filter) *[]string { return &f.User },
		compile: (*compiler).users, keys: []string{"name", "id"}},
	{Name: "resource", Doc: "what was changed: kind/name, such as policy/web", list: func(f *Filter) *[]string { return &f.Resource },
		compile: (*compiler).resources},
	{Name: "community-id", Doc: "Community ID of the connection", list: func(f *Filter) *[]string { return &f.CommunityID },
		compile: texts(func(f *Facts) string {
			if f.Event == nil || f.Event.Network == nil {
				return ""
			}
			return f.Event.Network.CommunityID
		}), keys: []string{"community_id"}},
	{Name: "event-id", Doc: "id of the event", list: func(f *Filter) *[]string { return &f.EventID },
		compile: texts(func(f *Facts) string {
			if f.Event == nil {
				return ""
			}
			return f.Event.Event.ID
		}), keys: []string{"id"}},
}

var (
	tcpFlags = []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS"}
	ctStates = []string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}
)

// NameLabels are the labels whose values name an endpoint, beside its own name and that of its port.
func NameLabels() []string { return []string{"iface-id", "vm-uuid", "vm-id", "vm-name"} }

func nameKeys() []string {
	return append([]string{"name", "port_name", "ip", "mac", "domain"}, NameLabels()...)
}

// nameText is the name as documents have it, be it one of the forms of an address.
func nameText(s string) string {
	if mac := macText(s); mac != "" {
		return mac
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().String()
	}
	return s
}

// one says that a value is one text in the document, or "" if nobody can tell.
func one(of func(string) string) func(string) []string {
	return func(s string) []string {
		if s = of(s); s != "" {
			return []string{s}
		}
		return nil
	}
}

// ruleTexts are the rule's id and, behind what else it is called by, its name.
func ruleTexts(s string) []string { return []string{s, s[strings.LastIndexByte(s, '/')+1:]} }

func addressText(s string) string {
	p, err := parsePrefix(s)
	if err != nil || !p.IsSingleIP() {
		return ""
	}
	return p.Addr().String()
}

func tapwall(of func(*Tapwall) string) func(*Facts) string {
	return func(f *Facts) string {
		if f.Event == nil {
			return ""
		}
		return of(&f.Event.Tapwall)
	}
}

func observer(of func(*Observer) string) func(*Facts) string {
	return func(f *Facts) string {
		if f.Event == nil || f.Event.Observer == nil {
			return ""
		}
		return of(f.Event.Observer)
	}
}

func direction(f *Facts) string {
	if f.Event == nil {
		return ""
	}
	if d := f.Event.Tapwall.Direction; d != "" || f.Event.Network == nil {
		return d
	}
	return f.Event.Network.Direction
}

func ipVersion(f *Facts) string {
	switch {
	case f.Event != nil && f.Event.Network != nil && f.Event.Network.Type != "":
		return strings.TrimPrefix(f.Event.Network.Type, "ipv")
	case f.Src.Is4():
		return "4"
	case f.Src.Is6():
		return "6"
	}
	return ""
}

// texts compiles values that are compared as they are.
func texts(of func(*Facts) string) func(*compiler, []string) match {
	return func(_ *compiler, values []string) match {
		return func(f *Facts) bool { return slices.Contains(values, of(f)) }
	}
}

// words compiles values of which there are only those, in any case.
func words(all []string, of func(*Facts) string) func(*compiler, []string) match {
	return func(c *compiler, values []string) match {
		var want []string
		for _, v := range values {
			i := slices.IndexFunc(all, func(w string) bool { return strings.EqualFold(w, v) })
			if i < 0 {
				c.add(v, "not one of "+strings.Join(all, ", "))
				continue
			}
			want = append(want, all[i])
		}
		return func(f *Facts) bool { return slices.Contains(want, of(f)) }
	}
}

// sets compiles values that are sets of words, joined by "+": all of one of them must be there.
func sets(all []string, of func(*Tapwall) []string) func(*compiler, []string) match {
	return func(c *compiler, values []string) match {
		var want [][]string
		for _, v := range values {
			var set []string
			for _, w := range strings.FieldsFunc(v, func(r rune) bool { return r == '+' || r == ' ' }) { // a "+" in a URL is a blank
				i := slices.IndexFunc(all, func(a string) bool { return strings.EqualFold(a, w) })
				if i < 0 {
					c.add(v, "not made of "+strings.Join(all, ", ")+", joined by +")
					break
				}
				set = append(set, all[i])
			}
			if strings.Trim(v, "+ ") == "" {
				c.add(v, "empty")
			}
			want = append(want, set)
		}
		return func(f *Facts) bool {
			if f.Event == nil {
				return false
			}
			have := of(&f.Event.Tapwall)
			return slices.ContainsFunc(want, func(set []string) bool {
				return !slices.ContainsFunc(set, func(w string) bool { return !slices.Contains(have, w) })
			})
		}
	}
}

// side is one end of the facts.
type side struct {
	*Facts
	source bool
}

func (s side) ip() netip.Addr {
	if s.source {
		return s.Src
	}
	return s.Dst
}

func (s side) port() uint16 {
	if s.source {
		return s.SrcPort
	}
	return s.DstPort
}

func (s side) endpoint() *Endpoint {
	if s.source {
		return s.SrcEndpoint
	}
	return s.DstEndpoint
}

// document is what the document says of the side, which a scan touches last.
func (s side) document() Side {
	of := (*Side)(nil)
	switch {
	case s.Event == nil:
	case s.source:
		of = s.Event.Source
	default:
		of = s.Event.Destination
	}
	if of == nil {
		return Side{}
	}
	return *of
}

func (s side) mac() string    { return s.document().MAC }
func (s side) domain() string { return s.document().Domain }

// ofSide compiles values that are about one end.
type ofSide func(*compiler, []string) func(side) bool

func source(of ofSide) func(*compiler, []string) match {
	return func(c *compiler, values []string) match {
		m := of(c, values)
		return func(f *Facts) bool { return m(side{f, true}) }
	}
}

func destination(of ofSide) func(*compiler, []string) match {
	return func(c *compiler, values []string) match {
		m := of(c, values)
		return func(f *Facts) bool { return m(side{f, false}) }
	}
}

func either(of ofSide) func(*compiler, []string) match {
	return func(c *compiler, values []string) match {
		m := of(c, values)
		return func(f *Facts) bool { return m(side{f, true}) || m(side{f, false}) }
	}
}

// span is a range of numbers.
type span struct{ from, to int }

func in(spans []span, n int) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.from <= n && n <= s.to })
}

// spans reads numbers between least and most, and ranges of them.
func (c *compiler) spans(values []string, least, most int, what string) (out []span) {
	for _, v := range values {
		a, b, isRange := strings.Cut(v, "-")
		if !isRange {
			b = a
		}
		from, err1 := strconv.Atoi(a)
		to, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil || from < least || to > most || from > to {
			c.add(v, fmt.Sprintf("not %s between %d and %d", what, least, most))
			continue
		}
		out = append(out, span{from, to})
	}
	return out
}
