package search

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
)

// known are events of the last minutes that questions are asked about: vm1 (10.77.0.1) and vm3 talk to vm2, vm1 to the internet.
func known(now time.Time) []event.Event {
	at := func(ago time.Duration, e event.Event) event.Event {
		e.Timestamp = now.Add(-ago)
		return e
	}
	vm := func(n int) (*event.Side, *event.Endpoint) {
		return &event.Side{IP: fmt.Sprintf("10.77.0.%d", n), Port: 40000 + n}, &event.Endpoint{Name: fmt.Sprintf("vm%d", n)}
	}
	verdict := func(from int, to event.Side, toName, rule string, v event.Verdict) event.Event {
		src, name := vm(from)
		policy, _, _ := strings.Cut(rule, "/")
		e := event.Event{
			Event: event.Meta{Action: event.ActionVerdict, Dataset: event.DatasetFlow, Type: []string{"connection", "allowed"},
				Outcome: "success"},
			Source: src, Destination: &to, Network: &event.Network{Transport: "tcp", Type: "ipv4"},
			Rule:    &event.Rule{ID: rule, Name: rule[strings.LastIndex(rule, "/")+1:], Ruleset: policy},
			Tapwall: event.Tapwall{Verdict: v, Source: name, Bridge: "br0"},
		}
		if toName != "" {
			e.Tapwall.Destination = &event.Endpoint{Name: toName}
		}
		if v == event.Dropped {
			e.Event.Type, e.Event.Outcome, e.Event.Reason = []string{"connection", "denied"}, "failure", event.PolicyDenied
			e.Tapwall.DropReason, e.Tapwall.Direction = event.PolicyDenied, "ingress"
		}
		return e
	}
	said := func(action string, e event.Event) event.Event {
		e.Source, e.Tapwall.Source = vm(1)
		e.Event = event.Meta{Action: action, Dataset: event.DatasetPacket}
		return e
	}
	var out []event.Event
	for range 5 {
		to := event.Side{IP: "10.77.0.2", Port: 80}
		out = append(out, at(2*time.Minute, verdict(1, to, "vm2", "web/ingress/from-clients", event.Forwarded)))
	}
	for range 3 {
		out = append(out, at(time.Minute, verdict(3, event.Side{IP: "10.77.0.2", Port: 22}, "vm2", "web/ingress/default-deny", event.Dropped)))
	}
	// vm3 could reach port 443 of vm2 until five minutes ago.
	for range 4 {
		out = append(out, at(8*time.Minute, verdict(3, event.Side{IP: "10.77.0.2", Port: 443}, "vm2", "web/ingress/tls", event.Forwarded)))
	}
	for range 2 {
		out = append(out,
			at(time.Minute, verdict(3, event.Side{IP: "10.77.0.2", Port: 443}, "vm2", "web/ingress/default-deny", event.Dropped)),
			at(3*time.Minute, verdict(1, event.Side{IP: "192.0.2.7", Port: 443, Domain: "api.example.com"}, "", "out/egress/any",
				event.Forwarded)))
	}
	question := &event.Question{Name: "api.example.com", Type: "A"}
	out = append(out,
		at(3*time.Minute, said(event.ActionDNSQuery, event.Event{DNS: &event.DNS{ID: "1", Type: "query", Question: question}})),
		at(3*time.Minute, said(event.ActionDNSResponse, event.Event{DNS: &event.DNS{ID: "1", Type: "answer", Question: question,
			ResponseCode: "NXDOMAIN", ResolvedIP: []string{"192.0.2.7"}}})),
		at(3*time.Minute, said(event.ActionClientHello, event.Event{TLS: &event.TLS{Client: &event.TLSClient{ServerName: "api.example.com"}}})),
		at(3*time.Minute, said(event.ActionHTTPRequest, event.Event{HTTP: &event.HTTP{Request: &event.HTTPRequest{Method: "GET"}},
			URL: &event.URL{Domain: "web.example.com", Path: "/"}})),
		at(5*time.Minute, event.NewChange(event.ActionUndone, event.Notice{Message: "an apply was undone", Count: 1, By: "root"})),
		at(5*time.Minute, event.Event{Event: event.Meta{Kind: "metric", Action: event.ActionLost, Dataset: event.DatasetLoss, Reason: "meter"},
			Tapwall: event.Tapwall{Loss: &event.Loss{Stage: string(event.StagePacketInMeter), Reason: "meter", Count: 7, First: now, Last: now}}}))
	return out
}

// asked is a record of the known events, all of them in the index under the prefix that people have unless they choose another.
func asked(t *testing.T, now time.Time) {
	t.Helper()
	r := newRig(t, "tapwall", nil)
	for _, e := range known(now) {
		r.rec.Record(e)
	}
	r.drained(20 * time.Second)
}

// Each chart of the dashboards asks the server for something that it can answer, and finds what was put there.
func TestDashboardsFind(t *testing.T) {
	asked(t, time.Now())
	want := map[string]string{ // chart: first bucket of its first terms, and what it counts
		"verdicts": "FORWARDED 11", "denying-rules": "web/ingress/default-deny 5", "denied-over-time": "web 5", "denied-sources": "10.77.0.3 5",
		"reasons": "POLICY_DENIED 5", "rules": "web/ingress/from-clients 5", "talkers": "10.77.0.3 9", "ports": "tcp 16",
		"dns-names": "api.example.com 1", "dns-failures": "NXDOMAIN 1", "server-names": "api.example.com 1", "http-hosts": "web.example.com 1",
		"domains": "api.example.com 2", "applications": "dns-query 1", "audit-actions": "apply-undone 1", "audit-people": "root 1",
		"losses-by-stage": "packet_in_meter 7", "by-dataset": "tapwall.flow 16",
	}
	b, err := os.ReadFile("../../examples/opensearch/dashboards.ndjson")
	must(t, err)
	titles, searches := map[string]string{}, 0
	for line := range strings.Lines(string(b)) {
		var o struct {
			Type, ID   string
			Attributes struct {
				Title, VisState string
				Meta            struct{ SearchSourceJSON string } `json:"kibanaSavedObjectMeta"`
			}
			References []struct{ Type, ID string }
		}
		must(t, json.Unmarshal([]byte(line), &o))
		var source struct{ Query struct{ Query string } }
		if o.Attributes.Meta.SearchSourceJSON != "" {
			must(t, json.Unmarshal([]byte(o.Attributes.Meta.SearchSourceJSON), &source))
		}
		query := map[string]any{"match_all": map[string]any{}}
		if q := source.Query.Query; q != "" {
			query = map[string]any{"query_string": map[string]any{"query": q, "analyze_wildcard": true}}
		}
		switch o.Type {
		case "index-pattern":
			titles[o.ID] = o.Attributes.Title
		case "search":
			searches++
			text, err := json.Marshal(query)
			must(t, err)
			if n, err := server.Count(titles[o.References[0].ID], string(text)); err != nil || n == 0 {
				t.Errorf("%s finds %d (%v)", o.ID, n, err)
			}
		case "visualization":
			id := strings.TrimPrefix(o.ID, "tapwall-")
			if got := first(t, titles[o.References[0].ID], query, o.Attributes.VisState); got != want[id] {
				t.Errorf("%s finds %q, want %q", id, got, want[id])
			}
			delete(want, id)
		}
	}
	if len(want) != 0 || searches != 5 {
		t.Errorf("%d searches; there are no charts %v", searches, want)
	}
}

// first asks what a chart does and returns the first bucket of its first terms, added up over time.
func first(t *testing.T, index string, query map[string]any, visState string) string {
	t.Helper()
	var vis struct {
		Aggs []struct {
			ID, Type string
			Params   struct {
				Field, Order string
				Size         int
			}
		}
	}
	must(t, json.Unmarshal([]byte(visState), &vis))
	metric, aggs := vis.Aggs[0], map[string]any{}
	if metric.Type == "sum" {
		aggs["m"] = map[string]any{"sum": map[string]any{"field": metric.Params.Field}}
	}
	for i := len(vis.Aggs) - 1; i > 0; i-- {
		a := vis.Aggs[i]
		body := map[string]any{"field": a.Params.Field, "size": a.Params.Size, "order": map[string]any{"_count": a.Params.Order}}
		if a.Type == "date_histogram" {
			body = map[string]any{"field": a.Params.Field, "fixed_interval": "36500d", "min_doc_count": 1}
		}
		aggs = map[string]any{"b": map[string]any{a.Type: body, "aggs": aggs}}
		if metric.Type == "sum" {
			aggs["m"] = map[string]any{"sum": map[string]any{"field": metric.Params.Field}}
		}
	}
	body, err := json.Marshal(map[string]any{"size": 0, "query": query, "aggs": aggs})
	must(t, err)
	type bucket struct {
		Key   any
		Count int `json:"doc_count"`
		M     struct{ Value float64 }
		B     struct{ Buckets []json.RawMessage }
	}
	var answer struct {
		Aggregations struct {
			B struct{ Buckets []json.RawMessage }
		}
	}
	must(t, server.JSON("POST", "/"+index+"/_search", string(body), &answer))
	buckets := answer.Aggregations.B.Buckets
	for level := 1; len(buckets) > 0; level++ {
		var b bucket
		must(t, json.Unmarshal(buckets[0], &b))
		if vis.Aggs[level].Type == "terms" {
			if metric.Type == "sum" {
				return fmt.Sprint(b.Key, " ", b.M.Value)
			}
			return fmt.Sprint(b.Key, " ", b.Count)
		}
		buckets = b.B.Buckets
	}
	return ""
}
