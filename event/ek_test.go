package event_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/event"
)

func TestAppendEK(t *testing.T) {
	got, ok := event.AppendEK(nil, verdict(func(e *event.Event) {
		e.Network.VLAN, e.Network.Bytes = &event.VLAN{ID: "7"}, 74
		e.Source.MAC = "02-00-00-00-00-05"
	}))
	want := `{"index":{"_index":"packets-2026-11-20"}}
{"timestamp":"1795176000123","layers":{"eth":{"eth_eth_src":"02:00:00:00:00:05"},"frame":{"frame_frame_len":"74",` +
		`"frame_frame_time_epoch":"1795176000.123456789"},"ip":{"ip_ip_dst":"10.0.0.9","ip_ip_src":"10.0.0.5"},"tcp":{"tcp_tcp_dstport":"5432",` +
		`"tcp_tcp_flags_ack":true,"tcp_tcp_flags_fin":false,"tcp_tcp_flags_push":false,"tcp_tcp_flags_reset":false,"tcp_tcp_flags_syn":true,` +
		`"tcp_tcp_flags_urg":false,"tcp_tcp_srcport":"40108"},"vlan":{"vlan_vlan_id":"7"}}}
`
	if diff := cmp.Diff(want, string(got)); diff != "" || !ok {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, _ = event.AppendEK(nil, verdict(func(e *event.Event) { // a reply is from the other side
		e.Tapwall.CT.State = []string{"est", "rpl"}
		e.DNS = &event.DNS{ID: "7", Question: &event.Question{Name: "a.example"}}
	}))
	for _, part := range []string{`"ip_ip_src":"10.0.0.9"`, `"tcp_tcp_srcport":"5432"`, `"dns_dns_qry_name":"a.example"`} {
		if !strings.Contains(string(got), part) {
			t.Errorf("%s lacks %s", got, part)
		}
	}
	if got, ok := event.AppendEK([]byte("x"), &event.Event{Timestamp: noon}); ok || string(got) != "x" {
		t.Errorf("what is no packet becomes %s", got)
	}
	if got, ok := event.AppendEK(nil, verdict(func(e *event.Event) { e.Tapwall.Ended = &event.Ended{How: event.EndClosed} })); ok {
		t.Errorf("the end of a connection becomes %s", got)
	}
}

func TestRow(t *testing.T) {
	o := event.PrintOptions{Location: time.UTC, Node: true, Rule: true, TimeFormat: event.UnixTime}
	want := []string{"1795176000.123456789", "node1", "web1(10.0.0.5):40108", "-> tap2(10.0.0.9):5432",
		"policy-verdict:web/egress/to-db EGRESS",
		"ALLOWED", "TCP Flags: SYN, ACK"}
	if diff := cmp.Diff(want, event.Row(verdict(nil), o)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	loss := &event.Event{Timestamp: noon, Tapwall: event.Tapwall{Loss: &event.Loss{Stage: "of_queue", Reason: "full", Count: 3, First: noon,
		Last: noon}}}
	o.Node = false
	if row := event.Row(loss, o); row[3] != "EVENTS LOST: of_queue" || !strings.HasPrefix(row[5], "3 full (first: 12:00:00.123") ||
		len(row) != len(event.RowHeader(o)) {
		t.Errorf("%q", row)
	}
}

func TestFields(t *testing.T) {
	for place, want := range map[string]int{"source.ip": 1, "rule": 4, "@timestamp": 1, "tapwall.source.labels": 1,
		"tapwall.source.labels.app.kubernetes.io/name": 1, "sourc": 0, "": 0, "source.": 0} {
		if got, ok := event.Expand(place); len(got) != want || ok != (want > 0) {
			t.Errorf("%q stands for %v", place, got)
		}
	}
	d, err := event.ParseDocument([]byte(`{"a":{"b":1.50,"labels":{"x.y/z":"v","x":"w"}},"l":["p","q"],"o":[{"k":1}],"new":true}`))
	if err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]string{"a.b": "1.50", "a.labels.x.y/z": "v", "a.labels.x": "w", "l": "p,q", "o": `[{"k":1}]`,
		"new": "true", "a.none": "", "none": ""} {
		if got := d.Text(place); got != want {
			t.Errorf("%s is %q, want %q", place, got, want)
		}
	}
	var flat []string
	for _, f := range d.Pick([]string{"a", "a.b", "l", "none"}).Flat() {
		flat = append(flat, f.Place+"="+f.Text)
	}
	if got := strings.Join(flat, " "); got != "a.b=1.50 a.labels.x=w a.labels.x.y/z=v l=p,q" {
		t.Error(got)
	}
}
