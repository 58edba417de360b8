package policy

import (
	"encoding/json"
	"reflect"
)

// DecodePatch reads a JSON merge patch (RFC 7386) of a resource into maps, slices, texts, truth values, nil and numbers as json.Number.
// It takes the texts that CheckJSON takes: one value of bounded depth without repeated keys, which encoding/json would drop. A field
// that it removes must be one that there is, or a misspelled one would go on being in force. What else is in it shows in the patched
// resource.
func DecodePatch(kind Kind, text []byte) (map[string]any, Faults) {
	t, faults := oneJSON(text)
	if faults != nil {
		return nil, faults
	}
	o, ok := t.(object)
	if !ok {
		return nil, Faults{{Detail: "a merge patch is a JSON object with the fields to change, not " + describe(t)}}
	}
	w := newWalker()
	patch := w.anything(pointer{}, o)
	w.removals(pointer{}, o, reflect.TypeOf(New(kind)).Elem())
	return patch.(map[string]any), inOrder(w.faults)
}

// anything is a value of a tree as encoding/json would read it, with repeated keys reported.
func (w *walker) anything(at pointer, v any) any {
	switch v := v.(type) {
	case number:
		return json.Number(v)
	case list:
		out := make([]any, len(v.items))
		for i, item := range v.items {
			out[i] = w.anything(at.at(i), item)
		}
		return out
	case object:
		out := make(map[string]any, len(v.members))
		for i := range v.members {
			m := &v.members[i]
			if _, dup := out[m.key]; dup {
				w.again(at, m)
				continue
			}
			out[m.key] = w.anything(at.field(m.key), m.value)
		}
		return out
	}
	return v
}

// removals reports the fields of a patch to a value of type t that are null and unknown.
func (w *walker) removals(at pointer, o object, t reflect.Type) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	fields := w.fieldsOf(t)
	for i := range o.members {
		m := &o.members[i]
		f, known := fields[m.key]
		inner, nested := m.value.(object)
		switch {
		case known && nested:
			w.removals(at.field(m.key), inner, t.FieldByIndex(f.index).Type)
		case !known && m.value == nil && !(at.parent == nil && (m.key == "kind" || m.key == "status")):
			w.unknown(at, m, fields)
		}
	}
}
