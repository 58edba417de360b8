package opensearch_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/opensearch"
)

var update = flag.Bool("update", false, "write the generated files anew")

const (
	recordDoc              = "../../docs/record.md"
	schemaBegin, schemaEnd = "<!-- fields: go test ./event/opensearch -run TestGenerated -update -->\n", "<!-- end of fields -->\n"
	regenerate             = "go test ./event/opensearch -run TestGenerated -update"
)

// The table of all fields in docs/record.md is what the types of package event and their comments make of it.
func TestGeneratedSchema(t *testing.T) {
	table := bytes.NewBufferString("| Field | Type | |\n|---|---|---|\n")
	notes := comments(t)
	writeRows(t, table, notes, reflect.TypeFor[event.Event](), opensearch.Mappings(), "")
	have, err := os.ReadFile(recordDoc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := bytes.Cut(have, []byte(schemaBegin))
	_, tail, ok2 := bytes.Cut(rest, []byte(schemaEnd))
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the fields", recordDoc)
	}
	want := bytes.Join([][]byte{head, []byte(schemaBegin), table.Bytes(), []byte(schemaEnd), tail}, nil)
	hold(t, recordDoc, have, want)
}

// hold compares a generated file, or writes it.
func hold(t *testing.T, path string, have, want []byte) {
	t.Helper()
	switch {
	case bytes.Equal(have, want):
	case !*update:
		t.Errorf("%s is not current: %s", path, regenerate)
	default:
		if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // a file of the source
			t.Fatal(err)
		}
	}
}

// writeRows writes a row for each field of a type that holds a value, and for those of the types below it.
func writeRows(t *testing.T, to *bytes.Buffer, notes map[string]string, typ reflect.Type, mapping map[string]any, path string) {
	t.Helper()
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		m := mapping["properties"].(map[string]any)[name].(map[string]any)
		below := f.Type
		for below.Kind() == reflect.Pointer || below.Kind() == reflect.Slice {
			below = below.Elem()
		}
		if m["properties"] != nil {
			writeRows(t, to, notes, below, m, path+name+".")
			continue
		}
		note := notes[typ.Name()+"."+f.Name]
		if note == "" {
			t.Errorf("event.%s.%s has no comment, of which docs/record.md would say what it means", typ.Name(), f.Name)
		}
		if f.Type.Kind() == reflect.Slice {
			note += " (list)"
		}
		fmt.Fprintf(to, "| `%s%s` | %s | %s |\n", path, name, m["type"], strings.ReplaceAll(note, "|", `\|`))
	}
}

// comments are those of the fields of package event, by Type.Field, without the name that one may begin with.
func comments(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	paths, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				note := strings.TrimSpace(f.Doc.Text() + f.Comment.Text())
				for _, name := range f.Names {
					words := strings.TrimSuffix(strings.Join(strings.Fields(note), " "), ".")
					for _, begin := range []string{name.Name, ":", " is", " says", " are"} {
						words = strings.TrimPrefix(words, begin)
					}
					out[spec.Name.Name+"."+name.Name] = strings.TrimSpace(words)
				}
			}
			return true
		})
	}
	return out
}
