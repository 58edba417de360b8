package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// Bounds of documents. The size of the text is bounded by who reads it.
const (
	maxDepth   = 32        // of nested maps and lists; the specifications need 9
	maxKeys    = 1000      // of one map
	maxValues  = 2_000_000 // of all documents of one text, aliases counted with what they stand for
	maxDocs    = 100_000
	textFormat = "text is not valid UTF-8"
)

// A text becomes a tree of these before it is compared with Go types, whatever the syntax: string, number, bool, nil, object and list.
// It keeps what Go maps lose: the order of fields, repeated ones, and lines.
type (
	object struct {
		members []member
		line    int
	}
	member struct {
		key   string
		value any
		line  int
	}
	list struct {
		items []any
		lines []int // of each item
	}
	// number is a number as it was written.
	number string
)

// parsed is one value of a text, counted from 1.
type parsed struct {
	index int
	tree  any
}

// get returns the first member of that name.
func (o object) get(key string) (any, bool) {
	for i := range o.members {
		if o.members[i].key == key {
			return o.members[i].value, true
		}
	}
	return nil, false
}

// describe names a value of a tree in messages.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "the text " + quote(v)
	case number:
		return "the number " + shorten(string(v)).(string)
	case bool:
		return fmt.Sprintf("%t", v)
	case object:
		return "a map"
	case list:
		return "a list"
	}
	return fmt.Sprintf("%T", v)
}

// plain is a value of a tree as a Fault shows it; maps and lists are not repeated.
func plain(v any) any {
	switch v := v.(type) {
	case number:
		if json.Valid([]byte(v)) {
			return json.Number(v)
		}
		return string(v)
	case object, list:
		return nil
	}
	return v
}

// toTree accepts what encoding/json and YAML decoders produce for any, besides trees themselves.
func toTree(v any) (any, error) {
	switch v := v.(type) {
	case nil, string, bool, number, object, list:
		return v, nil
	case json.Number:
		return number(v), nil
	case float64:
		return number(strconv.FormatFloat(v, 'f', -1, 64)), nil
	case int:
		return number(strconv.Itoa(v)), nil
	case int64:
		return number(strconv.FormatInt(v, 10)), nil
	case uint64:
		return number(strconv.FormatUint(v, 10)), nil
	case []any:
		l := list{items: make([]any, len(v)), lines: make([]int, len(v))}
		for i := range v {
			var err error
			if l.items[i], err = toTree(v[i]); err != nil {
				return nil, err
			}
		}
		return l, nil
	case map[string]any:
		var o object
		for _, k := range sortedKeys(v) {
			t, err := toTree(v[k])
			if err != nil {
				return nil, err
			}
			o.members = append(o.members, member{key: k, value: t})
		}
		return o, nil
	}
	return nil, fmt.Errorf("value of type %T in a tree", v)
}

// lineOf returns the line of the deepest value on the way to pointer, 0 if lines are not known.
func lineOf(tree any, line int, steps []string) int {
	if len(steps) == 0 {
		return line
	}
	switch t := tree.(type) {
	case object:
		for i := range t.members {
			if m := &t.members[i]; escapePointer(m.key) == steps[0] {
				return lineOf(m.value, m.line, steps[1:])
			}
		}
	case list:
		if i, err := strconv.Atoi(steps[0]); err == nil && i >= 0 && i < len(t.items) {
			return lineOf(t.items[i], t.lines[i], steps[1:])
		}
	}
	return line
}

// parseJSON reads a stream of JSON values. On a fault of syntax the values before it are returned with it.
func parseJSON(text []byte) ([]parsed, Faults) {
	if !utf8.Valid(text) {
		return nil, Faults{{Detail: textFormat, Code: CodeSyntax}}
	}
	fast := fastJSON{text: string(text), line: 1, keys: map[string]string{}}
	if docs, ok := fast.stream(); ok {
		return docs, nil
	}
	return parseSlowly(text)
}

// parseSlowly is parseJSON, and says what is wrong.
func parseSlowly(text []byte) ([]parsed, Faults) {
	p := jsonParser{dec: json.NewDecoder(bytes.NewReader(text)), text: text, line: 1}
	p.dec.UseNumber()
	var docs []parsed
	for {
		tok, err := p.dec.Token()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		var v any
		if err == nil {
			v, err = p.value(tok, 0)
		}
		if err == nil && len(docs) >= maxDocs {
			err = tooLarge("more than %d documents", maxDocs)
		}
		if err != nil {
			var f Fault
			if !errors.As(err, &f) {
				f = Fault{Detail: "not JSON: " + eofText(err), Code: CodeSyntax}
			}
			f.Document, f.Line = len(docs)+1, p.lineNow()
			return docs, Faults{f}
		}
		docs = append(docs, parsed{index: len(docs) + 1, tree: v})
	}
}

func eofText(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the text ends in the middle of a value"
	}
	return err.Error()
}

// Error lets a single fault travel as an error inside of this package.
func (f Fault) Error() string { return f.String() }

func tooLarge(format string, args ...any) error {
	return Fault{Detail: fmt.Sprintf(format, args...), Code: CodeTooLarge}
}

type jsonParser struct {
	dec    *json.Decoder
	text   []byte
	offset int // up to which lines were counted
	line   int
	values int
}

// lineNow counts the lines up to the token that was read last.
func (p *jsonParser) lineNow() int {
	if to := int(p.dec.InputOffset()); to > p.offset {
		p.line += bytes.Count(p.text[p.offset:to], []byte{'\n'})
		p.offset = to
	}
	return p.line
}

// value reads the rest of the value that begins with tok.
func (p *jsonParser) value(tok json.Token, depth int) (any, error) {
	if p.values++; p.values > maxValues {
		return nil, tooLarge("more than %d values", maxValues)
	}
	if depth > maxDepth {
		return nil, tooLarge("nested deeper than %d", maxDepth)
	}
	switch tok := tok.(type) {
	case json.Number:
		return number(tok), nil
	case json.Delim:
		if tok == '{' {
			return p.object(depth)
		}
		return p.list(depth)
	}
	return tok, nil // string, bool or nil
}

func (p *jsonParser) object(depth int) (any, error) {
	o := object{line: p.lineNow()}
	for {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return o, nil // the closing brace
		}
		if len(o.members) >= maxKeys {
			return nil, tooLarge("more than %d keys in one map", maxKeys)
		}
		m := member{key: key, line: p.lineNow()}
		if tok, err = p.dec.Token(); err != nil {
			return nil, err
		}
		if m.value, err = p.value(tok, depth+1); err != nil {
			return nil, err
		}
		o.members = append(o.members, m)
	}
}

func (p *jsonParser) list(depth int) (any, error) {
	l := list{items: []any{}}
	for {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		if tok == json.Delim(']') {
			return l, nil
		}
		line := p.lineNow()
		v, err := p.value(tok, depth+1)
		if err != nil {
			return nil, err
		}
		l.items, l.lines = append(l.items, v), append(l.lines, line)
	}
}
