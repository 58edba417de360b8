package ofp

import "testing"

// The names are searched by halves, so their order is part of their meaning.
func TestErrorNamesSorted(t *testing.T) {
	names := map[string]bool{}
	for i, e := range errorNames {
		if i > 0 && errorNames[i-1].code >= e.code {
			t.Errorf("%s (%#x) does not come after %s (%#x)", e.name, e.code, errorNames[i-1].name, errorNames[i-1].code)
		}
		if names[e.name] {
			t.Errorf("%s stands twice", e.name)
		}
		names[e.name] = true
		if e.code.String() != e.name {
			t.Errorf("%#x is %s, want %s", e.code, e.code, e.name)
		}
	}
}
