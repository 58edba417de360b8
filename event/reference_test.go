package event_test

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/event"
)

// pick is a value of a parameter, and an event from few values each, so that one often meets the other.
var (
	someVerdicts = []string{"DROPPED", "denied", "Allowed", "FORWARDED", "AUDITED", "MIRRORED"}
	someTypes    = []string{"verdict", "deny", "allow", "connection", "packet", "dns", "http", "loss",
		"tapwall.flow", "policy-verdict", "change", "notice"}
	someActions = []string{event.ActionVerdict, event.ActionPacket, event.ActionLost, event.ActionPolicyBegan}
	someReasons = []string{"POLICY_DENIED", "policy_denied", "SPOOFED"}
	someNames   = []string{"api.example.com", "web", "db", "tap1", "6a1f", "10.0.0.1", "2001:db8::1",
		"52:54:00:00:00:01", "52-54-00-00-00-02"}
	someLabels = []string{"app=web", "app=db", "app", "tier", "iface-id=6a1f"}
	someIPs    = []string{"10.0.0.1", "10.0.0.0/24", "10.0.0.2/31", "2001:db8::1", "::/0", "::ffff:10.0.0.1"}
	somePorts  = []string{"80", "79-81", "443", "1-65535", "1024-65535"}
	someGlobs  = []string{"*.example.com", "api.example.com", "A*", "*"}
	someMACs   = []string{"52:54:00:00:00:01", "52-54-00-00-00-02", "5254.0000.0001"}
)

// drawFilter draws values that make sense.
func drawFilter(rt *rapid.T) event.Filter {
	of := map[string][]string{
		"verdict": someVerdicts, "type": someTypes, "action": someActions, "drop-reason": someReasons,
		"policy": {"web", "db"}, "rule": {"r1", "web/ingress/r1", "web/r1", "db/r1"}, "mirror": {"m1", "m2"},
		"traffic-direction": {"ingress", "EGRESS"}, "endpoint": someNames, "from": someNames, "to": someNames,
		"label": someLabels, "from-label": someLabels, "to-label": someLabels, "ip": someIPs, "from-ip": someIPs, "to-ip": someIPs,
		"port": somePorts, "from-port": somePorts, "to-port": somePorts, "mac": someMACs, "from-mac": someMACs, "to-mac": someMACs,
		"protocol": {"tcp", "6", "UDP", "icmpv6", "254"}, "ip-version": {"4", "6"}, "tcp-flags": {"SYN", "syn+ack", "ACK", "FIN"},
		"ct-state": {"new", "est+rpl", "EST"}, "bridge": {"br0", "br1"}, "interface": {"tap1", "tap2"}, "node": {"n1", "n2"},
		"vlan": {"0", "7", "1-10"}, "cookie": {"0x7", "0X7", "7", "0x8"}, "community-id": {"1:a", "1:b"}, "event-id": {"id1", "id2"},
		"fqdn": someGlobs, "from-fqdn": someGlobs, "to-fqdn": someGlobs, "dns-query": someGlobs, "sni": someGlobs, "http-host": someGlobs,
		"user": {"root", "0"}, "resource": {"policy/web", "Mirror/m1"},
		"dns-rcode": {"NXDOMAIN", "noerror"}, "http-method": {"GET", "post"}, "http-path": {"/api/*", "/"}, "http-status": {"200", "500-599"},
	}
	var f event.Filter
	draw := func(f *event.Filter, most int) {
		params := event.Params()
		for range rapid.IntRange(0, most).Draw(rt, "filters") {
			p := params[rapid.IntRange(0, len(params)-1).Draw(rt, "param")]
			if of[p.Name] == nil {
				rt.Fatalf("the test knows no values of %s", p.Name)
			}
			*p.List(f) = rapid.SliceOfN(rapid.SampledFrom(of[p.Name]), 1, 2).Draw(rt, p.Name)
		}
	}
	draw(&f, 3)
	var not event.Filter
	if draw(&not, 2); not.Chooses() {
		f.Not = &not
	}
	return f
}

func drawEvent(rt *rapid.T) *event.Event {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, name) }
	maybe := func(name string) bool { return rapid.IntRange(0, 3).Draw(rt, name) > 0 }
	side := func(name string) *event.Side {
		if !maybe(name) {
			return nil
		}
		return &event.Side{IP: pick(name+" ip", "10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", ""),
			Port:   rapid.SampledFrom([]int{0, 80, 81, 443, 40000}).Draw(rt, name+" port"),
			MAC:    pick(name+" mac", "52-54-00-00-00-01", "52-54-00-00-00-02", ""),
			Domain: pick(name+" domain", "", "", "api.example.com", "example.com")}
	}
	endpoint := func(name string) *event.Endpoint {
		if !maybe(name) {
			return nil
		}
		return &event.Endpoint{Name: pick(name+" name", "web", "db", ""), PortName: pick(name+" port", "tap1", "tap2"),
			Labels: rapid.SampledFrom([]map[string]string{nil, {"app": "web"}, {"app": "db", "tier": ""}, {"iface-id": "6a1f"}}).
				Draw(rt, name+" labels")}
	}
	e := &event.Event{
		Timestamp: noon, Source: side("source"), Destination: side("destination"),
		Event: event.Meta{ID: pick("id", "id1", "id2", "id3"), Action: pick("action", someActions...),
			Dataset: pick("dataset", event.DatasetFlow, event.DatasetPacket, event.DatasetLoss, event.DatasetChange),
			Type:    rapid.SampledFrom([][]string{{"connection", "allowed"}, {"connection", "denied"}, {"info"}, nil}).Draw(rt, "type")},
		Tapwall: event.Tapwall{
			Verdict:    event.Verdict(pick("verdict", "DROPPED", "FORWARDED", "AUDIT", "MIRRORED", "")),
			DropReason: pick("reason", "POLICY_DENIED", "SPOOFED", ""), Direction: pick("direction", "ingress", "egress", ""),
			Bridge: pick("bridge", "br0", "br1"), Mirror: pick("mirror", "m1", ""), Cookie: pick("cookie", "0x7", "0x9", ""),
			Source: endpoint("src"), Destination: endpoint("dst"),
		},
	}
	if maybe("network") {
		e.Network = &event.Network{Type: pick("family", "ipv4", "ipv6", ""), Transport: pick("transport", "tcp", "udp", "ipv6-icmp", ""),
			Direction: pick("way", "ingress", "egress", ""), CommunityID: pick("community", "1:a", "1:c")}
		if e.Network.Transport == "" {
			e.Network.IANANumber = pick("number", "254", "253")
		}
		if maybe("vlan") {
			e.Network.VLAN = &event.VLAN{ID: pick("vid", "7", "70")}
		}
	}
	if maybe("rule") {
		rule := func() *event.Rule {
			return &event.Rule{ID: pick("rule id", "web/ingress/r1", "db/ingress/r2"), Name: pick("rule name", "r1", "r2"),
				Ruleset: pick("set", "web", "db")}
		}
		e.Rule = rule()
		if maybe("egress rule") {
			e.Tapwall.EgressRule = rule()
		}
		if maybe("ingress rule") {
			e.Tapwall.IngressRule = rule()
		}
	}
	if maybe("observer") {
		e.Observer = &event.Observer{Name: pick("node", "n1", "n2")}
		if maybe("port") {
			e.Observer.Ingress = &event.Port{Interface: event.Interface{Name: pick("if", "tap1", "tap2")}}
		}
	}
	if maybe("tcp") {
		e.Tapwall.TCP = &event.TCP{Flags: rapid.SampledFrom([][]string{{"SYN"}, {"SYN", "ACK"}, {"FIN", "ACK"}, {}}).Draw(rt, "flags")}
	}
	if maybe("ct") {
		e.Tapwall.CT = &event.CT{State: rapid.SampledFrom([][]string{{"new", "trk"}, {"est", "trk"}, {"est", "rpl", "trk"}}).Draw(rt, "state")}
	}
	switch rapid.IntRange(0, 5).Draw(rt, "l7") {
	case 0:
		e.DNS = &event.DNS{ResponseCode: pick("rcode", "", "NXDOMAIN", "NOERROR"),
			Question: &event.Question{Name: pick("query", "api.example.com", "b")}}
	case 1:
		e.TLS = &event.TLS{Client: &event.TLSClient{ServerName: pick("sni", "", "api.example.com", "xapi.example.com")}}
	case 2:
		e.HTTP = &event.HTTP{Request: &event.HTTPRequest{Method: pick("method", "GET", "POST")}}
		e.URL = &event.URL{Domain: pick("host", "", "api.example.com"), Path: pick("path", "/", "/api/x", "/x/api/")}
	case 3:
		e.HTTP = &event.HTTP{Response: &event.HTTPResponse{StatusCode: rapid.SampledFrom([]int{200, 500, 503, 600}).Draw(rt, "status")}}
	}
	if maybe("notice") {
		e.Tapwall.Notice = &event.Notice{Message: "m", Objects: rapid.SampledFrom([][]string{nil, {"policy/web"}, {"mirror/m1", "policy/web"}}).
			Draw(rt, "objects")}
		if maybe("user") {
			e.User = &event.User{Name: pick("user", "", "root", "eve"), ID: pick("uid", "", "0", "1000")}
		}
	}
	return e
}

// matches is the reference: what the values mean, read off the document, one after another.
func matches(f *event.Filter, e *event.Event) bool {
	for _, p := range event.Params() {
		if values := *p.List(f); len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return says(e, p.Name, v) }) {
			return false
		}
		if f.Not != nil && slices.ContainsFunc(*p.List(f.Not), func(v string) bool { return says(e, p.Name, v) }) {
			return false
		}
	}
	return true
}

// like is a glob, for patterns with one star at most.
func like(pattern, text string) bool {
	pattern, text = strings.ToLower(pattern), strings.ToLower(text)
	begin, end, star := strings.Cut(pattern, "*")
	return text != "" && (!star && text == pattern || star && len(text) >= len(begin)+len(end) && strings.HasPrefix(text, begin) &&
		strings.HasSuffix(text, end))
}

// says tells whether the event has the value of the parameter.
func says(e *event.Event, param, v string) bool {
	src, dst := e.Source, e.Destination
	if src == nil {
		src = &event.Side{}
	}
	if dst == nil {
		dst = &event.Side{}
	}
	network, observer := &event.Network{}, &event.Observer{}
	if e.Network != nil {
		network = e.Network
	}
	if e.Observer != nil {
		observer = e.Observer
	}
	rules := []*event.Rule{e.Rule, e.Tapwall.EgressRule, e.Tapwall.IngressRule}
	ends := []struct {
		*event.Side
		*event.Endpoint
	}{{src, e.Tapwall.Source}, {dst, e.Tapwall.Destination}}
	if of, ok := strings.CutPrefix(param, "from-"); ok || param == "from" {
		ends, param = ends[:1], of
	} else if of, ok := strings.CutPrefix(param, "to-"); ok || param == "to" {
		ends, param = ends[1:], of
	}
	number := func(n int) bool {
		from, to, isRange := strings.Cut(v, "-")
		a, _ := strconv.Atoi(from)
		b, _ := strconv.Atoi(to)
		return n == a || isRange && a <= n && n <= b
	}
	mac := strings.NewReplacer(":", "", "-", "", ".", "").Replace(strings.ToLower(v))
	for _, end := range ends {
		hasMAC := end.MAC != "" && strings.ReplaceAll(strings.ToLower(end.MAC), "-", "") == mac
		switch param {
		case "endpoint", "from", "to":
			if hasMAC || end.IP == v && v != "" || end.Domain == v && v != "" {
				return true
			}
			if x := end.Endpoint; x != nil && (x.Name == v || x.PortName == v || x.Labels["iface-id"] == v) {
				return true
			}
		case "label":
			key, want, pair := strings.Cut(v, "=")
			if x := end.Endpoint; x != nil {
				if have, ok := x.Labels[key]; ok && (!pair || have == want) {
					return true
				}
			}
		case "ip":
			p, err := netip.ParsePrefix(v)
			if err != nil {
				a := netip.MustParseAddr(v).Unmap()
				p = netip.PrefixFrom(a, a.BitLen())
			}
			if a, err := netip.ParseAddr(end.IP); err == nil && p.Contains(a) {
				return true
			}
		case "port":
			if number(end.Port) && end.Port != 0 {
				return true
			}
		case "mac":
			if hasMAC {
				return true
			}
		case "fqdn":
			if like(v, end.Domain) {
				return true
			}
		}
	}
	fold := strings.EqualFold
	isType := func(of string) bool { return slices.Contains(e.Event.Type, of) }
	all := func(have []string) bool {
		for w := range strings.SplitSeq(v, "+") {
			if !slices.ContainsFunc(have, func(h string) bool { return fold(h, w) }) {
				return false
			}
		}
		return true
	}
	switch param {
	case "verdict":
		said := map[string]event.Verdict{"DENIED": event.Dropped, "ALLOWED": event.Forwarded, "AUDITED": event.Audit}
		w := strings.ToUpper(v)
		return e.Tapwall.Verdict == event.Verdict(w) || said[w] != "" && e.Tapwall.Verdict == said[w]
	case "type":
		switch v {
		case "verdict":
			return e.Event.Action == "policy-verdict"
		case "deny":
			return isType("denied")
		case "allow":
			return isType("allowed")
		case "connection":
			return isType("connection")
		case "dns":
			return e.DNS != nil
		case "http":
			return e.HTTP != nil
		case "notice":
			return e.Tapwall.Notice != nil
		}
		return e.Event.Action == v || e.Event.Dataset == v || e.Event.Dataset == "tapwall."+v
	case "action":
		return e.Event.Action == v
	case "drop-reason":
		return fold(e.Tapwall.DropReason, v)
	case "policy":
		return slices.ContainsFunc(rules, func(r *event.Rule) bool { return r != nil && r.Ruleset == v })
	case "rule":
		return slices.ContainsFunc(rules, func(r *event.Rule) bool {
			return r != nil && (r.Name == v || r.ID == v || r.Ruleset+"/"+r.Name == v)
		})
	case "mirror":
		return e.Tapwall.Mirror == v
	case "traffic-direction":
		return fold(e.Tapwall.Direction, v) || e.Tapwall.Direction == "" && fold(network.Direction, v)
	case "protocol":
		said := map[string]string{"6": "tcp", "UDP": "udp", "icmpv6": "ipv6-icmp"}
		if said[v] != "" {
			v = said[v]
		}
		return network.Transport == v || network.Transport == "" && network.IANANumber == v
	case "ip-version":
		if network.Type == "" {
			return src.IP != "" && (v == "6") == strings.Contains(src.IP, ":")
		}
		return network.Type == "ipv"+v
	case "tcp-flags":
		return e.Tapwall.TCP != nil && all(e.Tapwall.TCP.Flags)
	case "ct-state":
		return e.Tapwall.CT != nil && all(e.Tapwall.CT.State)
	case "bridge":
		return e.Tapwall.Bridge == v
	case "interface":
		return observer.Ingress != nil && observer.Ingress.Interface.Name == v
	case "node":
		return observer.Name == v
	case "vlan":
		vlan := 0
		if network.VLAN != nil {
			vlan, _ = strconv.Atoi(network.VLAN.ID)
		}
		return e.Network != nil && number(vlan)
	case "cookie":
		said := map[string]string{"0X7": "0x7", "7": "0x7"}
		return e.Tapwall.Cookie == v || said[v] != "" && e.Tapwall.Cookie == said[v]
	case "user":
		return e.User != nil && (e.User.Name == v || e.User.ID == v)
	case "resource":
		return e.Tapwall.Notice != nil && slices.Contains(e.Tapwall.Notice.Objects, strings.ToLower(v))
	case "community-id":
		return network.CommunityID == v
	case "event-id":
		return e.Event.ID == v
	case "dns-query":
		return e.DNS != nil && like(v, e.DNS.Question.Name)
	case "dns-rcode":
		return e.DNS != nil && fold(e.DNS.ResponseCode, v)
	case "sni":
		return e.TLS != nil && like(v, e.TLS.Client.ServerName)
	case "http-method":
		return e.HTTP != nil && e.HTTP.Request != nil && fold(e.HTTP.Request.Method, v)
	case "http-host":
		return e.URL != nil && like(v, e.URL.Domain)
	case "http-path":
		return e.URL != nil && like(v, e.URL.Path)
	case "http-status":
		return e.HTTP != nil && e.HTTP.Response != nil && number(e.HTTP.Response.StatusCode)
	}
	return false
}

// TestFilterReference holds compiled filters to the reference, and what they say of the text of documents to the documents.
func TestFilterReference(t *testing.T) {
	hits := 0
	rapid.Check(t, func(rt *rapid.T) {
		f := drawFilter(rt)
		m, err := f.Compile()
		if err != nil {
			rt.Fatal(err)
		}
		for range 8 {
			e := drawEvent(rt)
			want := matches(&f, e)
			if got := m.Match(e); got != want {
				rt.Fatalf("%v selects %+v: %v, want %v", f.Values(), e, got, want)
			}
			if !want || !f.Chooses() {
				continue
			}
			hits++
			doc, err := event.AppendJSON(nil, e)
			if err != nil {
				rt.Fatal(err)
			}
			for _, group := range m.Texts() {
				if !slices.ContainsFunc(group, func(text []byte) bool { return strings.Contains(string(doc), string(text)) }) {
					rt.Fatalf("%v selects %s, which has none of %q", f.Values(), doc, group)
				}
			}
		}
	})
	if hits < 20 && !testing.Short() { // a fifth of the checks, and by chance few of them
		t.Errorf("only %d events were selected: the test says little", hits)
	}
}

// TestParams: each parameter can be set, negates, and stands in the documentation.
func TestParams(t *testing.T) {
	docs, err := os.ReadFile("../docs/record.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range event.Params() {
		var f event.Filter
		*p.List(&f) = []string{"x"}
		if f.Values().Get(p.Name) != "x" || !f.Chooses() || !(event.Filter{Not: &f}).Chooses() || p.Doc == "" ||
			!strings.Contains(string(docs), "`"+p.Name+"`") {
			t.Errorf("%s: %v", p.Name, f.Values())
		}
		for _, v := range p.Like {
			*p.List(&f) = []string{v}
			if _, err := f.Compile(); err != nil {
				t.Errorf("%s is offered, and: %v", v, err)
			}
		}
	}
}
