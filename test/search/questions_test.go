package search

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// question is a query of docs/questions.md.
var question = regexp.MustCompile(`(?s)\$ found (\S+) '(\{.*?\})'\n`)

// The queries of docs/questions.md find what was put into the index, and nothing else.
func TestQuestionsOfTheDocs(t *testing.T) {
	asked(t, time.Now())
	text, err := os.ReadFile("../../docs/questions.md")
	must(t, err)
	want := [][]string{
		{"5 10.77.0.1|80|FORWARDED", "4 10.77.0.3|443|FORWARDED", "3 10.77.0.3|22|DROPPED", "2 10.77.0.3|443|DROPPED"},
		{"3 web/ingress/default-deny|POLICY_DENIED|ingress"},
		{"6 10.77.0.3|10.77.0.2|443"},
		{"5 web/ingress/default-deny", "5 web/ingress/from-clients", "4 web/ingress/tls", "2 out/egress/any"},
		{"2 10.77.0.1|192.0.2.7|443"},
	}
	all := question.FindAllStringSubmatch(string(text), -1)
	if len(all) != len(want) {
		t.Fatalf("%d queries are in the docs, want %d", len(all), len(want))
	}
	for i, q := range all {
		if got := found(t, q[1], q[2]); !slices.Equal(got, want[i]) {
			t.Errorf("query %d finds %q, want %q", i+1, got, want[i])
		}
	}
}

// found is the function of docs/questions.md.
func found(t *testing.T, indices, query string) (out []string) {
	t.Helper()
	type filtered struct {
		Count int `json:"doc_count"`
	}
	var answer struct {
		Aggregations struct {
			Found struct {
				Buckets []struct {
					Key           any
					Text          string `json:"key_as_string"`
					Count         int    `json:"doc_count"`
					Before, After *filtered
				}
			}
		}
	}
	must(t, server.JSON("POST", "/"+indices+"/_search", query, &answer))
	for _, b := range answer.Aggregations.Found.Buckets {
		if b.Before != nil && b.Before.Count == 0 || b.After != nil && b.After.Count == 0 {
			continue
		}
		key := b.Text
		if key == "" {
			key = fmt.Sprint(b.Key)
		}
		out = append(out, fmt.Sprint(b.Count, " ", key))
	}
	return out
}
