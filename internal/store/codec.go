package store

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// root is the prefix of every key. Resources lie below the plural of their kind.
const root = "/tapwall/v1/"

func prefix(k policy.Kind) string { return root + k.Plural() + "/" }

func key(k policy.Kind, name string) string { return prefix(k) + name }

// splitKey is the inverse of key; ok is false for keys of other things.
func splitKey(key string) (policy.Kind, string, bool) {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return "", "", false
	}
	plural, name, ok := strings.Cut(rest, "/")
	if !ok || name == "" {
		return "", "", false
	}
	for _, k := range policy.Kinds() {
		if k.Plural() == plural {
			return k, name, true
		}
	}
	return "", "", false
}

// record is a resource as stored: the revision is etcd's, the status is never stored.
type record struct {
	Kind      policy.Kind       `json:"kind"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	UID       string            `json:"uid"`
	CreatedAt time.Time         `json:"createdAt"`
	Writer    policy.Writer     `json:"writer,omitzero"`
	Spec      json.RawMessage   `json:"spec"`
	Apart     *apart            `json:"apart,omitempty"` // where the members of a group are; nil = in Spec
}

// packAbove is the length in bytes from which a value is stored compressed. What is that long is a list of addresses and shrinks to a
// quarter, so that 100,000 ranges fit into what an external cluster takes at once.
const packAbove = 64 << 10

// pack returns the value to store for an encoded record. Texts of JSON begin with a brace, those of gzip (RFC 1952) do not.
func pack(text []byte) ([]byte, error) {
	if len(text) <= packAbove {
		return text, nil
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}

// readRecord reads a stored value.
func readRecord(value []byte) (rec record, err error) {
	if value, err = unpack(value); err != nil {
		return record{}, err
	}
	err = json.Unmarshal(value, &rec)
	return rec, err
}

// encodeSpec is deterministic: encoding/json sorts the keys of maps.
func encodeSpec(r policy.Resource) (json.RawMessage, error) {
	return json.Marshal(specOf(r))
}

// specOf returns a pointer to the specification.
func specOf(r policy.Resource) any {
	switch r := r.(type) {
	case *policy.Mirror:
		return &r.Spec
	case *policy.Policy:
		return &r.Spec
	case *policy.Group:
		return &r.Spec
	case *policy.Endpoint:
		return &r.Spec
	case *policy.Quarantine:
		return &r.Spec
	}
	return nil
}

// decode reads a stored value. Fields of a newer version are refused rather than dropped: dropping them could widen a policy. Members that
// are stored apart are for the caller to read.
func decode(kind policy.Kind, name string, value []byte, revision int64) (policy.Resource, *apart, error) {
	rec, err := readRecord(value)
	if err != nil {
		return nil, nil, fmt.Errorf("store: %s: %w", key(kind, name), err)
	}
	r := policy.New(kind)
	if rec.Kind != kind || rec.Name != name {
		return nil, nil, fmt.Errorf("store: %s holds %s/%s", key(kind, name), rec.Kind, rec.Name)
	}
	spec := specOf(r)
	var without apartSpec
	if g, ok := r.(*policy.Group); ok && rec.Apart != nil {
		spec = &without
		defer func() { g.Spec.OnMemberRemoved, g.Spec.From = without.OnMemberRemoved, without.From }()
	}
	if err := decodeStrict(rec.Spec, spec); err != nil {
		return nil, nil, fmt.Errorf("store: %s: %w", key(kind, name), err)
	}
	*r.GetMeta() = policy.Meta{Name: rec.Name, Labels: rec.Labels, UID: rec.UID, Revision: revision, CreatedAt: rec.CreatedAt,
		Writer: rec.Writer}
	return r, rec.Apart, nil
}
