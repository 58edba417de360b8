package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// TestFault_F16_WaitTellsWhatIsMissing is the exit code and the words of a wait by what was observed; the scripts and test/e2e have it
// with a server.
func TestFault_F16_WaitTellsWhatIsMissing(t *testing.T) {
	host := func(name string, phase policy.Phase, reason policy.Reason, message string) policy.HostStatus {
		return policy.HostStatus{Host: name, Phase: phase, Reason: reason, Message: message}
	}
	nobody := host("h1", policy.PhasePending, policy.ReasonNoEndpoints, "it applies to no endpoint on this host")
	active := host("h2", policy.PhaseActive, "", "")
	behind := host("h3", policy.PhaseDegraded, policy.ReasonDisconnected, "bridge br0: connecting")
	status := func(hosts ...policy.HostStatus) policy.Status {
		return policy.Status{Phase: hosts[0].Phase, Reason: hosts[0].Reason, Message: hosts[0].Message, Hosts: hosts}
	}
	for name, tc := range map[string]struct {
		status policy.Status
		want   string // "" = in force
	}{
		"active":            {status(active), ""},
		"stopped, as asked": {policy.Status{Phase: policy.PhaseStopped}, ""},
		"begins later": {status(host("h1", policy.PhasePending, policy.ReasonScheduled, "it begins at noon"),
			host("h2", policy.PhasePending, policy.ReasonScheduled, "it begins at noon")), ""},
		"selects nobody":               {status(nobody), "policy/p is Pending: NoEndpoints, it applies to no endpoint on this host"},
		"selects nobody on any host":   {status(nobody, nobody), "policy/p is Pending: NoEndpoints, it applies to no endpoint on this host"},
		"selects nobody on one of two": {status(nobody, active), ""},
		"degraded":                     {status(behind), "policy/p is Degraded: Disconnected, bridge br0: connecting"},
		"degraded on one of three": {status(behind, active, nobody),
			"policy/p is Degraded: host h3 Degraded: Disconnected, bridge br0: connecting"},
		"not seen": {policy.Status{Phase: policy.PhasePending, Reason: policy.ReasonNotSeen, Message: "not seen yet"},
			"policy/p is Pending: NotSeen, not seen yet"},
		"a message that breaks the line": {policy.Status{Phase: policy.PhaseFailed, Reason: policy.ReasonRejected, Message: "a\nb"},
			`policy/p is Failed: Rejected, a\nb`},
		"a phase that this program lacks": {policy.Status{Phase: "Confused"}, "policy/p is Confused"},
	} {
		for _, until := range []string{"", waitAccepted, waitInstalled} {
			w := waitFlags{until: until}
			err := w.outcome(nil, waited{"policy/p", &tc.status}, waited{"group/g", &policy.Status{Phase: policy.PhaseActive}},
				waited{"group/unasked", nil})
			switch {
			case until != waitInstalled || tc.want == "":
				if err != nil {
					t.Errorf("%s, --wait=%s: %v", name, until, err)
				}
			case codeOf(err) != exitNotInstalled || err.Error() != "written, but not in force: "+tc.want:
				t.Errorf("%s: code %d, %q", name, codeOf(err), err)
			}
		}
	}
	// Several are named each, also when the server's patience ended.
	w := waitFlags{until: waitInstalled}
	late := &client.Problem{}
	late.Status, late.Detail = 504, "stored, but 2 of them not installed"
	st := status(nobody)
	err := w.outcome(late, waited{"policy/a", &st}, waited{"policy/b", &st})
	if codeOf(err) != exitNotInstalled || strings.Count(err.Error(), "\n") != 2 || !strings.HasPrefix(err.Error(), late.Detail) {
		t.Errorf("code %d, %q", codeOf(err), err)
	}
	if err := w.outcome(client.ErrNotFound, waited{"policy/a", &st}); !errors.Is(err, client.ErrNotFound) || codeOf(err) != exitFailed {
		t.Errorf("a request that failed is %v", err)
	}
}

func TestFailures(t *testing.T) {
	four := func() error { return &exitError{exitNotInstalled, errors.New("late")} }
	for _, tc := range []struct {
		errs []error
		code int
		text string
	}{
		{nil, 0, ""}, {[]error{nil, nil}, 0, ""},
		{[]error{four()}, exitNotInstalled, "late"}, {[]error{four(), nil, four()}, exitNotInstalled, "late\nlate"},
		{[]error{errors.New("no"), four()}, exitFailed, "no\nlate"},
	} {
		var f failures
		for _, err := range tc.errs {
			f.add(err)
		}
		err := f.err()
		if exitCode(t.Context(), false, err) != tc.code || err != nil && err.Error() != tc.text {
			t.Errorf("%v gives %d %v", tc.errs, exitCode(t.Context(), false, err), err)
		}
	}
}
