package host_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

func TestWait(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})

	in := func(owner, text string) bool {
		return strings.Contains(h.ovs.Ofctl("dump-flows", "--no-stats", "br0"), text) && len(r.flows(backend.FlowQuery{Owner: owner})) > 0
	}
	rev := h.put(allow("p", "vm1", "{port: vm2}", "80"))
	if s := r.wait(policy.KindPolicy, "p", rev); s.Phase != policy.PhaseActive || s.ObservedRevision != rev ||
		!in("policy/p", "ct_tp_dst=80") {
		t.Errorf("created: %+v", s)
	}
	rev2 := h.put(allow("p", "vm1", "{port: vm2}", "81"))
	if s := r.wait(policy.KindPolicy, "p", rev2); s.ObservedRevision != rev2 || !in("policy/p", "ct_tp_dst=81") ||
		in("policy/p", "ct_tp_dst=80") {
		t.Errorf("updated: %+v", s)
	}
	if s := r.wait(policy.KindPolicy, "p", rev); s.ObservedRevision != rev2 {
		t.Errorf("waiting for an older revision: %+v", s)
	}
	r.remove(policy.KindPolicy, "p")
	if in("policy/p", "ct_tp_dst=81") {
		t.Error("deleted, and still installed")
	}
	if s := r.wait(policy.KindPolicy, "never", 0); s.Phase != "" {
		t.Errorf("waiting for the deletion of what never was: %+v", s)
	}

	if s := r.apply(allow("nobody", "vm9", "{port: vm2}", "80")); s.Phase != policy.PhasePending || s.Reason != policy.ReasonNoEndpoints ||
		s.ObservedRevision == 0 {
		t.Errorf("a policy that selects nobody: %+v", s)
	}
	if s := r.apply("kind: Group\nname: g\nspec: {members: [{port: vm1}]}\n"); s.Phase != policy.PhaseActive {
		t.Errorf("a group: %+v", s)
	}
	if s := r.apply("kind: Endpoint\nname: far\nspec: {match: {port: vm9}, addresses: [10.9.9.9]}\n"); s.Phase != policy.PhaseActive ||
		s.Reason != policy.ReasonElsewhere {
		t.Errorf("an endpoint elsewhere: %+v", s)
	}
	if s := r.apply("kind: Endpoint\nname: nowhere\nspec: {match: {port: vm9}, labels: {app: x}}\n"); s.Phase != policy.PhasePending ||
		s.Reason != policy.ReasonNoPort {
		t.Errorf("an endpoint without a port and without addresses: %+v", s)
	}
	if s := r.apply(localTap); s.Phase != policy.PhaseActive || !strings.Contains(h.ovs.Vsctl("list", "Mirror"), "tapwall-tap") {
		t.Errorf("a mirror: %+v", s)
	}
	r.remove(policy.KindMirror, "tap")
	if out := h.ovs.Vsctl("list", "Mirror"); out != "" {
		t.Errorf("the mirror is gone, but %s", out)
	}
}

// What cannot come true ends with the caller's patience, and says what is missing.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1")...)
	r := h.ready(settings{})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	s, err := r.Wait(ctx, policy.KindPolicy, "p", 99)
	if !errors.Is(err, context.DeadlineExceeded) || s.Reason != policy.ReasonNotSeen {
		t.Errorf("waiting for what is never written: %v, %+v", err, s)
	}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	if _, err := r.Wait(ctx, policy.KindPolicy, "p", 99); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with a context that has ended: %v", err)
	}
}

// While the switch is away a wait goes on; the status says why; it ends when the switch is back. Deletions likewise.
func TestWaitForSwitch(t *testing.T) {
	t.Parallel()
	for _, away := range []struct {
		name       string
		down, back func(h *machine)
		reason     policy.Reason
	}{
		{"killed", func(h *machine) { h.ovs.KillVswitchd() }, func(h *machine) { h.ovs.StartVswitchd() }, policy.ReasonDisconnected},
		{"frozen", func(h *machine) { h.ovs.SignalVswitchd(syscall.SIGSTOP) }, func(h *machine) { h.ovs.SignalVswitchd(syscall.SIGCONT) }, ""},
	} {
		t.Run(away.name, func(t *testing.T) {
			t.Parallel()
			h := newMachine(t, "br0")
			h.plug("br0", vms("vm1", "vm2")...)
			r := h.ready(settings{})
			r.apply(allow("old", "vm1", "{port: vm2}", "80"))
			r.apply(allow("out", "vm1", "{port: vm2}", "88"))
			away.down(h)
			if away.reason != "" {
				r.eventually("noticed", func() error {
					if s := r.Status(policy.KindPolicy, "old"); s.Phase != policy.PhaseDegraded || s.Reason != away.reason {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
			}
			rev := h.put(allow("new", "vm1", "{port: vm2}", "81"))
			h.drop(policy.KindPolicy, "out")
			type outcome struct {
				s   policy.Status
				err error
			}
			done, gone := make(chan outcome, 1), make(chan outcome, 1)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			go func() {
				s, err := r.Wait(ctx, policy.KindPolicy, "new", rev)
				done <- outcome{s, err}
			}()
			go func() {
				s, err := r.Wait(ctx, policy.KindPolicy, "out", 0)
				gone <- outcome{s, err}
			}()
			select {
			case o := <-done:
				t.Errorf("the wait ended without the switch: %+v", o)
			case o := <-gone:
				t.Errorf("the wait for the deletion ended without the switch: %+v", o)
			case <-time.After(300 * time.Millisecond):
			}
			if s := r.Status(policy.KindPolicy, "new"); s.Phase != policy.PhasePending || away.reason != "" && !strings.Contains(s.Message,
				"bridge br0") {
				t.Errorf("while it is away: %+v", s)
			}
			away.back(h)
			if o := <-done; o.err != nil || o.s.Phase != policy.PhaseActive || o.s.ObservedRevision != rev {
				t.Errorf("after it came back: %+v", o)
			}
			if o := <-gone; o.err != nil {
				t.Errorf("deletion, after it came back: %+v", o)
			}
			if text := strings.Join(r.flows(backend.FlowQuery{}), "\n"); !strings.Contains(text, "ct_tp_dst=81") || strings.Contains(text,
				"ct_tp_dst=88") {
				t.Error("the flows are not those of the last documents")
			}
		})
	}
}

// A mirror that failed does not fail the wait for its correction.
func TestWaitIgnoresEarlierFailure(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{store: &flakyStore{Store: h.st, delay: 20 * time.Millisecond}})
	bad := "kind: Mirror\nname: m\nspec: {sources: [{port: vm1}], targets: [{port: {name: vm2}}]}\n"
	for range 5 {
		if s := r.apply(bad); s.Phase != policy.PhaseFailed {
			t.Fatalf("a VM as the target: %+v", s)
		}
		if s := r.apply(strings.ReplaceAll(localTap, "name: tap", "name: m")); s.Phase != policy.PhaseActive {
			t.Fatalf("corrected: %+v", s)
		}
	}
}

// Many writers at once: each wait ends, and what is installed in the end is what a compiler that sees only the last documents makes of them
// with the numbers that were kept.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2", "vm3")...)
	r := h.ready(settings{})
	h.put("kind: Group\nname: g\nspec: {members: [{port: vm3}, {cidr: 10.0.0.0/8}]}\n")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var wg sync.WaitGroup
	const writers = 50
	for i := range writers {
		wg.Go(func() {
			name := fmt.Sprintf("p%02d", i)
			peers := []string{"{port: vm2}", "{group: g}", "{cidr: 192.0.2.0/24}", "{entity: any}"}
			for turn := range 3 {
				rev, err := h.tryPut(allow(name, fmt.Sprintf("vm%d", 1+i%3), peers[(i+turn)%4], fmt.Sprint(1000+10*i+turn)))
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				s, err := r.Wait(ctx, policy.KindPolicy, name, rev)
				if err != nil || s.Phase != policy.PhaseActive || s.ObservedRevision < rev {
					t.Errorf("%s at %d: %v, %+v", name, rev, err, s)
				}
			}
			if i%5 == 0 {
				if _, err := h.st.Commit(ctx, []backend.Change{{Kind: policy.KindPolicy, Name: name}}); err != nil {
					t.Errorf("delete %s: %v", name, err)
				}
				if _, err := r.Wait(ctx, policy.KindPolicy, name, 0); err != nil {
					t.Errorf("delete %s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	r.matchesScratch("br0")
}

// matchesScratch compares what is installed on a bridge with what compile makes of the store's documents with the numbers that the store
// keeps.
func (r *run) matchesScratch(bridge string) {
	r.t.Helper()
	a := r.kept(bridge)
	fw, err := wall.NewFirewall(wall.Options{Bridge: bridge, Assignments: &a.Assignments, BridgeIndex: a.index,
		Record: policy.Record{Connections: policy.RecordAll, Denies: policy.RecordAll}, DNS: true})
	if err != nil {
		r.t.Fatal(err)
	}
	ports := []wall.Port{{Name: bridge, OFPort: local, Tagged: true, Host: true,
		MAC: r.db.Topology().Bridges[bridge].Ports[bridge].Interfaces[0].MACInUse}}
	fw.SetWorkloads(r.Workloads(), ports)
	groups, policies := []*policy.Group{}, []*policy.Policy{}
	for _, kind := range []policy.Kind{policy.KindGroup, policy.KindPolicy} {
		items, _, err := r.h.st.List(context.Background(), kind, "", 0)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, i := range items {
			switch i := i.(type) {
			case *policy.Group:
				groups = append(groups, i)
			case *policy.Policy:
				policies = append(policies, i)
			}
		}
	}
	fw.SetGroups(groups)
	for _, p := range policies {
		fw.SetPolicy(p)
	}
	var want []string
	ch := fw.Compile()
	seen := map[string]bool{}
	for _, fs := range ch.Owners {
		for _, f := range fs {
			if text := f.String(); !seen[text] {
				seen[text] = true
				want = append(want, text)
			}
		}
	}
	if n := len(ch.Assignments.Policies) + len(ch.Assignments.Endpoints); n != 0 {
		for name, p := range ch.Assignments.Policies {
			if diff := diff(a.Policies[name], p); diff != "" {
				r.t.Errorf("ids of policy %s that were kept (-kept +scratch):\n%s", name, diff)
			}
		}
		for key, e := range ch.Assignments.Endpoints {
			if kept := a.Endpoints[key]; e == nil || !reflect.DeepEqual(kept, *e) {
				r.t.Errorf("ids of endpoint %s that were kept: %+v, from scratch %+v", key, kept, e)
			}
		}
	}
	if diff := diff(sortedStrings(want), r.flows(backend.FlowQuery{Bridge: bridge})); diff != "" {
		r.t.Errorf("flows (-from scratch +installed):\n%s", diff)
	}
}

// Effective is an answer of the switch: it comes soon where the switch is there, and not at all while it is frozen.
func TestEffective(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := r.Effective(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.ovs.SignalVswitchd(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.Effective(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen switch: %v", err)
	}
	h.ovs.SignalVswitchd(syscall.SIGCONT)
	if err := r.Effective(t.Context()); err != nil {
		t.Error(err)
	}
}
