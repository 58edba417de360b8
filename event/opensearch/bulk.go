package opensearch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/tapwall/tapwall/event/spool"
)

// doc is a document that is to be delivered.
type doc struct {
	index, id string
	json      []byte
}

// docOf finds where a record belongs.
func docOf(prefix string, r spool.Record) (doc, error) {
	id, dataset, ok := quickKey(r.JSON)
	if !ok {
		var e struct {
			Event struct {
				ID      string `json:"id"`
				Dataset string `json:"dataset"`
			} `json:"event"`
		}
		if err := json.Unmarshal(r.JSON, &e); err != nil {
			return doc{}, err
		}
		if id, dataset = e.Event.ID, e.Event.Dataset; id == "" {
			return doc{}, errors.New("event.id is missing")
		}
	}
	return doc{indexOf(prefix, dataset, r.Time), id, r.JSON}, nil
}

// quickKey reads event.id and event.dataset of a document as tapwall writes it, where nothing that others chose stands before them.
func quickKey(b []byte) (id, dataset string, ok bool) {
	_, b, ok = bytes.Cut(b[:min(len(b), 1024)], []byte(`"event":{"id":"`))
	if !ok {
		return "", "", false
	}
	head, rest, ok := bytes.Cut(b, []byte(`"`))
	_, rest, found := bytes.Cut(rest, []byte(`,"dataset":"`))
	set, _, closed := bytes.Cut(rest, []byte(`"`))
	if !ok || !found || !closed || len(head) == 0 || bytes.ContainsAny(head, `\`) || bytes.ContainsAny(set, `\`) {
		return "", "", false
	}
	return string(head), string(set), true
}

// writeBulk writes the body of a bulk request that creates each document, or finds that it is there.
func writeBulk(w io.Writer, docs []doc) error {
	var line []byte
	for _, d := range docs {
		line = append(line[:0], `{"create":{"_index":"`...)
		line = append(line, d.index...)
		line = append(line, `","_id":`...)
		line = appendQuoted(line, d.id)
		line = append(line, "}}\n"...)
		if _, err := w.Write(line); err != nil {
			return err
		}
		if _, err := w.Write(d.json); err != nil {
			return err
		}
		if _, err := w.Write([]byte{'\n'}); err != nil {
			return err
		}
	}
	return nil
}

func appendQuoted(b []byte, s string) []byte {
	if strings.ContainsFunc(s, func(r rune) bool { return r < '!' || r > '~' || r == '"' || r == '\\' }) {
		q, _ := json.Marshal(s) //nolint:errchkjson // a text always can be
		return append(b, q...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// packed is the body of a bulk request, compressed.
func packed(docs []doc) ([]byte, error) {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := writeBulk(z, docs); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// item is what became of one document.
type item struct {
	Status int     `json:"status"`
	Error  problem `json:"error"`
}

// parseBulk reads the answer to a request with n documents. Errors match errNotOpenSearch.
func parseBulk(answer []byte, n int) ([]item, error) {
	var a struct {
		Items []map[string]item `json:"items"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOpenSearch, err)
	}
	if len(a.Items) != n {
		return nil, fmt.Errorf("%w: it tells of %d documents, %d were sent", errNotOpenSearch, len(a.Items), n)
	}
	out := make([]item, n)
	for i, m := range a.Items {
		it, ok := m["create"]
		if !ok || it.Status < 100 {
			return nil, fmt.Errorf("%w: document %d of it has no status", errNotOpenSearch, i)
		}
		out[i] = it
	}
	return out, nil
}

// fate is what is to be done about a document.
type fate int

const (
	created fate = iota
	duplicate
	again // the server cannot take it now
	dead  // the server will never take it
)

// fate judges the answer about one document.
func (i item) fate() fate {
	switch {
	case i.Status == http.StatusOK || i.Status == http.StatusCreated:
		return created
	case i.Status == http.StatusConflict:
		return duplicate
	case i.Status != http.StatusBadRequest:
		return again // 429, 5xx, a block of the cluster or the index (403), no such index (404): none of it is about the document
	}
	switch i.Error.Type {
	case "validation_exception", "index_closed_exception", "cluster_block_exception", "no_shard_available_action_exception":
		return again // too many shards, a closed index: likewise
	}
	return dead
}
