package main

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// hostileText has something of all that a name must not do to a terminal: start a control sequence, break the line, turn its direction,
// hide. badUTF8 stands for bytes that are no UTF-8, which encoding/json would not write.
const (
	badUTF8     = "NOT-UTF-8"
	hostileText = "a\x1b]0;owned\x07\x1b[31mb\nc\rd\te\x00f\x7fg\u009bh\u202ei\u2066j\u200bk\ufeffl\u2028m\U000e0041n" + badUTF8
)

// invocations are the arguments that each command is tried with. {dir} is a directory with a valid document, {bad} a file with hostile
// faults.
var invocations = map[string][]string{
	"confirm":  {"", "{hostile}", "--list", "--undo {hostile}", "{hostile} -o json"},
	"apply":    {"-f {dir}", "-f {dir} -o json", "-f {dir} -o yaml", "-f {dir} --dry-run", "-f {dir} --wait", "-f {bad}"},
	"delete":   {"policy x", "policy x y --wait", "all -l x", "-f {dir}", "-f {bad}"},
	"describe": {"policy x", "group x", "endpoint x", "mirror x", "workload {hostile}", "host {hostile}"},
	"edit":     {"policy x", "mirror x --wait"},
	"explain":  {"policy", "policy.spec.ingress", "policy --recursive", "policy.{hostile}"},
	"diff":     {"-f {dir}", "-f {dir} --flows", "-f {dir} -o json", "-f {bad}"},
	"flows":    {"", "-o wide", "-o json", "-o yaml"},
	"lint":     {"", "--unused-for 30d"},

	"connections":         {"", "-o wide", "-o json", "-o yaml", "--endpoint {hostile}"},
	"connections explain": {"0x12", "udp,orig=(src=1.1.1.1,dst=2.2.2.2)", "-", "{hostile}", "0x12 -o json"},
	"connections kill":    {"--all", "--endpoint {hostile}", "--all --dry-run", "--all -o json"},

	"get": {"all", "policies,groups -o name", "workloads -o jsonpath={..key}", "hosts -o jsonpath={..bridges[*].name}",
		"policies -l watch -w --interval=100ms", "policies --sort-by=name", "workload {hostile}",
		"policies", "groups", "endpoints", "mirrors", "hosts", "workloads", "policies -o wide", "policies --never-hit -o wide",
		"workloads -o wide", "workloads -o json",
		"workloads -o yaml", "policy x -o yaml", "mirror x -o json"},
	"group":        {""},
	"group add":    {"x 10.0.0.0/8", "x 10.0.0.0/8 --wait", "x {hostile}", "x -f {bad}", "x vm=a --dry-run"},
	"group remove": {"x 10.0.0.0/8", "x 10.0.0.0/8 --wait", "x {hostile}", "x -f {bad}"},
	"mirror":       {""},
	"mirror start": {"x", "x --wait"},
	"mirror stop":  {"x", "x --wait"},
	"tap": {"port=x --to y", "vm=x --to y --name z --wait", "no{hostile} --to y", "port=x --to {hostile}", "port=x --to y --dry-run",
		"port=x --to vxlan://{hostile}", "port=x --to y --peer {hostile}", "port=x --port {hostile} --to y",
		"port=x -w - --name z"},
	"capture":      {"", "x", "x --since 5m -w -", "{hostile}", "x --since {hostile}"},
	"capture list": {"", "x", "-o json", "-o yaml"},
	"capture save": {"x -w -", "x --since 30s --until {hostile}", "{hostile} --host {hostile} -w -"},
	"capture get":  {"x y -w -", "x {hostile} -w -"},
	"extcap": {"", "--extcap-interfaces", "--extcap-config --extcap-interface tapwall", "--extcap-interface {hostile} --extcap-dlts",
		"--extcap-interface tapwall-x --extcap-capture-filter {hostile}", "--capture --extcap-interface tapwall-x --fifo /dev/null"},
	"quarantine":         {""},
	"quarantine add":     {"x", "vm={hostile} --wait", "port=x --name x --pass {hostile}"},
	"quarantine release": {"x", "x --wait"},
	"quarantine list":    {"", "-o wide", "-o json"},
	"export":             {""},
	"export status":      {"", "-o json", "-o yaml"},
	"export test":        {""},
	"export replay-dlq":  {""},
	"observe": {"", "-o json", "--all --fail-on-loss", "--numeric --print-node", "-f", "-o table --print-node --print-rule", "-o dict",
		"-o csv", "-o ek", "-o json --field-mask source,rule,tapwall", "-o csv --field-mask rule,{hostile}", "--time-format {hostile}",
		"--to {hostile} --policy {hostile} --not --label {hostile}", "--input-file {bad}",
		"--aggregate src,dst", "--aggregate src-label:{hostile} -o json", "--aggregate {hostile}", "--aggregate src --window {hostile}"},
	"top":     {"--once", "--once -o json", "--by {hostile}", "--once --by src-label:{hostile}"},
	"trace":   {"x {hostile} tcp 1", "{hostile} x icmp -o wide", "x x {hostile}", "x x tcp {hostile} -o json"},
	"status":  {"", "-o json", "-o yaml", "--ready"},
	"version": {""},
}

// Commands that print nothing but what this program says itself, or that run for ever.
var unasked = []string{"serve", "exit-codes", "help", "completion bash", "completion fish", "completion powershell", "completion zsh"}

// TestFault_F21_TerminalInjection lets a server, files and arguments speak with hostile names to every command, and every completion.
func TestFault_F21_TerminalInjection(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("docs/g.yaml", "kind: Group\nname: g\nspec: {members: []}\n")
	quoted := strconv.QuoteToASCII(strings.ToValidUTF8(hostileText, "\uFFFD")) // YAML takes control characters as escapes only
	write("hostile.yaml", "kind: Group\nname: "+quoted+"\n"+quoted+": 1\nspec: {members: [{"+quoted+": 1}, {entity: "+quoted+"}]}\n")
	write("harmless.yaml", "kind: Group\nname: X\nx: 1\nspec: {members: [{x: 1}, {entity: x}]}\n")
	t.Setenv("EDITOR", "true")
	t.Setenv("TAPWALL_TOKEN", "")

	sockets := map[string]string{}
	for name, h := range map[string]http.Handler{
		"answers/hostile": &talker{text: hostileText}, "answers/harmless": &talker{text: "x"},
		"problems/hostile": &talker{text: hostileText, problems: true}, "problems/harmless": &talker{text: "x", problems: true},
	} {
		sockets[name] = "unix:" + serveUnix(t, h)
	}
	try := func(server, kind string, args ...string) (code int, out string) {
		args = slices.Clone(args)
		for i, a := range args {
			args[i] = strings.NewReplacer("{hostile}", map[bool]string{true: strings.ReplaceAll(hostileText, badUTF8, "\uFFFD\uFFFD\uFFFD"),
				false: "x"}[kind == "hostile"], "{dir}", filepath.Join(dir, "docs"), "{bad}", filepath.Join(dir, kind+".yaml")).Replace(a)
		}
		var b bytes.Buffer
		code = run(t.Context(), slices.Concat([]string{"--server", sockets[server+"/"+kind]}, args), strings.NewReader(""), &b, &b)
		return code, b.String()
	}
	seen := 0
	check := func(t *testing.T, out string) {
		t.Helper()
		seen += strings.Count(out, `\u202e`)
		for line := range strings.Lines(out) {
			if bad := strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", ""); unsafeText(bad) {
				t.Errorf("it printed %q", line)
			}
		}
	}
	for _, c := range commands(newRoot()) {
		path := strings.Fields(strings.TrimPrefix(c.CommandPath(), "tapwall"))
		name := strings.Join(path, " ")
		if slices.Contains(unasked, name) {
			continue
		}
		if invocations[name] == nil {
			t.Errorf("the test does not know what to call %q with", name)
		}
		t.Run(name, func(t *testing.T) {
			for _, args := range invocations[name] {
				args := slices.Concat(path, strings.Fields(args))
				for _, server := range []string{"answers", "problems"} {
					code, out := try(server, "hostile", args...)
					check(t, out)
					// Harmless names must make as many lines: else a name has made one.
					if wantCode, want := try(server, "harmless", args...); wantCode != code || strings.Count(want, "\n") != strings.Count(out, "\n") {
						t.Errorf("%q: code %d, with harmless names %d; it printed\n%s\nwith harmless names\n%s", args, code, wantCode, out, want)
					}
				}
			}
			_, out := try("answers", "hostile", append(slices.Clone(path), hostileText, hostileText)...)
			check(t, out)
			_, out = try("answers", "hostile", slices.Concat([]string{"__complete"}, path, []string{""})...)
			check(t, out)
			for _, flag := range flagNames(c) {
				_, out := try("answers", "hostile", slices.Concat(path, []string{"--" + flag, hostileText})...)
				check(t, out)
				_, out = try("answers", "hostile", slices.Concat([]string{"__complete"}, path, []string{"--" + flag, ""})...)
				check(t, out)
			}
		})
	}
	if seen < len(invocations) {
		t.Errorf("the hostile text came through %d times only: is it asked for?", seen)
	}
}

// commands lists a command and all below it that can be run.
func commands(c *cobra.Command) (out []*cobra.Command) {
	if !c.HasParent() {
		c.InitDefaultHelpCmd()
		c.InitDefaultCompletionCmd()
	}
	for _, sub := range c.Commands() {
		if sub.Runnable() && !sub.HasSubCommands() || sub.Name() == "mirror" || sub.Name() == "capture" || sub.Name() == "connections" {
			out = append(out, sub)
		}
		out = append(out, commands(sub)...)
	}
	return out
}

// talker answers every request with documents in which every text is the same one, or with problems made of it.
type talker struct {
	text     string
	problems bool
	streams  atomic.Int64
	watches  atomic.Int64 // every second list with the label watch ends a get -w
}

// ServeHTTP implements http.Handler.
func (k *talker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status := http.StatusOK
	var body any
	kind := policy.Kind("")
	for _, x := range policy.Kinds() {
		if strings.HasPrefix(r.URL.Path, "/v1/"+x.Plural()) {
			kind = x
		}
	}
	switch path := r.URL.Path; {
	case k.problems || path == "/readyz" || r.Method == "DELETE" && path != "/v1/connections",
		path == "/v1/events/stream" && k.streams.Add(1) > 1,
		r.URL.Query().Get("label") == "watch" && k.watches.Add(1)%2 == 0:
		p := filled[client.Problem](k.text)
		if status = http.StatusGatewayTimeout; path == "/v1/events/stream" { // which is not taken up again then
			status = http.StatusForbidden
		}
		p.Status = status
		w.Header().Set("Content-Type", "application/problem+json")
		body = p
	case path == "/v1/"+kind.Plural():
		body = wire.List[client.Document]{Items: []client.Document{k.document(kind), k.document(kind)}}
	case kind != "":
		body = k.document(kind)
	case path == "/v1/apply":
		body = filled[wire.ApplyResult](k.text)
	case path == "/v1/hosts":
		body = wire.List[wire.Host]{Items: []wire.Host{filled[wire.Host](k.text)}}
	case path == "/v1/workloads":
		body = wire.List[wire.Workload]{Items: []wire.Workload{filled[wire.Workload](k.text)}}
	case path == "/v1/flows":
		body = wire.List[wire.FlowEntry]{Items: []wire.FlowEntry{filled[wire.FlowEntry](k.text)}}
	case path == "/v1/connections" && r.Method == "DELETE":
		body = filled[wire.Killed](k.text)
	case path == "/v1/connections":
		body = filled[wire.Connections](k.text)
	case path == "/v1/connections/explain":
		body = wire.List[wire.Explanation]{Items: []wire.Explanation{filled[wire.Explanation](k.text)}}
	case path == "/v1/captures":
		body = wire.List[wire.Capture]{Items: []wire.Capture{filled[wire.Capture](k.text)}}
	case path == "/v1/classes":
		body = wire.List[wire.Class]{Items: []wire.Class{filled[wire.Class](k.text)}}
	case path == "/v1/events":
		verdict, loss, notice := filled[event.Event](k.text), filled[event.Event](k.text), filled[event.Event](k.text)
		verdict.Tapwall.Loss, verdict.Tapwall.Notice, loss.Tapwall.Notice, notice.Tapwall.Loss = nil, nil, nil, nil
		verdict.Event.ID, loss.Event.ID, notice.Event.ID = "one", "two", "three" // they go into a header, which could not be sent
		body = event.Page{Items: []*event.Event{&verdict, &loss, &notice}, Oldest: verdict.Timestamp}
	case path == "/v1/events/aggregate":
		body = filled[event.Summary](k.text)
	case path == "/v1/events/stream":
		e := filled[event.Event](k.text)
		e.Event.ID = "three"
		body = e
	case path == "/openapi.json":
		field := map[string]any{"description": k.text, "type": k.text, "enum": []string{k.text}}
		object := map[string]any{"description": k.text, "properties": map[string]any{k.text: field,
			"spec": map[string]any{"properties": map[string]any{"ingress": field}}}}
		body = map[string]any{"components": map[string]any{"schemas": map[string]any{"Policy": object}}}
	case path == "/v1/status":
		body = filled[wire.SystemStatus](k.text)
	default:
		http.NotFound(w, r)
		return
	}
	j, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(bytes.ReplaceAll(j, []byte(badUTF8), []byte("\xff\x9b\xc3")), '\n'))
}

func (k *talker) document(kind policy.Kind) client.Document {
	var spec any
	switch kind {
	case policy.KindMirror:
		spec = filled[policy.MirrorSpec](k.text)
	case policy.KindPolicy:
		spec = filled[policy.PolicySpec](k.text)
	case policy.KindGroup:
		spec = filled[policy.GroupSpec](k.text)
	case policy.KindEndpoint:
		spec = filled[policy.EndpointSpec](k.text)
	case policy.KindQuarantine:
		spec = filled[policy.QuarantineSpec](k.text)
	}
	d := filled[client.Document](k.text)
	d.Spec, _ = json.Marshal(spec)
	return d
}

// filled is a T all whose texts, at any depth, are text.
func filled[T any](text string) T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), text)
	return v
}

func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Interface:
		v.Set(reflect.ValueOf(text))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte("{}"))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text)
		fill(value, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 11, 20, 22, 14, 5, 0, time.UTC)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), text)
			}
		}
	}
}

func serveUnix(t *testing.T, h http.Handler) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tw") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
		os.RemoveAll(dir)
	})
	return path
}

// Escapes that parsers read back: what is printed as JSON and YAML is still what it was.
func TestSafeDocuments(t *testing.T) {
	want := map[string]any{"plain": "x", "text": strings.TrimSuffix(hostileText, badUTF8),
		hostileText: []any{map[string]any{hostileText: hostileText}}}
	for name, print := range map[string]func(*bytes.Buffer) error{
		"JSON": func(b *bytes.Buffer) error { return printJSON(b, want) },
		"YAML": func(b *bytes.Buffer) error { return printYAML(b, want) },
	} {
		var b bytes.Buffer
		if err := print(&b); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if unsafeText(strings.TrimSuffix(line, "\n")) {
				t.Errorf("%s has the line %q", name, line)
			}
		}
		if have, err := decodeTree(b.Bytes()); err != nil || !reflect.DeepEqual(have, any(want)) {
			t.Errorf("%s reads back as %v, %v from\n%s", name, have, err, b.String())
		}
	}
}

// Only screen.go prints by package fmt.
func TestPrintingGoesThroughTheScreen(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if name == "screen.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "fmt" && (strings.HasPrefix(s.Sel.Name, "Fprint") || strings.HasPrefix(s.Sel.Name,
					"Print")) {
					t.Errorf("%s: fmt.%s does not escape what comes from outside: use printf", set.Position(n.Pos()), s.Sel.Name)
				}
			}
			return true
		})
	}
}
