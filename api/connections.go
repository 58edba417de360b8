package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
)

// ConnectionInput is the parameters that choose connections. It is exported because huma looks into exported embedded structs only.
type ConnectionInput struct {
	TupleInput
	Host     string   `query:"host" doc:"Only of the host with this system-id"`
	VLAN     []int    `query:"vlan,explode" minimum:"0" maximum:"4094" doc:"VLAN; 0 = untagged"`
	State    []string `query:"state,explode" doc:"State of the protocol, as the datapath has it" example:"[\"ESTABLISHED\"]"`
	Policy   []string `query:"policy,explode" doc:"Name of a policy that allowed it" example:"[\"web\"]"`
	Rule     []string `query:"rule,explode" doc:"Name of a rule or default that allowed it, or policy/direction/rule"`
	Endpoint []string `query:"endpoint,explode" doc:"Endpoint, port or VM on either side, by any of its names"`
	FromName []string `query:"from,explode" doc:"Endpoint, port or VM that opened it"`
	ToName   []string `query:"to,explode" doc:"Endpoint, port or VM on the other side"`
	Force    bool     `query:"force" doc:"Ask also for what delays the switch for more than 20 ms"`
	Limit    int      `query:"limit" minimum:"1" maximum:"100000" default:"1000" doc:"List at most this many"`
}

type connectionsInput struct{ ConnectionInput }

type killInput struct {
	ConnectionInput
	All    bool `query:"all" doc:"Kill all connections; needed where nothing else is said"`
	DryRun bool `query:"dryRun" doc:"List what would be killed"`

	url url.URL
}

// Resolve keeps the URL for the log.
func (in *killInput) Resolve(ctx huma.Context) []error { in.url = ctx.URL(); return nil }

type explainInput struct {
	Entry  string `query:"entry" doc:"A line as ovs-appctl dpctl/dump-conntrack prints it"`
	Label  string `query:"label" doc:"A ct_label alone, 0x and up to 32 digits" example:"0x112233440000000140000000"`
	Host   string `query:"host" doc:"Only on the host with this system-id"`
	Bridge string `query:"bridge" doc:"Only on this bridge"`
}

type connectionsOutput struct{ Body Connections }

type killOutput struct{ Body Killed }

type explainOutput struct{ Body Explanations }

func (s *Server) registerConnections() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "list-connections", Method: http.MethodGet, Path: "/v1/connections",
		Tags: []string{"connections"}, Summary: "List live connections",
		Description: "What conntrack tracks of managed bridges, with the endpoints on both sides and what allowed it. Values of one parameter " +
			"are alternatives; different parameters must all match. Where listing would hold up the switch for more than 20 ms it is refused " +
			"(409), or named by problems if others could be listed; force=true asks all the same.",
		Responses: d.responses(schemaFor[Connections](d), nil, 409, 422, 503)}, func(ctx context.Context, in *connectionsInput) (
		*connectionsOutput, error) {
		q, err := in.query()
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		out, err := s.o.Engine.Connections(ctx, q)
		if err = take(err, &out.Problems); err != nil {
			return nil, s.problemFor(ctx, err)
		}
		out.Items = notNil(out.Items)
		return &connectionsOutput{Body: out}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "kill-connections", Method: http.MethodDelete, Path: "/v1/connections",
		Tags: []string{"connections"}, Summary: "Kill live connections",
		Description: "Has the switches forget the connections that match; at least one parameter says which, or all=true. The next packet is " +
			"judged as any of an unknown connection: TCP that does not begin with a SYN is dropped, other protocols begin anew where policy " +
			"allows them. What cannot be forgotten is listed with notKilled.",
		Responses: d.responses(schemaFor[Killed](d), nil, 409, 422, 503)}, func(ctx context.Context, in *killInput) (*killOutput, error) {
		q, err := in.query()
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		if q.Everything() != in.All {
			return nil, badParameter("query.all", nil, "say which connections by other parameters, or all=true, and not both")
		}
		out, err := s.o.Engine.KillConnections(ctx, q, in.DryRun)
		if err = take(err, &out.Problems); err != nil {
			return nil, s.problemFor(ctx, err)
		}
		if slices.ContainsFunc(out.Items, func(x wire.Connection) bool { return x.NotKilled == "" && x.Protocol != "tcp" }) {
			out.Notes = append(out.Notes, "what is not TCP begins anew with its next packet where policy allows it")
		}
		if !in.DryRun {
			s.auditKill(ctx, out, in.url.RawQuery)
		}
		out.Items = notNil(out.Items)
		return &killOutput{Body: out}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "explain-connection", Method: http.MethodGet, Path: "/v1/connections/explain",
		Tags: []string{"connections"}, Summary: "Explain a conntrack entry",
		Description: "Says which endpoints and rules the numbers in a conntrack entry, or in a ct_label alone, stand for, whether they are in " +
			"force, and what policies would say of such a connection now. One item for each bridge that it may be of; the zone says which.",
		Responses: d.responses(schemaFor[Explanations](d), nil, 422)}, func(_ context.Context, in *explainInput) (*explainOutput, error) {
		if (in.Entry == "") == (in.Label == "") {
			return nil, badParameter("query.entry", nil, "give either entry or label")
		}
		items, err := s.o.Engine.Explain(backend.ConnectionQuestion{Entry: in.Entry, Label: in.Label, Host: in.Host, Bridge: in.Bridge})
		if err != nil {
			at := "query.entry"
			if in.Label != "" {
				at = "query.label"
			}
			return nil, badParameter(at, nil, "%s", strings.TrimPrefix(err.Error(), "unixctl: "))
		}
		return &explainOutput{Body: Explanations{Items: notNil(items), Problems: s.o.Engine.Unknown()}}, nil
	})
}

// take adds what an answer lacks to its problems.
func take(err error, problems *[]string) error {
	var partial *backend.PartialError
	if errors.As(err, &partial) {
		*problems, err = partial.Problems, nil
	}
	return err
}

// values are the parameters that choose, by name.
func (in *ConnectionInput) values() url.Values {
	v := url.Values{"bridge": in.Bridge, "protocol": in.Protocol, "policy": in.Policy, "rule": in.Rule, "ip": in.IP, "from-ip": in.FromIP,
		"to-ip": in.ToIP, "port": in.Port, "from-port": in.FromPort, "to-port": in.ToPort}
	for name, list := range v {
		if len(list) == 0 {
			delete(v, name)
		}
	}
	return v
}

func (in *ConnectionInput) query() (backend.ConnectionQuery, error) {
	f, err := parseFilter(in.values())
	return backend.ConnectionQuery{Filter: f, Endpoint: in.Endpoint, From: in.FromName, To: in.ToName, Host: in.Host, VLAN: in.VLAN,
		State: in.State, Force: in.Force, Limit: in.Limit}, err
}
