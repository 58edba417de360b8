package api

import (
	"context"
	"errors"
	"net/http"
	"net/netip"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

type traceInput struct {
	From     string `query:"from" required:"true" minLength:"1" doc:"Who opens the connection: any name of an endpoint, port or VM, or an address" example:"vm7"`
	To       string `query:"to" required:"true" minLength:"1" doc:"To whom, likewise" example:"vm9"`
	Protocol string `query:"protocol" default:"tcp" doc:"tcp, udp, icmp, icmpv6, sctp, … as in services, or a number"`
	Port     string `query:"port" doc:"Port that it goes to: a number or a name, as in services; tcp, udp and sctp need one" example:"5432"`
	FromPort string `query:"from-port" doc:"Port that it comes from; absent = any of those that clients take"`
	Type     int    `query:"type" minimum:"-1" maximum:"255" default:"-1" doc:"Type of an ICMP message; -1 = an echo request"`
	Code     int    `query:"code" minimum:"0" maximum:"255" default:"0" doc:"Its code"`
	Family   string `query:"family" enum:"4,6" doc:"4 or 6; absent = that of the addresses that are known"`
	FromIP   string `query:"from-ip" doc:"Address of the sender, where it has several or none is known"`
	ToIP     string `query:"to-ip" doc:"Address of the receiver, likewise"`
	VLAN     int    `query:"vlan" minimum:"-1" maximum:"4094" default:"-1" doc:"VLAN between trunk ports; 0 = untagged; -1 = that of the endpoints"`
	Host     string `query:"host" doc:"Only endpoints on the host with this system-id"`
	Bridge   string `query:"bridge" doc:"Only endpoints on this bridge"`
	Probe    bool   `query:"probe" default:"true" doc:"Also ask the switches, by an injected packet that reaches nobody"`
}

type traceOutput struct{ Body Trace }

func (s *Server) registerTrace() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "trace", Method: http.MethodGet, Path: "/v1/trace", Tags: []string{"flows"},
		Summary: "What would happen to a packet, and why",
		Description: "Judges the first packet of a connection by the policies that are installed: which apply to either side, which rule " +
			"decides, " +
			"the way through the tables, and what would have to change for it to pass. With probe the switch itself is asked, too, by a packet " +
			"that reaches nobody, makes no connection and does not count.",
		Responses: d.responses(schemaFor[Trace](d), nil, 409, 422, 503)}, func(ctx context.Context, in *traceInput) (*traceOutput, error) {
		q, err := in.question()
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		out, err := s.o.Engine.Trace(ctx, q)
		var bad *backend.QuestionError
		if errors.As(err, &bad) {
			err = badParameter("query."+bad.Parameter, nil, "%s", bad.Detail)
		}
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		out.Crossings = notNil(out.Crossings)
		return &traceOutput{Body: out}, nil
	})
}

func (in *traceInput) question() (q backend.TraceQuestion, err error) {
	q = backend.TraceQuestion{From: in.From, To: in.To, Host: in.Host, Bridge: in.Bridge, Code: uint8(in.Code), Probe: in.Probe}
	switch in.Family {
	case "4":
		q.Family = 4
	case "6":
		q.Family = 6
	}
	if q.Proto, err = policy.Protocol(in.Protocol).Number(); err != nil {
		return q, badParameter("query.protocol", in.Protocol, "%v", err)
	}
	hasPorts := q.Proto == policy.ProtoTCP || q.Proto == policy.ProtoUDP || q.Proto == policy.ProtoSCTP
	for _, p := range []struct {
		name, text string
		to         *uint16
	}{{"query.port", in.Port, &q.DstPort}, {"query.from-port", in.FromPort, &q.SrcPort}} {
		if p.text == "" {
			continue
		}
		r, err := policy.ParsePortRange(p.text)
		switch {
		case err != nil:
			return q, badParameter(p.name, p.text, "%v", err)
		case r.Lo != r.Hi:
			return q, badParameter(p.name, p.text, "must be one port")
		case !hasPorts:
			return q, badParameter(p.name, p.text, "%s has no ports: leave it out (type and code say which message of ICMP is meant)", in.Protocol)
		}
		*p.to = r.Lo
	}
	if hasPorts && q.DstPort == 0 {
		return q, badParameter("query.port", nil, "%s needs the port that the packet goes to", in.Protocol)
	}
	switch icmp := q.Proto == policy.ProtoICMP || q.Proto == policy.ProtoICMPv6; {
	case in.Type >= 0 && !icmp, in.Code > 0 && !icmp:
		return q, badParameter("query.type", nil, "%s has no types and codes", in.Protocol)
	case in.Type >= 0:
		q.Type = uint8(in.Type)
	case q.Proto == policy.ProtoICMP:
		q.Type = 8
	case icmp:
		q.Type = 128
	}
	for _, a := range []struct {
		name, text string
		to         *netip.Addr
	}{{"query.from-ip", in.FromIP, &q.SrcIP}, {"query.to-ip", in.ToIP, &q.DstIP}} {
		if a.text == "" {
			continue
		}
		if *a.to, err = netip.ParseAddr(a.text); err != nil || a.to.Zone() != "" {
			return q, badParameter(a.name, a.text, "must be an address like 10.0.0.1 or fd00::1")
		}
	}
	if in.VLAN >= 0 {
		q.VLAN = &in.VLAN
	}
	return q, nil
}
