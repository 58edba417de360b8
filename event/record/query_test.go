package record_test

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

func TestFilterMatch(t *testing.T) {
	r, _ := start(t, record.Options{})
	r.HandlePacketIn("br0", newSYN(ingressDrop))
	settle(t, r)
	e := r.Recent(event.Filter{}).Items[0]
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
		if got := len(r.Recent(f).Items) == 1; got != tc.want {
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

func TestQueryPages(t *testing.T) {
	r, _ := start(t, record.Options{Now: func() time.Time { return noon }})
	for i := range 10 {
		pi := newSYN(ingressDrop)
		pi.Time = noon.Add(time.Duration(i) * time.Second)
		r.HandlePacketIn("br0", pi)
	}
	settle(t, r)
	all := r.Recent(event.Filter{})
	if len(all.Items) != 10 || all.Next != "" || !all.Oldest.Equal(noon) {
		t.Fatalf("%d items, next %q, oldest %v", len(all.Items), all.Next, all.Oldest)
	}
	want := ids(all.Items)
	if got := ids(r.Recent(event.Filter{Limit: 3}).Items); !cmp.Equal(got, want[7:]) {
		t.Errorf("the newest three: %v", got)
	}
	first := r.Recent(event.Filter{Limit: 4, First: true})
	if got := ids(first.Items); !cmp.Equal(got, want[:4]) || first.Next != want[3] {
		t.Errorf("the first four: %v, next %s", got, first.Next)
	}
	second := r.Recent(event.Filter{Limit: 6, After: first.Next})
	if got := ids(second.Items); !cmp.Equal(got, want[4:]) || second.Next != "" {
		t.Errorf("the others: %v, next %q", got, second.Next)
	}
	if p := r.Recent(event.Filter{IP: []string{"nonsense"}}); p.Items == nil || len(p.Items) != 0 {
		t.Errorf("an impossible filter selects %v", p.Items)
	}
	empty, _ := start(t, record.Options{})
	none := empty.Recent(event.Filter{})
	none.At = ""
	doc, err := json.Marshal(none)
	if err != nil || string(doc) != `{"items":[]}` {
		t.Errorf("an empty page is %s, %v", doc, err)
	}
}
