package engine_test

import (
	"testing"
	"time"
)

func TestFirstSync(t *testing.T) {
	t.Parallel()
	h := newHost(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	start := time.Now()
	r := h.ready(settings{})
	t.Logf("ready after %v", time.Since(start))
	h.put(allow("a", "vm1", "{port: vm2}", "80"))
	t.Log(r.apply(allow("b", "vm2", "{port: vm1}", "80")))
	for _, f := range r.flows(struct {
		Bridge, Owner string
		Table         *uint8
		Match         string
		Limit         int
	}{}) {
		t.Log(f)
	}
}
