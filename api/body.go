package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// Content types of bodies.
const (
	typeJSON       = "application/json"
	typeMergePatch = "application/merge-patch+json"
	typeYAML       = "application/yaml"
)

// bodyType checks the Content-Type against what the operation takes; the first is meant if there is none.
func bodyType(header string, want ...string) (string, error) {
	if header == "" {
		return want[0], nil
	}
	t, _, err := mime.ParseMediaType(header)
	switch t {
	case "application/x-yaml", "text/yaml", "text/x-yaml": // from before RFC 9512
		t = typeYAML
	}
	if err != nil || !slices.Contains(want, t) {
		return "", problem(http.StatusUnsupportedMediaType, "send Content-Type: %s, not %s", strings.Join(want, " or "), header)
	}
	return t, nil
}

// decodeDocument reads the body of a PUT, or the outcome of a PATCH. The name may be left out of it, as the path has it. What only the
// server writes (uid, revision, createdAt, status) may be there, so that an answer can be edited and sent back, and is ignored.
func decodeDocument(kind policy.Kind, name string, text []byte) (policy.Resource, error) {
	r, faults := policy.CheckJSON(kind, text)
	for i := range faults {
		faults[i] = withColumn(faults[i], text)
	}
	if r == nil {
		return nil, invalid(faults)
	}
	m := r.GetMeta()
	if m.Name == "" {
		faults = slices.DeleteFunc(faults, func(f policy.Fault) bool {
			return f.Pointer == "/name" && (f.Value == nil || f.Value == "")
		})
		m.Name = name
		// The name of the path has not been checked yet.
		for _, f := range r.Validate() {
			if f.Pointer == "/name" {
				faults = append(faults, f)
			}
		}
	} else if m.Name != name {
		faults = append(faults, policy.Fault{Pointer: "/name", Value: m.Name,
			Detail: fmt.Sprintf("the path says %q; leave the name out or make them agree", name)})
	}
	if len(faults) > 0 {
		return nil, invalid(faults)
	}
	*m = policy.Meta{Name: name, Labels: m.Labels}
	return r, nil
}

// withColumn adds the column to a fault of JSON's syntax.
func withColumn(f policy.Fault, text []byte) policy.Fault {
	if f.Code != policy.CodeSyntax {
		return f
	}
	line, column, ok := syntaxPosition(text)
	if ok {
		f.Line = line
		f.Detail = fmt.Sprintf("line %d, column %d: %s", line, column, f.Detail)
	}
	return f
}

// syntaxPosition finds where text stops being JSON; columns count bytes from 1.
func syntaxPosition(text []byte) (line, column int, ok bool) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	var syntax *json.SyntaxError
	err := dec.Decode(&v)
	for err == nil {
		err = dec.Decode(&v)
	}
	offset := len(text)
	if errors.As(err, &syntax) {
		offset = max(int(syntax.Offset)-1, 0) // of the byte that cannot be there
	} else if err.Error() == "EOF" {
		return 0, 0, false
	}
	before := text[:min(offset, len(text))]
	return bytes.Count(before, []byte("\n")) + 1, offset - (bytes.LastIndexByte(before, '\n') + 1) + 1, true
}

// patchDocument applies a merge patch to what is stored: to what the user wrote, not to the defaults around it.
func patchDocument(current policy.Resource, patch any) ([]byte, error) {
	text, err := policy.EncodeJSON(current)
	if err != nil {
		return nil, err
	}
	return json.Marshal(mergePatch(decodeAny(text), patch))
}

// parsePatch reads a merge patch as strictly as decodeDocument reads a document.
func parsePatch(kind policy.Kind, text []byte) (map[string]any, error) {
	patch, faults := policy.DecodePatch(kind, text)
	for i := range faults {
		faults[i] = withColumn(faults[i], text)
	}
	if len(faults) > 0 {
		return nil, invalid(faults)
	}
	return patch, nil
}

// withoutLines drops line numbers that count in a text the user has not written.
func withoutLines(err error) error {
	var p *Problem
	if errors.As(err, &p) {
		for i := range p.Errors {
			p.Errors[i].Line = 0
		}
	}
	return err
}
