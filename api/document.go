package api

import (
	"fmt"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Document is a resource as the API answers it: what was asked for in Spec, with the defaults written out, and what was observed in Status.
type Document[S any] struct {
	Kind policy.Kind `json:"kind"`
	policy.Meta
	Spec   S             `json:"spec"`
	Status policy.Status `json:"status"`
}

// List is one page of a collection.
type List[T any] struct {
	Items []T `json:"items"`
	// Next is given as ?next= to get the following page; "" = this is the last one.
	Next string `json:"next,omitempty"`
}

// Ref names a resource.
type Ref struct {
	Kind policy.Kind `json:"kind"`
	Name string      `json:"name"`
}

// String is "policy/web", as the CLI names resources.
func (r Ref) String() string { return refName(r.Kind, r.Name) }

// ApplyResult says what an apply, or the dry run of any write, did or would do. Each list is in the order of the documents, deletions by
// kind and name.
type ApplyResult struct {
	DryRun    bool        `json:"dryRun"`
	Created   []ApplyItem `json:"created"`
	Updated   []ApplyItem `json:"updated"`
	Unchanged []ApplyItem `json:"unchanged"`
	Deleted   []ApplyItem `json:"deleted"`
	// Warnings are those of the engine about the changed resources.
	Warnings []policy.Warning `json:"warnings,omitempty"`
	// Plan is what would happen on the switches; dry runs only.
	Plan *Plan `json:"plan,omitempty"`
}

// ApplyItem is one resource of an ApplyResult.
type ApplyItem struct {
	Kind policy.Kind `json:"kind"`
	Name string      `json:"name"`
	// Revision is the one written; 0 in dry runs and for deletions.
	Revision int64 `json:"revision,omitempty"`
	// Changes are the fields that differ; updates only.
	Changes []FieldChange `json:"changes,omitempty"`
	// Status is what was observed, if the request waited.
	Status *policy.Status `json:"status,omitempty"`
}

// FieldChange is one difference between two versions of a document.
type FieldChange struct {
	// Pointer is the place in the new document, or in the old one if it is gone there (RFC 6901).
	Pointer string `json:"pointer"`
	Old     any    `json:"old,omitempty"`
	New     any    `json:"new,omitempty"`
}

// Workload is a discovered endpoint: a port with what OVSDB and Endpoint resources say of it.
type Workload struct {
	Key       string                   `json:"key"`
	Remote    bool                     `json:"remote,omitempty"`
	Bridge    string                   `json:"bridge,omitempty"`
	Port      string                   `json:"port,omitempty"`
	OFPort    uint32                   `json:"ofport,omitempty"`
	MAC       string                   `json:"mac,omitempty"`
	VLAN      int                      `json:"vlan,omitempty"`
	Endpoint  string                   `json:"endpoint,omitempty"`
	Labels    map[string]WorkloadLabel `json:"labels"`
	Addresses []string                 `json:"addresses,omitempty"`
}

// WorkloadLabel is a label with its origin.
type WorkloadLabel struct {
	Value string `json:"value"`
	From  string `json:"from"` // ovsdb | endpoint/NAME
}

func workload(w *policy.Workload) Workload {
	out := Workload{Key: w.Key, Remote: w.Remote, Bridge: w.Bridge, Port: w.Port, OFPort: w.OFPort, MAC: w.MAC, VLAN: w.VLAN,
		Endpoint: w.Endpoint, Labels: make(map[string]WorkloadLabel, len(w.Labels))}
	for k, v := range w.Labels {
		out.Labels[k] = WorkloadLabel{Value: v, From: w.LabelFrom[k]}
	}
	for _, a := range w.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	return out
}

// specOf returns the specification with the defaults written out.
func specOf(r policy.Resource) any {
	switch r := r.WithDefaults().(type) {
	case *policy.Mirror:
		return r.Spec
	case *policy.Policy:
		return r.Spec
	case *policy.Group:
		return r.Spec
	case *policy.Endpoint:
		return r.Spec
	}
	return nil
}

// document adds the observed status and the warnings that the engine has for a fresh write.
func (s *Server) document(r policy.Resource, warnings []policy.Warning) Document[any] {
	m := r.GetMeta()
	return documentWith(r, addWarnings(s.o.Engine.Status(r.Kind(), m.Name), warnings))
}

func documentWith(r policy.Resource, st policy.Status) Document[any] {
	if st.Phase == "" {
		st.Phase = policy.PhasePending
	}
	return Document[any]{Kind: r.Kind(), Meta: *r.GetMeta(), Spec: specOf(r), Status: st}
}

// addWarnings merges, leaving out what the status says already.
func addWarnings(st policy.Status, warnings []policy.Warning) policy.Status {
	have := make(map[policy.Warning]bool, len(st.Warnings))
	for _, w := range st.Warnings {
		have[w] = true
	}
	out := st.Warnings[:len(st.Warnings):len(st.Warnings)] // the engine's slice stays as it is
	for _, w := range warnings {
		if !have[w] {
			have[w] = true
			out = append(out, w)
		}
	}
	st.Warnings = out
	return st
}

// etag of a revision (RFC 9110 §8.8.3, strong).
func etag(revision int64) string { return fmt.Sprintf("%q", fmt.Sprint(revision)) }

// parseWait checks the parameters of waiting; 0 = do not wait.
func parseWait(wait, timeout string) (time.Duration, error) {
	d, err := time.ParseDuration(timeout)
	if err != nil || d <= 0 || d > maxWait {
		return 0, badParameter("query.timeout", timeout, "must be a duration above 0 and up to %v, such as 5s", maxWait)
	}
	if wait == "" {
		return 0, nil
	}
	return d, nil
}
