package test

import (
	"encoding/json"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// series are the metrics that the program has, each with its labels, and all texts that a label may be.
type series struct {
	labels map[string][]string
	texts  map[string]bool
}

// ofScrape are labels that Prometheus gives to whatever it scrapes.
var ofScrape = []string{"instance", "job"}

// metricsOfSource reads the names from the calls that describe metrics: prometheus.NewDesc, closures named desc around it, and Opts.
func metricsOfSource(t *testing.T) series {
	t.Helper()
	s := series{labels: map[string][]string{"up": ofScrape}, texts: map[string]bool{"tapwall": true}}
	for _, path := range sources(t) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "../test/") {
			continue
		}
		file, err := goparser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			s.read(d)
		}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		s.labels[f.GetName()] = ofScrape
	}
	if len(s.labels) < 60 {
		t.Fatalf("only %d metrics were found", len(s.labels))
	}
	return s
}

func (s *series) read(d ast.Decl) {
	prefix, found, shared := "", map[string][]string{}, slices.Clone(ofScrape)
	literals := func(list []ast.Expr) (out []string) {
		for _, e := range list {
			if l := text(e); l != "" {
				out = append(out, l)
			}
		}
		return out
	}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			s.texts[text(n)] = true
		case *ast.KeyValueExpr:
			if k, ok := n.Key.(*ast.Ident); ok && k.Name == "Name" && strings.HasPrefix(text(n.Value), "tapwall_") {
				found[text(n.Value)] = nil
			}
		case *ast.CompositeLit:
			if _, ok := n.Type.(*ast.ArrayType); ok {
				shared = append(shared, literals(n.Elts)...)
			}
		case *ast.CallExpr:
			name := ""
			switch f := n.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			switch {
			case name == "append":
				shared = append(shared, literals(n.Args)...)
			case name == "NewDesc":
				if b, ok := n.Args[0].(*ast.BinaryExpr); ok {
					prefix = text(b.X)
				} else if text(n.Args[0]) != "" {
					found[text(n.Args[0])] = nil
				}
			case name == "desc" && text(n.Args[0]) != "":
				found[prefix+text(n.Args[0])] = literals(n.Args[2:])
			}
		}
		return true
	})
	for name, own := range found {
		if strings.HasPrefix(name, "tapwall_") {
			s.labels[name] = append(own, shared...)
			for _, suffix := range []string{"_bucket", "_sum", "_count"} { // of histograms
				if strings.HasSuffix(name, "_seconds") {
					s.labels[name+suffix] = append(s.labels[name], "le")
				}
			}
		}
	}
}

var promQL = parser.NewParser(parser.Options{})

// check holds an expression to the metrics and returns the labels that its result may have.
func (s *series) check(report func(form string, args ...any), where, expr string) []string {
	e, err := promQL.ParseExpr(expr)
	if err != nil {
		report("%s: %v: %s", where, err, expr)
		return nil
	}
	var known, used []string
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			of, ok := s.labels[n.Name]
			if !ok {
				report("%s: the program has no metric %q", where, n.Name)
			}
			known = append(known, of...)
			for _, m := range n.LabelMatchers {
				if m.Name == model.MetricNameLabel {
					continue
				}
				if !slices.Contains(of, m.Name) {
					report("%s: %s has no label %q", where, n.Name, m.Name)
				}
				for _, v := range strings.Split(m.Value, "|") {
					if regexp.QuoteMeta(v) == v && v != "" && !s.texts[v] {
						report("%s: nothing in the program is called %q", where, v)
					}
				}
			}
		case *parser.AggregateExpr:
			used = append(used, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				used = append(used, n.VectorMatching.MatchingLabels...)
			}
		}
		return nil
	})
	for _, l := range used {
		if !slices.Contains(known, l) {
			report("%s: no metric in %s has a label %q", where, expr, l)
		}
	}
	return known
}

// The rules are valid, ask for metrics and labels that there are, and say what is wrong and what to do.
func TestPrometheusAlerts(t *testing.T) {
	s := metricsOfSource(t)
	all, errs := rulefmt.ParseFile("../examples/prometheus/alerts.yaml", false, model.UTF8Validation, promQL)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	label := regexp.MustCompile(`\$labels\.([a-z_]+)`)
	count := 0
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			count++
			known := s.check(t.Errorf, r.Alert, r.Expr)
			if v := r.Labels["severity"]; v != "critical" && v != "warning" {
				t.Errorf("%s has the severity %q", r.Alert, v)
			}
			for _, a := range []string{"summary", "description"} {
				if r.Annotations[a] == "" {
					t.Errorf("%s has no %s", r.Alert, a)
				}
				for _, m := range label.FindAllStringSubmatch(r.Annotations[a], -1) {
					if !slices.Contains(known, m[1]) {
						t.Errorf("%s tells of a label %q that its metrics do not have", r.Alert, m[1])
					}
				}
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d alerts", count)
	}
}

// The dashboard asks for metrics and labels that there are, in panels that do not lie on each other.
func TestGrafanaDashboard(t *testing.T) {
	s := metricsOfSource(t)
	b, err := os.ReadFile("../examples/prometheus/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat, RefID string }
		}
		Templating struct {
			List []struct{ Name, Type string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || len(d.Panels) < 12 || len(d.Templating.List) != 2 {
		t.Errorf("%q, %d panels, variables %v", d.UID, len(d.Panels), d.Templating.List)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: its id is not its own, or it shows nothing", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q lies on %q or beyond the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			known := s.check(t.Errorf, p.Title, variables.Replace(q.Expr))
			for _, m := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
				if !slices.Contains(known, m[1]) {
					t.Errorf("%s: its legend has a label %q that its metrics do not have", p.Title, m[1])
				}
			}
		}
	}
}

// What the check is for: names, labels and values that are not there.
func TestPrometheusCheckFails(t *testing.T) {
	s := metricsOfSource(t)
	for _, expr := range []string{
		"tapwall_export_lags > 1", `tapwall_lost_events_total{stages="spool_io"}`, `tapwall_lost_events_total{stage="spool_oi"}`,
		"sum by (bride) (tapwall_flows_desired)", "sum(", "tapwall_flows_desired > on (bride) tapwall_flows_installed",
	} {
		faults := 0
		if s.check(func(string, ...any) { faults++ }, "", expr); faults == 0 {
			t.Errorf("nothing is found in %s", expr)
		}
	}
}
