package record_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

func TestLossEventsAreRare(t *testing.T) {
	begin := time.Now() // before the recorder's clock begins, or a tick more than counted below could be due
	r, stop := start(t, record.Options{LossEvery: 50 * time.Millisecond})
	var n int64
	for time.Since(begin) < 180*time.Millisecond {
		r.AddLoss(event.StagePacketInMeter, event.NoClass, "rate", 3)
		r.AddLoss(event.StageSpoolIO, event.P1, "slow_disk", 1)
		r.AddLoss(event.StageSpoolIO, event.P0, "slow_disk", 1)
		r.AddLoss(event.StageSpoilt, event.P1, "checksum", 0)
		n++
		time.Sleep(time.Millisecond)
	}
	stop()
	limit := int(time.Since(begin)/(50*time.Millisecond)) + 1
	count, sum := map[string]int{}, map[string]int64{}
	for _, e := range r.Recent(event.Filter{Limit: 1000}).Items {
		l := e.Tapwall.Loss
		key := l.Stage + "/" + l.Class
		count[key]++
		sum[key] += l.Count
		if e.Event.Kind != "metric" || e.Event.Action != event.ActionLost || l.First.After(l.Last) || l.Last.After(e.Timestamp) {
			t.Errorf("bad loss event %+v %+v", e.Event, l)
		}
	}
	want := map[string]int64{"packet_in_meter/": 3 * n, "spool_io/P0": 2 * n}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	for k, c := range count {
		if c > limit {
			t.Errorf("%s: %d loss events, at most %d were due", k, c, limit)
		}
	}
}

// Losses of several hosts are told and counted apart; those of the process stay its own.
func TestLossesByHost(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	r, stop := start(t, record.Options{Host: "process", ManyHosts: true, Registry: reg, LossEvery: time.Hour})
	r.AddHostLoss("east", event.StagePacketInMeter, event.NoClass, "rate", 3)
	r.AddHostLoss("west", event.StagePacketInMeter, event.NoClass, "rate", 4)
	r.AddHostLoss("east", event.StagePacketInMeter, event.NoClass, "rate", 2)
	r.AddLoss(event.StageSpoilt, event.P1, "checksum", 1)
	stop()
	told := map[string]int64{}
	for _, e := range r.Recent(event.Filter{Limit: 100}).Items {
		told[e.Observer.Name+" "+e.Tapwall.Loss.Stage] += e.Tapwall.Loss.Count
	}
	want := map[string]int64{"east packet_in_meter": 5, "west packet_in_meter": 4, "process spool_corrupt": 1}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]int64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "tapwall_lost_events_total" {
				host := labels["host"]
				if host == "" {
					host = "process"
				}
				counted[host+" "+labels["stage"]] = int64(m.GetCounter().GetValue())
			}
		}
	}
	if diff := cmp.Diff(want, counted); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if c := r.Counters(); c.Lost["packet_in_meter"] != 9 {
		t.Errorf("%+v", c)
	}
}
