package wall

import (
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// TestDigestsStay: assignments of earlier runs hold digests, and a rule with another digest gets another id, which has its connections
// judged again.
func TestDigestsStay(t *testing.T) {
	s := scope{
		subjects: []*choice{{hash: 1}, {hash: 7}}, peers: []*choice{{hash: 3}},
		services: policy.NewServiceSet([]policy.Service{{Protocol: "tcp", Ports: []string{"80", "8000-8099"}}}),
	}
	seen := map[string]policy.Effect{}
	for e, want := range map[policy.Effect]string{
		policy.Deny: "b6d0e687262e8b2d3ebbc89f076dfd30", policy.Allow: "bee31b2d2df88cd6e238d5b1b9c096f2", policy.Reject: "", policy.Pass: "",
		policy.Audit: "",
	} {
		got := s.hash(policy.RankOf(&policy.Policy{}, &policy.Rule{Action: e}), 0)
		if want != "" && got != want {
			t.Errorf("%s: %s, want %s", e, got, want)
		}
		if seen[got] != "" {
			t.Errorf("%s and %s have one digest", e, seen[got])
		}
		seen[got] = e
	}
}
