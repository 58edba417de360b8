package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestWords lists the constants of type policy.Reason and policy.Code. Each has a comment, is spelled like the others of its type and
// stands in the documentation and in the OpenAPI description; no other file of the program spells it out.
func TestWords(t *testing.T) {
	shapes := map[string]*regexp.Regexp{
		"Reason": regexp.MustCompile(`^([A-Z][a-z]+|MAC|MTU)+$`),
		"Code":   regexp.MustCompile(`^[A-Z]+(_[A-Z]+)*$`),
	}
	docs := read(t, "../docs/*.md")
	openAPI := read(t, "../api/openapi.json")
	values := map[string]string{} // constants by value
	var literals []*ast.BasicLit
	word := func(in string, spec *ast.ValueSpec, doc *ast.CommentGroup) {
		kind := strings.TrimPrefix(typeName(in, spec.Type), "policy.")
		if shapes[kind] == nil {
			return
		}
		name, word := spec.Names[0].Name, text(spec.Values[0])
		if values[word] != "" {
			t.Errorf("%s and %s are both %q", values[word], name, word)
		}
		values[word] = name
		if !shapes[kind].MatchString(word) {
			t.Errorf("%s: %q is not spelled like a %s", name, word, kind)
		}
		if spec.Comment == nil && spec.Doc == nil && doc == nil {
			t.Errorf("%s has no comment", name)
		}
		if !strings.Contains(docs, "`"+word+"`") {
			t.Errorf("docs/*.md know nothing of `%s`", word)
		}
		if !regexp.MustCompile(`\b` + word + `\b`).MatchString(openAPI) {
			t.Errorf("api/openapi.json knows nothing of %s", word)
		}
	}
	files := token.NewFileSet()
	for _, path := range sources(t) {
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		test := strings.HasSuffix(path, "_test.go")
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GenDecl:
				if n.Tok != token.CONST {
					return true
				}
				for _, spec := range n.Specs {
					if spec := spec.(*ast.ValueSpec); !test {
						word(file.Name.Name, spec, n.Doc)
					}
				}
				return false // constants of other types may have the same value
			case *ast.BasicLit:
				if n.Kind == token.STRING && !test {
					literals = append(literals, n)
				}
			}
			return true
		})
	}
	if len(values) < 50 {
		t.Fatalf("only %d words were found", len(values))
	}
	for _, l := range literals {
		if name := values[text(l)]; name != "" {
			t.Errorf("%s: %s instead of %s", files.Position(l.Pos()), l.Value, name)
		}
	}
}

// typeName is the name of a type as other packages write it.
func typeName(in string, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return in + "." + e.Name
	case *ast.SelectorExpr:
		return typeName("", e.X)[1:] + "." + e.Sel.Name
	}
	return ""
}

func text(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		if s, err := strconv.Unquote(l.Value); err == nil {
			return s
		}
	}
	return ""
}

// sources are the paths of all Go files of the module.
func sources(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	var b strings.Builder
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}
