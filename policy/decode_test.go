package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy"
)

const everything = `
kind: Mirror
name: web-tap
labels: {team: net}
spec:
  enabled: true
  sources: [{port: tap123}, {labels: {app: web}}, {vlan: 10}]
  direction: both
  targets:
  - {vxlan: {remote: 192.0.2.9, vni: 129057, dstPort: 4789}}
---
# a comment between documents
---
kind: Policy
name: web
spec:
  tier: application
  priority: 100
  appliesTo: [{labels: {app: web}}]
  ingress:
  - {name: from-lb, action: allow, from: [{group: lbs}, {cidr: 10.0.0.0/24, except: [10.0.0.9/32]}], services: [{protocol: tcp, ports: ` +
	`["80", "8000-8099"]}], log: true}
  defaultDeny: {ingress: true, egress: false}
  notBefore: null
---
kind: Group
name: lbs
spec: {members: [{labels: {role: lb}}, {cidr: 10.0.5.0/24}], onMemberRemoved: keep}
---
kind: Endpoint
name: vm1
uid: 8d0c
revision: 12
createdAt: 2026-01-31T12:00:00+01:00
status: {phase: Active, whatever: [1, 2]}
spec: {match: {port: tap123}, labels: {app: web}, addresses: [10.0.0.5, "2001:db8::5"]}
`

func everythingAsValues() []policy.Resource {
	return []policy.Resource{
		&policy.Mirror{
			Meta: policy.Meta{Name: "web-tap", Labels: map[string]string{"team": "net"}},
			Spec: policy.MirrorSpec{
				Enabled:   new(true),
				Sources:   []policy.Selector{{Port: "tap123"}, {Labels: map[string]string{"app": "web"}}, {VLAN: new(10)}},
				Direction: "both",
				Targets:   []policy.MirrorTarget{{VXLAN: &policy.VXLANTarget{Remote: "192.0.2.9", VNI: new(129057), DstPort: 4789}}},
			},
		},
		&policy.Policy{
			Meta: policy.Meta{Name: "web"},
			Spec: policy.PolicySpec{
				Tier: "application", Priority: new(100),
				AppliesTo: []policy.Selector{{Labels: map[string]string{"app": "web"}}},
				Ingress: []policy.Rule{{
					Name: "from-lb", Action: "allow", Log: policy.RuleLog{All: true},
					From:     []policy.Selector{{Group: "lbs"}, {CIDR: "10.0.0.0/24", Except: []string{"10.0.0.9/32"}}},
					Services: []policy.Service{{Protocol: "tcp", Ports: []string{"80", "8000-8099"}}},
				}},
				DefaultDeny: &policy.DefaultDeny{Ingress: new(true), Egress: new(false)},
			},
		},
		&policy.Group{
			Meta: policy.Meta{Name: "lbs"},
			Spec: policy.GroupSpec{Members: []policy.Selector{{Labels: map[string]string{"role": "lb"}}, {CIDR: "10.0.5.0/24"}},
				OnMemberRemoved: policy.OnMemberRemovedKeep},
		},
		&policy.Endpoint{
			Meta: policy.Meta{Name: "vm1", UID: "8d0c", Revision: 12, CreatedAt: time.Date(2026, 1, 31, 11, 0, 0, 0, time.UTC)},
			Spec: policy.EndpointSpec{Match: policy.Selector{Port: "tap123"}, Labels: map[string]string{"app": "web"},
				Addresses: []string{"10.0.0.5", "2001:db8::5"}},
		},
	}
}

func resources(docs []policy.Document) []policy.Resource {
	var out []policy.Resource
	for _, d := range docs {
		out = append(out, d.Resource)
	}
	return out
}

func TestDecode(t *testing.T) {
	docs, err := policy.DecodeYAML(strings.NewReader(everything))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	want := everythingAsValues()
	if diff := cmp.Diff(want, resources(docs)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var lines []int
	for _, d := range docs {
		lines = append(lines, d.Index, d.Line)
	}
	if diff := cmp.Diff([]int{1, 2, 2, 14, 3, 25, 4, 29}, lines); diff != "" {
		t.Errorf("numbers and lines of documents (-want +got)\n%s", diff)
	}

	t.Run("from JSON one after another and as a list", func(t *testing.T) {
		var stream, items []string
		for _, r := range want {
			text, err := policy.EncodeJSON(r)
			if err != nil {
				t.Fatal(err)
			}
			stream, items = append(stream, string(text)), append(items, string(text))
		}
		for _, text := range []string{
			strings.Join(stream, "\n"),
			`{"kind": "List", "items": [` + strings.Join(items, ",\n") + `], "next": ""}`,
			`{"items": [` + strings.Join(items, ",\n") + `]}`,
		} {
			for name, decode := range map[string]func(io.Reader) ([]policy.Document, error){"JSON": policy.DecodeJSON, "Load": policy.Load} {
				again, err := decode(strings.NewReader(text))
				if err != nil {
					t.Fatalf("%s: %+v\n%s", name, err, text)
				}
				if diff := cmp.Diff(want, resources(again)); diff != "" {
					t.Errorf("%s (-want +got)\n%s", name, diff)
				}
			}
		}
	})
	t.Run("from a tree of encoding/json", func(t *testing.T) {
		for _, r := range want {
			text, err := policy.EncodeJSON(r)
			if err != nil {
				t.Fatal(err)
			}
			var tree any
			if err := json.Unmarshal(text, &tree); err != nil {
				t.Fatal(err)
			}
			got, faults := policy.CheckValue(r.Kind(), tree)
			if faults != nil {
				t.Fatalf("%+v", faults)
			}
			if diff := cmp.Diff(r, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		}
	})
}

func TestEncode(t *testing.T) {
	const text = `kind: Mirror
name: web-tap
labels:
  team: net
spec:
  enabled: true
  sources: [{port: tap123}, {labels: {app: web}}, {vlan: 10}]
  direction: both
  targets: [{vxlan: {remote: 192.0.2.9, vni: 129057, dstPort: 4789}}]
---
kind: Policy
name: web
spec:
  tier: application
  priority: 100
  appliesTo: [{labels: {app: web}}]
  ingress:
  - name: from-lb
    action: allow
    from: [{group: lbs}, {cidr: 10.0.0.0/24, except: [10.0.0.9/32]}]
    services: [{protocol: tcp, ports: ["80", "8000-8099"]}]
    log: true
  defaultDeny: {ingress: true, egress: false}
---
kind: Group
name: lbs
spec:
  members: [{labels: {role: lb}}, {cidr: 10.0.5.0/24}]
  onMemberRemoved: keep
---
kind: Endpoint
name: vm1
uid: "8d0c"
revision: 12
createdAt: "2026-01-31T11:00:00Z"
spec:
  match: {port: tap123}
  labels: {app: web}
  addresses: [10.0.0.5, "2001:db8::5"]
`
	docs, err := policy.Load(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everythingAsValues(), resources(docs)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	one, err := policy.EncodeJSON(everythingAsValues()[2])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"kind":"Group","name":"lbs","spec":{"members":[{"labels":{"role":"lb"}},{"cidr":"10.0.5.0/24"}],`+
		`"onMemberRemoved":"keep"}}`, string(one)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestDecodeFaults(t *testing.T) {
	tests := []struct {
		name string
		text string
		want []string // "document:line pointer: detail…"
	}{
		{"bad kind", "kind: Polcy\nname: x\nspec: {}", []string{
			"1:1 /kind: unknown kind: must be Endpoint, Group, Policy, Mirror or Quarantine"}},
		{"bad plural kind", "kind: policies\nname: x\nspec: {}", []string{`1:1 /kind: unknown kind "policies": write Policy`}},
		{"bad missing kind", "name: x\nspec: {}", []string{"1:1 /kind: is required"}},
		{"bad document", "- a\n- b", []string{"1:0 : a document must be a map with kind, name and spec, not a list"}},
		{"bad missing spec", "kind: Group\nname: g", []string{"1:1 /spec: is required"}},
		{"bad null spec", "kind: Group\nname: g\nspec:", []string{"1:3 /spec: is null: give a map or leave the field out"}},
		{"bad unknown fields", "kind: Group\nname: g\nmetadata: {name: g}\nspec:\n  member: []\n  members: []\n  zzz: 1", []string{
			`1:3 /metadata: unknown field "metadata": kind, name, labels and spec stand at the top of a document`,
			`1:5 /spec/member: unknown field "member": did you mean members?`,
			`1:7 /spec/zzz: unknown field "zzz": known are from, members, onMemberRemoved`}},
		{"bad case of a field", "kind: Group\nname: g\nSpec: {members: []}", []string{"1:1 /spec: is required",
			`1:3 /Spec: unknown field "Spec": did you mean spec?`}},
		{"bad misspelled selector is one fault", "kind: Group\nname: g\nspec:\n  members:\n  - {prot: a}",
			[]string{`1:5 /spec/members/0/prot: unknown field "prot": did you mean port?`}},
		{"bad repeated keys", "kind: Group\nname: g\nname: h\nspec:\n  members:\n  - labels: {a: x, a: y}\n  members: []", []string{
			"1:3 /name: is given more than once", "1:6 /spec/members/0/labels/a: is given more than once",
			"1:7 /spec/members: is given more than once"}},
		{"bad repeated kind", "kind: Group\nkind: Group\nname: g\nspec: {members: []}", []string{"1:2 /kind: is given more than once"}},
		{"bad types", `kind: Policy
name: 7
labels: [a]
spec:
  tier: {a: b}
  priority: "1"
  appliesTo: {port: a}
  ingress:
  - name: true
    action: allow
    log: "yes"
    from: [a]
    services:
    - {protocol: tcp, ports: "80"}
  defaultDeny: true
`, []string{
			`1:2 /name: must be a text, not the number 7: put it in quotes, "7"`,
			"1:3 /labels: must be a map of texts, not a list",
			"1:5 /spec/tier: must be a text, not a map",
			`1:6 /spec/priority: must be a whole number, not the text "1"`,
			"1:7 /spec/appliesTo: must be a list, not a map, such as [{labels: {app: web}}]",
			`1:9 /spec/ingress/0/name: must be a text, not true: put it in quotes, "true"`,
			`1:11 /spec/ingress/0/log: must be true, false or a map such as {sample: "1/100"}, not the text "yes"`,
			`1:12 /spec/ingress/0/from/0: must be a map, not the text "a", such as {labels: {app: web}} or {cidr: 10.0.0.0/8}`,
			`1:14 /spec/ingress/0/services/0/ports: must be a list, not the text "80", such as ["…"]`,
			"1:15 /spec/defaultDeny: must be a map, not true, such as {ingress: true, egress: true}"}},
		{"bad indentation of a spec", "kind: Policy\nname: p\nspec:\nappliesTo: [{port: a}]\ningress: []\nmatches: {}", []string{
			"1:3 /spec: is null: give a map or leave the field out",
			`1:4 /appliesTo: unknown field "appliesTo": it stands below spec, so indent it`,
			`1:5 /ingress: unknown field "ingress": it stands below spec, so indent it`,
			`1:6 /matches: unknown field "matches": known are createdAt, labels, name, revision, spec, uid`}},
		{"bad numbers", "kind: Policy\nname: p\nspec:\n  appliesTo: [{vlan: 1.5}, {vlan: 0x10}, {vlan: 010}, {vlan: 99999999999999999999}, " +
			"{vlan: .inf}, {vlan: 1_0}]\n  defaultDeny: {ingress: true}", []string{
			"1:4 /spec/appliesTo/0/vlan: must be a whole number in decimal digits, not 1.5",
			"1:4 /spec/appliesTo/1/vlan: must be a whole number in decimal digits, not 0x10",
			"1:4 /spec/appliesTo/2/vlan: must be a whole number in decimal digits, not 010",
			`1:4 /spec/appliesTo/3/vlan: must be a whole number, not the text "99999999999999999999"`,
			"1:4 /spec/appliesTo/4/vlan: must be a whole number in decimal digits, not .inf",
			"1:4 /spec/appliesTo/5/vlan: must be a whole number in decimal digits, not 1_0"}},
		{"bad label values", "kind: Group\nname: g\nlabels: {a: 1, b: true, c: null, d: [x]}\nspec: {members: []}", []string{
			"1:3 /labels/a: must be a text, not the number 1", "1:3 /labels/b: must be a text, not true", "1:3 /labels/c: must be a text, not null",
			"1:3 /labels/d: must be a text, not a list"}},
		{"bad empty texts", "kind: Policy\nname: p\nspec: {tier: \"\", appliesTo: [{vm: \"\"}]}", []string{"1:3 /spec/tier: is empty",
			"1:3 /spec/appliesTo/0/vm: is empty"}},
		{"bad time", "kind: Group\nname: g\ncreatedAt: yesterday\nspec: {members: []}", []string{"1:3 /createdAt: must be a time like"}},
		{"bad faults in every document",
			"kind: Group\nname: g\nspec: {x: 1, members: [{}]}\n---\nkind: Group\nname: G\nspec: {members: []}\n---\nkind: X\n", []string{
				`1:3 /spec/x: unknown field`, "1:3 /spec/members/0: selects by nothing", "2:6 /name: must be a DNS label", "3:9 /kind: unknown kind"}},
		{"bad same name", "kind: Group\nname: g\nspec: {members: []}\n---\nkind: Endpoint\nname: g\nspec: {match: {port: a}}\n---\nkind: " +
			"Group\nname: g\nspec: {members: []}",
			[]string{`3:10 /name: Group "g" is already document 1`}},
		{"bad list", "kind: Policies\nitems: {a: b}\nextra: 1", []string{"1:1 /kind: a document with items has kind List or none",
			"1:2 /items: must be a list, not a map", "1:3 /extra: unknown field of a list"}},
		{"bad item of a list", "{\"items\": [\n{\"kind\": \"Group\", \"name\": \"g\",\n \"spec\": {\"members\": [{\"prt\": \"a\"}]}}]}",
			[]string{`1:3 /spec/members/0/prt: unknown field "prt": did you mean port?`}},

		{"bad documents after and in lists",
			"items:\n- {kind: A}\n- {kind: B}\n---\nkind: C\n---\nitems: []\n---\nitems:\n- {kind: D}\n---\nkind: E", []string{
				"1:2 /kind: unknown kind", "2:3 /kind: unknown kind", "3:5 /kind: unknown kind", "4:10 /kind: unknown kind",
				"5:12 /kind: unknown kind"}},
		{"bad YAML", "kind: Group\nname: g\nspec: {members: [}", []string{"1:3 : not YAML: "}},
		{"bad YAML does not hide other documents", "kind: [\n---\nkind: Group\nname: G\nspec: {members: []}", []string{"1:1 : not YAML: ",
			"2:4 /name: must be a DNS label"}},
		{"bad address that begins with a colon",
			"kind: Group\nname: g\nspec:\n  members:\n  - {cidr: 2001:db8::/32}\n  - {cidr: ::/0}\n  - {port: a}", []string{
				`1:6 : not YAML: a text that begins with a colon must be in quotes here: "::/0"`}},
		{"bad address in a list of lines",
			"kind: Group\nname: g\nspec:\n  members: [{cidr: 2001:db8::/32, except: [\n    2001:db8::/64,\n    ::1\n  ]}]", []string{
				`1:6 : not YAML: a text that begins with a colon must be in quotes here: "::1"`}},
		{"bad line of a closing bracket", "kind: Group\nname: g\nspec:\n  members:\n  - {port: a]\n  - {port: b}\n",
			[]string{"1:5 : not YAML: "}},
		{"bad line of an indentation", "kind: Group\nname: g\nspec:\n  members:\n  - port: a\n   vm: b\nlabels: {}\n",
			[]string{"1:6 : not YAML: "}},
		{"bad line of a quote", "kind: Group\nname: 'it's'\nspec:\n  members: []", []string{"1:2 : not YAML: "}},
		{"bad line of an alias in a later document", "kind: Group\nname: g\nspec: {members: []}\n---\nkind: Group\nname: h\nspec: *none\n",
			[]string{"2:7 : alias *none stands for nothing"}},
		{"bad second value", "{kind: Group, name: g, spec: {members: []}}\nkind: Group\n", []string{"1:2 : not YAML: "}},
		{"bad tab", "kind: Group\nspec:\n\tmembers: []", []string{"1:3 : not YAML: a tab does not indent: use spaces"}},
		{"bad character", "kind: Group\nspec: @x", []string{"1:2 : not YAML: found character"}},
		{"bad JSON that is no YAML", "{\"kind\": \"Group\",\n \"name\": \"g\" \"spec\": {}}", []string{"1:2 : not YAML: "}},
		{"bad merge key", "kind: Group\nname: g\nspec: &a {members: []}\nlabels:\n  <<: *a", []string{"1:5 : merge keys (<<) are not supported"}},
		{"bad alias", "kind: Group\nname: g\nspec: *nowhere", []string{"1:3 : alias *nowhere stands for nothing"}},
		{"bad alias of itself", "kind: Group\nname: g\nspec: &a {members: [*a]}", []string{"1:3 : alias *a stands for nothing"}},
		{"bad text tag", "kind: Group\nname: !!str ~\nspec: {members: []}", []string{"1:2 : the YAML tag !!str goes with a text, not with null"}},
		{"bad time type", "kind: Group\nname: g\ncreatedAt: 2026\nspec: {members: []}",
			[]string{"1:3 /createdAt: must be a time, not the number 2026"}},
		{"bad later field", "kind: Group\nname: g\nspec: {members: [{fqdn: example.com}]}",
			[]string{"1:3 /spec/members/0/fqdn: comes later"}},
		{"bad field of what has none", "kind: Mirror\nname: m\nspec: {sources: [{port: a}], targets: [{events: {x: 1}}]}", []string{
			`1:3 /spec/targets/0/events/x: unknown field "x": known are sample`}},
		{"bad tag", "kind: Group\nname: !!binary Zw==\nspec: {members: []}", []string{"1:2 : the YAML tag !!binary is not supported"}},
		{"bad key", "kind: Group\nname: g\nlabels: {1: x}\nspec: {members: []}", []string{"1:3 : a key must be a text: put it in quotes"}},
		{"bad directive", "%YAML 1.2\n---\nkind: Group", []string{"0:1 : YAML directives are not supported"}},
		{"bad encoding", "kind: Group\nname: \"\xff\"", []string{"0:0 : text is not valid UTF-8"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := policy.Load(strings.NewReader(tt.text))
			var faults policy.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error %v, want faults", err)
			}
			var got []string
			for i, f := range faults {
				line := fmt.Sprintf("%d:%d %s: %s", f.Document, f.Line, f.Pointer, f.Detail)
				if i < len(tt.want) && strings.HasPrefix(line, tt.want[i]) {
					line = tt.want[i]
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestDecodeAccepts(t *testing.T) {
	group := func(name string, members ...policy.Selector) policy.Resource {
		if members == nil {
			members = []policy.Selector{}
		}
		return &policy.Group{Meta: policy.Meta{Name: name}, Spec: policy.GroupSpec{Members: members}}
	}
	tests := []struct {
		name string
		text string
		want []policy.Resource
	}{
		{"OK nothing", "", nil},
		{"OK only comments and markers", "# nothing\n---\n---\n...\n# more\n", nil},
		{"OK end marker", "kind: Group\nname: a\nspec: {members: []}\n...\n---\nkind: Group\nname: b\nspec: {members: []}\n",
			[]policy.Resource{group("a"), group("b")}},
		{"OK byte order mark and CRLF", "\ufeffkind: Group\r\nname: a\r\nspec:\r\n  members: []\r\n", []policy.Resource{group("a")}},
		{"OK anchor and alias", "kind: Group\nname: a\nspec: {members: [{vm: &v web}, {port: *v}]}",
			[]policy.Resource{group("a", policy.Selector{VM: "web"}, policy.Selector{Port: "web"})}},
		{"OK number as text by tag", "kind: Group\nname: a\nspec: {members: [{vm: !!str 42}, {vm: !!str True}]}",
			[]policy.Resource{group("a", policy.Selector{VM: "42"}, policy.Selector{VM: "True"})}},
		{"OK block text", "kind: Group\nname: a\nspec:\n  members:\n  - vm: |-\n      web\n",
			[]policy.Resource{group("a", policy.Selector{VM: "web"})}},
		{"OK unquoted MAC, address and words of old YAML",
			"kind: Group\nname: yes\nspec:\n  members: [{mac: 52:54:00:12:34:56}, {cidr: 2001:db8::/32}, {vm: no}]",
			[]policy.Resource{group("yes", policy.Selector{MAC: "52:54:00:12:34:56"}, policy.Selector{CIDR: "2001:db8::/32"},
				policy.Selector{VM: "no"})}},
		{"OK unquoted IPv6 in lists and maps in brackets",
			"kind: Group\nname: a\nspec: {members: [{cidr: 2001:db8::/32, except: [2001:db8:1::/48, 2001:db8:2::/48]}, {cidr: fe80::/10}]}",
			[]policy.Resource{group("a", policy.Selector{CIDR: "2001:db8::/32", Except: []string{"2001:db8:1::/48", "2001:db8:2::/48"}},
				policy.Selector{CIDR: "fe80::/10"})}},
		{"OK address that begins with a colon, on a line of its own",
			"kind: Group\nname: a\nspec:\n  members:\n  - cidr: ::/0\n    except:\n    - ::1/128\n",
			[]policy.Resource{group("a", policy.Selector{CIDR: "::/0", Except: []string{"::1/128"}})}},
		{"OK empty list", `{"items": []}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := policy.Load(strings.NewReader(tt.text))
			if err != nil {
				t.Fatalf("%+v", err)
			}
			if diff := cmp.Diff(tt.want, resources(docs)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestDecodeReaderError(t *testing.T) {
	want := errors.New("broken pipe")
	for name, decode := range map[string]func(io.Reader) ([]policy.Document, error){"YAML": policy.DecodeYAML, "JSON": policy.DecodeJSON,
		"Load": policy.Load} {
		if _, err := decode(iotest.ErrReader(want)); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
	}
}

func TestFaultsAsError(t *testing.T) {
	if err := policy.Faults(nil).Err(); err != nil {
		t.Errorf("no faults are the error %v", err)
	}
	fs := policy.Faults{
		{Pointer: "/spec/tier", Detail: "is wrong", Document: 2, Line: 14},
		{Detail: "is empty", Line: 3},
		{Pointer: "/name", Detail: "is required", Document: 1},
	}
	for format, want := range map[string]string{
		"%v":  "document 2, line 14: /spec/tier: is wrong (and 2 more)",
		"%s":  "document 2, line 14: /spec/tier: is wrong (and 2 more)",
		"%+v": "document 2, line 14: /spec/tier: is wrong\nline 3: is empty\ndocument 1: /name: is required",
	} {
		if diff := cmp.Diff(want, fmt.Sprintf(format, fs.Err())); diff != "" {
			t.Errorf("%s (-want +got)\n%s", format, diff)
		}
	}
	if got := fs[:1].Error(); got != "document 2, line 14: /spec/tier: is wrong" {
		t.Errorf("one fault is %q", got)
	}
}

func TestCheckJSON(t *testing.T) {
	tests := []struct {
		name string
		text string
		want []string
	}{
		{"OK without kind", `{"name": "g", "spec": {"members": []}}`, nil},
		{"OK with kind", `{"kind": "Group", "name": "g", "spec": {"members": []}}`, nil},
		{"bad other kind", `{"kind": "Policy", "name": "g", "spec": {"members": []}}`, []string{"/kind: must be Group here"}},
		{"bad both sorts of faults", "{\"name\": \"G\",\n\"spec\": {\"members\": [], \"x\": 1}}", []string{"/name: must be a DNS label",
			`/spec/x: unknown field "x"`}},
		{"bad two documents", `{"name": "g"} {}`, []string{": must be one JSON document, not 2"}},
		{"bad no document", ` `, []string{": must be one JSON document, not 0"}},
		{"bad end", `{"name": "g"`, []string{": not JSON: the text ends in the middle"}},
		{"bad list", `[]`, []string{": a Group must be a map with name and spec, not a list"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, faults := policy.CheckJSON(policy.KindGroup, []byte(tt.text))
			checkFaults(t, tt.want, faults)
		})
	}
}

func TestCheckValue(t *testing.T) {
	spec := map[string]any{"match": map[string]any{"port": "a"}, "addresses": []any{"10.0.0.1"}}
	tests := []struct {
		name string
		kind policy.Kind
		tree any
		want []string
	}{
		{"OK numbers of every type", policy.KindEndpoint, map[string]any{"name": "e", "revision": float64(5), "spec": spec}, nil},
		{"OK int", policy.KindEndpoint, map[string]any{"name": "e", "revision": 5, "spec": spec}, nil},
		{"OK int64", policy.KindEndpoint, map[string]any{"name": "e", "revision": int64(5), "spec": spec}, nil},
		{"OK uint64", policy.KindEndpoint, map[string]any{"name": "e", "revision": uint64(5), "spec": spec}, nil},
		{"OK json.Number", policy.KindEndpoint, map[string]any{"name": "e", "revision": json.Number("5"), "spec": spec}, nil},
		{"bad fraction", policy.KindEndpoint, map[string]any{"name": "e", "revision": 5.5, "spec": spec},
			[]string{"/revision: must be a whole number in decimal digits, not 5.5"}},
		{"bad Go type", policy.KindEndpoint, map[string]any{"name": "e", "spec": []any{struct{}{}}},
			[]string{": value of type struct {} in a tree"}},
		{"bad kind", "Thing", map[string]any{}, []string{"/kind: unknown kind: must be"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, faults := policy.CheckValue(tt.kind, tt.tree)
			checkFaults(t, tt.want, faults)
		})
	}
}
