package opensearch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
)

// schemaVersion counts changes of the templates that a newer server must not take back.
const schemaVersion = 1

// The sets of events, each with indices, an alias and a retention of its own.
var sets = [...]string{"flow", "packet", "audit", "loss"}

// Sets lists the sets of events: an index is PREFIX-SET-YYYY.MM.DD.
func Sets() []string { return sets[:] }

// setOf is the set of a dataset.
func setOf(dataset string) string {
	switch dataset {
	case event.DatasetFlow:
		return "flow"
	case event.DatasetPacket:
		return "packet"
	case event.DatasetLoss:
		return "loss"
	}
	return "audit"
}

const dayForm = "2006.01.02"

// indexOf is the index of an event: that of its own day, so that it has the same one whenever it is sent.
func indexOf(prefix, dataset string, ns int64) string {
	return prefix + "-" + setOf(dataset) + "-" + time.Unix(0, ns).UTC().Format(dayForm)
}

// template is one that the server must have before it gets documents.
type template struct {
	path string // where it is put
	name string
	list string // key of the answer that lists it
	body map[string]any
}

// templates are all of a prefix, in the order in which they must be put.
func templates(prefix string, replicas string) []template {
	all := []template{
		{"/_component_template/", prefix + "-mappings", "component_templates", map[string]any{
			"template": map[string]any{"mappings": Mappings()},
		}},
		{"/_component_template/", prefix + "-settings", "component_templates", map[string]any{
			"template": map[string]any{"settings": map[string]any{
				"number_of_shards": 1, "auto_expand_replicas": replicas, "refresh_interval": "2s",
				"index.mapping.total_fields.limit": 300,
			}},
		}},
	}
	for _, set := range sets {
		all = append(all, template{"/_index_template/", prefix + "-" + set, "index_templates", map[string]any{
			"index_patterns": []string{prefix + "-" + set + "-*"}, "priority": 300,
			"composed_of": []string{prefix + "-settings", prefix + "-mappings"},
			"template":    map[string]any{"aliases": map[string]any{prefix + "-" + set: map[string]any{}, prefix + "-all": map[string]any{}}},
		}})
	}
	for i := range all {
		b, err := json.Marshal(all[i].body)
		if err != nil {
			panic(err) // maps of texts and numbers
		}
		hash := sha256.Sum256(b)
		all[i].body["_meta"] = meta{schemaVersion, hex.EncodeToString(hash[:8])}
	}
	return all
}

// meta marks a template as ours.
type meta struct {
	Schema int    `json:"tapwall_schema"`
	Hash   string `json:"tapwall_hash"`
}

// ensure has the server have all templates, and reads back what it says that it has. A template of a newer tapwall is left as it is.
func (c *client) ensure(ctx context.Context, all []template) error {
	for _, t := range all {
		want := t.body["_meta"].(meta)
		have, err := c.meta(ctx, t)
		if err != nil {
			return err
		}
		if have == want || have.Schema > want.Schema {
			continue
		}
		if err := c.put(ctx, t); err != nil {
			return err
		}
		if have, err = c.meta(ctx, t); err != nil {
			return err
		}
		if have != want {
			return fmt.Errorf("template %s was put and is another one when read back: %+v, want %+v", t.name, have, want)
		}
	}
	return nil
}

func (c *client) put(ctx context.Context, t template) error {
	body, err := json.Marshal(t.body)
	if err != nil {
		return err
	}
	if _, err := c.ask(ctx, http.MethodPut, t.path+t.name, body); err != nil {
		return fmt.Errorf("template %s: %w", t.name, err)
	}
	return nil
}

// meta reads the mark of a template; zero = the server has none of the name.
func (c *client) meta(ctx context.Context, t template) (meta, error) {
	answer, err := c.ask(ctx, http.MethodGet, t.path+t.name, nil)
	if answered(err, http.StatusNotFound) {
		return meta{}, nil
	}
	if err != nil {
		return meta{}, err
	}
	type entry struct {
		Name  string `json:"name"`
		Index struct {
			Meta meta `json:"_meta"`
		} `json:"index_template"`
		Component struct {
			Meta meta `json:"_meta"`
		} `json:"component_template"`
	}
	var lists map[string][]entry
	if err := json.Unmarshal(answer, &lists); err != nil {
		return meta{}, fmt.Errorf("template %s: %w: %w", t.name, errNotOpenSearch, err)
	}
	for _, e := range lists[t.list] {
		if e.Name == t.name {
			if strings.HasPrefix(t.list, "index") {
				return e.Index.Meta, nil
			}
			return e.Component.Meta, nil
		}
	}
	return meta{}, nil
}
