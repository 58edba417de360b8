package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
)

const (
	typeSSE    = "text/event-stream"
	typeNDJSON = "application/x-ndjson"
)

// TupleInput is the parameters that choose by where something was and between which addresses.
type TupleInput struct {
	Bridge   []string `query:"bridge,explode" doc:"Name of the bridge"`
	Protocol []string `query:"protocol,explode" doc:"tcp, udp, icmp, ipv6-icmp, … or a number"`
	IP       []string `query:"ip,explode" doc:"Address or CIDR of either side"`
	FromIP   []string `query:"from-ip,explode" doc:"Address or CIDR of the initiator"`
	ToIP     []string `query:"to-ip,explode" doc:"Address or CIDR of the other side"`
	Port     []string `query:"port,explode" doc:"Port of either side"`
	FromPort []string `query:"from-port,explode" doc:"Port of the initiator"`
	ToPort   []string `query:"to-port,explode" doc:"Port of the other side"`
}

// FilterInput is the parameters of filters that are not of event.Params, for the description; package event reads all of them from the URL.
// It is exported because huma looks into exported embedded structs only.
type FilterInput struct {
	Since string `query:"since" doc:"Not older than this: RFC 3339, or a duration before now" example:"5m"`
	Until string `query:"until" doc:"Older than this: RFC 3339, or a duration before now"`
	After string `query:"after" doc:"Only what came after the event with this id"`
}

// filterParameters describes event.Params.
func filterParameters() (out []*huma.Param) {
	for _, p := range event.Params() {
		out = append(out, &huma.Param{Name: p.Name, In: "query", Explode: new(true), Description: strings.ToUpper(p.Doc[:1]) + p.Doc[1:],
			Schema: &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}})
	}
	return out
}

// filterText says how parameters of filters work together.
const filterText = "Values of one parameter are alternatives, 1000 at most; different parameters must all match. Before the name of any " +
	"parameter but since, until, after, limit and first, not. asks for what has none of its values: not.verdict=DROPPED."

type eventsInput struct {
	FilterInput
	Limit string `query:"limit" doc:"At most this many; default 20" example:"100"`
	First string `query:"first" doc:"true = the oldest instead of the newest"`

	url url.URL
}

// Resolve keeps the URL for event.ParseFilter.
func (in *eventsInput) Resolve(ctx huma.Context) []error { in.url = ctx.URL(); return nil }

type streamInput struct {
	FilterInput
	LastEventID string `header:"Last-Event-ID" doc:"Go on after this event; browsers send it when they reconnect"`
	Accept      string `header:"Accept" hidden:"true"`

	url url.URL
}

// Resolve keeps the URL for event.ParseFilter.
func (in *streamInput) Resolve(ctx huma.Context) []error { in.url = ctx.URL(); return nil }

type eventsOutput struct{ Body event.Page }

func (s *Server) registerEvents() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "list-events", Method: http.MethodGet, Path: "/v1/events", Tags: []string{"events"},
		Summary: "Query the record",
		Description: "Up to limit events that match, oldest first, from memory and, where that does not reach, from the spool on disk. " +
			filterText + " oldest and coverage in the answer tell how far back the record goes.",
		Parameters: filterParameters(), SkipValidateParams: true, // event.ParseFilter tells of unknown ones, too
		Responses: d.responses(schemaFor[event.Page](d), nil, 422)}, func(ctx context.Context, in *eventsInput) (*eventsOutput, error) {
		f, err := parseFilter(in.url.Query())
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		page, err := s.o.Events.Query(ctx, f)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		if page.Items == nil {
			page.Items = []*event.Event{}
		}
		return &eventsOutput{Body: page}, nil
	})

	one := schemaFor[event.Event](d)
	responses := d.responses(nil, nil, 422, 503)
	responses["200"] = &huma.Response{Description: "Events as they happen, until either side closes", Content: map[string]*huma.MediaType{
		typeSSE: {Schema: &huma.Schema{Type: huma.TypeString, Description: "Server-sent events: id is the event's id, event its action, " +
			"data the document. A comment every 15 s shows that the stream is alive."}},
		typeNDJSON: {Schema: one},
	}}
	huma.Register(s.api, huma.Operation{OperationID: "follow-events", Method: http.MethodGet, Path: streamPath, Tags: []string{"events"},
		Summary: "Follow the record",
		Description: "Server-sent events, or one JSON document per line with Accept: application/x-ndjson (there, an empty line shows every " +
			"15 s that the stream is alive). With " +
			"Last-Event-ID or after, what is still in memory since then comes first, without gap or repetition. A reader that is too slow gets " +
			"an event with the action events-lost that counts what it missed. " + filterText,
		Parameters: filterParameters(), SkipValidateParams: true,
		Responses: responses}, func(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
		out, err := s.follow(ctx, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return out, nil
	})
}

func parseFilter(q url.Values) (event.Filter, error) {
	f, err := event.ParseFilter(q, time.Now())
	if err == nil {
		_, err = f.Compile()
	}
	if err == nil {
		return f, nil
	}
	p := problem(http.StatusUnprocessableEntity, "the input has 1 fault")
	for _, e := range event.ParamErrors(err) {
		p.Errors = append(p.Errors, InputError{Parameter: "query." + e.Param, Detail: e.Reason, Value: e.Value})
	}
	if len(p.Errors) == 0 {
		return f, err
	}
	countFaults(p)
	return f, p
}

// follow subscribes first, so that errors are still answers, then streams.
func (s *Server) follow(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
	f, err := parseFilter(in.url.Query())
	if err != nil {
		return nil, err
	}
	after := f.After
	if in.LastEventID != "" {
		after = in.LastEventID // newer than the URL's, which a browser repeats when it reconnects
	}
	f.After = ""
	select {
	case s.streams <- struct{}{}:
	default:
		p := problem(http.StatusServiceUnavailable, "%d clients follow events already", s.o.MaxStreams)
		p.headers = http.Header{"Retry-After": {"5"}}
		return nil, p
	}
	ctx, cancel := context.WithCancel(ctx)
	ch, err := s.o.Events.Subscribe(ctx, f, after)
	if err != nil {
		cancel()
		<-s.streams
		return nil, streamError(err)
	}
	encode := encodeSSE
	contentType := typeSSE
	if strings.Contains(in.Accept, typeNDJSON) {
		encode, contentType = encodeNDJSON, typeNDJSON
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer func() {
			cancel()
			for range ch { // until the subscription has ended
			}
			<-s.streams
		}()
		r, w := humachi.Unwrap(hctx)
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("X-Accel-Buffering", "no") // proxies must pass events on at once
		s.stream(r, w, ch, encode)
	}}, nil
}

// streamError turns an unknown Last-Event-ID and the like into an answer.
func streamError(err error) error {
	if ps := event.ParamErrors(err); len(ps) > 0 {
		p := problem(http.StatusUnprocessableEntity, "the input has 1 fault")
		for _, e := range ps {
			p.Errors = append(p.Errors, InputError{Parameter: "query." + e.Param, Detail: e.Reason, Value: e.Value})
		}
		countFaults(p)
		return p
	}
	if errors.Is(err, backend.ErrUnavailable) {
		return err
	}
	return badParameter("query.after", nil, "%v", err)
}

// stream writes until the client goes, a write takes too long, or the subscription ends. Events that are ready together share a flush.
func (s *Server) stream(r *http.Request, w http.ResponseWriter, ch <-chan *event.Event, encode func(*bytes.Buffer, *event.Event) error) {
	ctl := http.NewResponseController(w)
	write := func(b []byte) bool {
		_ = ctl.SetWriteDeadline(time.Now().Add(streamWriteLimit)) // without deadlines a dead peer is found by TCP alone
		if _, err := w.Write(b); err != nil {
			return false
		}
		return ctl.Flush() == nil
	}
	alive := []byte("\n")
	if w.Header().Get("Content-Type") == typeSSE {
		alive = []byte(": alive\n\n")
	}
	w.WriteHeader(http.StatusOK)
	if !write(alive) { // so that the client knows at once that it is connected
		return
	}
	heartbeat := time.NewTicker(s.o.Heartbeat)
	defer heartbeat.Stop()
	const maxBatch = 64 << 10
	var buf bytes.Buffer
	for {
		buf.Reset()
		select {
		case <-r.Context().Done():
			return
		case <-heartbeat.C:
			if !write(alive) {
				return
			}
			continue
		case e, ok := <-ch:
			for more := true; more; {
				if !ok {
					_ = write(buf.Bytes())
					return
				}
				if err := encode(&buf, e); err != nil {
					s.log.ErrorContext(r.Context(), "an event cannot be encoded", "id", e.Event.ID, "error", err)
				}
				if more = buf.Len() < maxBatch; more {
					select {
					case e, ok = <-ch:
					default:
						more = false
					}
				}
			}
		}
		if !write(buf.Bytes()) {
			return
		}
		heartbeat.Reset(s.o.Heartbeat)
	}
}

// encodeSSE follows the HTML standard, §9.2.6. JSON has no raw line breaks, so data is one line; id and action are checked words.
func encodeSSE(b *bytes.Buffer, e *event.Event) error {
	start := b.Len()
	if id := e.Event.ID; plainWord(id, 128) {
		b.WriteString("id: " + id + "\n")
	}
	if a := e.Event.Action; plainWord(a, 64) {
		b.WriteString("event: " + a + "\n")
	}
	b.WriteString("data: ")
	err := encodeJSON(b, e)
	if err != nil {
		b.Truncate(start)
		return err
	}
	b.WriteString("\n\n")
	return nil
}

func encodeNDJSON(b *bytes.Buffer, e *event.Event) error {
	err := encodeJSON(b, e)
	if err == nil {
		b.WriteByte('\n')
	}
	return err
}

// encodeJSON writes the document as json.Marshal does, without reflection: a stream may carry all that the record takes.
func encodeJSON(b *bytes.Buffer, e *event.Event) error {
	text, err := event.AppendJSON(b.AvailableBuffer(), e)
	if err == nil {
		b.Write(text)
	}
	return err
}
