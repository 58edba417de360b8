package policy_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy"
)

// FuzzDecode: no text ends the process, and what was valid survives being written and read again, as YAML and as JSON.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(everything))
	for _, r := range everythingAsValues() {
		text, err := policy.EncodeJSON(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, s := range []string{
		"kind: Group\nname: a\nlabels: {\"x\": \"\\u2028 \\x7f\", 'y': |\n  }\nspec: {members: [&a {vm: !!str 1}, *a, {vm: 0x1}, {vm: 1e3}, " +
			"{vm: -}]}",
		"{\"items\": [{\"kind\": \"Endpoint\", \"name\": \"e\", \"createdAt\": \"0000-01-01T00:00:00+23:59\", \"spec\": {\"match\": {\"vm\": " +
			"\"~\"}}}]}",
		"? kind\n: Group\n? name\n: >-\n  a\n...\n--- {kind: Group}\n",
		"kind: Policy\nname: p\nuid: \"a: b # c\"\nspec: {appliesTo: [{labels: {\"true\": \"null\", \"a.b/c\": \" x \", \"1\": \"é\"}}]}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, err := policy.Load(bytes.NewReader(text))
		if _, err := policy.DecodeJSON(bytes.NewReader(text)); err != nil {
			_ = err.Error()
		}
		for i := range docs {
			d := &docs[i]
			if d.Resource == nil {
				continue
			}
			if diff := cmp.Diff(d.Resource, d.Resource.Clone()); diff != "" {
				t.Fatalf("clone differs (-want +got)\n%s", diff)
			}
			_ = d.Resource.WithDefaults()
		}
		if err != nil || len(docs) == 0 {
			return
		}
		want := resources(docs)
		var all []byte
		for _, r := range want {
			one, err := policy.EncodeJSON(r)
			if err != nil {
				t.Fatalf("valid %s does not encode: %v", r.Kind(), err)
			}
			got, faults := policy.CheckJSON(r.Kind(), one)
			if faults != nil {
				t.Fatalf("%+v\n%s", faults, one)
			}
			if diff := cmp.Diff(r, got); diff != "" {
				t.Fatalf("by JSON (-want +got)\n%s\n%s", diff, one)
			}
			all = append(append(append(all, "---\n"...), one...), '\n')
		}
		again, err := policy.DecodeYAML(bytes.NewReader(all))
		if err != nil {
			t.Fatalf("%+v\n%s", err, all)
		}
		if diff := cmp.Diff(want, resources(again)); diff != "" {
			t.Fatalf("by YAML (-want +got)\n%s\n%s", diff, all)
		}
	})
}
