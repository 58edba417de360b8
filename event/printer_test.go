package event_test

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tapwall/tapwall/event"
)

// verdict is an event, changed.
func verdict(change func(*event.Event)) *event.Event {
	e := &event.Event{
		Timestamp: noon, Event: event.Meta{Action: event.ActionVerdict},
		Source: &event.Side{IP: "10.0.0.5", Port: 40108}, Destination: &event.Side{IP: "10.0.0.9", Port: 5432},
		Network: &event.Network{Type: "ipv4", Transport: "tcp"}, Observer: &event.Observer{Name: "node1"},
		Rule: &event.Rule{ID: "web/egress/to-db", Name: "to-db", Ruleset: "web"},
		Tapwall: event.Tapwall{
			Verdict: event.Forwarded, Direction: "egress", CT: &event.CT{State: []string{"new", "trk"}}, TCP: &event.TCP{Flags: []string{"SYN",
				"ACK"}},
			Source: &event.Endpoint{Name: "web1", PortName: "tap1"}, Destination: &event.Endpoint{PortName: "tap2"},
			Decode: &event.Decode{Status: "ok"},
		},
	}
	if change != nil {
		change(e)
	}
	return e
}

func TestCompact(t *testing.T) {
	utc := event.PrintOptions{Location: time.UTC}
	for _, tc := range []struct {
		name string
		ev   *event.Event
		opts event.PrintOptions
		want string
	}{
		{"a connection that ended in the second in which it began", verdict(func(e *event.Event) {
			e.Event.Action, e.Event.Reason, e.Event.Duration = event.ActionEnded, event.EndExact, new(int64)
			e.Tapwall.Ended = &event.Ended{How: event.EndClosed}
		}), utc, "Nov 20 12:00:00.123: web1(10.0.0.5):40108 -> tap2(10.0.0.9):5432 connection-ended:web/to-db EGRESS ALLOWED " +
			"(closed in less than 1s)"},
		{"allowed", verdict(nil), utc,
			"Nov 20 12:00:00.123: web1(10.0.0.5):40108 -> tap2(10.0.0.9):5432 policy-verdict:web/to-db EGRESS ALLOWED (TCP Flags: SYN, ACK)"},
		{"numeric, node, own time", verdict(nil), event.PrintOptions{Location: time.UTC, Numeric: true, Node: true, TimeFormat: time.Kitchen},
			"12:00PM [node1]: 10.0.0.5:40108 -> 10.0.0.9:5432 policy-verdict:web/to-db EGRESS ALLOWED (TCP Flags: SYN, ACK)"},
		{"color", verdict(func(e *event.Event) { e.Tapwall.Verdict = event.Dropped }), event.PrintOptions{Location: time.UTC, Color: true},
			"Nov 20 12:00:00.123: web1(10.0.0.5):40108 -> tap2(10.0.0.9):5432 policy-verdict:web/to-db EGRESS \x1b[31mDENIED\x1b[0m (TCP Flags: " +
				"SYN, ACK)"},
		{"reply over IPv6, numeric", verdict(func(e *event.Event) {
			e.Tapwall.CT.State = []string{"est", "rpl", "trk"}
			e.Source.IP, e.Destination.IP = "2001:db8::5", "2001:db8::9"
		}), event.PrintOptions{Location: time.UTC, Numeric: true},
			"Nov 20 12:00:00.123: [2001:db8::5]:40108 <- [2001:db8::9]:5432 policy-verdict:web/to-db EGRESS ALLOWED (TCP Flags: SYN, ACK)"},
		{"icmp, no names", verdict(func(e *event.Event) {
			e.Source.Port, e.Destination.Port = 0, 0
			e.Tapwall.Source, e.Tapwall.Destination, e.Tapwall.TCP = nil, nil, nil
			e.Tapwall.ICMP = &event.ICMP{Type: 8}
		}), utc, "Nov 20 12:00:00.123: 10.0.0.5 -> 10.0.0.9 policy-verdict:web/to-db EGRESS ALLOWED (ICMP type 8 code 0)"},
		{"udp, unknown rule", verdict(func(e *event.Event) {
			e.Tapwall.TCP, e.Network.Transport = nil, "udp"
			e.Rule = &event.Rule{ID: "0x0000beef", Name: "0x0000beef"}
			e.Tapwall.Verdict, e.Tapwall.DropReason, e.Tapwall.Direction = event.Dropped, event.UnknownRule, "ingress"
		}), utc, "Nov 20 12:00:00.123: web1(10.0.0.5):40108 -> tap2(10.0.0.9):5432 policy-verdict:0x0000beef INGRESS DENIED (UDP, UNKNOWN_RULE)"},
		{"not readable", verdict(func(e *event.Event) {
			e.Source, e.Destination, e.Tapwall.CT, e.Tapwall.TCP = nil, nil, nil, nil
			e.Tapwall.Source, e.Tapwall.Destination, e.Network.Transport = nil, nil, ""
			e.Tapwall.Decode = &event.Decode{Status: "failed", Layer: "ethernet", Error: "too small"}
		}), utc, "Nov 20 12:00:00.123: ? <> ? policy-verdict:web/to-db EGRESS ALLOWED (decode failed at ethernet)"},
		{"loss", &event.Event{Timestamp: noon, Tapwall: event.Tapwall{Loss: &event.Loss{
			Stage: "packet_in_meter", Reason: "rate", Count: 1532, First: noon.Add(-time.Second), Last: noon,
		}}}, utc, "Nov 20 12:00:00.123: EVENTS LOST: packet_in_meter - 1532 rate (first: 11:59:59.123, last: 12:00:00.123)"},
		{"loss of unknown size", &event.Event{Timestamp: noon, Tapwall: event.Tapwall{Loss: &event.Loss{
			Stage: "ring_overwrite", Reason: "other_run", First: noon, Last: noon,
		}}}, utc, "Nov 20 12:00:00.123: EVENTS LOST: ring_overwrite - unknown number other_run (first: 12:00:00.123, last: 12:00:00.123)"},
	} {
		if got := event.Compact(tc.ev, tc.opts); got != tc.want {
			t.Errorf("%s:\n got %q\nwant %q", tc.name, got, tc.want)
		}
	}
	if h := event.Header(event.PrintOptions{Node: true}); !strings.Contains(h, "[NODE]") || strings.Contains(event.Header(utc), "[NODE]") {
		t.Errorf("header %q", h)
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                "plain",
		"späßig 例":             "späßig 例",
		"a\x1b[31mb":           `a\x1b[31mb`,
		"a\nb\rc\td":           `a\nb\rc\td`,
		"\x00\x07\x7f":         `\x00\x07\x7f`,
		"\u0085\u009b31m":      `\x85\x9b31m`,
		"\x9b31m":              `\x9b31m`,
		"\u202eevil\u2066":     `\u202eevil\u2066`,
		"\u200bzero\ufeff":     `\u200bzero\ufeff`,
		"\u2028line":           `\u2028line`,
		"\U000e0041tag":        `\U000e0041tag`,
		"bad \xff utf8 \ufffd": "bad \\xff utf8 \ufffd",
	} {
		if got := event.Escape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzCompact puts any text into every place a name or a packet can fill.
func FuzzCompact(f *testing.F) {
	for _, s := range []string{"web1", "\x1b]0;owned\x07", "a\r\nEVENTS LOST", "\u202e", "\xff\xfe", strings.Repeat("n", 255)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := &event.Event{
			Timestamp: noon, Event: event.Meta{Action: s},
			Source: &event.Side{IP: s}, Destination: &event.Side{MAC: s}, Network: &event.Network{Transport: s, IANANumber: s},
			Observer: &event.Observer{Name: s}, Rule: &event.Rule{Name: s, Ruleset: s},
			Tapwall: event.Tapwall{
				Verdict: event.Verdict(s), Direction: s, DropReason: s, CT: &event.CT{State: []string{s}}, TCP: &event.TCP{Flags: []string{s}},
				Source: &event.Endpoint{Name: s}, Destination: &event.Endpoint{PortName: s}, Decode: &event.Decode{Status: s, Layer: s},
			},
		}
		loss := &event.Event{Timestamp: noon, Tapwall: event.Tapwall{Loss: &event.Loss{Stage: s, Reason: s, Count: 1}}}
		for _, line := range []string{
			event.Compact(e, event.PrintOptions{Node: true}), event.Compact(e, event.PrintOptions{Numeric: true}), event.Compact(loss,
				event.PrintOptions{}),
		} {
			if !utf8.ValidString(line) {
				t.Fatalf("%q is not UTF-8", line)
			}
			for _, r := range line {
				if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
					t.Fatalf("%q holds %U", line, r)
				}
			}
		}
	})
}
