package main

import (
	"encoding/json"
	"testing"
)

func TestTemplate(t *testing.T) {
	var doc any
	text := `{"name": "web", "spec": {"tier": "application", "priority": 100, "log": true, "ports": ["80", "443"], "none": null},
		"labels": {"vm-name": "a", "a.b/c": "dotted"}, "rules": [{"name": "x", "n": 1}, {"name": "y\u202e", "n": 2}], "\"}": "odd"}`
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"{.spec.tier}":            "application",
		"{$.spec.tier}":           "application",
		"{ .spec.priority }":      "100",
		"{.spec.ports}":           `["80","443"]`,
		"{.spec.ports[*]}":        "80 443",
		"{.spec.ports[-1]}":       "443",
		"{.spec['tier']}":         "application",
		"{['name']}":              "web",
		"{.labels.vm-name}":       "a",
		`{.labels.a\.b/c}`:        "dotted",
		"{..n}":                   "1 2",
		"{.rules[?(@.n>1)].name}": `y\u202e`,
		`{range .rules[*]}{.name}={.n}{"\t"}{end}end`:   "x=1\ty\\u202e=2\tend",
		`{range .rules[*]}{range .name}<{@}>{end}{end}`: `<x><y\u202e>`,
		"{.nope}":      "",
		"{.spec.none}": "null",
		"name={.name}, priority={.spec.priority}": "name=web, priority=100",
		`{['"}']}`: "odd",
		"plain":    "plain",
	} {
		tmpl, err := parseTemplate(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if have := tmpl.text(doc); have != want {
			t.Errorf("%s is %q, not %q", in, have, want)
		}
	}
	for _, in := range []string{"{", "{.a", "{end}", "{range .a}", "{range .a}{end}{end}", `{"a}`, "{.a[}", "{.a[[}", "{[?}", `{"\q"}`} {
		if tmpl, err := parseTemplate(in); err == nil {
			t.Errorf("%q is %v", in, tmpl)
		}
	}
}

func TestSortBy(t *testing.T) {
	var x getter
	var err error
	if x.sortPath, err = parseField("spec.n"); err != nil {
		t.Fatal(err)
	}
	k := kinds()[0]
	var items []item
	for _, doc := range []string{`{"spec":{"n":10}}`, `{}`, `{"spec":{"n":9}}`, `{"spec":{"n":"a"}}`} {
		raw := json.RawMessage(doc)
		items = append(items, item{kind: k, name: doc, doc: &raw})
	}
	if err := x.sort(items); err != nil {
		t.Fatal(err)
	}
	if items[0].name != `{"spec":{"n":9}}` || items[1].name != `{"spec":{"n":10}}` || items[3].name != `{}` {
		t.Errorf("order: %v", items)
	}
}
