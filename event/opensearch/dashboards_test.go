package opensearch_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/event/opensearch"
)

const dashboardsFile = "../../examples/opensearch/dashboards.ndjson"

// The saved objects of OpenSearch Dashboards. Queries are in the language of Lucene, which the server itself speaks (query_string).
type (
	savedSearch struct {
		id, title, set, query string
		columns               []string
	}
	// chart counts events, or sums up a field, by terms of fields, and over time if that is so.
	chart struct {
		id, title, set, query string
		overTime              bool
		by                    []string
		sum                   string // "" = count
	}
	dashboard struct {
		id, title, about string
		panels           []string // ids of charts and searches, two in a row
	}
)

const (
	denied  = "event.action:policy-verdict AND tapwall.verdict:(DROPPED OR REJECTED OR QUARANTINED OR AUDIT)"
	verdict = "event.action:policy-verdict"
)

var ends = []string{"source.ip", "source.port", "tapwall.source.name", "destination.ip", "destination.port", "tapwall.destination.name",
	"network.transport"}

var searches = []savedSearch{
	{"denied", "Denied connections", "flow", denied, append(slices.Clone(ends), "tapwall.verdict", "event.reason", "rule.id")},
	{"connections", "Connections", "flow", verdict, append(slices.Clone(ends), "destination.domain", "tapwall.verdict", "rule.id")},
	{"dns", "DNS", "all", "event.action:(dns-query OR dns-response)", []string{"source.ip", "tapwall.source.name", "event.action",
		"dns.question.name", "dns.question.type", "dns.response_code", "dns.resolved_ip"}},
	{"audit", "What people and others did", "audit", "", []string{"event.action", "tapwall.notice.message", "tapwall.notice.by",
		"tapwall.notice.from", "observer.name", "tapwall.bridge"}},
	{"losses", "Losses", "loss", "", []string{"tapwall.loss.stage", "tapwall.loss.reason", "tapwall.loss.count", "tapwall.loss.class",
		"observer.name"}},
}

var charts = []chart{
	{"verdicts", "Verdicts over time", "flow", verdict, true, []string{"tapwall.verdict"}, ""},
	{"denying-rules", "Rules that deny most", "flow", denied, false, []string{"rule.id"}, ""},
	{"denied-over-time", "Denials over time, by policy", "flow", denied, true, []string{"rule.ruleset"}, ""},
	{"denied-sources", "Who is denied most", "flow", denied, false, []string{"source.ip", "destination.port"}, ""},
	{"reasons", "Reasons of denials", "flow", denied, false, []string{"event.reason"}, ""},
	{"rules", "Rules that let pass most", "flow", verdict + " AND tapwall.verdict:FORWARDED", false, []string{"rule.id"}, ""},
	{"talkers", "Top talkers, by connections", "flow", verdict, false, []string{"source.ip", "destination.ip"}, ""},
	{"ports", "Destination ports", "flow", verdict, false, []string{"network.transport", "destination.port"}, ""},
	{"dns-names", "Names that DNS is asked for", "all", "event.action:dns-query", false, []string{"dns.question.name"}, ""},
	{"dns-failures", "Answers of DNS, by result", "all", "event.action:dns-response", true, []string{"dns.response_code"}, ""},
	{"server-names", "Servers that TLS clients ask for", "all",
		"event.action:tls-client-hello", false, []string{"tls.client.server_name"}, ""},
	{"http-hosts", "Hosts and methods of HTTP/1", "all",
		"event.action:http-request", false, []string{"url.domain", "http.request.method"}, ""},
	{"domains", "Names of destinations", "flow", verdict, false, []string{"destination.domain"}, ""},
	{"applications", "What applications say, over time", "all", "event.action:(dns-query OR tls-client-hello OR http-request)", true,
		[]string{"event.action"}, ""},
	{"audit-actions", "What people and others did, over time", "audit", "", true, []string{"event.action"}, ""},
	{"audit-people", "Who did it", "audit", "", false, []string{"tapwall.notice.by", "event.action"}, ""},
	{"losses-by-stage", "Events lost, by stage", "loss", "", true, []string{"tapwall.loss.stage"}, "tapwall.loss.count"},
	{"by-dataset", "Events by dataset and host", "all", "", false, []string{"event.dataset", "observer.name"}, ""},
}

var dashboards = []dashboard{
	{"overview", "tapwall: Overview", "What passed, what did not, and who talks to whom.",
		[]string{"verdicts", "denying-rules", "talkers", "ports", "audit-actions", "losses-by-stage", "denied"}},
	{"policy", "tapwall: Policy", "What policies deny and let pass.",
		[]string{"denied-over-time", "reasons", "denying-rules", "rules", "denied-sources", "verdicts", "connections"}},
	{"dns", "tapwall: DNS and applications", "What is asked for by name.",
		[]string{"applications", "dns-failures", "dns-names", "domains", "server-names", "http-hosts", "dns"}},
	{"record", "tapwall: Record", "Whether the record is whole, and what happened to what it watches.",
		[]string{"losses-by-stage", "by-dataset", "audit-actions", "audit-people", "losses", "audit"}},
}

type (
	object    map[string]any
	reference struct {
		Name string `json:"name"`
		Type string `json:"type"`
		ID   string `json:"id"`
	}
)

// inText is a document within a text, as Dashboards keeps some.
func inText(v any) string {
	b := &bytes.Buffer{}
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // maps of texts and numbers
	}
	return strings.TrimSpace(b.String())
}

func saved(kind, id, migrated string, attributes object, refs []reference) object {
	return object{"type": kind, "id": "tapwall-" + id, "attributes": attributes, "references": refs,
		"migrationVersion": object{kind: migrated}}
}

// searching is the attributes that searches and charts have in common, and the reference to the indices that they look at.
func searching(title, query, set string) (object, []reference) {
	const name = "kibanaSavedObjectMeta.searchSourceJSON.index"
	return object{"title": "tapwall: " + title, "description": "", "version": 1,
		"kibanaSavedObjectMeta": object{"searchSourceJSON": inText(object{
			"query": object{"query": query, "language": "lucene"}, "filter": []any{}, "indexRefName": name,
		})}}, []reference{{name, "index-pattern", "tapwall-index-" + set}}
}

func (c chart) object() object {
	metric := object{"id": "1", "enabled": true, "type": "count", "schema": "metric", "params": object{}}
	if c.sum != "" {
		metric["type"], metric["params"] = "sum", object{"field": c.sum}
	}
	aggs := []object{metric}
	add := func(kind, schema string, params object) {
		aggs = append(aggs, object{"id": fmt.Sprint(len(aggs) + 1), "enabled": true, "type": kind, "schema": schema, "params": params})
	}
	kind, schema := "table", "bucket"
	params := object{"perPage": 10, "showPartialRows": false, "showMetricsAtAllLevels": false, "showTotal": false, "totalFunc": "sum"}
	if c.overTime {
		kind, schema = "histogram", "group"
		params = object{
			"type": "histogram", "addTooltip": true, "addLegend": true, "legendPosition": "right", "times": []any{}, "addTimeMarker": false,
			"grid": object{"categoryLines": false},
			"categoryAxes": []any{object{"id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": true,
				"scale": object{"type": "linear"}, "labels": object{"show": true, "filter": true, "truncate": 100}, "title": object{}}},
			"valueAxes": []any{object{"id": "ValueAxis-1", "name": "LeftAxis-1", "type": "value", "position": "left", "show": true,
				"scale":  object{"type": "linear", "mode": "normal"},
				"labels": object{"show": true, "rotate": 0, "filter": false, "truncate": 100}, "title": object{"text": "Events"}}},
			"seriesParams": []any{object{"show": true, "type": "histogram", "mode": "stacked", "data": object{"label": "Events", "id": "1"},
				"valueAxis": "ValueAxis-1", "drawLinesBetweenPoints": true, "showCircles": true}},
		}
		add("date_histogram", "segment", object{"field": "@timestamp", "interval": "auto", "useNormalizedOpenSearchInterval": true,
			"min_doc_count": 1, "drop_partials": false, "extended_bounds": object{}})
	}
	for _, f := range c.by {
		add("terms", schema, object{"field": f, "orderBy": "1", "order": "desc", "size": 10, "otherBucket": false, "missingBucket": false})
	}
	attributes, refs := searching(c.title, c.query, c.set)
	attributes["visState"] = inText(object{"title": "tapwall: " + c.title, "type": kind, "params": params, "aggs": aggs})
	attributes["uiStateJSON"] = "{}"
	return saved("visualization", c.id, "7.10.0", attributes, refs)
}

func (d dashboard) object() object {
	var panels []object
	refs := []reference{}
	x, y := 0, 0
	for i, id := range d.panels {
		kind, w := "visualization", 24
		if slices.ContainsFunc(searches, func(s savedSearch) bool { return s.id == id }) {
			kind, w, id = "search", 48, "search-"+id
		}
		if x+w > 48 {
			x, y = 0, y+15
		}
		n := fmt.Sprint(i + 1)
		panels = append(panels, object{"version": "2.19.0", "panelIndex": n, "panelRefName": "panel_" + n, "embeddableConfig": object{},
			"gridData": object{"x": x, "y": y, "w": w, "h": 15, "i": n}})
		x += w
		refs = append(refs, reference{"panel_" + n, kind, "tapwall-" + id})
	}
	return saved("dashboard", "dashboard-"+d.id, "7.9.3", object{"title": d.title, "description": d.about, "hits": 0, "version": 1,
		"panelsJSON": inText(panels), "optionsJSON": inText(object{"useMargins": true, "hidePanelTitles": false}),
		"timeRestore": true, "timeFrom": "now-1h", "timeTo": "now",
		"kibanaSavedObjectMeta": object{"searchSourceJSON": inText(object{
			"query": object{"query": "", "language": "lucene"}, "filter": []any{},
		})},
	}, refs)
}

// savedObjects are all of them.
func savedObjects() (out []object) {
	for _, set := range append([]string{"all"}, opensearch.Sets()...) {
		title := "tapwall-" + set + "-*"
		if set == "all" {
			title = "tapwall-*"
		}
		out = append(out, saved("index-pattern", "index-"+set, "7.6.0", object{"title": title, "timeFieldName": "@timestamp"}, []reference{}))
	}
	for _, s := range searches {
		attributes, refs := searching(s.title, s.query, s.set)
		attributes["hits"], attributes["columns"], attributes["sort"] = 0, s.columns, [][]string{{"@timestamp", "desc"}}
		out = append(out, saved("search", "search-"+s.id, "7.9.3", attributes, refs))
	}
	for _, c := range charts {
		out = append(out, c.object())
	}
	for _, d := range dashboards {
		out = append(out, d.object())
	}
	return out
}

// examples/opensearch/dashboards.ndjson is what the tables above make.
func TestGeneratedDashboards(t *testing.T) {
	var want bytes.Buffer
	all := savedObjects()
	for _, o := range append(all, object{"exportedCount": len(all), "missingRefCount": 0, "missingReferences": []any{}}) {
		fmt.Fprintln(&want, inText(o))
	}
	have, err := os.ReadFile(dashboardsFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	hold(t, dashboardsFile, have, want.Bytes())
}

// Each field that is asked for is in the index, each reference leads somewhere, and nothing is there for nobody.
func TestDashboardsFields(t *testing.T) {
	b, err := os.ReadFile(dashboardsFile)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	indexed("", opensearch.Mappings(), fields)
	if len(fields) < 80 || !fields["tapwall.loss.count"] {
		t.Fatalf("%d fields are in the index", len(fields))
	}
	asked := []*regexp.Regexp{ // in texts within texts
		regexp.MustCompile(`\\"field\\":\\"([^"\\]+)\\"`),
		regexp.MustCompile(`\\"query\\":\\"([^"]*)\\"`), regexp.MustCompile(`"columns":\[([^\]]*)\]`),
		regexp.MustCompile(`"timeFieldName":"([^"]*)"`),
	}
	name := regexp.MustCompile(`@?[a-z_]+(\.[a-z_]+)+|@timestamp`)
	there, used := map[string]bool{}, map[string]bool{}
	var refs []reference
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, line := range lines {
		var o struct {
			Type, ID      string
			References    []reference
			ExportedCount int
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		if i == len(lines)-1 {
			if o.ExportedCount != i {
				t.Errorf("%d objects, the last line says %d", i, o.ExportedCount)
			}
			continue
		}
		if there[o.Type+o.ID] {
			t.Errorf("two objects are called %s", o.ID)
		}
		there[o.Type+o.ID] = true
		refs = append(refs, o.References...)
		found := 0
		for _, re := range asked {
			for _, m := range re.FindAllStringSubmatch(line, -1) {
				for _, f := range name.FindAllString(m[1], -1) {
					if found++; !fields[f] {
						t.Errorf("%s asks for %s, which is not in the index", o.ID, f)
					}
				}
			}
		}
		if found == 0 && o.Type != "dashboard" {
			t.Errorf("%s asks for nothing", o.ID)
		}
	}
	for _, r := range refs {
		if used[r.Type+r.ID] = true; !there[r.Type+r.ID] {
			t.Errorf("%s %s is referred to and not there", r.Type, r.ID)
		}
	}
	for o := range there {
		if !used[o] && !strings.HasPrefix(o, "dashboard") && !strings.HasPrefix(o, "index-pattern") {
			t.Errorf("%s is on no dashboard", o)
		}
	}
}

// indexed collects the fields of a mapping.
func indexed(path string, mapping map[string]any, out map[string]bool) {
	for name, m := range mapping["properties"].(map[string]any) {
		if m := m.(map[string]any); m["properties"] != nil {
			indexed(path+name+".", m, out)
		} else {
			out[path+name] = true
		}
	}
}
