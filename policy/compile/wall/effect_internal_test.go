package wall

import (
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// TestDigestsStay: assignments of earlier runs hold digests, and a rule with another digest gets another id, which has its connections
// judged again.
func TestDigestsStay(t *testing.T) {
	s := space{
		subjects: []uint32{1, 7}, peers: peerSet{endpoints: []uint32{3}},
		services: policy.NewServiceSet([]policy.Service{{Protocol: "tcp", Ports: []string{"80", "8000-8099"}}}),
	}
	seen := map[string]policy.Effect{}
	for e, want := range map[policy.Effect]string{
		policy.Deny: "dee75fd0d091022d368aef69d6a09b75", policy.Allow: "96e91af36862d85bbc9363c3e03cb76a", policy.Reject: "", policy.Pass: "",
		policy.Audit: "",
	} {
		got := s.hash(policy.RankOf(&policy.Policy{}, &policy.Rule{Action: e}))
		if want != "" && got != want {
			t.Errorf("%s: %s, want %s", e, got, want)
		}
		if seen[got] != "" {
			t.Errorf("%s and %s have one digest", e, seen[got])
		}
		seen[got] = e
	}
}
