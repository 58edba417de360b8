package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// What somebody writes into external_ids, of any size and under any key, costs no event of the port: the small ones are its labels.
func TestEventsOfHugeLabels(t *testing.T) {
	t.Parallel()
	s := openRecording(t, 2, policy.Record{})
	_, err := s.Vsctl("--", "set", "interface", "vm1", "external_ids:big="+strings.Repeat("v", 40_000), `external_ids:"..odd key"=odd`,
		"external_ids:role=client")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "an event has the labels", func() bool {
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
		text := s.tapwall("observe", "-o", "json", "--from-label", "role=client", "--action", "policy-verdict")
		if strings.Contains(text, "vvvv") {
			t.Fatalf("%.300s", text)
		}
		return strings.Contains(text, `"..odd key":"odd"`)
	})
}
