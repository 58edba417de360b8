package host_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// A guard that nobody demanded only tells, for a time, where an earlier version has run before: what it would drop passes, with a warning.
// What was demanded drops, and so does everything on a bridge that is new, and when the time is over.
func TestGuardsTellAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	const endpoints = `kind: Endpoint
name: auto
spec: {match: {port: vm1}, addresses: [10.0.0.1]}
---
kind: Endpoint
name: demanded
spec: {match: {port: vm2}, addresses: [10.0.0.2], antiSpoof: on}
`
	h.put(endpoints)
	// forge has a port send from an address that is not its own, and reports whether it passes.
	forge := func(r *run, port string) bool {
		t.Helper()
		src, err := net.ParseMAC(macOf(port))
		if err != nil {
			t.Fatal(err)
		}
		frame := "ffffffffffff" + hex.EncodeToString(src) + "0800" + "4500001c000000004011" + "6fc2" + "0a00000affffffff" + "0fa01388" +
			"0008" + "0000"
		b, err := hex.DecodeString(frame + strings.Repeat("00", 18))
		if err != nil {
			t.Fatal(err)
		}
		// What the guard lets pass comes to DESTINATION, if only to its last flow.
		passed := func() (n int) {
			h.ovs.Appctl("revalidator/wait")
			h.ovs.Appctl("revalidator/wait")
			for _, m := range regexp.MustCompile(`n_packets=(\d+)`).FindAllStringSubmatch(h.ovs.Ofctl("dump-flows", "br0", "table=202"), -1) {
				k, _ := strconv.Atoi(m[1])
				n += k
			}
			return n
		}
		before := passed()
		h.ovs.InjectPacket(port, b)
		return passed() > before
	}
	codes := func(r *run, name string) []string {
		var out []string
		for _, w := range r.engine.Status(policy.KindEndpoint, name).Warnings {
			out = append(out, string(w.Code))
		}
		return out
	}
	check := func(r *run, what, port, endpoint string, passes bool, code string) {
		t.Helper()
		if got := forge(r, port); got != passes {
			t.Errorf("%s: what %s sends from another's address passes: %v", what, port, got)
		}
		r.eventually("warned", func() error {
			if got := codes(r, endpoint); !slices.Equal(got, []string{code}) {
				return fmt.Errorf("%s: warnings of %s are %v", what, endpoint, got)
			}
			return nil
		})
	}
	r := h.ready(settings{grace: 24 * time.Hour})
	check(r, "a bridge that is new", "vm1", "auto", false, "SPOOFED")
	r.saved()
	r.stop()

	// An earlier version leaves everything but this.
	if err := h.st.PutStates(context.Background(), "test", map[string][]byte{"bridge/br0/guards": nil}); err != nil {
		t.Fatal(err)
	}
	r = h.ready(settings{grace: 24 * time.Hour})
	check(r, "after an upgrade", "vm1", "auto", true, "SPOOF_WOULD_DROP")
	check(r, "after an upgrade", "vm2", "demanded", false, "SPOOFED")
	r.saved()
	r.stop()

	r = h.ready(settings{grace: 24 * time.Hour})
	check(r, "at the next start", "vm1", "auto", true, "SPOOF_WOULD_DROP")
	r.stop()

	r = h.ready(settings{grace: time.Millisecond})
	check(r, "when the time is over", "vm1", "auto", false, "SPOOFED")
}
