package fleet

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func group(name string) backend.Change {
	return backend.Change{Kind: policy.KindGroup, Name: name, Resource: &policy.Group{Meta: policy.Meta{Name: name}}}
}

// A host that takes nothing for a while costs one entry per resource, and finds the newest of each.
func TestFeedMergesWhatWaits(t *testing.T) {
	f := newFeed(nil)
	f.push(backend.Batch{Revision: 1, Snapshot: true, Changes: []backend.Change{group("a"), group("b")}})
	last := group("a")
	for i := range 1000 {
		last = group("a")
		f.push(backend.Batch{Revision: int64(2 + i), Changes: []backend.Change{last}})
	}
	f.push(backend.Batch{Revision: 1002, Changes: []backend.Change{{Kind: policy.KindGroup, Name: "b"}}})
	ctx, cancel := context.WithCancel(t.Context())
	batches := f.Watch(ctx, 0)
	b := <-batches
	if !b.Snapshot || b.Revision != 1002 || len(b.Changes) != 2 || b.Changes[0].Resource != last.Resource || b.Changes[1].Resource != nil {
		t.Errorf("%+v", b)
	}
	f.push(backend.Batch{Revision: 1003, Changes: []backend.Change{group("c")}})
	if b := <-batches; b.Snapshot || b.Revision != 1003 || len(b.Changes) != 1 {
		t.Errorf("%+v", b)
	}
	cancel()
	if b, open := <-batches; open {
		t.Errorf("after the end: %+v", b)
	}
}

func TestClaims(t *testing.T) {
	c := claims{holders: map[string]string{}}
	for i, tc := range []struct{ host, id, refusal string }{
		{"h1", "a", ""},
		{"h1", "a", ""},
		{"h2", "a", "h1 and h2"},
		{"h2", "b", ""},
		{"h1", "b", "h2 and h1"},
		{"h1", "c", ""}, // and gives up a
		{"h2", "a", ""},
	} {
		err := c.claim(tc.host, tc.id)
		if text := fmt.Sprint(err); (err == nil) != (tc.refusal == "") || !strings.Contains(text, tc.refusal) {
			t.Errorf("%d: %s claims %s: %v", i, tc.host, tc.id, err)
		}
	}
}

func TestMerge(t *testing.T) {
	part := func(host string, phase policy.Phase, reason policy.Reason, observed int64, endpoints ...string) policy.Status {
		return policy.Status{Phase: phase, Reason: reason, ObservedRevision: observed, Message: "m",
			Hosts: []policy.HostStatus{{Host: host, Phase: phase, Reason: reason, Endpoints: endpoints}}}
	}
	active := part("h1", policy.PhaseActive, "", 7, "br0/vm1")
	f := &Fleet{hosts: []*host.Engine{nil, nil}}
	for _, tc := range []struct {
		name  string
		other policy.Status
		phase policy.Phase
		text  string
		rev   int64
	}{
		{"both", part("h2", policy.PhaseActive, "", 5), policy.PhaseActive, "m", 5},
		{"nothing there", part("h2", policy.PhasePending, policy.ReasonNoEndpoints, 7), policy.PhaseActive, "m", 7},
		{"no source there", part("h2", policy.PhaseDegraded, policy.ReasonSourceMissing, 7), policy.PhaseActive, "m", 7},
		{"one source missing there", part("h2", policy.PhaseDegraded, policy.ReasonSourceMissing, 7, "br0/vm2"), policy.PhaseDegraded,
			"host h2: m", 7},
		{"under way there", part("h2", policy.PhasePending, policy.ReasonNotInstalled, 0), policy.PhasePending, "host h2: m", 0},
		{"failed there", part("h2", policy.PhaseFailed, policy.ReasonRejected, 7), policy.PhaseFailed, "host h2: m", 7},
	} {
		for range 2 {
			s := f.merge([]policy.Status{active, tc.other})
			if s.Phase != tc.phase || s.Message != tc.text || s.ObservedRevision != tc.rev || len(s.Hosts) != 2 {
				t.Errorf("%s: %+v", tc.name, s)
			}
			s = f.merge([]policy.Status{tc.other, active})
			if s.Phase != tc.phase || s.ObservedRevision != tc.rev {
				t.Errorf("%s, the other way round: %+v", tc.name, s)
			}
		}
	}
	nobody := part("h2", policy.PhasePending, policy.ReasonNoEndpoints, 7)
	if s := f.merge([]policy.Status{nobody, nobody}); s.Phase != policy.PhasePending || s.Reason != policy.ReasonNoEndpoints ||
		s.Message != "m" {
		t.Errorf("nobody anywhere: %+v", s)
	}
}

func TestWarningsOfAllHosts(t *testing.T) {
	shadowed := func(by string) policy.Warning {
		return policy.Warning{Code: policy.WarnShadowed, Policy: "p", By: &policy.RuleRef{Policy: by}}
	}
	other := policy.Warning{Code: "OTHER", Policy: "p"}
	nobody := policy.Warning{Code: host.WarnNoEndpoints, Policy: "p"}
	got := together([][]policy.Warning{{shadowed("everywhere"), shadowed("here"), nobody}, {shadowed("everywhere"), other, other}})
	if len(got) != 2 || got[0].By == nil || got[0].By.Policy != "everywhere" || got[1] != other {
		t.Errorf("%+v", got)
	}
	if got := together([][]policy.Warning{{nobody}, {nobody}}); len(got) != 1 || got[0] != nobody {
		t.Errorf("nobody on any host: %+v", got)
	}
}
