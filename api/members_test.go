package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/policy"
)

// members posts an edit and returns the answer.
func (f *fixture) members(status int, name, body string, headers ...string) (m api.Members, text string) {
	f.t.Helper()
	path := "/v1/groups/" + name + "/members"
	if len(headers) == 1 && headers[0] == "dryRun" {
		path, headers = path+"?dryRun=true", nil
	}
	w := f.must(status, "POST", path, body, headers...)
	if status == 200 {
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
			f.t.Fatal(err)
		}
	}
	return m, w.Body.String()
}

func TestMembers(t *testing.T) {
	f := newFixture(t)
	f.members(404, "feed", `{"add":[]}`)
	f.must(201, "PUT", "/v1/groups/feed",
		`{"spec":{"members":[{"cidr":"10.0.0.0/8"},{"cidr":"2001:DB8::/32"},{"labels":{"a":"1","b":"2"}}]}}`)

	m, text := f.members(200, "feed", `{"add":[{"cidr":"10.0.0.0/8"},{"cidr":"192.0.2.0/24"},{"cidr":"192.0.2.0/24"},
		{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}],
		"remove":[{"cidr":"2001:db8:0::/32"},{"labels":{"b":"2","a":"1"}},{"port":"x"}]}`)
	if m.Added != 2 || m.Present != 2 || m.Removed != 2 || m.Absent != 1 || m.Members != 3 || m.Revision != 3 {
		t.Errorf("%+v", m)
	}
	if strings.Contains(text, "spec") || strings.Contains(text, "cidr") {
		t.Errorf("the answer has members: %s", text)
	}
	got := f.must(200, "GET", "/v1/groups/feed", "").Body.String()
	want := `"members":[{"cidr":"10.0.0.0/8"},{"cidr":"192.0.2.0/24"},{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}]`
	if !strings.Contains(got, want) {
		t.Errorf("it is now %s", got)
	}

	// What changes nothing is not written.
	m, _ = f.members(200, "feed", `{"add":[{"cidr":"10.0.0.0/8"}],"remove":[{"cidr":"10.9.0.0/16"}]}`)
	if m.Revision != 3 || m.Added+m.Removed != 0 {
		t.Errorf("%+v", m)
	}
	f.members(412, "feed", `{"add":[]}`, `If-Match: "2"`)
	f.members(200, "feed", `{"add":[]}`, `If-Match: "3"`)
	f.members(415, "feed", `{"add":[]}`, "Content-Type: text/plain")

	_, text = f.members(200, "feed", `{"remove":[{"cidr":"192.0.2.0/24"}],"add":[{"vm":"x"}]}`, "dryRun")
	for _, want := range []string{`{"pointer":"/spec/members/1","old":{"cidr":"192.0.2.0/24"}}`,
		`{"pointer":"/spec/members/2","new":{"vm":"x"}}`} {
		if !strings.Contains(text, want) {
			t.Errorf("the dry run lacks %s: %s", want, text)
		}
	}
}

func TestMembersFaults(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/feed", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	for _, c := range []struct{ body, want string }{
		{`{"add":[{"cidr":"192.0.2.0/24"},{"cidr":"10.0.0.1/8"}]}`, `"pointer":"/add/1/cidr"`},
		{`{"remove":[{"cidr":"x"}]}`, `"pointer":"/remove/0/cidr"`},
		{`{"remove":[{"group":"X"}]}`, `"pointer":"/remove/0/group"`},
		{`{"add":[{"cidrs":"x"}]}`, `"pointer":"/add/0/cidrs"`},
		{`{"adds":[]}`, `did you mean add`},
		{`{}`, `says nothing to change`},
		{`[]`, `must be a map`},
		{`{"add":[{"cidr":"2001:db8::/32"}],"remove":[{"cidr":"2001:DB8::/32"}]}`, `"pointer":"/remove/0"`},
		// What is there already is not looked at, so the place is that in the body.
		{`{"add":[{"cidr":"10.0.0.0/8"},{"bridge":"br-none"}]}`, `"pointer":"/add/1/bridge"`},
	} {
		if _, text := f.members(422, "feed", c.body); !strings.Contains(text, c.want) {
			t.Errorf("%s: %s", c.body, text)
		}
	}
	f.members(400, "feed", `{"add":[`)
	// A group of endpoints gets an address range where that cannot be used.
	f.must(201, "PUT", "/v1/groups/vms", `{"spec":{"members":[{"vm":"a"}]}}`)
	f.must(201, "PUT", "/v1/policies/p", `{"spec":{"appliesTo":[{"group":"vms"}],"defaultDeny":{"ingress":true}}}`)
	if _, text := f.members(409, "vms", `{"add":[{"cidr":"10.0.0.0/8"}]}`); !strings.Contains(text, "policy/p") {
		t.Error(text)
	}
	f.members(200, "vms", `{"add":[{"vm":"b"}]}`)
}

// Members that are added and removed at the same time are all added and removed.
func TestMembersRace(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/feed", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	f.store.race = func() { f.members(200, "feed", `{"add":[{"cidr":"192.0.2.0/24"}],"remove":[{"cidr":"10.0.0.0/8"}]}`) }
	m, _ := f.members(200, "feed", `{"add":[{"cidr":"198.51.100.0/24"}],"remove":[{"cidr":"10.0.0.0/8"}]}`)
	if m.Members != 2 || m.Absent != 1 {
		t.Errorf("%+v", m)
	}
	f.store.race = func() { f.members(200, "feed", `{"add":[{"cidr":"203.0.113.0/24"}]}`) }
	f.members(412, "feed", `{"add":[{"cidr":"10.1.0.0/16"}]}`, `If-Match: *`)
}

func TestMembersBound(t *testing.T) {
	f := newFixture(t)
	g := &policy.Group{Meta: policy.Meta{Name: "feed", Revision: 1}}
	g.Spec.Members = make([]policy.Selector, policy.MaxMembers)
	for i := range g.Spec.Members {
		g.Spec.Members[i].CIDR = fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255)
	}
	f.store.items[api.Ref{Kind: policy.KindGroup, Name: "feed"}] = g
	if _, text := f.members(422, "feed", `{"add":[{"cidr":"192.0.2.0/24"}]}`); !strings.Contains(text, "500001 members") {
		t.Error(text)
	}
	f.members(200, "feed", `{"add":[{"cidr":"192.0.2.0/24"}],"remove":[{"cidr":"10.0.0.0/32"}]}`)
}

// A group is not deleted while another contains it, and gets no addresses where one that contains it selects endpoints.
func TestNestedGroups(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/leaf", `{"spec":{"members":[{"vm":"a"}]}}`)
	f.must(201, "PUT", "/v1/groups/middle", `{"spec":{"members":[{"group":"leaf"}]}}`)
	f.must(201, "PUT", "/v1/groups/outer", `{"spec":{"members":[{"group":"middle"},{"vm":"b"}]}}`)
	f.must(201, "PUT", "/v1/policies/p", `{"spec":{"appliesTo":[{"group":"outer"}],"defaultDeny":{"ingress":true}}}`)
	if text := f.must(409, "DELETE", "/v1/groups/leaf", "").Body.String(); !strings.Contains(text, "group/middle") {
		t.Error(text)
	}
	if _, text := f.members(409, "leaf", `{"add":[{"cidr":"10.0.0.0/8"}]}`); !strings.Contains(text, "policy/p") {
		t.Error(text)
	}
	if _, text := f.members(422, "leaf", `{"add":[{"vm":"c"},{"group":"outer"}]}`); !strings.Contains(text, `"GROUP_CYCLE"`) ||
		!strings.Contains(text, "leaf > outer > middle > leaf") || !strings.Contains(text, `"/add/1/group"`) {
		t.Error(text)
	}
	// A circle that several documents make together, and with what is there.
	apply := "kind: Group\nname: x\nspec: {members: [{group: y}]}\n---\nkind: Group\nname: y\nspec: {members: [{group: x}]}\n"
	if text := f.must(422, "POST", "/v1/apply", apply, "Content-Type: application/yaml").Body.String(); !strings.Contains(text, "x > y > x") ||
		!strings.Contains(text, "y > x > y") {
		t.Error(text)
	}
	f.must(200, "PUT", "/v1/groups/outer", `{"spec":{"members":[{"vm":"b"}]}}`)
	f.must(200, "PUT", "/v1/groups/middle", `{"spec":{"members":[]}}`)
	f.must(204, "DELETE", "/v1/groups/leaf", "")
}
