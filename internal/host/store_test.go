package host_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/policy"
)

// A store that cannot be read at the start holds everything up until it can: old ids may not be given again.
func TestNothingBeforeItIsRead(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	r.stop()
	before := h.ovs.Ofctl("dump-flows", "--no-stats", "br0")

	st := &flakyStore{Store: h.st, list: errTest}
	r = h.start(settings{store: st})
	r.eventually("said", func() error {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "bridge br0: read what is kept of it: "+errTest.Error()) {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	if diff := diff(before, h.ovs.Ofctl("dump-flows", "--no-stats", "br0")); diff != "" {
		t.Errorf("flows were changed (-before +after):\n%s", diff)
	}
	st.failList(nil)
	r.eventually("ready", r.Ready)
	if n := r.health("br0").FlowMods; n != 0 {
		t.Errorf("%d flow-mods", n)
	}
}

// What the switch refuses is not Active, not after any number of attempts; when the document is changed, or the switch, all is well.
func TestSwitchRefuses(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	var refusing refusals
	fake := oftest.NewFake(oftest.FakeOptions{DatapathID: 1, React: refusing.react})
	cfg := owned("br0")
	cfg[0].OpenFlow = fake.Listen(t)
	r := h.ready(settings{bridges: cfg})
	r.apply(allow("good", "vm1", "{port: vm2}", "80"))

	refusing.set(true)
	rev := h.put(allow("bad", "vm1", "{port: vm2}", "81"))
	if s := r.wait(policy.KindPolicy, "bad", rev); s.Phase != policy.PhaseFailed && s.ObservedRevision >= rev {
		t.Errorf("refused: %+v", s)
	}
	n := fake.Count(oftest.BundleCommit)
	r.eventually("tried again", func() error {
		if s := r.Status(policy.KindPolicy, "bad"); s.Phase == policy.PhaseActive {
			t.Fatalf("refused, and yet %+v", s)
		}
		if fake.Count(oftest.BundleAdd) < 10 || refusing.count() < 3 {
			return fmt.Errorf("%d attempts after %d commits", refusing.count(), n)
		}
		return nil
	})
	// A revocation beside it is not held up.
	h.drop(policy.KindPolicy, "good")
	r.eventually("revoked", func() error {
		for _, f := range fake.Flows() {
			if strings.Contains(f.String(), "ct_tp_dst=80") {
				return fmt.Errorf("%s", f.String())
			}
		}
		return nil
	})
	if s := r.System(); s.Healthy || !strings.Contains(strings.Join(s.Problems, "; "), "bridge br0: ") {
		t.Errorf("health: %+v", s)
	}
	refusing.set(false)
	r.eventually("active", func() error {
		if s := r.Status(policy.KindPolicy, "bad"); s.Phase != policy.PhaseActive || s.ObservedRevision != rev {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	want := 0
	for _, f := range fake.Flows() {
		if strings.Contains(f.String(), "ct_tp_dst=81") {
			want++
		}
	}
	if want == 0 {
		t.Error("Active, and nothing is installed")
	}
}

// port81 is ct_tp_dst=81 in a match: NXM_NX_CT_TP_DST (class 1, field 125) of two bytes.
var port81 = []byte{0, 1, 125 << 1, 2, 0, 81}

// refusals make a fake switch refuse flows for port 81 while set.
type refusals struct {
	all bool // refuse whatever it is
	mu  sync.Mutex
	on  bool
	n   int
}

func (r *refusals) set(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = on
}

func (r *refusals) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *refusals) react(q oftest.Request) oftest.Reaction {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on && q.Kind == oftest.BundleAdd && (r.all || bytes.Contains(q.Body, port81)) {
		r.n++
		return oftest.Reaction{Error: ofp.TableFull}
	}
	return oftest.Reaction{}
}
