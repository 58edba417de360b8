package event

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// AppendJSON appends the document of e: byte for byte what json.Marshal makes of it, several times faster and without allocating.
// The error is that of a time JSON cannot hold (a year beyond 9999); then b is returned as it was.
func AppendJSON(b []byte, e *Event) ([]byte, error) {
	w := jsonWriter{b: b}
	w.writeEvent(e)
	if w.err != nil {
		return b, w.err
	}
	return w.b, nil
}

// jsonWriter writes JSON. Its methods for structs are generated from their tags (json_gen.go); those here write what structs are made of.
// Each ends without a comma; key puts one where the object has begun already.
type jsonWriter struct {
	b   []byte
	err error
}

// key begins a member; k is quoted and has its colon.
func (w *jsonWriter) key(k string) {
	w.comma()
	w.b = append(w.b, k...)
}

func (w *jsonWriter) comma() {
	if c := w.b[len(w.b)-1]; c != '{' && c != '[' {
		w.b = append(w.b, ',')
	}
}

func (w *jsonWriter) text(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				w.err = err
			}
			w.b = append(w.b, quoted...)
			return
		}
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, s...)
	w.b = append(w.b, '"')
}

func (w *jsonWriter) num(n int64) { w.b = strconv.AppendInt(w.b, n, 10) }

func (w *jsonWriter) time(t time.Time) {
	w.b = append(w.b, '"')
	b, err := t.AppendText(w.b)
	if err != nil {
		w.err = err
		return
	}
	w.b = append(b, '"')
}

func (w *jsonWriter) list(all []string) {
	w.b = append(w.b, '[')
	for _, s := range all {
		w.comma()
		w.text(s)
	}
	w.b = append(w.b, ']')
}

// texts writes a map by the order of its keys, as encoding/json does.
func (w *jsonWriter) texts(m map[string]string) {
	var room [16]string
	keys := room[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	w.b = append(w.b, '{')
	for _, k := range keys {
		w.comma()
		w.text(k)
		w.b = append(w.b, ':')
		w.text(m[k])
	}
	w.b = append(w.b, '}')
}
