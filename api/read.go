package api

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

type hostsOutput struct{ Body List[Host] }

type workloadsInput struct {
	Label  []string `query:"label,explode" doc:"Only workloads with this label, as key=value, or key for any value. May be repeated; all must hold." example:"[\"app=web\"]"`
	Bridge string   `query:"bridge" doc:"Only ports of this bridge"`
	Limit  int      `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"At most this many"`
	Next   string   `query:"next" doc:"The next of the page before; empty = the first page"`
}

type workloadsOutput struct{ Body List[Workload] }

type flowsInput struct {
	Bridge string `query:"bridge" doc:"Only flows of this bridge"`
	Owner  string `query:"owner" doc:"policy/NAME, mirror/NAME, endpoint/KEY or system" example:"policy/web"`
	Table  int    `query:"table" minimum:"-1" maximum:"254" default:"-1" doc:"Only flows of this table; -1 = all"`
	Match  string `query:"match" doc:"Only flows whose text contains this" example:"tp_dst=80"`
	Limit  int    `query:"limit" minimum:"1" maximum:"100000" default:"10000" doc:"At most this many"`
}

type classesInput struct {
	Bridge   string `query:"bridge" doc:"Only classes of this bridge"`
	Endpoint string `query:"endpoint" doc:"Only the class that the workload with this key is in"`
	Policy   string `query:"policy" doc:"Only classes that this policy applies to or names, with its rules alone" example:"web"`
	Limit    int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"At most this many"`
}

type classesOutput struct{ Body List[Class] }

type flowsOutput struct{ Body List[FlowEntry] }

type systemOutput struct{ Body SystemStatus }

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status string `json:"status" enum:"ok" doc:"ok"`
}

type healthOutput struct{ Body Health }

func (s *Server) registerRead() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "list-hosts", Method: http.MethodGet, Path: "/v1/hosts", Tags: []string{"hosts"},
		Summary: "List hosts",
		Description: "Each Open vSwitch instance with its bridges, ports and mirrors as last read; bridges that tapwall leaves alone have " +
			"mode \"\".",
		Responses: d.responses(schemaFor[List[Host]](d), nil)}, func(ctx context.Context, _ *struct{}) (*hostsOutput, error) {
		s.refreshDrops(ctx)
		return &hostsOutput{Body: List[Host]{Items: notNil(s.o.Engine.Hosts()), Problems: s.o.Engine.Unknown()}}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "list-workloads", Method: http.MethodGet, Path: "/v1/workloads", Tags: []string{"hosts"},
		Summary: "List what was found on ports",
		Description: "What policies and mirrors select from: each port of a managed bridge that is an endpoint, with its labels and where " +
			"each came from, and remote ones that only an " +
			"Endpoint resource describes. The Endpoint resources themselves are under /v1/endpoints.",
		Responses: d.responses(schemaFor[List[Workload]](d), nil, 422)}, func(ctx context.Context, in *workloadsInput) (*workloadsOutput, error) {
		match, err := parseLabels(in.Label)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		out := List[Workload]{Items: []Workload{}, Problems: s.o.Engine.Unknown()}
		for _, w := range s.o.Engine.Workloads() { // ordered by key, then by host
			if in.Next != "" && !behind(w, in.Next) || in.Bridge != "" && w.Bridge != in.Bridge || !match.matches(w.Labels) {
				continue
			}
			if len(out.Items) == in.Limit {
				out.Next = mark(out.Items[in.Limit-1])
				break
			}
			item := workload(w)
			item.Learned = s.o.Engine.Learned(w)
			out.Items = append(out.Items, item)
		}
		return &workloadsOutput{Body: out}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "list-flows", Method: http.MethodGet, Path: "/v1/flows", Tags: []string{"flows"},
		Summary: "Read flows back from the switches",
		Description: "Desired and installed flows with the resource they were compiled from, as ovs-ofctl prints them. state is installed, " +
			"missing (desired, not on the switch) or foreign (not tapwall's). Hosts that do not answer are named by problems; if none answers, " +
			"that is an error.",
		Responses: d.responses(schemaFor[List[FlowEntry]](d), nil, 422, 503)}, func(ctx context.Context, in *flowsInput) (*flowsOutput, error) {
		q := backend.FlowQuery{Bridge: in.Bridge, Owner: in.Owner, Match: in.Match, Limit: in.Limit}
		if in.Table >= 0 {
			t := uint8(in.Table)
			q.Table = &t
		}
		flows, err := s.o.Engine.Flows(ctx, q)
		var out List[FlowEntry]
		if err = take(err, &out.Problems); err != nil {
			return nil, s.problemFor(ctx, err)
		}
		out.Items = notNil(flows)
		return &flowsOutput{Body: out}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "list-classes", Method: http.MethodGet, Path: "/v1/classes", Tags: []string{"flows"},
		Summary: "List classes of endpoints",
		Description: "Flows match the number of a class instead of its endpoints: those that the same groups and selectors choose, of all that " +
			"policies name. Each class with its endpoints and the rules that name it.",
		Responses: d.responses(schemaFor[List[Class]](d), nil, 422)}, func(_ context.Context, in *classesInput) (*classesOutput, error) {
		all := s.o.Engine.Classes(backend.ClassQuery{Bridge: in.Bridge, Endpoint: in.Endpoint, Policy: in.Policy})
		return &classesOutput{Body: List[Class]{Items: notNil(all[:min(len(all), in.Limit)]), Problems: s.o.Engine.Unknown()}}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "get-status", Method: http.MethodGet, Path: "/v1/status", Tags: []string{"status"},
		Summary:     "Health of the whole process",
		Description: "Connections, desired and installed revisions, the store, and the figures of the record with every loss.",
		Responses:   d.responses(schemaFor[SystemStatus](d), nil)}, func(ctx context.Context, _ *struct{}) (*systemOutput, error) {
		s.refreshDrops(ctx)
		out := s.o.Engine.System()
		if all, err := s.listConfirmations(ctx); err == nil { // else Store says what is wrong
			out.Confirmations = all
		}
		return &systemOutput{Body: out}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "healthz", Method: http.MethodGet, Path: "/healthz", Tags: []string{"status"},
		Summary: "The process answers", Description: "Says nothing of switches: restarting tapwall does not bring those back. Needs no token.",
		Responses: d.responses(schemaFor[Health](d), nil)}, func(context.Context, *struct{}) (*healthOutput, error) {
		return &healthOutput{Body: Health{Status: "ok"}}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "readyz", Method: http.MethodGet, Path: "/readyz", Tags: []string{"status"},
		Summary: "Everything desired is in force on every managed bridge", Description: "503 while it is not: a switch does not answer, " +
			"flows are missing or refused, the fail mode is wrong, a bridge does not exist; and while the store cannot be read. " +
			"What does not weaken the wall that stands, such as a full disk or a lost connection to the Open vSwitch database, is in /v1/status " +
			"only. Needs no token; /v1/status has the reasons.",
		Responses: d.responses(schemaFor[Health](d), nil, 503)}, func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
		if err := s.ready(ctx); err != nil {
			if anonymous(ctx) {
				return nil, problem(http.StatusServiceUnavailable, "not ready; /v1/status has the reasons")
			}
			return nil, problem(http.StatusServiceUnavailable, "not ready: %v", err)
		}
		return &healthOutput{Body: Health{Status: "ok"}}, nil
	})
}

// refreshDrops has the figures of what was dropped read. Health is told whether or not a switch answers.
func (s *Server) refreshDrops(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	s.o.Engine.Refresh(ctx, "")
}

// mark is where a page of workloads ends. Hosts may have equal keys; the id of a host has no blank.
func mark(w Workload) string {
	if w.Host == "" {
		return w.Key
	}
	return w.Key + " " + w.Host
}

// behind reports whether a workload comes after a mark.
func behind(w *policy.Workload, mark string) bool {
	key, host := mark, ""
	if i := strings.LastIndexByte(mark, ' '); i >= 0 {
		key, host = mark[:i], mark[i+1:]
	}
	return cmp.Or(cmp.Compare(w.Key, key), cmp.Compare(w.Host, host)) > 0
}

// ready reads the store, since that is what requests need first.
func (s *Server) ready(ctx context.Context) error {
	if err := s.o.Engine.Ready(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // whoever asks has a deadline of their own
	defer cancel()
	_, _, err := s.o.Store.List(ctx, policy.KindGroup, "", 1)
	return err
}

// notNil makes an empty list of nothing, since JSON's null is none.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
