package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// Small texts that ask for much. The time is not asserted; a bound that does not hold shows as a test that does not end or a stack
// overflow.
func TestDecodeBombs(t *testing.T) {
	const many = 20_000
	rep := strings.Repeat
	laughs := "a0: &a0 [" + rep("x,", 99) + "x]\n"
	for i := 1; i <= 9; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i, i, rep(fmt.Sprintf("*a%d,", i-1), 99), i-1)
	}
	var keys strings.Builder
	for i := range many {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
	}
	tests := map[string]string{
		"lists in lists":     rep("[", many),
		"maps in maps":       rep("{a: ", many),
		"closed lists":       rep("[", many) + rep("]", many),
		"dashes":             rep("- ", many),
		"question marks":     rep("? ", many),
		"colons":             rep(": ", many),
		"tags":               "a: " + rep("!!str ", many) + "x",
		"anchors":            "a: " + rep("&a ", many) + "x",
		"anchors and tags":   "a: " + rep("&a !!str ", many) + "x",
		"keys in one map":    keys.String(),
		"keys in a flow map": "{" + strings.ReplaceAll(keys.String(), "\n", ",") + "}",
		"indentation": func() string {
			var b strings.Builder
			for i := range 1000 {
				b.WriteString(rep(" ", i) + "a:\n")
			}
			return b.String()
		}(),
		"billion laughs":       laughs,
		"unfinished quote":     `a: "` + rep("x\n", many),
		"nested braces in '?'": rep("? {", many),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := policy.DecodeYAML(strings.NewReader(text))
			var faults policy.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error %v, want faults", err)
			}
			if want := policy.CodeTooLarge; faults[0].Code != want && (faults[0].Code != policy.CodeSyntax || name == "billion laughs") {
				t.Errorf("fault %v, want code %s", faults[0], want)
			}
			if len(faults) > 2 {
				t.Errorf("%d faults: %v", len(faults), faults)
			}
		})
	}
	for name, text := range map[string]string{
		"JSON lists in lists": rep("[", many),
		"JSON maps in maps":   rep(`{"a":`, many),
		"JSON keys":           "{" + rep(`"a":1,`, many) + `"a":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.DecodeJSON(strings.NewReader(text))
			var faults policy.Faults
			if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Code != policy.CodeTooLarge {
				t.Fatalf("error %v, want one fault TOO_LARGE", err)
			}
		})
	}
	for name, text := range map[string]string{
		"much YAML":       "a: " + rep("x", 5<<20),
		"many indicators": rep("[],", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.DecodeYAML(strings.NewReader(text))
			var faults policy.Faults
			if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Code != policy.CodeTooLarge {
				t.Fatalf("error %v, want one fault TOO_LARGE", err)
			}
		})
	}
	t.Run("ten thousand rules in YAML", func(t *testing.T) {
		var b strings.Builder
		for range 1000 {
			b.WriteString("---\nkind: Policy\nname: p\nspec:\n  appliesTo: [{labels: {app: web}}]\n  ingress:\n")
			for j := range 10 {
				fmt.Fprintf(&b, "  - {name: r%d, action: allow, from: [{group: lbs}, {cidr: 10.0.0.0/24, except: [10.0.0.9/32]}], services: "+
					"[{protocol: tcp, ports: [\"80\", \"8000-8099\"]}], log: true}\n", j)
			}
		}
		docs, err := policy.DecodeYAML(strings.NewReader(b.String()))
		if err != nil || len(docs) != 1000 {
			t.Fatalf("%d documents, %v", len(docs), err)
		}
	})
	t.Run("many documents", func(t *testing.T) {
		docs, err := policy.DecodeYAML(strings.NewReader(rep("---\nkind: Group\nname: g\nspec: {members: []}\n", 5_000)))
		if err != nil || len(docs) != 5_000 {
			t.Fatalf("%d documents, %v", len(docs), err)
		}
	})
	t.Run("many faults", func(t *testing.T) {
		_, err := policy.Load(strings.NewReader("kind: Group\nname: g\nspec: {members: [" + rep("{vlan: 0},", 5000) + "]}"))
		var faults policy.Faults
		if !errors.As(err, &faults) || len(faults) != 1001 {
			t.Fatalf("%d faults, want 1000 and one that says that there are more", len(faults))
		}
		if last := faults[1000]; last.Code != policy.CodeTooLarge {
			t.Errorf("the last fault is %v", last)
		}
	})
}
