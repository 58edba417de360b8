package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

func TestParseService(t *testing.T) {
	eight, zero := 8, 0
	u8, u0 := uint8(8), uint8(0)
	tests := []struct {
		name    string
		service policy.Service
		want    policy.ParsedService
		err     string
	}{
		{"OK all ports", policy.Service{Protocol: "tcp"}, policy.ParsedService{Proto: 6}, ""},
		{"OK sorted and joined", policy.Service{Protocol: "udp", Ports: []string{"90-95", "80", "81-89", "7", "92"}},
			policy.ParsedService{Proto: 17, Ports: []policy.PortRange{{Lo: 7, Hi: 7}, {Lo: 80, Hi: 95}}}, ""},
		{"OK whole range", policy.Service{Protocol: "tcp", Ports: []string{"1-65535", "65535"}},
			policy.ParsedService{Proto: 6, Ports: []policy.PortRange{{Lo: 1, Hi: 65535}}}, ""},
		{"OK by name", policy.Service{Protocol: "6", Ports: []string{"https", "ssh", "8000-8099"}, SourcePorts: []string{"unprivileged"}},
			policy.ParsedService{Proto: 6, Ports: []policy.PortRange{{Lo: 22, Hi: 22}, {Lo: 443, Hi: 443}, {Lo: 8000, Hi: 8099}},
				SourcePorts: []policy.PortRange{{Lo: 1024, Hi: 65535}}}, ""},
		{"OK a name with a dash", policy.Service{Protocol: "tcp", Ports: []string{"http-alt"}},
			policy.ParsedService{Proto: 6, Ports: []policy.PortRange{{Lo: 8080, Hi: 8080}}}, ""},
		{"OK icmp", policy.Service{Protocol: "icmp"}, policy.ParsedService{Proto: 1}, ""},
		{"OK icmpv6 type", policy.Service{Protocol: "icmpv6", Type: &eight}, policy.ParsedService{Proto: 58, Type: &u8}, ""},
		{"OK icmp type and code", policy.Service{Protocol: "1", Type: &eight, Code: &zero},
			policy.ParsedService{Proto: 1, Type: &u8, Code: &u0}, ""},
		{"OK sctp", policy.Service{Protocol: "sctp", Ports: []string{"3868"}}, policy.ParsedService{Proto: 132,
			Ports: []policy.PortRange{{Lo: 3868, Hi: 3868}}}, ""},
		{"OK number", policy.Service{Protocol: "255"}, policy.ParsedService{Proto: 255}, ""},
		{"OK gre", policy.Service{Protocol: "gre"}, policy.ParsedService{Proto: 47}, ""},
		{"bad case", policy.Service{Protocol: "TCP"}, policy.ParsedService{}, `unknown protocol "TCP": write tcp`},
		{"bad alias", policy.Service{Protocol: "ipv6-icmp"}, policy.ParsedService{}, `unknown protocol "ipv6-icmp": write icmpv6`},
		{"bad number", policy.Service{Protocol: "256"}, policy.ParsedService{}, "protocol 256 is outside the range 1-255"},
		{"bad negative", policy.Service{Protocol: "-1"}, policy.ParsedService{}, "protocol -1 is outside the range 1-255"},
		{"bad zeros", policy.Service{Protocol: "06"}, policy.ParsedService{}, "write the number without leading zeros: 6"},
		{"bad zero", policy.Service{Protocol: "0"}, policy.ParsedService{},
			"0 announces hop-by-hop options of IPv6 and is no protocol: write the number of the protocol behind them"},
		{"bad icmp port", policy.Service{Protocol: "icmp", Ports: []string{"1"}}, policy.ParsedService{Proto: 1}, "icmp has no ports"},
		{"bad tcp type", policy.Service{Protocol: "tcp", Type: &eight}, policy.ParsedService{Proto: 6}, "tcp has no types and codes"},
		{"bad code alone", policy.Service{Protocol: "icmp", Code: &eight}, policy.ParsedService{Proto: 1, Code: &u8}, "a code goes with a type"},
		{"bad port", policy.Service{Protocol: "tcp", Ports: []string{"0"}}, policy.ParsedService{Proto: 6},
			"port 0 is outside the range 1-65535"},
		{"bad port name", policy.Service{Protocol: "tcp", Ports: []string{"htps"}}, policy.ParsedService{Proto: 6},
			`unknown name "htps": did you mean "https"?`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := policy.ParseService(&tt.service)
			if text := errText(err); text != tt.err {
				t.Fatalf("error %q, want %q", text, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" && tt.err == "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestEveryNameOfServicesIsAccepted(t *testing.T) {
	for _, name := range policy.ProtocolNames() {
		n, err := policy.Protocol(name).Number()
		if err != nil || policy.ProtocolName(n) != name {
			t.Errorf("%s is protocol %d, which is %s: %v", name, n, policy.ProtocolName(n), err)
		}
	}
	for name, r := range policy.PortNames() {
		if got, err := policy.ParsePortRange(name); err != nil || got != r || r.Lo == 0 || r.Lo > r.Hi {
			t.Errorf("%s is %v, want %v: %v", name, got, r, err)
		}
	}
}

func TestProtocolIsNumberOrText(t *testing.T) {
	const doc = "kind: Policy\nname: p\nspec:\n  appliesTo: [{port: a}]\n  ingress: [{name: r, action: allow, services: [{protocol: %s}]}]\n"
	for text, want := range map[string]policy.Protocol{"112": "112", `"112"`: "112", "vrrp": "vrrp"} {
		docs, err := policy.Load(strings.NewReader(fmt.Sprintf(doc, text)))
		if err != nil {
			t.Errorf("%s: %+v", text, err)
			continue
		}
		if got := docs[0].Resource.(*policy.Policy).Spec.Ingress[0].Services[0].Protocol; got != want {
			t.Errorf("%s is read as %q", text, got)
		}
		b, err := policy.EncodeJSON(docs[0].Resource)
		if err != nil {
			t.Fatal(err)
		}
		again, faults := policy.CheckJSON(policy.KindPolicy, b)
		if faults != nil {
			t.Errorf("%s: %v", b, faults)
		} else if diff := cmp.Diff(docs[0].Resource, again); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
	for _, text := range []string{"true", "[tcp]", "1.5", "1e2", "-1", "0x11", "256"} {
		_, err := policy.Load(strings.NewReader(fmt.Sprintf(doc, text)))
		if err == nil || !strings.Contains(err.Error(), "/services/0/protocol: ") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNeverMatches(t *testing.T) {
	for text, want := range map[string]string{
		"protocol: icmp":                         "",
		"protocol: icmp, type: 8":                "",
		"protocol: icmp, type: 13, code: 0":      "",
		"protocol: icmpv6, type: 128":            "",
		"protocol: icmp, type: 3, code: 4":       `rule "r" (ingress, allow) of policy "p" matches no icmp type 3 code 4: errors and`,
		"protocol: icmp, type: 0":                "answers pass with the request",
		"protocol: icmp, type: 17":               "conntrack knows no connections of that type",
		"protocol: icmp, type: 8, code: 1":       "requests have code 0",
		"protocol: icmpv6, type: 1":              "errors and redirects",
		"protocol: icmpv6, type: 129":            "answers pass",
		"protocol: icmpv6, type: 135":            "neighbour discovery",
		"protocol: icmpv6, type: 128, code: 255": "requests have code 0",
	} {
		s := scene(t, "kind: Policy\nname: p\nspec:\n  appliesTo: [{port: a}]\n  ingress: [{name: r, action: allow, services: [{"+text+"}]}]\n")
		got := policy.NeverMatches(s.Policies[0])
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || got[0].Code != policy.WarnNeverMatches ||
			got[0].Rule != "ingress/r" || !strings.Contains(got[0].Message, want)) {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestEvaluateServices(t *testing.T) {
	s := scene(t, `
kind: Policy
name: p
spec:
  appliesTo: [{labels: {app: web}}]
  ingress:
  - name: r
    action: allow
    services:
    - {protocol: tcp, ports: [https], sourcePorts: ["1024-65535"]}
    - {protocol: udp, sourcePorts: [ntp]}
    - {protocol: icmp, type: 8, code: 0}
    - {protocol: icmp, type: 13}
    - {protocol: icmpv6, type: 128}
    - {protocol: 112}
    - {protocol: sctp, ports: ["3868"]}
`)
	for text, want := range map[string]bool{
		"192.0.2.1 > web1 tcp 1024>443": true, "192.0.2.1 > web1 tcp 1023>443": false, "192.0.2.1 > web1 tcp 1024>444": false,
		"192.0.2.1 > web1 udp 123>9": true, "192.0.2.1 > web1 udp 9>123": false,
		"192.0.2.1 > web1 icmp 8/0": true, "192.0.2.1 > web1 icmp 8/1": false, "192.0.2.1 > web1 icmp 13/7": true,
		"192.0.2.1 > web1 icmp 15/0":              false,
		"2001:db8::9 > web1@fd00::1 icmpv6 128/0": true, "2001:db8::9 > web1@fd00::1 icmpv6 129/0": false,
		"2001:db8::9 > web1@fd00::1 icmp 8/0": false, "192.0.2.1 > web1 icmpv6 128/0": false, // not of that IP version
		"192.0.2.1 > web1 vrrp": true, "192.0.2.1 > web1 gre": false,
		"192.0.2.1 > web1 sctp 9>3868": true, "192.0.2.1 > web1 sctp 3868>9": false,
	} {
		if got := policy.Evaluate(s, packet(t, s, text)); got.Effect.Passes() != want {
			t.Errorf("%s: %s", text, verdict(got))
		}
	}
}

// A service set is what its services are, packet by packet, and so is what is computed of two of them.
func TestServiceSetsAreTheirServices(t *testing.T) {
	type point struct {
		proto    uint8
		src, dst uint16
	}
	var all []point
	for _, proto := range []uint8{policy.ProtoICMP, policy.ProtoTCP, policy.ProtoUDP, policy.ProtoICMPv6, policy.ProtoSCTP, 47, 112, 200} {
		for src := range uint16(7) {
			for dst := range uint16(7) {
				all = append(all, point{proto, src, dst})
			}
		}
	}
	has := func(services []policy.Service, p point) bool {
		return len(services) == 0 || slices.ContainsFunc(services, func(s policy.Service) bool {
			x, err := policy.ParseService(&s)
			if err != nil {
				panic(err)
			}
			in := func(rs []policy.PortRange, port uint16) bool {
				return rs == nil || slices.ContainsFunc(rs, func(r policy.PortRange) bool { return r.Contains(port) })
			}
			return x.Proto == p.proto && in(x.Ports, p.dst) && in(x.SourcePorts, p.src) &&
				(x.Type == nil || uint16(*x.Type) == p.src) && (x.Code == nil || uint16(*x.Code) == p.dst)
		})
	}
	var inside, apart, met, equal int
	one := func(t *rapid.T) {
		draw := func(name string) ([]policy.Service, policy.ServiceSet) {
			services := rapid.SliceOfN(rapid.Custom(drawService), 0, 4).Draw(t, name)
			return services, policy.NewServiceSet(services)
		}
		a, A := draw("a")
		b, B := draw("b")
		if len(a) > 0 && rapid.Bool().Draw(t, "more") { // or hardly any would be within another
			b = append(b, a[rapid.IntRange(0, 1).Draw(t, "from")%len(a):]...)
			B = policy.NewServiceSet(b)
		}
		shuffled := policy.NewServiceSet(append(rapid.Permutation(a).Draw(t, "shuffled"), a...))
		if !A.Equal(&shuffled) {
			t.Fatalf("in another order %+v is %+v", A, shuffled)
		}
		minus := A.Minus(&B)
		within, overlaps, same := true, false, len(a) > 0 == (len(b) > 0)
		for _, p := range all {
			inA, inB := has(a, p), has(b, p)
			if A.Has(p.proto, p.src, p.dst) != inA {
				t.Fatalf("%v is in %+v: %v", p, A, !inA)
			}
			within = within && (!inA || inB)
			overlaps = overlaps || inA && inB
			same = same && inA == inB
			// Of all of a protocol, or of everything, more may be left.
			whole := A.Any || A.Of(p.proto) != nil && A.Of(p.proto).All()
			left := minus.Has(p.proto, p.src, p.dst)
			if inA && !inB && !left || left && !inA || left && inB && !whole {
				t.Fatalf("%v in a %v, in b %v, in a minus b %v", p, inA, inB, left)
			}
		}
		if A.Within(&B) != within && !(B.Any || A.Any) {
			t.Fatalf("%+v within %+v: %v", A, B, !within)
		}
		if A.Overlaps(&B) != overlaps || B.Overlaps(&A) != overlaps {
			t.Fatalf("%+v overlaps %+v: %v", A, B, !overlaps)
		}
		if A.Equal(&B) != same {
			t.Fatalf("%+v equals %+v: %v", A, B, !same)
		}
		count := func(n *int, yes bool) {
			if yes {
				*n++
			}
		}
		count(&inside, within && len(b) > 0)
		count(&apart, !within)
		count(&met, overlaps && !within)
		count(&equal, same && len(a) > 0)
	}
	for rapid.Check(t, one); !t.Failed() && apart < 1000 && (inside < 5 || met < 5); { // with few draws it takes some luck
		rapid.Check(t, one)
	}
	if t.Logf("%d inside, %d not, %d of them overlap; %d equal", inside, apart, met, equal); inside < 5 || met < 5 {
		t.Error("hardly tested")
	}
}
