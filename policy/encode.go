package policy

import (
	"bytes"
	"encoding/json"
	"time"
)

// envelope is the canonical order of a document: what it is, what it is called, what it wants.
type envelope struct {
	Kind      Kind              `json:"kind"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	UID       string            `json:"uid,omitempty"`
	Revision  int64             `json:"revision,omitempty"`
	CreatedAt time.Time         `json:"createdAt,omitzero"`
	Spec      any               `json:"spec"`
}

// EncodeJSON returns the document of a resource on one line, in canonical order, so that equal resources give equal bytes.
func EncodeJSON(r Resource) ([]byte, error) {
	m := r.GetMeta()
	e := envelope{Kind: r.Kind(), Name: m.Name, Labels: m.Labels, UID: m.UID, Revision: m.Revision, CreatedAt: m.CreatedAt}
	switch r := r.(type) {
	case *Mirror:
		e.Spec = r.Spec
	case *Policy:
		e.Spec = r.Spec
	case *Group:
		e.Spec = r.Spec
	case *Endpoint:
		e.Spec = r.Spec
	case *Quarantine:
		e.Spec = r.Spec
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
