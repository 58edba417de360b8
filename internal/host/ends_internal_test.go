package host

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// What a line of conntrack says of whether its connection has ended, and when.
func TestTrackedEnds(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	topo := &vswitch.Topology{Datapaths: map[string]vswitch.Datapath{
		"netdev": {Zones: map[int]vswitch.Zone{7: {Policy: &vswitch.TimeoutPolicy{Timeouts: map[string]int{"tcp_close": 12}}}}},
		"system": {Zones: map[int]vswitch.Zone{7: {Policy: &vswitch.TimeoutPolicy{Timeouts: map[string]int{"tcp_close": 12}}}}},
	}}
	const tuples = "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=2,packets=3,bytes=300),reply=(src=10.0.0.2,dst=10.0.0.1,sport=2," +
		"dport=1,packets=4,bytes=4000),id=0,zone="
	for _, tc := range []struct {
		name, line, kind string
		closed           bool
		before           time.Duration // the last packet of one that is closed; -1 = not known
	}{
		{"open", tuples + "1,timeout=86399,protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED)", "netdev", false, 0},
		{"not answered", tuples + "1,timeout=29,protoinfo=(state_orig=SYN_SENT,state_reply=CLOSED)", "netdev", false, 0},
		{"half closed", tuples + "1,timeout=899,protoinfo=(state_orig=FIN_WAIT_2,state_reply=ESTABLISHED)", "netdev", false, 0},
		{"both sides closing", tuples + "1,timeout=44,protoinfo=(state_orig=CLOSING,state_reply=CLOSING)", "netdev", false, 0},
		{"closed", tuples + "1,timeout=21,protoinfo=(state_orig=FIN_WAIT_2,state_reply=FIN_WAIT_2)", "netdev", true, 9 * time.Second},
		{"reset", tuples + "1,timeout=30,protoinfo=(state_orig=TIME_WAIT,state_reply=TIME_WAIT)", "netdev", true, 0},
		{"closed in a zone with a timeout", tuples + "7,timeout=10,protoinfo=(state_orig=FIN_WAIT_2,state_reply=FIN_WAIT_2)", "netdev", true,
			2 * time.Second},
		{"of a timeout that is not the zone's", tuples + "7,timeout=21,protoinfo=(state_orig=TIME_WAIT,state_reply=TIME_WAIT)", "netdev",
			true, -1},
		{"closed in the kernel", tuples + "1,timeout=119,protoinfo=(state_orig=TIME_WAIT,state_reply=TIME_WAIT)", "system", true, -1},
		{"UDP", "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=2,packets=3,bytes=300),reply=(src=10.0.0.2,dst=10.0.0.1,sport=2,dport=1," +
			"packets=4,bytes=4000),id=0,zone=1,timeout=3", "netdev", false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x, err := unixctl.ParseEntry(tc.line)
			if err != nil {
				t.Fatal(err)
			}
			l := endsLook{v: &view{topo: topo}, kind: tc.kind}
			want := record.Tracked{Closed: tc.closed, Sent: record.Traffic{Packets: 3, Bytes: 300},
				Returned: record.Traffic{Packets: 4, Bytes: 4000}}
			if tc.closed && tc.before >= 0 {
				want.Last = at.Add(-tc.before)
			}
			if got := l.tracked(x, at); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// A zone is spoken of when ends of it are not told any more and when they are again, and a look that fails changes nothing of that.
func TestTellEnds(t *testing.T) {
	r, err := record.NewRecorder(record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	e := &Engine{opt: Options{Recorder: r}, log: slog.New(slog.DiscardHandler)}
	host := "h"
	l := &link{cfg: BridgeConfig{Name: "br0"}}
	l.host.Store(&host)
	stopped := func(zones ...int) map[int]string {
		out := map[int]string{}
		for _, z := range zones {
			out[z] = fmt.Sprint("too many in ", z)
		}
		return out
	}
	for _, x := range []struct {
		now  *endsTold
		said string
	}{
		{&endsTold{stopped: stopped()}, ""},
		{&endsTold{stopped: stopped(1, 2)}, "too many in 1; too many in 2"},
		{&endsTold{stopped: stopped(2)}, "too many in 2"},
		{&endsTold{stopped: stopped(), trouble: "no answer"}, "no answer; too many in 2"},
		{&endsTold{stopped: stopped(wholeDatapath)}, "too many in -1"},
		{nil, ""},
	} {
		e.tellEnds(l, x.now)
		if said := l.ends.Load().String(); said != x.said {
			t.Errorf("%q, want %q", said, x.said)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	var told []string
	for _, x := range r.Recent(event.Filter{Limit: 100}).Items {
		told = append(told, x.Event.Action)
	}
	const stop, again = event.ActionEndsStopped, event.ActionEndsResumed
	if want := []string{stop, stop, again, stop, again, again}; !slices.Equal(told, want) {
		t.Errorf("%v, want %v", told, want)
	}
}
