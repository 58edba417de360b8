package host_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// A wall that is off on a switch that answers is neither ready nor healthy, for as long as it is off; before and after, it is both.
func TestFault_F24_WallOff(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	refusing := refusals{all: true}
	fake := oftest.NewFake(oftest.FakeOptions{DatapathID: 1, React: refusing.react})
	cfg := owned("br0")
	cfg[0].OpenFlow = fake.Listen(t)
	r := h.ready(settings{bridges: cfg})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	r.eventually("healthy", func() error { return r.unhealthy() })

	var entry flow.Flow
	for _, f := range pipeline.Fixed(pipeline.Options{}) {
		if f.Table == pipeline.TableEntry {
			entry = f
		}
	}
	refusing.set(true) // so that what is missing stays missing
	if err := fake.Change(ofp.FlowDeleteStrict, entry, ofp.FlowModOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("said", func() error {
		ready, healthy := r.Ready(), r.unhealthy()
		for _, err := range []error{ready, healthy} {
			if err == nil || !strings.Contains(err.Error(), "bridge br0: the wall is off") {
				return fmt.Errorf("ready: %v; healthy: %v", ready, healthy)
			}
		}
		return nil
	})
	if s := r.Status(policy.KindPolicy, "p"); s.Phase == policy.PhaseActive {
		t.Errorf("the wall is off, and the policy is %+v", s)
	}
	refusing.set(false)
	r.eventually("ready again", r.Ready)
	r.eventually("healthy again", func() error { return r.unhealthy() })
}

// A switch that does not answer is told of although nothing is asked of it, and its connection is not given up for it.
func TestFault_F24_Silent(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	stuck := make(chan struct{}, 1)
	fake := oftest.NewFake(oftest.FakeOptions{DatapathID: 1, React: func(oftest.Request) oftest.Reaction {
		select {
		case <-stuck:
			return oftest.Reaction{Delay: 5 * time.Second}
		default:
			return oftest.Reaction{}
		}
	}})
	cfg := owned("br0")
	cfg[0].OpenFlow = fake.Listen(t)
	r := h.ready(settings{bridges: cfg})
	resyncs := r.health("br0").Resyncs
	stuck <- struct{}{}
	r.eventually("said", func() error {
		for _, err := range []error{r.Ready(), r.unhealthy()} {
			if err == nil || !strings.Contains(err.Error(), "bridge br0: the switch has not answered for") {
				return fmt.Errorf("%v", err)
			}
		}
		return nil
	})
	r.eventually("ready again", r.Ready)
	if n := r.health("br0").Resyncs; n != resyncs {
		t.Errorf("everything was read back %d times", n-resyncs)
	}
}

// unhealthy returns what System says is wrong.
func (r *run) unhealthy() error {
	r.t.Helper()
	if s := r.System(); !s.Healthy {
		return fmt.Errorf("problems: %s", strings.Join(s.Problems, "; "))
	}
	return nil
}
