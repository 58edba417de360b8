package host_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// A scrape whose client takes one figure and then nothing, for as long as the test lasts, delays no revocation, no event and no status.
func TestSlowReaderDelaysNothing(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))

	m := host.NewMetrics(false)
	figures := make(chan prometheus.Metric) // whoever reports waits for the reader
	scraped := make(chan struct{})
	go func() {
		defer close(scraped)
		r.engine.Collect(m, figures)
	}()
	<-figures
	defer func() { // the rest comes when it is asked for, and is whole
		n := 0
		for {
			select {
			case <-figures:
				n++
				continue
			case <-scraped:
			}
			break
		}
		if n < 10 {
			t.Errorf("the slow scrape got %d figures", n)
		}
	}()

	events, err := r.rec.Subscribe(t.Context(), event.Filter{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if s := r.apply("kind: Policy\nname: p\nspec:\n  appliesTo: [{port: vm1}]\n  ingress: [{name: no, action: deny, from: [{entity: any}]," +
		" log: true}]\n"); s.Phase != policy.PhaseActive {
		t.Errorf("revoked while somebody scrapes: %+v", s)
	}
	h.ovs.InjectPacket("vm2", syn(t, macOf("vm2"), macOf("vm1"), "10.0.0.2", "10.0.0.1", 40000, 80))
	select {
	case x := <-events:
		if x.Rule == nil || x.Rule.Name != "no" {
			t.Errorf("the event of the revocation: %+v", x.Rule)
		}
	case <-time.After(patience):
		t.Error("no event while somebody scrapes")
	}
	if _, err := r.reg.Gather(); err != nil {
		t.Errorf("a second scrape: %v", err)
	}
}
