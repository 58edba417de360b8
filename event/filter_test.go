package event_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/event"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

// A verdict is understood as documents spell it and as Compact prints it.
func TestParseVerdict(t *testing.T) {
	for in, want := range map[string]event.Verdict{
		"FORWARDED": event.Forwarded, "allowed": event.Forwarded, "DENIED": event.Dropped, "Dropped": event.Dropped, "audited": event.Audit,
		"AUDIT":    event.Audit,
		"rejected": event.Rejected, "error": event.Errored,
	} {
		q := url.Values{"verdict": {in}}
		f, err := event.ParseFilter(q, noon)
		if v, ok := event.ParseVerdict(in); !ok || v != want || err != nil {
			t.Errorf("%s is %q, %v, and as a filter %v, %v", in, v, ok, f.Verdict, err)
		}
		if !(event.Filter{Verdict: []string{in}}).Match(&event.Event{Tapwall: event.Tapwall{Verdict: want}}) {
			t.Errorf("--verdict %s does not select %s", in, want)
		}
		line := event.Compact(&event.Event{Tapwall: event.Tapwall{Verdict: want}}, event.PrintOptions{})
		if v, ok := event.ParseVerdict(line[strings.LastIndexByte(line, ' ')+1:]); !ok || v != want {
			t.Errorf("what is printed in %q is %q", line, v)
		}
	}
}

func TestParseFilterErrors(t *testing.T) {
	for _, tc := range []struct {
		query string
		want  []string // parameter: begin of the text
	}{
		{"verdict=DENYED", []string{`verdict: "DENYED" is not one of FORWARDED, ALLOWED, DROPPED, DENIED,`}},
		{"ip=10.0.0", []string{`ip: "10.0.0" is not an address or CIDR`}},
		{"from-ip=10.0.0.0/33", []string{`from-ip: "10.0.0.0/33" is not an address or CIDR`}},
		{"to-ip=fe80::1%25eth0", []string{`to-ip: "fe80::1%eth0" is not an address or CIDR`}},
		{"port=70000", []string{`port: "70000" is not a port or range between 1 and 65535`}},
		{"to-port=http", []string{`to-port: "http" is not a port or range between 1 and 65535`}},
		{"port=90-80", []string{`port: "90-80" is not a port or range between 1 and 65535`}},
		{"vlan=4095", []string{`vlan: "4095" is not a VLAN or range between 0 and 4094`}},
		{"type=denied", []string{`type: "denied" is not one of verdict, allow, deny, connection,`}},
		{"action=policy_verdict", []string{`action: "policy_verdict" is not one of policy-verdict, connection-ended,`}},
		{"drop-reason=x", []string{`drop-reason: "x" is not one of POLICY_DENIED, QUARANTINE,`}},
		{"tcp-flags=SYN,ACKS", []string{`tcp-flags: "ACKS" is not made of FIN, SYN,`}},
		{"tcp-flags=%2B", []string{`tcp-flags: "+" is empty`}},
		{"ct-state=est%2Bx", []string{`ct-state: "est+x" is not made of new, est,`}},
		{"protocol=tpc", []string{`protocol: "tpc" is not a number below 256 or one of icmp, igmp, tcp, udp,`}},
		{"protocol=256", []string{`protocol: "256" is not a number below 256`}},
		{"ip-version=5", []string{`ip-version: "5" is not one of 4, 6`}},
		{"traffic-direction=in", []string{`traffic-direction: "in" is not one of ingress, egress`}},
		{"mac=52:54", []string{`mac: "52:54" is not a MAC, like 52:54:00:12:34:56`}},
		{"cookie=x", []string{`cookie: "x" is not a cookie`}},
		{"label=%3Dx", []string{`label: "=x" is not a label`}},
		{"not.port=0", []string{`not.port: "0" is not a port or range`}},
		{"not.since=5m", []string{`not.since: "5m" is not a known parameter`}},
		{"not.not.port=1", []string{`not.not.port: "1" is not a known parameter`}},
		{"since=yesterday", []string{`since: "yesterday" is not a time`}},
		{"since=-5m", []string{`since: "-5m" is not a time`}},
		{"since=1m&until=5m", []string{`until: "2026-11-20T11:55:00Z" is before since, 2026-11-20T11:59:00Z`}},
		{"limit=0", []string{`limit: "0" is not between 1 and 10000`}},
		{"limit=10001", []string{`limit: "10001" is not between 1 and 10000`}},
		{"limit=1&limit=2", []string{`limit: "1,2" is given more than once`}},
		{"first=maybe", []string{`first: "maybe" is not true or false`}},
		{"after=7", []string{`after: "7" is not an event id`}},
		{"verdit=DROPPED", []string{`verdit: "DROPPED" is not a known parameter; known are verdict,`}},
		{"verdict=X&port=0&ip=x", []string{`port: "0"`, `verdict: "X"`, `ip: "x"`}},
		{"bridge=" + strings.Repeat("b,", event.MaxValues+1), []string{`bridge: "b,…" is the first of 1001 values: give 1000 at most`}},
		{"not.port=" + strings.Repeat("x,", event.MaxValues+1), []string{`not.port: "x,…" is the first of 1001 values: give 1000 at most`}},
		{"port=x&ip=x", []string{`port: "x"`, `ip: "x"`}},
	} {
		q, err := url.ParseQuery(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = event.ParseFilter(q, noon)
		var got []string
		for _, p := range event.ParamErrors(err) {
			got = append(got, p.Error())
		}
		if len(got) != len(tc.want) {
			t.Errorf("%s: got %q, want %q", tc.query, got, tc.want)
			continue
		}
		for _, w := range tc.want {
			found := false
			for _, g := range got {
				found = found || strings.HasPrefix(g, w)
			}
			if !found {
				t.Errorf("%s: got %q, want %q", tc.query, got, w)
			}
		}
	}
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]time.Time{
		"now": noon, "0s": noon, "90s": noon.Add(-90 * time.Second), "1h30m": noon.Add(-90 * time.Minute), "2d": noon.AddDate(0, 0, -2),
		"1d12h": noon.Add(-36 * time.Hour), "2026-01-02": time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		"2026-01-02T03:04:05.5Z": time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC),
	} {
		got, err := event.ParseTime(in, noon)
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "5", "d", "-1d", "5m ago", "1d-2h", "99999999d", "12:00"} {
		if got, err := event.ParseTime(in, noon); err == nil {
			t.Errorf("%q is taken for %v", in, got)
		}
	}
}

// TestFilterValues: a filter survives being a query.
func TestFilterValues(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := drawFilter(rt)
		f.Limit, f.First = rapid.IntRange(0, event.MaxLimit).Draw(rt, "limit"), rapid.Bool().Draw(rt, "first")
		if rapid.Bool().Draw(rt, "times") {
			f.Since, f.Until = noon.Add(-time.Hour), noon
			f.After = event.ID{Install: rapid.Uint32().Draw(rt, "install"), Epoch: 3, Sequence: rapid.Int64Min(0).Draw(rt, "seq")}.String()
		}
		got, err := event.ParseFilter(f.Values(), noon)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(f, got, cmpopts.EquateEmpty()); diff != "" {
			rt.Errorf("%v (-want +got):\n%s", f.Values(), diff)
		}
	})
}

// TestGlob holds patterns to regular expressions, which know bytes that are no text no better than to refuse them.
func TestGlob(t *testing.T) {
	is := func(pattern, text string) bool {
		e := &event.Event{TLS: &event.TLS{Client: &event.TLSClient{ServerName: text}}}
		return event.Filter{SNI: []string{pattern}}.Match(e)
	}
	rapid.Check(t, func(rt *rapid.T) {
		pattern := rapid.StringMatching(`[aAb.*]{1,6}`).Draw(rt, "pattern")
		text := rapid.StringMatching(`[aBb.]{1,6}`).Draw(rt, "text")
		like := regexp.MustCompile(`(?i)^` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `$`)
		if got, want := is(pattern, text), like.MatchString(text); got != want {
			rt.Errorf("%s is like %s: %v, want %v", text, pattern, got, want)
		}
	})
	for _, pattern := range []string{"\xff", "*\xff*", strings.Repeat("a*", 30_000) + "b", strings.Repeat("*", 60_000) + "b"} {
		if is(pattern, strings.Repeat("a", 255)) {
			t.Errorf("%.20q is like a text of other letters", pattern)
		}
	}
	if !is(strings.Repeat("*a", 255), strings.Repeat("A", 255)) {
		t.Error("a pattern of many stars finds nothing")
	}
}

// Times far away from any event are before or behind all, and none wraps around.
func TestFarTimes(t *testing.T) {
	e := &event.Event{Timestamp: noon}
	for query, want := range map[string]bool{
		"until=9999-12-31": true, "since=9999-12-31": false, "until=2262-04-12": true, "since=1600-01-01": true, "until=1600-01-01": false,
		"since=1969-12-31": true, "until=1970-01-01": false, "since=0001-01-02&until=9999-12-31": true,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := event.ParseFilter(q, noon)
		if err != nil || f.Match(e) != want {
			t.Errorf("%s: %v, want %v (%v)", query, f.Match(e), want, err)
		}
	}
}
