package policy

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// maxFaults bounds a list of faults: a hostile document has as many as it has bytes.
const maxFaults = 1000

// Fault is one thing wrong with a document.
type Fault struct {
	// Pointer is the place in the resource as a JSON pointer (RFC 6901), e.g. /spec/ingress/0/services/0/ports/1; "" is the whole document.
	Pointer string `json:"pointer"`
	// Detail says what is wrong and what would be right.
	Detail string `json:"detail"`
	// Value is what was found there, shortened; nil where there is nothing.
	Value any `json:"value,omitempty"`
	// Code is one of the Code constants or "".
	Code Code `json:"code,omitempty"`
	// Document counts the documents of a stream or list from 1 and Line the lines of the text from 1; 0 = not known.
	Document int `json:"document,omitempty"`
	Line     int `json:"line,omitempty"`
}

// String is one line: "document 2, line 14: /spec/tier: …".
func (f Fault) String() string {
	var b strings.Builder
	switch {
	case f.Document > 0 && f.Line > 0:
		fmt.Fprintf(&b, "document %d, line %d: ", f.Document, f.Line)
	case f.Document > 0:
		fmt.Fprintf(&b, "document %d: ", f.Document)
	case f.Line > 0:
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	if f.Pointer != "" {
		b.WriteString(f.Pointer + ": ")
	}
	b.WriteString(f.Detail)
	return b.String()
}

// Faults is everything that is wrong, as an error. As an error it is never empty; use Err to convert.
type Faults []Fault

// Error is one line: the first fault and how many more there are. %+v prints all of them, one per line.
func (fs Faults) Error() string {
	switch len(fs) {
	case 0:
		return "no faults"
	case 1:
		return fs[0].String()
	}
	return fmt.Sprintf("%s (and %d more)", fs[0], len(fs)-1)
}

// Format implements fmt.Formatter for %+v.
func (fs Faults) Format(s fmt.State, verb rune) {
	if verb != 'v' || !s.Flag('+') {
		_, _ = io.WriteString(s, fs.Error())
		return
	}
	for i, f := range fs {
		if i > 0 {
			_, _ = io.WriteString(s, "\n")
		}
		_, _ = io.WriteString(s, f.String())
	}
}

// Err returns fs as an error, nil if it is empty.
func (fs Faults) Err() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// faultList collects faults up to the bound.
type faultList struct {
	faults Faults
	more   bool
}

func (l *faultList) add(f Fault) {
	if len(l.faults) >= maxFaults {
		if !l.more {
			l.more = true
			l.faults = append(l.faults, Fault{Detail: fmt.Sprintf("more than %d faults; the rest is not listed", maxFaults), Code: CodeTooLarge})
		}
		return
	}
	f.Value = shorten(f.Value)
	l.faults = append(l.faults, f)
}

func (l *faultList) addf(at pointer, value any, format string, args ...any) {
	l.add(Fault{Pointer: at.String(), Detail: fmt.Sprintf(format, args...), Value: value})
}

// shorten keeps answers small: whole maps and lists are not repeated, long strings are cut at a rune.
func shorten(v any) any {
	const limit = 80
	switch v := v.(type) {
	case string:
		if len(v) <= limit {
			return strings.ToValidUTF8(v, "�")
		}
		return strings.ToValidUTF8(v[:limit], "") + "…"
	case object, list:
		return nil
	}
	return v
}

// quote prints a value of a document in a message, shortened.
func quote(s string) string { return strconv.Quote(shorten(s).(string)) }

// pointer is a JSON pointer under construction. The zero value is the document itself. It is immutable: at returns a longer one that
// shares its parent, so that building one costs nothing where no fault is found.
type pointer struct {
	parent *pointer
	key    string
	index  int // used if key is empty and parent is not nil
	isKey  bool
}

func (p *pointer) field(name string) pointer { return pointer{parent: p, key: name, isKey: true} }

func (p *pointer) at(i int) pointer { return pointer{parent: p, index: i} }

// path is a pointer below p: field names and indices.
func (p *pointer) path(steps ...any) pointer {
	cur := p
	for _, s := range steps {
		var next pointer
		switch s := s.(type) {
		case string:
			next = cur.field(s)
		case int:
			next = cur.at(s)
		}
		cur = &next
	}
	return *cur
}

func (p pointer) String() string {
	var steps []string
	for q := &p; q.parent != nil; q = q.parent {
		if q.isKey {
			steps = append(steps, escapePointer(q.key))
		} else {
			steps = append(steps, strconv.Itoa(q.index))
		}
	}
	if len(steps) == 0 {
		return ""
	}
	slices.Reverse(steps)
	return "/" + strings.Join(steps, "/")
}

// escapePointer follows RFC 6901 §3.
func escapePointer(s string) string {
	if !strings.ContainsAny(s, "~/") {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}
