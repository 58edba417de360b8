package event

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Fields lists the fields of documents, by their places: source.ip. Of a map, such as labels, and of a list there is one.
func Fields() []string { return fieldsOf(reflect.TypeFor[Event](), "") }

func fieldsOf(t reflect.Type, prefix string) (out []string) {
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := f.Type
		if below.Kind() == reflect.Pointer {
			below = below.Elem()
		}
		if below.Kind() == reflect.Struct && below != reflect.TypeFor[time.Time]() {
			out = append(out, fieldsOf(below, prefix+name+".")...)
		} else {
			out = append(out, prefix+name)
		}
	}
	return out
}

// Expand is what the places of fields stand for: source is all that begins with source. A place below a map, such as
// tapwall.source.labels.app, stands for itself. ok is false if there is nothing like that.
func Expand(place string) (fields []string, ok bool) {
	for _, f := range Fields() {
		switch {
		case f == place, strings.HasPrefix(f, place+"."):
			fields = append(fields, f)
		case strings.HasPrefix(place, f+".") && strings.HasSuffix(f, ".labels"):
			return []string{place}, true
		}
	}
	return fields, fields != nil
}

// Document is the JSON of an event, for what asks for its fields one by one.
type Document map[string]any

// ParseDocument reads the JSON of an event. Numbers stay as they are written.
func ParseDocument(text []byte) (d Document, err error) {
	r := json.NewDecoder(strings.NewReader(string(text)))
	r.UseNumber()
	return d, r.Decode(&d)
}

// Pick copies the fields at the places, as far as they are there.
func (d Document) Pick(places []string) Document {
	out := Document{}
	for _, p := range places {
		pick(d, out, p)
	}
	return out
}

// pick copies what is at the place. Keys of labels may have dots themselves.
func pick(from, to map[string]any, place string) {
	if v, ok := from[place]; ok {
		to[place] = v
		return
	}
	for i := range place {
		if place[i] != '.' {
			continue
		}
		below, ok := from[place[:i]].(map[string]any)
		if !ok {
			continue
		}
		into, _ := to[place[:i]].(map[string]any)
		if into == nil {
			into = map[string]any{}
		}
		if pick(below, into, place[i+1:]); len(into) > 0 {
			to[place[:i]] = into
			return
		}
	}
}

// Field is one field of a document as text: texts as they are, lists of them joined by commas, all else as JSON.
type Field struct{ Place, Text string }

// Flat is the document field by field, ordered by place.
func (d Document) Flat() []Field { return flat(d, "") }

func flat(d map[string]any, prefix string) (out []Field) {
	for _, k := range sortedKeys(d) {
		if below, ok := d[k].(map[string]any); ok {
			out = append(out, flat(below, prefix+k+".")...)
			continue
		}
		out = append(out, Field{prefix + k, fieldText(d[k])})
	}
	return out
}

func fieldText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		if !slices.ContainsFunc(v, func(x any) bool { _, ok := x.(string); return !ok }) {
			var all []string
			for _, x := range v {
				all = append(all, x.(string))
			}
			return strings.Join(all, ",")
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(text)
}

// Text is the field at the place as Flat writes it; "" = it is not there.
func (d Document) Text(place string) string {
	for _, f := range d.Pick([]string{place}).Flat() {
		return f.Text
	}
	return ""
}
