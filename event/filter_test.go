package event_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/event"
)

func TestFilterMatch(t *testing.T) {
	r, _ := start(t, event.Options{})
	r.HandlePacketIn("br0", newSYN(ingressDrop))
	settle(t, r)
	e := r.Query(event.Filter{}).Items[0]
	for _, tc := range []struct {
		query string
		want  bool
	}{
		{"", true},
		{"verdict=DROPPED", true},
		{"verdict=dropped,forwarded", true},
		{"verdict=FORWARDED", false},
		{"verdict=FORWARDED&verdict=DROPPED", true},
		{"action=policy-verdict", true},
		{"action=events-lost", false},
		{"bridge=br0", true},
		{"bridge=br1", false},
		{"policy=db", true},
		{"policy=web", false},
		{"rule=deny-all", true},
		{"rule=db/ingress/deny-all", true},
		{"rule=db/egress/deny-all", false},
		{"protocol=TCP", true},
		{"protocol=6", true},
		{"protocol=udp,icmp", false},
		{"ip=10.0.0.9", true},
		{"ip=10.0.0.0/24", true},
		{"ip=::ffff:10.0.0.9", true},
		{"ip=10.0.1.0/24", false},
		{"ip=::/0", false},
		{"from-ip=10.0.0.5", true},
		{"from-ip=10.0.0.9", false},
		{"to-ip=10.0.0.9", true},
		{"to-ip=10.0.0.5,10.0.0.8/31", true},
		{"port=5432", true},
		{"port=40108", true},
		{"port=1", false},
		{"from-port=40108", true},
		{"from-port=5432", false},
		{"to-port=5432", true},
		{"endpoint=web1", true},
		{"endpoint=tap2", true},
		{"endpoint=nobody", false},
		{"from=web1", true},
		{"from=db1", false},
		{"to=db1", true},
		{"since=2026-11-20", true},
		{"since=5m", true},
		{"since=1s", false},
		{"until=1s", true},
		{"until=10m", false},
		{"since=10m&until=now", true},
		{"policy=db&from=web1&to-port=5432&verdict=DROPPED", true},
		{"policy=db&from=db1", false},
	} {
		q, err := url.ParseQuery(tc.query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := event.ParseFilter(q, noon.Add(time.Minute))
		if err != nil {
			t.Errorf("%s: %v", tc.query, err)
			continue
		}
		if got := f.Match(e); got != tc.want {
			t.Errorf("%s: match is %v", tc.query, got)
		}
		// The index beside the ring and the event itself must say the same.
		if got := len(r.Query(f).Items) == 1; got != tc.want {
			t.Errorf("%s: query is %v", tc.query, got)
		}
		// And so must an event that went through JSON.
		doc, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back event.Event
		if err := json.Unmarshal(doc, &back); err != nil {
			t.Fatal(err)
		}
		if got := f.Match(&back); got != tc.want {
			t.Errorf("%s: match of the document is %v", tc.query, got)
		}
	}
}

// A verdict is understood as documents spell it and as Compact prints it.
func TestParseVerdict(t *testing.T) {
	for in, want := range map[string]event.Verdict{
		"FORWARDED": event.Forwarded, "allowed": event.Forwarded, "DENIED": event.Dropped, "Dropped": event.Dropped, "audited": event.Audit, "AUDIT": event.Audit,
		"rejected": event.Rejected, "error": event.Errored,
	} {
		q := url.Values{"verdict": {in}}
		f, err := event.ParseFilter(q, noon)
		if v, ok := event.ParseVerdict(in); !ok || v != want || err != nil || f.Verdict[0] != string(want) {
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
		{"port=70000", []string{`port: "70000" is not a port between 1 and 65535`}},
		{"to-port=http", []string{`to-port: "http" is not a port between 1 and 65535`}},
		{"since=yesterday", []string{`since: "yesterday" is not a time`}},
		{"since=-5m", []string{`since: "-5m" is not a time`}},
		{"since=1m&until=5m", []string{`until: "2026-11-20T11:55:00.123456789Z" is before since`}},
		{"limit=0", []string{`limit: "0" is not between 1 and 10000`}},
		{"limit=10001", []string{`limit: "10001" is not between 1 and 10000`}},
		{"limit=1&limit=2", []string{`limit: "1,2" is given more than once`}},
		{"first=maybe", []string{`first: "maybe" is not true or false`}},
		{"after=7", []string{`after: "7" is not an event id`}},
		{"verdit=DROPPED", []string{`verdit: "DROPPED" is not a known parameter; known are verdict,`}},
		{"verdict=X&port=0&ip=x", []string{`port: "0"`, `verdict: "X"`, `ip: "x"`}},
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
	word := rapid.StringMatching(`[a-z][a-z0-9-]{0,8}`)
	list := func(rt *rapid.T, g *rapid.Generator[string], name string) []string {
		return rapid.SliceOfN(g, 0, 3).Draw(rt, name)
	}
	ports := rapid.SliceOfN(rapid.IntRange(1, 65535), 0, 3)
	ip := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.0/8", "2001:db8::1", "::/0"})
	rapid.Check(t, func(rt *rapid.T) {
		f := event.Filter{
			Verdict: list(rt, rapid.SampledFrom([]string{"DROPPED", "FORWARDED"}), "verdict"),
			Action:  list(rt, word, "action"), Bridge: list(rt, word, "bridge"), Policy: list(rt, word, "policy"),
			Rule: list(rt, word, "rule"), Protocol: list(rt, rapid.SampledFrom([]string{"tcp", "ipv6-icmp", "254"}), "protocol"),
			IP: list(rt, ip, "ip"), FromIP: list(rt, ip, "from-ip"), ToIP: list(rt, ip, "to-ip"),
			Port: ports.Draw(rt, "port"), FromPort: ports.Draw(rt, "from-port"), ToPort: ports.Draw(rt, "to-port"),
			Endpoint: list(rt, word, "endpoint"), FromName: list(rt, word, "from"), ToName: list(rt, word, "to"),
			Limit: rapid.IntRange(0, event.MaxLimit).Draw(rt, "limit"), First: rapid.Bool().Draw(rt, "first"),
		}
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

func TestQueryPages(t *testing.T) {
	r, _ := start(t, event.Options{Now: func() time.Time { return noon }})
	for i := range 10 {
		pi := newSYN(ingressDrop)
		pi.Time = noon.Add(time.Duration(i) * time.Second)
		r.HandlePacketIn("br0", pi)
	}
	settle(t, r)
	all := r.Query(event.Filter{})
	if len(all.Items) != 10 || all.Next != "" || !all.Oldest.Equal(noon) {
		t.Fatalf("%d items, next %q, oldest %v", len(all.Items), all.Next, all.Oldest)
	}
	want := ids(all.Items)
	if got := ids(r.Query(event.Filter{Limit: 3}).Items); !cmp.Equal(got, want[7:]) {
		t.Errorf("the newest three: %v", got)
	}
	first := r.Query(event.Filter{Limit: 4, First: true})
	if got := ids(first.Items); !cmp.Equal(got, want[:4]) || first.Next != want[3] {
		t.Errorf("the first four: %v, next %s", got, first.Next)
	}
	second := r.Query(event.Filter{Limit: 6, After: first.Next})
	if got := ids(second.Items); !cmp.Equal(got, want[4:]) || second.Next != "" {
		t.Errorf("the others: %v, next %q", got, second.Next)
	}
	if p := r.Query(event.Filter{IP: []string{"nonsense"}}); p.Items == nil || len(p.Items) != 0 {
		t.Errorf("an impossible filter selects %v", p.Items)
	}
	empty, _ := start(t, event.Options{})
	doc, err := json.Marshal(empty.Query(event.Filter{}))
	if err != nil || string(doc) != `{"items":[]}` {
		t.Errorf("an empty page is %s, %v", doc, err)
	}
}
