package api

import (
	"fmt"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Ref names a resource.
type Ref struct {
	Kind policy.Kind `json:"kind"`
	Name string      `json:"name"`
}

// String is "policy/web", as the CLI names resources.
func (r Ref) String() string { return refName(r.Kind, r.Name) }

func workload(w *policy.Workload) Workload {
	out := Workload{Key: w.Key, Host: w.Host, Remote: w.Remote, Bridge: w.Bridge, Port: w.Port, OFPort: w.OFPort, MAC: w.MAC, MACs: w.MACs,
		VLAN:     w.VLAN,
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
	case *policy.Quarantine:
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

// waiting says how long a request waits, and for what; the zero value: it does not.
type waiting struct {
	limit     time.Duration
	effective bool // until the caches of the switches have followed, too
}

// waitEffective is the value of the parameter wait that asks for more than installation.
const waitEffective = "effective"

// parseWait checks the parameters of waiting.
func parseWait(wait, timeout string) (waiting, error) {
	d, err := time.ParseDuration(timeout)
	if err != nil || d <= 0 || d > maxWait {
		return waiting{}, badParameter("query.timeout", timeout, "must be a duration above 0 and up to %v, such as 5s", maxWait)
	}
	if wait == "" {
		return waiting{}, nil
	}
	return waiting{limit: d, effective: wait == waitEffective}, nil
}
