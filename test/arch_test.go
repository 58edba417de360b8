// Package test holds what is true of the whole tree: its layering and its habits.
package test

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tapwall/tapwall/"

// forbidden lists the edges of the import graph that must not be, each with its reason (design notes, docs/design/0001-shape.md). A
// trailing slash covers a whole subtree.
var forbidden = []struct{ from, to, why string }{
	{"policy", "ofctrl/", "a policy means the same whatever enforces it"},
	{"policy", "ovsdb/", "a policy means the same whatever enforces it"},
	{"policy", "policy/compile/", "values do not know their compiler"},
	{"policy", "policy/inventory", "values do not know where they are found"},
	{"policy/inventory", "ofctrl/", "what is plugged in is known before there is a flow"},
	{"policy/inventory", "ovsdb", "it looks at snapshots, whoever took them"},
	{"policy/inventory", "policy/compile/", "compilers ask it, each for its part"},
	{"policy/inventory", "event", "what is plugged in is known before anything happens"},
	{"policy/inventory", "internal/", "pure: nothing of how the program runs"},
	{"policy/inventory", "net/http", "pure: no I/O"},
	{"policy/inventory", "os", "pure: no I/O"},
	{"policy/inventory", "time", "pure: no clock"},
	{"policy", "event", "values do not know the record"},
	{"policy", "api", "values do not know how they travel"},
	{"policy", "internal/", "values promise nothing private"},
	{"ofctrl/flow", module, "values stand alone"},
	{"ovsdb/vswitch", module, "values stand alone"},
	{"internal/packet", module, "values stand alone"},
	{"internal/packet/l7", module, "bytes in, values out"},
	{"internal/packet/l7", "os", "pure: no I/O"},
	{"internal/reject", module, "bytes in, bytes out"},
	{"internal/reject", "net", "pure: no I/O"},
	{"internal/capture", "policy", "devices and packets, whoever mirrors them there"},
	{"internal/capture", "ofctrl/", "it reads devices, and no switch"},
	{"internal/capture", "internal/host", "it is started, and does not know by whom"},
	{"internal/capture", "net/http", "who reads a capture is handed bytes"},
	{"internal/capture/pcapng", module, "values stand alone"},
	{"internal/capture/pcapng", "os", "a codec does no I/O"},
	{"internal/learn", "ofctrl/", "frames in, addresses out"},
	{"internal/learn", "internal/", "it knows policies' workloads, and nothing of how the program runs"},
	{"internal/learn", "event", "who learns does not know who is told"},
	{"internal/learn", "os", "pure: no I/O"},
	{"ofctrl/ofp", "policy", "the codec knows OpenFlow only"},
	{"ofctrl/ofp", "ofctrl/pipeline", "the codec knows OpenFlow only"},
	{"ofctrl/ofp", "net", "a codec does no I/O"},
	{"ofctrl/pipeline", "policy", "the layout is there before any policy"},
	{"ofctrl/probe", "policy", "a switch is asked about a frame, whatever it means"},
	{"ofctrl/tables", "policy", "it evaluates flows, whatever they mean"},
	{"ofctrl/tables", "ofctrl/ofp", "there is no switch"},
	{"policy/compile/wall", "net/http", "pure: no I/O"},
	{"policy/compile/tap", "net/http", "pure: no I/O"},
	{"policy/compile/wall", "os", "pure: no I/O"},
	{"policy/compile/tap", "os", "pure: no I/O"},
	{"policy/compile/wall", "time", "pure: no clock"},
	{"policy/compile/tap", "time", "pure: no clock"},
	{"policy/compile/wall", "policy/compile/tap", "each compiler contributes its part"},
	{"policy/compile/tap", "policy/compile/wall", "each compiler contributes its part"},
	{"policy/compile/wall", "ofctrl/ofp", "compilation ends at flow values"},
	{"policy/compile/tap", "ofctrl/ofp", "compilation ends at flow values"},
	{"ofctrl", "policy", "the engine moves flows, whatever they mean"},
	{"ofctrl", "ovsdb/", "one protocol each"},
	{"ofctrl", "event", "packet-ins are handed to a function"},
	{"ovsdb", "policy", "the engine moves rows, whatever they mean"},
	{"ovsdb", "ofctrl/", "one protocol each"},
	{"event", "policy", "values stand alone"},
	{"event", "ofctrl/", "values stand alone"},
	{"event", "ovsdb/", "values stand alone"},
	{"event", "api/", "values stand alone"},
	{"event", "internal/", "values stand alone"},
	{"duration", module, "values stand alone"},
	{"event/record", "ofctrl/", "events are made of values, not of messages"},
	{"event/record", "policy", "a rule is a name here"},
	{"event/record", "api", "the record does not know who reads it"},
	{"event/record", "event/jsonl", "the record does not know where events are copied to"},
	{"event/record", "internal/host", "what names events is handed in, and not asked for above"},
	{"event/spool", "event/record", "it keeps events, whoever made them"},
	{"event/jsonl", "event/record", "a sink takes events, whoever made them"},
	{"event/opensearch", "event/record", "it reads the spool, whoever filled it"},
	{"event/record", "event/opensearch", "the record does not know where events are exported to"},
	{"api", "event/opensearch", "the API reaches the export through an interface it declares"},
	{"internal/fleet", "event/opensearch", "where events are exported to is the record's matter"},
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
	{"internal/host", "internal/store", "the engine reaches the store through an interface it declares"},
	{"internal/fleet", "api", "what they exchange is in internal/backend and api/wire"},
	{"internal/fleet", "event/jsonl", "where events are copied to is the record's matter"},
	{"internal/host", "internal/fleet", "a host knows no other"},
	{"internal/build", module, "it is a version"},
	{"internal/wholefile", module, "it writes files, whatever is in them"},
	{"internal/lists", "ofctrl/", "it reads lists, whoever uses them"},
	{"internal/lists", "internal/", "it reads lists, whoever uses them"},
	{"internal/fleet", "internal/lists", "lists reach the fleet through an interface it declares"},
	{"internal/pki", "ofctrl/", "it knows certificates, and no protocol"},
	{"internal/pki", "ovsdb/", "it knows certificates, and no protocol"},
	{"ovsdb/unixctl", "policy", "it moves text"},
	{"ovsdb/unixctl", "ofctrl/", "one protocol each"},
}

type goPackage struct {
	ImportPath, Dir string
	Imports         []string // of its files
	Deps            []string // whatever it links
	GoFiles         []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,Deps,GoFiles", "./...")
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

// free are the packages that may import whatever they like, each with its reason. A package that is neither here nor in forbidden has
// not been thought about.
var free = map[string]string{
	"cmd/tapwall":          "the program",
	"internal/app":         "puts the program together",
	"internal/logtest":     "for tests",
	"internal/pki/pkitest": "for tests",
	"ofctrl/oftest":        "for tests",
	"ovsdb/ovsdbtest":      "for tests",
	"test":                 "this test",
	"test/bench":           "measures whatever there is",
	"test/contract":        "for tests",
	"test/demo":            "shows the whole program",
	"test/e2e":             "for tests",
	"test/lab":             "for tests",
	"test/search":          "for tests",
}

// Edges between packages of the module are forbidden by whatever way they come about. Of others only imports are looked at: nearly
// everything links os.
func TestImportTable(t *testing.T) {
	known := map[string]bool{}
	bound := map[string]bool{}
	for _, f := range forbidden {
		bound[f.from] = true
	}
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		known[name] = true
		switch _, is := free[name]; {
		case is && bound[name]:
			t.Errorf("%s is free, and there are edges that it must not have", name)
		case !is && !bound[name]:
			t.Errorf("%s is not in the table: say which edges it must not have, or why it may have all", name)
		}
		for _, f := range forbidden {
			if f.from != name {
				continue
			}
			for _, imp := range append(p.Imports, p.Deps...) {
				path, ours := strings.CutPrefix(imp, module)
				within := strings.HasSuffix(f.to, "/") && (path == strings.TrimSuffix(f.to, "/") || strings.HasPrefix(path, f.to))
				switch {
				case ours && (path == f.to || within || f.to == module):
				case !ours && imp == f.to && slices.Contains(p.Imports, imp):
				default:
					continue
				}
				t.Errorf("%s depends on %s: %s", name, imp, f.why)
				break
			}
		}
		if _, is := free[name]; !is && slices.Contains(p.Deps, module+"internal/app") {
			t.Errorf("%s depends on internal/app: only cmd puts the program together", name)
		}
	}
	for name := range bound {
		if !known[name] {
			t.Errorf("the table speaks of package %s, which does not exist", name)
		}
	}
	for name := range free {
		if !known[name] {
			t.Errorf("%s is free and does not exist", name)
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

// Who follows CONTRIBUTING.md finds the files that it names.
func TestContributing(t *testing.T) {
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile("`([a-z]+/[a-zA-Z0-9_/.-]+)`").FindAllStringSubmatch(string(text), -1)
	if len(paths) < 15 {
		t.Errorf("only %d paths were found", len(paths))
	}
	for _, p := range paths {
		if _, err := os.Stat("../" + p[1]); err != nil {
			t.Error(err)
		}
	}
}
