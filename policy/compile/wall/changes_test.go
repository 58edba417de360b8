package wall_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestRestartSendsNothingAfterAThousandChanges changes policies, groups and workloads a thousand times and starts another firewall from
// what was persisted of it: each owner has the flows that it had, now and then on the way and at the end.
func TestRestartSendsNothingAfterAThousandChanges(t *testing.T) {
	const changes = 1000
	for seed := range 4 {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rapid.Custom(func(rt *rapid.T) *history {
				h := &history{world: newWorld(t)}
				if seed%2 == 1 { // in both forms
					h.conjoin, h.shares, h.walked, h.surplus = true, seed == 3, 2, 200
					h.start(nil)
				}
				h.randomize(rt, false)
				names, forms := map[string]int{}, map[wall.Form]int{}
				for n := 1; n <= changes; n++ {
					names[h.edit(rt).name]++
					if n%100 == 0 {
						h.compile()
						for _, p := range h.assignments.Policies {
							for _, r := range p {
								forms[r.Form]++
							}
						}
						h.same(t, n)
					} else if rapid.Bool().Draw(rt, "compile") { // else with the next change
						h.compile()
					}
				}
				if n := len(diffOwners(h.owners, h.again(t, nil).owners)); n == 0 {
					t.Errorf("seed %d: a firewall that starts anew has the same flows: the changes meant nothing", seed)
				}
				if h.conjoin && len(forms) != 3 {
					t.Errorf("seed %d: rules by form: %v", seed, forms)
				}
				if len(names) < 20 {
					t.Errorf("seed %d has too few kinds of changes: %v", seed, names)
				}
				return h
			}).Example(seed)
		})
	}
}

// again returns what a firewall makes of the same world that starts with these assignments.
func (h *history) again(t *testing.T, a *wall.Assignments) *world {
	w := &world{
		t: t, workloads: h.workloads, groups: h.groups, policies: h.policies, host: h.host, localMAC: h.localMAC, pickup: h.pickup,
		conjoin: h.conjoin, shares: h.shares,
		walked: h.walked, surplus: h.surplus, sw: h.sw.Fresh(),
		roster: policy.NewRoster(),
	}
	w.start(a)
	return w
}

// same checks that a firewall that starts now has the flows that this one has, and that it has nothing more to persist.
func (h *history) same(t *testing.T, n int) {
	t.Helper()
	persisted := stored(t, h.assignments)
	again := h.again(t, &persisted)
	for owner, diff := range diffOwners(h.owners, again.owners) {
		t.Errorf("after %d changes a restart changed the flows of %s (-before +after):\n%s", n, owner, diff)
	}
	if diff := cmp.Diff(stored(t, *h.fw.Assignments()), stored(t, *again.fw.Assignments())); diff != "" {
		t.Errorf("after %d changes a restart changed assignments (-before +after):\n%s", n, diff)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// diffOwners tells of each owner whose flows are not the same.
func diffOwners(a, b map[string][]flow.Flow) map[string]string {
	out := map[string]string{}
	for _, owners := range []map[string][]flow.Flow{a, b} {
		for owner := range owners {
			if diff := cmp.Diff(texts(a[owner]), texts(b[owner])); diff != "" {
				out[owner] = diff
			}
		}
	}
	return out
}
