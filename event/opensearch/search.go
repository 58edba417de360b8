package opensearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// searchPage is how many documents one request asks for.
const searchPage = 1000

// Search calls f with the documents of an installation that q chooses, but for q.Texts, in the order of their sequence or the other way
// round, until it returns false. oldest is the time of the oldest document that q chooses but for its times; zero = there is none. The
// error is that of ctx, or says what the server answered, or why it is not asked: it is away.
func (s *Sink) Search(ctx context.Context, install uint32, q spool.Query, f func(*event.Event) (more bool)) (oldest time.Time, err error) {
	s.mu.Lock()
	failure := s.failure
	s.mu.Unlock()
	if failure != "" {
		return oldest, errors.New(failure)
	}
	filter := func(times bool) []any {
		bounds := map[string]any{}
		bound := func(key string, v int64) {
			if v != 0 {
				bounds[key] = v
			}
		}
		bound("gt", q.After)
		bound("lt", q.Before)
		out := []any{
			map[string]any{"prefix": map[string]any{"event.id": fmt.Sprintf("%08x-", install)}},
			map[string]any{"range": map[string]any{"event.sequence": bounds}},
		}
		at := map[string]any{}
		if q.Since != 0 {
			at["gte"] = time.Unix(0, q.Since).UTC()
		}
		if q.Until != 0 {
			at["lte"] = time.Unix(0, q.Until).UTC()
		}
		if times && len(at) > 0 {
			out = append(out, map[string]any{"range": map[string]any{"@timestamp": at}})
		}
		return out
	}
	order := "asc"
	if q.Newest {
		order = "desc"
	}
	first, err := s.page(ctx, filter(false), "@timestamp", "asc", 1, nil)
	if err != nil || len(first) == 0 {
		return oldest, err
	}
	var e event.Event
	if err := json.Unmarshal(first[0].Source, &e); err != nil {
		return oldest, fmt.Errorf("%w: %w", errNotOpenSearch, err)
	}
	oldest = e.Timestamp
	chosen := filter(true)
	last := int64(0)
	for after := json.RawMessage(nil); ; {
		hits, err := s.page(ctx, chosen, "event.sequence", order, searchPage, after)
		if err != nil {
			return oldest, err
		}
		for _, h := range hits {
			one := new(event.Event)
			if err := json.Unmarshal(h.Source, one); err != nil || !asked(one, install, &q, last) {
				return oldest, fmt.Errorf("%w: it has a document that was not asked for", errNotOpenSearch)
			}
			if last = one.Event.Sequence; !f(one) {
				return oldest, nil
			}
		}
		if len(hits) < searchPage {
			return oldest, nil
		}
		after = hits[len(hits)-1].Sort
	}
}

// asked reports whether q asks for a document, not before the one with the sequence number last, 0 = it is the first. Any other would be
// taken for an event of this record.
func asked(e *event.Event, install uint32, q *spool.Query, last int64) bool {
	id, err := event.ParseID(e.Event.ID)
	seq := e.Event.Sequence
	if err != nil || id.Install != install || id.Sequence != seq || seq <= q.After || q.Before != 0 && seq >= q.Before {
		return false
	}
	return last == 0 || seq == last || q.Newest == (seq < last)
}

// hit is a document that a search found. Sort is where the next page begins.
type hit struct {
	Source json.RawMessage `json:"_source"`
	Sort   json.RawMessage `json:"sort"`
}

func (s *Sink) page(ctx context.Context, filter []any, by, order string, size int, after json.RawMessage) ([]hit, error) {
	query := map[string]any{
		"size": size, "query": map[string]any{"bool": map[string]any{"filter": filter}}, "track_total_hits": false,
		"sort": []any{map[string]any{by: map[string]any{"order": order, "unmapped_type": "long"}}},
	}
	if after != nil {
		query["search_after"] = after
	}
	body, err := json.Marshal(query)
	if err != nil {
		return nil, err
	}
	path := "/" + s.o.Prefix + "-all/_search?ignore_unavailable=true&filter_path=hits.hits._source,hits.hits.sort"
	answer, err := s.client.look(ctx, path, body)
	if answered(err, http.StatusNotFound) {
		return nil, nil // nothing was delivered yet
	}
	if err != nil {
		return nil, err
	}
	var a struct {
		Hits struct {
			Hits []hit `json:"hits"`
		} `json:"hits"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOpenSearch, err)
	}
	return a.Hits.Hits, nil
}
