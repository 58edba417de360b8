// Package test holds what is true of the whole tree: its layering and its habits.
package test

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/tapwall/tapwall/"

// forbidden lists the edges of the import graph that must not be, each with its reason (design notes, docs/design/0001-shape.md). A
// trailing slash covers a whole subtree.
var forbidden = []struct{ from, to, why string }{
	{"policy", "ofctrl/", "a policy means the same whatever enforces it"},
	{"policy", "ovsdb/", "a policy means the same whatever enforces it"},
	{"policy", "policy/compile", "values do not know their compiler"},
	{"policy", "event", "values do not know the record"},
	{"policy", "api", "values do not know how they travel"},
	{"policy", "internal/", "values promise nothing private"},
	{"ofctrl/flow", module, "values stand alone"},
	{"ovsdb/vswitch", module, "values stand alone"},
	{"internal/packet", module, "values stand alone"},
	{"ofctrl/ofp", "policy", "the codec knows OpenFlow only"},
	{"ofctrl/ofp", "ofctrl/pipeline", "the codec knows OpenFlow only"},
	{"ofctrl/ofp", "net", "a codec does no I/O"},
	{"ofctrl/pipeline", "policy", "the layout is there before any policy"},
	{"policy/compile", "net/http", "pure: no I/O"},
	{"policy/compile", "os", "pure: no I/O"},
	{"policy/compile", "time", "pure: no clock"},
	{"policy/compile", "ofctrl/ofp", "compilation ends at flow values"},
	{"ofctrl", "policy", "the engine moves flows, whatever they mean"},
	{"ofctrl", "ovsdb/", "one protocol each"},
	{"ofctrl", "event", "packet-ins are handed to a function"},
	{"ovsdb", "policy", "the engine moves rows, whatever they mean"},
	{"ovsdb", "ofctrl/", "one protocol each"},
	{"event", module, "values stand alone"},
	{"event/record", "ofctrl/", "events are made of values, not of messages"},
	{"event/record", "policy", "a rule is a name here"},
	{"event/record", "api", "the record does not know who reads it"},
	{"event/record", "event/jsonl", "the record does not know where events are copied to"},
	{"event/record", "internal/host", "what names events is handed in, and not asked for above"},
	{"event/jsonl", "event/record", "a sink takes events, whoever made them"},
	{"api", "event/record", "the API reaches the record through an interface it declares"},
	{"api/wire", "event/record", "documents are values"},
	{"internal/host", "event/jsonl", "where events are copied to is the record's matter"},
	{"internal/store", "ofctrl/", "the store keeps documents"},
	{"internal/store", "api", "what they exchange is in internal/backend"},
	{"internal/host", "api", "what they exchange is in internal/backend and api/wire"},
	{"internal/backend", "api", "values do not know how they travel"},
	{"api", "ofctrl/", "the API reaches engines through interfaces it declares"},
	{"api", "ovsdb/", "the API reaches engines through interfaces it declares"},
	{"api", "internal/store", "the API reaches the store through an interface it declares"},
	{"api", "internal/host", "the API reaches engines through interfaces it declares"},
	{"api/wire", "api", "documents do not know their server"},
	{"api/wire", "net/http", "documents do not know how they travel"},
	{"api/client", "api", "a client must not link the server"},
	{"api/client", "internal/store", "a client must not link the server"},
	{"internal/host", "net/http", "the engine is reached through the API"},
}

type goPackage struct {
	ImportPath, Dir string
	Imports         []string
	GoFiles         []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p goPackage
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

func TestImportTable(t *testing.T) {
	known := map[string]bool{}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		known[name] = true
		for _, imp := range p.Imports {
			for _, f := range forbidden {
				if f.from != name {
					continue
				}
				to := f.to
				if !strings.HasPrefix(to, module) && strings.HasPrefix(imp, module) {
					to = module + to
				}
				if imp == strings.TrimSuffix(to, "/") || strings.HasSuffix(to, "/") && strings.HasPrefix(imp, to) {
					t.Errorf("%s imports %s: %s", name, imp, f.why)
				}
			}
			if imp == module+"internal/app" && !strings.HasPrefix(name, "cmd/") && !strings.HasPrefix(name, "test") {
				t.Errorf("%s imports internal/app: only cmd puts the program together", name)
			}
		}
	}
	for _, f := range forbidden {
		if !known[f.from] {
			t.Errorf("the table speaks of package %s, which does not exist", f.from)
		}
	}
}

// The words that say nothing about the job of a package.
func TestPackageNames(t *testing.T) {
	for _, p := range packages(t) {
		switch base := filepath.Base(p.ImportPath); base {
		case "util", "utils", "common", "helpers", "types", "misc":
			t.Errorf("%s: %q names no job", p.ImportPath, base)
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		found := false
		for _, f := range p.GoFiles {
			ast, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.Doc != nil && len(ast.Doc.Text()) > 40 {
				found = true
			}
		}
		if !found && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment worth the name", p.ImportPath)
		}
	}
}

// A replace line would make a clean `go install` differ from a checkout.
func TestNoReplace(t *testing.T) {
	b, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(strings.TrimSpace(line), "replace") {
			t.Errorf("go.mod: %s", line)
		}
	}
}
