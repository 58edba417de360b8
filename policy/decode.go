package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Document is one document of a text.
type Document struct {
	Index int // from 1
	Line  int // where it begins; 0 = not known
	// Resource holds what could be decoded, also of a faulty document; it is nil if there is no valid kind.
	Resource Resource
	// Faults are those of form: unknown and repeated fields, wrong types.
	Faults Faults

	tree any
}

// DecodeYAML reads a stream of YAML (and so also JSON) documents, each "kind, name, labels, spec" or a list {items: […]} of such. The
// error is a Faults with every fault of form of every document, or comes from r. Documents are returned also with an error, as far
// as they could be read. Whether the values make sense is for Validate to say; Load does both.
//
// Anchors and aliases work; merge keys, tags but !!str, and keys that are not texts are refused. uid, revision, createdAt and status, which
// the server writes, are accepted so that its answers can be given back to it; status is dropped. A field that is null counts as left
// out where the specification has an optional value, and is a fault elsewhere: a list that became empty by accident must not mean
// everybody.
func DecodeYAML(r io.Reader) ([]Document, error) { return decode(r, parseYAML) }

// DecodeJSON reads one JSON document or several after each other as DecodeYAML does.
func DecodeJSON(r io.Reader) ([]Document, error) { return decode(r, parseJSON) }

// SyntaxOfJSON says what makes a text no JSON, or no text; nil = nothing does.
func SyntaxOfJSON(text []byte) *Fault {
	if _, faults := parseJSON(text); len(faults) > 0 && faults[0].Code == CodeSyntax {
		return &faults[0]
	}
	return nil
}

// Load reads YAML or JSON and checks everything that can be said of the documents alone: form, Validate, and that no two have the same
// kind and name. The error is a Faults with every fault, or comes from r.
func Load(r io.Reader) ([]Document, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	parse := parseYAML
	if b := bytes.TrimLeft(text, " \t\r\n"); len(b) > 0 && b[0] == '{' {
		// JSON is YAML too, but its own parser is the faster one. Text that only looks like JSON is left to the other.
		if trees, faults := parseJSON(text); faults == nil {
			parse = func([]byte) ([]parsed, Faults) { return trees, nil }
		}
	}
	docs, faults := decodeText(text, parse)
	l := faultList{faults: faults}
	type id struct {
		kind Kind
		name string
	}
	seen := make(map[id]int)
	for i := range docs {
		d := &docs[i]
		for _, f := range d.Validate() {
			l.add(f)
		}
		if d.Resource == nil || d.Resource.GetMeta().Name == "" {
			continue
		}
		key := id{d.Resource.Kind(), d.Resource.GetMeta().Name}
		if first, dup := seen[key]; dup {
			l.add(d.place(Fault{Pointer: "/name", Value: key.name, Detail: fmt.Sprintf("%s %s is already document %d", key.kind, quote(key.name),
				first)}))
			continue
		}
		seen[key] = d.Index
	}
	return docs, inOrder(l.faults).Err()
}

// Validate returns the faults of meaning with their places in the text, leaving out those that only follow from faults of form.
func (d *Document) Validate() Faults {
	if d.Resource == nil {
		return nil
	}
	var out Faults
	for _, f := range notCovered(d.Resource.Validate(), d.Faults) {
		out = append(out, d.place(f))
	}
	return out
}

// place adds the document's number and the line.
func (d *Document) place(f Fault) Fault {
	f.Document = d.Index
	var steps []string
	if f.Pointer != "" {
		steps = strings.Split(f.Pointer[1:], "/")
	}
	if f.Line == 0 {
		f.Line = lineOf(d.tree, d.Line, steps)
	}
	return f
}

// notCovered leaves out of the faults of meaning those at or below a place that has a fault of form, and those of the map or list right
// above it: of a selector whose only field is misspelled it is not news that it selects by nothing.
func notCovered(meaning, form Faults) Faults {
	if len(form) == 0 {
		return meaning
	}
	bad := make(map[string]bool, 2*len(form))
	for _, f := range form {
		bad[f.Pointer] = true
	}
	parents := make(map[string]bool, len(form))
	for p := range bad {
		if p != "" {
			parents[p[:strings.LastIndexByte(p, '/')]] = true
		}
	}
	return slices.DeleteFunc(meaning, func(m Fault) bool {
		if parents[m.Pointer] {
			return true
		}
		for p := m.Pointer; ; p = p[:strings.LastIndexByte(p, '/')] {
			if bad[p] {
				return true
			}
			if p == "" {
				return false
			}
		}
	})
}

// inOrder sorts faults as the text reads.
func inOrder(fs Faults) Faults {
	slices.SortStableFunc(fs[:min(len(fs), maxFaults)], // beyond it stands only that there are more
		func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Document, b.Document), cmp.Compare(a.Line, b.Line)) })
	return fs
}

func decode(r io.Reader, parse func([]byte) ([]parsed, Faults)) ([]Document, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	docs, faults := decodeText(text, parse)
	return docs, faults.Err()
}

func decodeText(text []byte, parse func([]byte) ([]parsed, Faults)) ([]Document, Faults) {
	trees, faults := parse(text)
	l := faultList{faults: faults}
	var docs []Document
	extra := 0 // how many documents more than values of the text: items of lists
	add := func(index int, tree any, line int) {
		d := Document{Index: index, Line: line, tree: tree}
		var form Faults
		d.Resource, form = decodeDocument(tree)
		for _, f := range form {
			d.Faults = append(d.Faults, d.place(f))
			l.add(d.Faults[len(d.Faults)-1])
		}
		docs = append(docs, d)
	}
	for _, t := range trees {
		o, isMap := t.tree.(object)
		items, isList := o.get("items")
		if _, hasSpec := o.get("spec"); !isMap || !isList || hasSpec {
			add(t.index+extra, t.tree, o.line)
			continue
		}
		inner, lf := listItems(o, items)
		for _, f := range lf {
			f.Document, f.Line = t.index+extra, lineOf(o, o.line, strings.Split(strings.TrimPrefix(f.Pointer, "/"), "/"))
			l.add(f)
		}
		for i := range inner.items {
			add(t.index+extra+i, inner.items[i], inner.lines[i])
		}
		extra += len(inner.items) - 1
	}
	return docs, l.faults
}

// listItems reads {kind: List, items: […], next: …} as lists are answered by the API.
func listItems(o object, items any) (list, Faults) {
	var l walker
	var root pointer
	seen := make(map[string]bool, len(o.members))
	for i, m := range o.members {
		if seen[m.key] {
			l.again(root, &o.members[i])
			continue
		}
		seen[m.key] = true
		switch {
		case m.key == "items", m.key == "next", m.key == "kind" && m.value == "List":
		case m.key == "kind":
			l.addf(root.field("kind"), plain(m.value), "a document with items has kind List or none")
		default:
			l.addf(root.field(m.key), nil, "unknown field of a list: it has items")
		}
	}
	inner, ok := items.(list)
	if !ok {
		l.addf(root.field("items"), plain(items), "must be a list, not %s", describe(items))
	}
	return inner, l.faults
}

// decodeDocument reads a resource that says its own kind.
func decodeDocument(tree any) (Resource, Faults) {
	o, ok := tree.(object)
	if !ok {
		return nil, Faults{{Detail: "a document must be a map with kind, name and spec, not " + describe(tree)}}
	}
	kind, ok := o.get("kind")
	name, _ := kind.(string)
	switch {
	case !ok:
		return nil, Faults{{Pointer: "/kind", Detail: "is required: " + orList(strs(Kinds()))}}
	case New(Kind(name)) == nil:
		f := Fault{Pointer: "/kind", Value: shorten(plain(kind)), Detail: "unknown kind: must be " + orList(strs(Kinds()))}
		for _, k := range Kinds() {
			if strings.EqualFold(name, string(k)) || strings.EqualFold(name, k.Plural()) {
				f.Detail = fmt.Sprintf("unknown kind %s: write %s", quote(name), k)
			}
		}
		return nil, Faults{f}
	}
	return DecodeValue(Kind(name), tree)
}

// DecodeValue reads one resource of a known kind from what encoding/json (with or without UseNumber) or a YAML decoder makes of a
// document: maps of strings, slices, texts, numbers, truth values and nil. kind may be missing in it, but not differ. It returns the
// resource as far as it could be read, and every fault of form; see DecodeYAML for what is accepted. CheckValue does the whole.
func DecodeValue(kind Kind, tree any) (Resource, Faults) {
	r := New(kind)
	if r == nil {
		return nil, Faults{{Pointer: "/kind", Value: string(kind), Detail: "unknown kind: must be " + orList(strs(Kinds()))}}
	}
	t, err := toTree(tree)
	if err != nil {
		return r, Faults{{Detail: err.Error()}}
	}
	o, ok := t.(object)
	if !ok {
		return r, Faults{{Detail: fmt.Sprintf("a %s must be a map with name and spec, not %s", kind, describe(t))}}
	}
	w := newWalker()
	w.document(o, r)
	return r, w.faults
}

// CheckValue is DecodeValue and Validate: the faults of form, then those of meaning that do not just follow from them.
func CheckValue(kind Kind, tree any) (Resource, Faults) {
	r, form := DecodeValue(kind, tree)
	if r == nil {
		return nil, form
	}
	return r, append(form, notCovered(r.Validate(), form)...)
}

// CheckJSON is CheckValue for the text of one JSON document, with lines and repeated keys, which encoding/json loses.
func CheckJSON(kind Kind, text []byte) (Resource, Faults) {
	t, faults := oneJSON(text)
	if faults != nil {
		return nil, faults
	}
	r, faults := CheckValue(kind, t)
	d := Document{tree: t}
	for i := range faults {
		faults[i] = d.place(faults[i])
	}
	return r, inOrder(faults)
}

func oneJSON(text []byte) (any, Faults) {
	docs, faults := parseJSON(text)
	switch {
	case faults != nil:
		faults[0].Document = 0
		return nil, faults
	case len(docs) != 1:
		return nil, Faults{{Detail: fmt.Sprintf("must be one JSON document, not %d", len(docs)), Code: CodeSyntax}}
	}
	return docs[0].tree, nil
}
