package ofctrl_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// owner is a Switch that owns its bridge, with its flows installed.
type owner struct {
	*running
	o *oftest.OVS

	mu   sync.Mutex
	told map[ofctrl.InterferenceKind]int
	text string
}

func own(t *testing.T, o *oftest.OVS, adjust func(*ofctrl.Options)) *owner {
	w := &owner{o: o, told: map[ofctrl.InterferenceKind]int{}}
	opts := options(o.MgmtAddr("br0"))
	opts.Own = ofctrl.Tables{First: 200, Last: 229}
	opts.OnInterference = func(i ofctrl.Interference) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told[i.What] += i.Count
		w.text += strings.Join(i.Objects, "\n") + "\n"
	}
	if adjust != nil {
		adjust(&opts)
	}
	w.running = run(t, opts)
	w.ready()
	w.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(10), "entry": {{
		Priority: 1, Cookie: testCookie, Actions: []flow.Action{flow.Resubmit{Port: flow.PortInPort, Table: 205}},
	}}}})
	return w
}

// repaired applies nothing new whenever the switch tells of something, until there is nothing to put right.
func (w *owner) repaired(what string, want string) {
	w.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for dump(w.o) != want || w.State().Missing > 0 {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not put right (-want +got):\n%s", what, cmp.Diff(want, dump(w.o)))
		}
		select {
		case <-w.Wake():
			if _, err := w.Apply(w.t.Context(), ofctrl.Update{Revision: 2}); err != nil {
				w.t.Fatalf("%s: %v", what, err)
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Foreign flows in tables of our own go, whatever they look like, and what stood in our places comes back; all else stays.
func TestOwnTables(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	for _, f := range []string{"cookie=0x99,table=203,actions=NORMAL", "cookie=0x99,table=0,priority=1,actions=NORMAL",
		"cookie=0x99,table=199,actions=NORMAL"} {
		o.Ofctl("add-flow", "br0", f)
	}
	w := own(t, o, nil)
	if n := w.State().Stats.ForeignRemoved; n != 2 || w.told[ofctrl.ForeignFlows] != 2 || !strings.Contains(w.text, "table=203") {
		t.Errorf("%d foreign flows removed at the start, told %v %q", n, w.told, w.text)
	}
	want := dump(o)
	if !strings.Contains(want, "table=199") || strings.Contains(want, "table=203") {
		t.Errorf("flows at the start:\n%s", want)
	}
	place := "table=205,priority=1000,tcp,reg8=0,nw_src=10.0.0.2,tp_dst=80"
	for _, tt := range []struct {
		name  string
		ofctl []string
		count int
		what  ofctrl.InterferenceKind
	}{
		{"in a table", []string{"add-flow", "br0", "cookie=0x99,table=203,ip,actions=output:1"}, 1, ofctrl.ForeignFlows},
		{"last table", []string{"add-flow", "br0", "table=229,priority=65535,actions=drop"}, 1, ofctrl.ForeignFlows},
		{"in our place", []string{"add-flow", "br0", "cookie=0x99," + place + ",actions=NORMAL"}, 1, ofctrl.ForeignFlows},
		{"the entry", []string{"add-flow", "br0", "priority=1,actions=NORMAL"}, 1, ofctrl.ForeignFlows},
		{"the entry modified", []string{"--strict", "mod-flows", "br0", "priority=1,actions=NORMAL"}, 1, ofctrl.ChangedFlows},
		{"a field that is not known", []string{"add-flow", "br0", "cookie=0x99,table=206,dl_type=0x894f,nsh_ttl=3,actions=NORMAL"}, 1,
			ofctrl.ForeignFlows},
		{"and our cookie", []string{"add-flow", "br0", fmt.Sprintf("cookie=%#x,table=205,dl_type=0x894f,nsh_ttl=3,actions=NORMAL",
			uint64(testCookie|3))}, 1, ofctrl.ForeignFlows},
		{"wiped", []string{"del-flows", "br0", "table=205"}, 10, ofctrl.ChangedFlows},
	} {
		w.mu.Lock()
		clear(w.told)
		w.text = ""
		w.mu.Unlock()
		o.Ofctl(tt.ofctl...)
		w.repaired(tt.name, want)
		w.mu.Lock()
		if w.told[tt.what] != tt.count || w.text == "" {
			t.Errorf("%s: told %v %q", tt.name, w.told, w.text)
		}
		w.mu.Unlock()
	}
	higher := 0
	o.Ofctl("add-flow", "br0", "cookie=0x99,priority=7,actions=drop")
	w.until("known", func(ofctrl.State) bool {
		higher = 0
		w.Foreign(func(f *flow.Flow) {
			if f.Priority == 7 {
				higher++
			}
		})
		return higher == 1
	})
	if res := w.apply(ofctrl.Update{Revision: 3}); res != (ofctrl.Result{Installed: 3}) {
		t.Errorf("a foreign flow in table 0 that is not in our place: %+v", res)
	}
}

// Whoever fights us gets nowhere and does not keep us busy.
func TestOwnTablesFight(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	w := own(t, o, nil)
	want := dump(o)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if out, err := o.OfctlErr("add-flow", "br0", "cookie=0x99,table=203,actions=NORMAL"); err != nil {
				done <- fmt.Errorf("%w: %s", err, out)
				return
			}
		}
	}()
	wakes, start := 0, time.Now()
	for end := start.Add(2 * time.Second); time.Now().Before(end); {
		select {
		case <-w.Wake():
			wakes++
			_, _ = w.Apply(t.Context(), ofctrl.Update{Revision: 2})
		case <-time.After(time.Until(end)):
		}
	}
	took := time.Since(start)
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.repaired("the fight is over", want)
	n := w.State().Stats.ForeignRemoved
	t.Logf("%d foreign flows removed, %d wake-ups in %v", n, wakes, took)
	if n < 2 || wakes > int(took/(40*time.Millisecond)) {
		t.Errorf("%d foreign flows removed, %d wake-ups in %v", n, wakes, took)
	}
}
