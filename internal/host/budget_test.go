package host_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// A write that would take more flows than the host's budget is refused with the figures; what shrinks, or fits, is not.
func TestBudget(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	const budget = 1000
	r := h.ready(settings{maxFlows: budget})
	// rules makes a policy of so many rules, each of some flows.
	rules := func(name string, n int) []backend.Change {
		t.Helper()
		var b strings.Builder
		fmt.Fprintf(&b, "kind: Policy\nname: %s\nspec:\n  appliesTo: [{port: vm1}]\n  ingress:\n", name)
		for i := range n {
			fmt.Fprintf(&b, "  - {name: r%d, action: allow, from: [{cidr: 10.%d.0.0/16}], services: [{protocol: tcp, ports: [\"%d\"]}]}\n", i, i%250,
				1000+i)
		}
		changes, err := parse(b.String())
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	commit := func(changes []backend.Change) {
		t.Helper()
		stored, err := h.st.Commit(t.Context(), changes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Wait(t.Context(), policy.KindPolicy, changes[0].Name, stored[0].GetMeta().Revision); err != nil {
			t.Fatal(err)
		}
	}
	base := r.health("br0").DesiredFlows
	if base >= budget {
		t.Fatalf("%d flows without any policy", base)
	}
	small := rules("small", 20)
	if err := r.Admit(small); err != nil {
		t.Fatalf("it fits: %v", err)
	}
	commit(small)
	if n := r.health("br0").DesiredFlows; n <= base || n > budget {
		t.Fatalf("%d flows with, %d without", n, base)
	}
	large := rules("large", 800)
	err := r.Admit(large)
	if !errors.Is(err, backend.ErrLimit) || !strings.Contains(err.Error(), "its budget is 1000 (limits.flows)") {
		t.Fatalf("%v", err)
	}
	// Somebody has written it all the same: nothing that takes away is refused, and nothing that adds is let in.
	commit(large)
	if n := r.health("br0").DesiredFlows; n <= budget {
		t.Fatalf("%d flows", n)
	}
	if err := r.Admit([]backend.Change{{Kind: policy.KindPolicy, Name: "small"}}); err != nil {
		t.Errorf("a deletion: %v", err)
	}
	if err := r.Admit(rules("large", 700)); err != nil {
		t.Errorf("fewer rules, still too many: %v", err)
	}
	if err := r.Admit(rules("more", 1)); !errors.Is(err, backend.ErrLimit) {
		t.Errorf("one rule more: %v", err)
	}
}
