package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/tapwall/tapwall/event"
)

// What this program prints comes from packets, from port names and external_ids that whoever runs a VM may set, and from files that
// somebody else wrote. None of it may steer a terminal, turn the direction of text, or look like a line of ours. So everything is
// printed by the functions of this file: printf and table escape what they are given, printJSON and printYAML write escapes that parsers
// read back, and the screen below them lets nothing through that an unmindful caller forgot. A test (TestFault_F21) feeds hostile names
// to every command.

// screen is standard output or standard error: all bytes but line ends and tabs are as event.Escape leaves them. Each Write is whole
// characters.
type screen struct{ w io.Writer }

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := bytes.IndexAny(rest, "\n\t")
		part, end := rest, ""
		if n >= 0 {
			part, end = rest[:n], string(rest[n])
		}
		if _, err := io.WriteString(s.w, event.Escape(string(part))+end); err != nil {
			return 0, err
		}
		rest = rest[len(part)+len(end):]
	}
	return len(p), nil
}

// printf is fmt.Fprintf with every argument that is not a number escaped: only the format breaks lines.
func printf(w io.Writer, format string, args ...any) error {
	safe := make([]any, len(args))
	for i, a := range args {
		switch k := reflect.ValueOf(a).Kind(); {
		case k == reflect.Bool, k >= reflect.Int && k <= reflect.Float64 && reflect.TypeOf(a).NumMethod() == 0:
			safe[i] = a
		default:
			safe[i] = event.Escape(fmt.Sprint(a))
		}
	}
	_, err := fmt.Fprintf(w, format, safe...)
	return err
}

// printEscaped writes a line that package event has escaped, and may have coloured.
func printEscaped(w io.Writer, line string) error {
	_, err := io.WriteString(unscreened(w), line+"\n")
	return err
}

// unscreened is what is under a screen, for what is no text or has been escaped.
func unscreened(w io.Writer) io.Writer {
	if s, ok := w.(*screen); ok {
		return s.w
	}
	return w
}

// table prints rows under a header (words separated by blanks; "" = none), aligned.
func table(w io.Writer, header string, rows [][]string) error {
	return indentedTable(w, "", header, rows)
}

func indentedTable(w io.Writer, indent, header string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 3, ' ', 0)
	if header != "" {
		fmt.Fprintln(t, indent+strings.ReplaceAll(header, " ", "\t"))
	}
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = event.Escape(c)
		}
		fmt.Fprintln(t, indent+strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// printJSON prints v as JSON over several lines.
func printJSON(w io.Writer, v any) error {
	j, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", safeJSON(j))
	return err
}

// safeJSON writes as \u escapes, within the texts of a JSON document, what event.Escape would have to change. What is not UTF-8 is no
// JSON and becomes U+FFFD (RFC 8259 §8.1).
func safeJSON(j []byte) []byte {
	if !unsafeText(strings.NewReplacer("\n", "", "\t", "").Replace(string(j))) {
		return j
	}
	var b bytes.Buffer
	for _, r := range string(j) {
		switch {
		case r == '\n' || r == '\t' || r != utf8.RuneError && !unsafeText(string(r)):
			b.WriteRune(r)
		case r > 0xffff: // a surrogate pair
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// unsafeText reports whether event.Escape changes s.
func unsafeText(s string) bool { return event.Escape(s) != s }

// printYAML prints v, as encoding/json sees it, as YAML.
func printYAML(w io.Writer, v any) error {
	j, err := json.Marshal(v)
	if err != nil {
		return err
	}
	y, err := asYAML(j)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, y)
	return err
}

// asYAML turns a JSON document into YAML with the keys in the same order, and in which double quotes hold whatever needs escapes.
func asYAML(j []byte) (string, error) {
	var v any
	if err := yaml.UnmarshalWithOptions(j, &v, yaml.UseOrderedMap()); err != nil {
		return "", err
	}
	n, err := yaml.ValueToNode(v)
	if err != nil {
		return "", err
	}
	ast.Walk(quoteUnsafe{}, n)
	return n.String() + "\n", nil
}

// quoteUnsafe makes the printer of YAML quote texts that need escapes: it does so as Go does, and \x, \u and \U mean the same to YAML
// (YAML 1.2 §5.7).
type quoteUnsafe struct{}

// Visit implements ast.Visitor.
func (q quoteUnsafe) Visit(n ast.Node) ast.Visitor {
	if s, ok := n.(*ast.StringNode); ok && unsafeText(s.Value) {
		s.Token.Type = token.DoubleQuoteType
	}
	return q
}
