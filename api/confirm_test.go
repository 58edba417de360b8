package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

const before = `kind: Group
name: lbs
labels: {set: a}
spec: {members: [{labels: {role: lb}}]}
---
kind: Group
name: old
spec: {members: [{cidr: 10.0.0.0/8}]}
---
kind: Policy
name: web
spec: {appliesTo: [{labels: {app: web}}], ingress: [{name: lb, action: allow, from: [{group: lbs}]}]}
`

// after changes a group, makes another that it deletes none for, and has the policy use it.
const after = `kind: Group
name: lbs
labels: {set: b}
spec: {members: [{labels: {role: other}}]}
---
kind: Group
name: new
labels: {set: b}
spec: {members: [{cidr: 192.0.2.0/24}]}
---
kind: Policy
name: web
labels: {set: b}
spec: {appliesTo: [{labels: {app: web}}], ingress: [{name: lb, action: deny, from: [{group: new}]}]}
`

type told struct {
	sync.Mutex
	actions []string
}

func (x *told) record(e event.Event) {
	x.Lock()
	defer x.Unlock()
	x.actions = append(x.actions, e.Event.Action)
}

func (f *fixture) wishes(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, k := range []string{"groups", "policies"} {
		var page struct {
			Items []struct {
				Name   string
				Labels map[string]string
				Spec   json.RawMessage
			}
		}
		if err := json.Unmarshal(f.must(200, "GET", "/v1/"+k, "").Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, x := range page.Items {
			fmt.Fprintln(&b, k, x.Name, x.Labels, string(x.Spec))
		}
	}
	return b.String()
}

func (f *fixture) outstanding(t *testing.T) (out []api.Confirmation) {
	t.Helper()
	var page struct{ Items []api.Confirmation }
	if err := json.Unmarshal(f.must(200, "GET", "/v1/confirmations", "").Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	return page.Items
}

// What is not confirmed in time is undone: by this process, and by a later one with the same store.
func TestConfirmWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events told
		f := newFixture(t, func(o *api.Options) { o.Record = events.record })
		run := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = f.server.Run(ctx) }()
			return func() { cancel(); <-done }
		}
		stop := run()
		apply(t, f, "", before)
		was := f.wishes(t)

		r := apply(t, f, "?confirmWithin=60s", after)
		if c := r.Confirmation; c == nil || time.Until(c.Until) != 60*time.Second || len(c.Changes) != 3 {
			t.Fatalf("the answer has %+v", c)
		}
		changed := f.wishes(t)
		if changed == was {
			t.Fatal("nothing was changed")
		}
		if w := f.call("POST", "/v1/apply?confirmWithin=60s", after+"---\nkind: Group\nname: x\nspec: {members: [{cidr: 192.0.2.0/25}]}\n",
			"Content-Type: application/yaml"); w.Code != 200 {
			t.Errorf("another apply that changes none of them: %d %s", w.Code, w.Body)
		}
		if w := f.call("POST", "/v1/apply?confirmWithin=60s", strings.ReplaceAll(before, "role: lb", "role: third"),
			"Content-Type: application/yaml"); w.Code != 409 {
			t.Errorf("two confirmations for one resource: %d %s", w.Code, w.Body)
		}
		if n := len(f.outstanding(t)); n != 2 {
			t.Errorf("%d are outstanding", n)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if !strings.Contains(f.wishes(t), "groups new") || len(f.outstanding(t)) != 2 {
			t.Error("undone early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff(was, f.wishes(t)); diff != "" || len(f.outstanding(t)) != 0 {
			t.Errorf("after its time (-want +got)\n%s", diff)
		}

		// The process ends before the time is up, and the next one begins after it.
		apply(t, f, "?confirmWithin=10s&prune=set%3Db", after)
		stop()
		time.Sleep(time.Minute)
		if diff := cmp.Diff(changed, f.wishes(t)); diff != "" {
			t.Errorf("while nobody runs (-want +got)\n%s", diff)
		}
		stop = run()
		synctest.Wait()
		if diff := cmp.Diff(was, f.wishes(t)); diff != "" {
			t.Errorf("by the next process (-want +got)\n%s", diff)
		}

		// Confirmed, it stays.
		id := apply(t, f, "?confirmWithin=10s", after).Confirmation.ID
		f.must(200, "POST", "/v1/confirmations/"+id, "")
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff(changed, f.wishes(t)); diff != "" {
			t.Errorf("confirmed (-want +got)\n%s", diff)
		}
		f.must(404, "POST", "/v1/confirmations/"+id, "")
		f.must(404, "DELETE", "/v1/confirmations/"+id, "")
		stop()
		want := []string{event.ActionConfirming, event.ActionConfirming, event.ActionUndone, event.ActionUndone, event.ActionConfirming,
			event.ActionUndone, event.ActionConfirming, event.ActionConfirmed}
		told := slices.DeleteFunc(events.actions, func(a string) bool { return strings.HasPrefix(a, "resource-") })
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

// What somebody has changed since stays, and what others refer to now.
func TestUndoLeavesWhatOthersDid(t *testing.T) {
	f := newFixture(t)
	apply(t, f, "", before)
	id := apply(t, f, "?confirmWithin=1h", after).Confirmation.ID
	f.must(200, "PUT", "/v1/groups/lbs", `{"spec":{"members":[{"labels":{"role":"mine"}}]}}`)
	f.must(201, "PUT", "/v1/policies/mine",
		`{"spec":{"appliesTo":[{"port":"a"}],"egress":[{"name":"x","action":"allow","to":[{"group":"new"}]}]}}`)
	var u api.Undone
	if err := json.Unmarshal(f.must(200, "DELETE", "/v1/confirmations/"+id, "").Body.Bytes(), &u); err != nil {
		t.Fatal(err)
	}
	want := api.Undone{Restored: []api.ConfirmationChange{{Kind: policy.KindPolicy, Name: "web", Change: "updated"}},
		Left: []api.ConfirmationChange{{Kind: policy.KindGroup, Name: "lbs", Change: "updated"}, {Kind: policy.KindGroup, Name: "new",
			Change: "created"}}}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := f.wishes(t); !strings.Contains(got, `"role":"mine"`) || !strings.Contains(got, `"action":"allow","from":[{"group":"lbs"}]`) {
		t.Errorf("it is now\n%s", got)
	}
}

// Who takes away what a policy named before does not keep it from coming back: a lock-out would stay for good.
func TestAttackUndoWithoutWhatItNamed(t *testing.T) {
	const lockout = `kind: Policy
name: lockout
spec: {appliesTo: [{labels: {app: web}}], ingress: [{name: x, action: deny, from: [{group: new}]}]}
---
kind: Group
name: new
spec: {members: [{cidr: 192.0.2.0/24}]}
---
kind: Policy
name: web
spec: {appliesTo: [{labels: {app: web}}], defaultDeny: {ingress: true}}
---
kind: Group
name: outer
spec: {members: [{labels: {a: b}}]}
`
	prepared := func(t *testing.T) (f *fixture, undo func() string) {
		f = newFixture(t)
		apply(t, f, "", before+"---\nkind: Group\nname: outer\nspec: {members: [{group: old}]}\n")
		id := apply(t, f, "?confirmWithin=1h", lockout).Confirmation.ID
		return f, func() string {
			t.Helper()
			f.must(200, "DELETE", "/v1/confirmations/"+id, "")
			if n := len(f.outstanding(t)); n != 0 {
				t.Errorf("%d are outstanding", n)
			}
			got := f.wishes(t)
			if !strings.Contains(got, `"action":"allow","from":[{"group":"lbs"}]`) {
				t.Errorf("the policy is not as before:\n%s", got)
			}
			if strings.Contains(got, "policies lockout") {
				t.Errorf("what was created stays:\n%s", got)
			}
			return got
		}
	}
	t.Run("the group of a policy is deleted", func(t *testing.T) {
		f, undo := prepared(t)
		f.must(204, "DELETE", "/v1/groups/lbs", "")
		if got := undo(); !strings.Contains(got, `groups outer map[] {"members":[{"group":"old"}`) {
			t.Errorf("the group is not as before:\n%s", got)
		}
	})
	t.Run("the group in a group is deleted", func(t *testing.T) {
		f, undo := prepared(t)
		f.must(204, "DELETE", "/v1/groups/old", "")
		undo()
	})
	t.Run("others use a group that was created", func(t *testing.T) {
		f, undo := prepared(t)
		f.must(201, "PUT", "/v1/policies/mine",
			`{"spec":{"appliesTo":[{"port":"a"}],"egress":[{"name":"x","action":"allow","to":[{"group":"new"}]}]}}`)
		if got := undo(); !strings.Contains(got, "groups new") {
			t.Errorf("the group went, although others use it:\n%s", got)
		}
	})
	t.Run("a group would contain itself", func(t *testing.T) {
		f, undo := prepared(t)
		f.must(200, "PUT", "/v1/groups/old", `{"spec":{"members":[{"group":"outer"}]}}`)
		if got := undo(); strings.Contains(got, `groups outer map[] {"members":[{"group":"old"}`) {
			t.Errorf("two groups contain each other:\n%s", got)
		}
	})
}

func TestConfirmWithinIsChecked(t *testing.T) {
	f := newFixture(t)
	for _, q := range []string{"confirmWithin=0s", "confirmWithin=25h", "confirmWithin=soon", "confirmWithin=60s&dryRun=true"} {
		f.must(422, "POST", "/v1/apply?"+q, before, "Content-Type: application/yaml")
	}
	apply(t, f, "", before)
	if c := apply(t, f, "?confirmWithin=60s", before).Confirmation; c != nil {
		t.Errorf("nothing changed, and %+v is outstanding", c)
	}
	f.store.err = backend.ErrUnavailable
	f.must(503, "POST", "/v1/confirmations/x", "")
}
