package ofctrl_test

import (
	"errors"
	"testing"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// The primary role goes to who claimed it last. The one before can read and not write, who never claimed it can do both.
func TestClaim(t *testing.T) {
	o := startOVS(t)
	first, second, equal := run(t, options(o.MgmtAddr("br0"))), run(t, options(o.MgmtAddr("br0"))), run(t, options(o.MgmtAddr("br0")))
	role := func(r *running) ofp.Role {
		t.Helper()
		got, err := r.Role(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	claim := func(r *running) {
		t.Helper()
		if err := r.Claim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*running{first, second, equal} {
		r.ready()
		if got := role(r); got != ofp.RoleEqual {
			t.Errorf("before anybody claims: %v", got)
		}
	}
	claim(first)
	first.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(3)}})
	claim(second)
	if f, s, e := role(first), role(second), role(equal); f != ofp.RoleSecondary || s != ofp.RolePrimary || e != ofp.RoleEqual {
		t.Errorf("the roles are %v, %v, %v", f, s, e)
	}
	if _, err := first.Apply(t.Context(), ofctrl.Update{Revision: 2, Owners: map[string][]flow.Flow{"a": flows(2)}}); !errors.Is(err,
		ofp.IsSecondary) {
		t.Errorf("a change by the secondary: %v", err)
	}
	if n := count(o); n != 3 {
		t.Errorf("it left %d flows", n)
	}
	claim(first)
	first.apply(ofctrl.Update{Revision: 3, Owners: map[string][]flow.Flow{"a": flows(1)}})
	if n := count(o); n != 1 {
		t.Errorf("primary again, it left %d flows", n)
	}
	if got := role(second); got != ofp.RoleSecondary {
		t.Errorf("the second is %v then", got)
	}
}
