package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/theory/jsonpath"
)

// template is the text of -o jsonpath as kubectl's users write it: text with {.path} expressions, {"quoted text"}, and {range
// .path}…{end}. Paths are those of RFC 9535, whose leading $ may be left out; names in them may hold hyphens, and dots behind a backslash.
type template struct{ parts []part }

type part struct {
	literal string         // or
	path    *jsonpath.Path // its values, separated by blanks, or
	body    *template      // once for each value of path
}

func parseTemplate(s string) (*template, error) {
	t, rest, err := parseParts(s, false)
	if err == nil && rest != "" {
		err = fmt.Errorf("{end} without {range}")
	}
	return t, err
}

// parseField reads one path, with or without braces and the leading dot.
func parseField(s string) (*template, error) {
	if strings.HasPrefix(s, "{") {
		return parseTemplate(s)
	}
	p, err := parsePath(s)
	return &template{[]part{{path: p}}}, err
}

// parseParts reads up to the end of s, or of the range that it is in. rest is what is behind.
func parseParts(s string, inRange bool) (t *template, rest string, err error) {
	t = &template{}
	for s != "" {
		text, after, found := strings.Cut(s, "{")
		if text != "" {
			t.parts = append(t.parts, part{literal: text})
		}
		if !found {
			s = ""
			break
		}
		n := closing(after)
		if n < 0 {
			return nil, "", fmt.Errorf("{%s is not closed", after)
		}
		expr := strings.TrimSpace(after[:n])
		s = after[n+1:]
		switch path, isRange := strings.CutPrefix(expr, "range "); {
		case expr == "end" && inRange:
			return t, s, nil
		case expr == "end":
			return nil, "", fmt.Errorf("{end} without {range}")
		case isRange:
			p, err := parsePath(strings.TrimSpace(path))
			if err != nil {
				return nil, "", err
			}
			body, rest, err := parseParts(s, true)
			if err != nil {
				return nil, "", err
			}
			t.parts, s = append(t.parts, part{path: p, body: body}), rest
		case strings.HasPrefix(expr, `"`):
			literal, err := strconv.Unquote(expr)
			if err != nil {
				return nil, "", fmt.Errorf("{%s}: not a quoted text", expr)
			}
			t.parts = append(t.parts, part{literal: literal})
		default:
			p, err := parsePath(expr)
			if err != nil {
				return nil, "", err
			}
			t.parts = append(t.parts, part{path: p})
		}
	}
	if inRange {
		return nil, "", fmt.Errorf("{range} without {end}")
	}
	return t, "", nil
}

// closing is where the brace closes that s is behind; those in quotes do not. It is -1 if it does not close.
func closing(s string) int {
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == '\\':
			i++
		case c == quote:
			quote = 0
		case quote != 0:
		case c == '"' || c == '\'':
			quote = c
		case c == '}':
			return i
		}
	}
	return -1
}

// parsePath writes .a.b-c as RFC 9535 does, $["a"]["b-c"], and leaves brackets to it.
func parsePath(s string) (*jsonpath.Path, error) {
	rest := strings.TrimLeft(strings.TrimPrefix(s, "@"), " ")
	rest = strings.TrimPrefix(rest, "$")
	if rest != "" && rest[0] != '.' && rest[0] != '[' {
		rest = "." + rest
	}
	var b strings.Builder
	b.WriteByte('$')
	for rest != "" && rest != "." { // a dot alone is the whole document
		switch {
		case rest[0] == '[':
			n := bracket(rest)
			b.WriteString(rest[:n])
			rest = rest[n:]
		case strings.HasPrefix(rest, ".."):
			b.WriteString("..")
			rest = rest[2:]
			if rest != "" && rest[0] != '[' {
				rest = writeName(&b, rest)
			}
		default:
			rest = writeName(&b, strings.TrimPrefix(rest, "."))
		}
	}
	p, err := jsonpath.Parse(b.String())
	if err != nil {
		return nil, fmt.Errorf("%q is no path: %s", s, strings.TrimPrefix(err.Error(), "jsonpath: "))
	}
	return p, nil
}

// bracket is the length of the bracketed part that s begins with.
func bracket(s string) int {
	depth, quote := 0, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == '\\':
			i++
		case c == quote:
			quote = 0
		case quote != 0:
		case c == '"' || c == '\'':
			quote = c
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s) // the parser says what is missing
}

// writeName writes the name that s begins with in brackets, and returns what is behind it.
func writeName(b *strings.Builder, s string) (rest string) {
	var name strings.Builder
	i := 0
	for ; i < len(s) && s[i] != '.' && s[i] != '['; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		name.WriteByte(s[i])
	}
	if name.String() == "*" {
		b.WriteString("[*]")
	} else {
		b.WriteString("[" + strconv.QuoteToASCII(name.String()) + "]")
	}
	return s[i:]
}

// values are those of the first path.
func (t *template) values(doc any) []any {
	for _, p := range t.parts {
		if p.path != nil {
			return p.path.Select(doc)
		}
	}
	return nil
}

// text fills the template in; what the document brings is escaped.
func (t *template) text(doc any) string {
	var b strings.Builder
	for _, p := range t.parts {
		switch {
		case p.path == nil:
			b.WriteString(p.literal)
		case p.body != nil:
			for _, v := range p.path.Select(doc) {
				b.WriteString(p.body.text(v))
			}
		default:
			for i, v := range p.path.Select(doc) {
				if i > 0 {
					b.WriteByte(' ')
				}
				b.WriteString(valueText(v))
			}
		}
	}
	return b.String()
}
