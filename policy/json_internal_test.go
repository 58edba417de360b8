package policy

import (
	"reflect"
	"testing"
	"unicode/utf8"
)

// FuzzFastJSON holds the fast parser to encoding/json: whatever it takes, both take for the same, with the same lines.
func FuzzFastJSON(f *testing.F) {
	for _, s := range []string{``, `{}`, ` [1, -2.5e+3,"a\u00e9\ud83d\ude00\n",true,false , null] {"a":{"b":[{}]}}`,
		"{\n\"a\" :\n[ \"x\"\n, 2 ]}\n\n7", `"\ud800"`,
		`{"a":1,"a":2}`, `01`, `1.`, `-`, `truefalse`, `[1,]`, `{"a":1,}`, `"` + "\x01" + `"`, `"\x"`,
		`[]]`, `12"a"`, `true"x"`, `{"a" 1}`, `"a`, `nul`,
		`[1 2]`, `1 2`, `"a""b"`,
		`{}{}`, `[`, `{"\u0061":1,"a":2}`, "\ufeff{}", `1[`, "\"a\u2028\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			t.Skip()
		}
		p := fastJSON{text: text, line: 1, keys: map[string]string{}}
		docs, ok := p.stream()
		want, faults := parseSlowly([]byte(text))
		if ok && (faults != nil || !reflect.DeepEqual(docs, want)) {
			t.Errorf("%q is %#v, and encoding/json takes it for %#v %v", text, docs, want, faults)
		}
	})
}
