package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/event"
)

// Export is a server that events are exported to. All methods are safe for concurrent use.
type Export interface {
	// Check asks the server who it is and makes sure that it can take events; the error says why it cannot.
	Check(ctx context.Context) (event.ExportTest, error)
	// Delivered calls made, which makes an event, and waits until one more than there were is delivered, or ctx ends; the error says why
	// it is not.
	Delivered(ctx context.Context, made func()) error
	// Replay sends dead letters again. An error leaves what was not sent where it is.
	Replay(ctx context.Context) (event.ExportReplay, error)
}

// exportLimit is how long a test may take.
const exportLimit = 10 * time.Second

type exportOutput struct{ Body List[event.SinkStatus] }

type exportTestOutput struct{ Body event.ExportTest }

type exportReplayOutput struct{ Body event.ExportReplay }

func (s *Server) registerExport() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "export-status", Method: http.MethodGet, Path: "/v1/export", Tags: []string{"events"},
		Summary: "How the export of events goes",
		Description: "What became of all events that each sink was to have, since it was first configured: appended = created + duplicates + " +
			"deadLetters + expired + corrupt + pending.",
		Responses: d.responses(schemaFor[List[event.SinkStatus]](d), nil)}, func(context.Context, *struct{}) (*exportOutput, error) {
		return &exportOutput{Body: List[event.SinkStatus]{Items: append([]event.SinkStatus{}, s.o.Engine.System().Events.Sinks...)}}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "test-export", Method: http.MethodPost, Path: "/v1/export/test", Tags: []string{"events"},
		Summary: "Try whether events arrive",
		Description: "Asks the server who it is, makes sure that the templates stand, makes an event (export-tested) and waits up to 10 s " +
			"until it is delivered, behind all that waits already.",
		Responses: d.responses(schemaFor[event.ExportTest](d), nil, 404, 503)},
		func(ctx context.Context, _ *struct{}) (*exportTestOutput, error) {
			out, err := s.testExport(ctx)
			if err != nil {
				return nil, s.problemFor(ctx, err)
			}
			return &exportTestOutput{out}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "replay-dead-letters", Method: http.MethodPost, Path: "/v1/export/replay",
		Tags: []string{"events"}, Summary: "Send dead letters again",
		Description: "Documents that the server refused for good, as after its mapping was mended. What it refuses again is a dead letter again.",
		Responses:   d.responses(schemaFor[event.ExportReplay](d), nil, 404, 503)},
		func(ctx context.Context, _ *struct{}) (*exportReplayOutput, error) {
			if s.o.Export == nil {
				return nil, errNoExport()
			}
			out, err := s.o.Export.Replay(ctx)
			if err != nil {
				return nil, problem(http.StatusServiceUnavailable, "the dead letters were not all sent: %v", err)
			}
			who := caller(ctx)
			s.tell(event.NewChange(event.ActionReplayed, event.Notice{Count: out.Taken + out.Refused, By: who.By, From: who.From,
				Message: fmt.Sprintf("%d dead letters were sent again%s, %d of them refused again", out.Taken+out.Refused, byWhom(who), out.Refused)}))
			return &exportReplayOutput{out}, nil
		})
}

func errNoExport() error {
	return problem(http.StatusNotFound, "events are exported to no server: there is no sinks.opensearch in the configuration")
}

func (s *Server) testExport(ctx context.Context) (event.ExportTest, error) {
	if s.o.Export == nil {
		return event.ExportTest{}, errNoExport()
	}
	ctx, cancel := context.WithTimeout(ctx, exportLimit)
	defer cancel()
	out, err := s.o.Export.Check(ctx)
	if err != nil {
		return out, problem(http.StatusServiceUnavailable, "%v", err)
	}
	begin := time.Now()
	who := caller(ctx)
	err = s.o.Export.Delivered(ctx, func() {
		s.tell(event.NewAccess(event.ActionExportTested,
			event.Notice{Message: "the export of events was tried" + byWhom(who), Count: 1, By: who.By, From: who.From}))
	})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return out, problem(http.StatusServiceUnavailable, "the server is there, and not everything was delivered within %v: %v",
				exportLimit, err)
		}
		return out, problem(http.StatusServiceUnavailable, "the server is there, and does not take events: %v", err)
	}
	out.Took = time.Since(begin).Seconds()
	return out, nil
}
