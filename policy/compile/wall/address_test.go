package wall_test

import (
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// What addresses are numbered depends on what is there, not on the order in which a change comes by it: of two lists of which one holds the
// other, one stops and the other begins to be named by two rules.
func TestNumberedWhateverComesFirst(t *testing.T) {
	for range 40 {
		w := newWorld(t)
		const key = "web"
		w.workloads[key] = &policy.Workload{Key: key, Bridge: "br0", Port: "tap-web", OFPort: 1, MAC: "52:54:00:00:00:01"}
		w.tell()
		set := func(name, from string) {
			p := &policy.Policy{Meta: policy.Meta{Name: name}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Port: "tap-web"}},
				Ingress: []policy.Rule{{Name: "r", Action: policy.Allow, From: cidr(from), Services: tcp("80")}}}}
			w.policies[name] = p
			w.fw.SetPolicy(p)
		}
		const narrow, wide = "10.1.0.0/16", "10.0.0.0/8"
		set("a", narrow)
		set("b", narrow)
		set("c", wide)
		w.compile()
		set("b", wide)
		w.compile()
		var numbered []string
		for _, f := range w.flows() {
			if text := f.String(); strings.Contains(text, "table=214") && strings.Contains(text, "ct_nw_src=") {
				numbered = append(numbered, text)
			}
		}
		if len(numbered) != 1 || !strings.Contains(numbered[0], wide) {
			t.Fatalf("numbered are\n%s\nwant %s alone", strings.Join(numbered, "\n"), wide)
		}
	}
}
