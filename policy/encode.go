package policy

import (
	"bytes"
	"encoding/json"
	"strings"
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
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// EncodeYAML returns the documents of resources in canonical order as a YAML stream.
func EncodeYAML(rs ...Resource) ([]byte, error) {
	var b strings.Builder
	for i, r := range rs {
		text, err := EncodeJSON(r)
		if err != nil {
			return nil, err
		}
		tree, faults := oneJSON(text)
		if faults != nil {
			return nil, faults
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		writeBlock(&b, tree.(object), 0)
	}
	return []byte(b.String()), nil
}

// MergePatch returns the resource changed by a JSON merge patch (RFC 7396), checked as CheckJSON does. The pointers of faults are those of
// the result. kind and name cannot be changed; server fields of the resource are kept, and those in the patch ignored.
func MergePatch(r Resource, patch []byte) (Resource, Faults) {
	p, faults := oneJSON(patch)
	if faults != nil {
		return nil, faults
	}
	o, ok := p.(object)
	if !ok {
		return nil, Faults{{Detail: "a merge patch must be a map, not " + describe(p)}}
	}
	text, err := EncodeJSON(r)
	if err != nil {
		return nil, Faults{{Detail: err.Error()}}
	}
	target, faults := oneJSON(text)
	if faults != nil {
		return nil, faults
	}
	var allowed object
	var form faultList
	var root pointer
	repeatedKeys(&form, root, o)
	for _, m := range o.members {
		switch m.key {
		case "uid", "revision", "createdAt", "status":
		case "name":
			if m.value != r.GetMeta().Name {
				form.addf(root.field("name"), plain(m.value), "a name cannot be changed: make a new %s and delete this one", r.Kind())
			}
		default:
			allowed.members = append(allowed.members, m)
		}
	}
	out, more := CheckValue(r.Kind(), mergeTree(target, allowed))
	return out, append(form.faults, more...)
}

// repeatedKeys reports keys given twice anywhere in a patch; merging would silently take the last.
func repeatedKeys(l *faultList, at pointer, v any) {
	switch v := v.(type) {
	case object:
		seen := make(map[string]bool, len(v.members))
		for i := range v.members {
			m := &v.members[i]
			if seen[m.key] {
				l.addf(at.field(m.key), nil, "is given more than once")
			}
			seen[m.key] = true
			repeatedKeys(l, at.field(m.key), m.value)
		}
	case list:
		for i := range v.items {
			repeatedKeys(l, at.at(i), v.items[i])
		}
	}
}

// mergeTree is the algorithm of RFC 7396 §2.
func mergeTree(target, patch any) any {
	p, ok := patch.(object)
	if !ok {
		return patch
	}
	t, _ := target.(object)
	out := object{members: append([]member(nil), t.members...)}
	for _, m := range p.members {
		at := -1
		for i := range out.members {
			if out.members[i].key == m.key {
				at = i
			}
		}
		switch {
		case m.value == nil && at >= 0:
			out.members = append(out.members[:at], out.members[at+1:]...)
		case m.value == nil:
		case at >= 0:
			out.members[at].value = mergeTree(out.members[at].value, m.value)
		default:
			out.members = append(out.members, member{key: m.key, value: mergeTree(nil, m.value)})
		}
	}
	return out
}
