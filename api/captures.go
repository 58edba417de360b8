package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
)

const (
	typePcapng  = "application/x-pcapng"
	capturePath = "/v1/captures"

	// maxFollowers bounds how many clients follow packets at once: each has 4 MiB of the kernel's memory.
	maxFollowers = 8
	// captureWriteLimit is how long a client of packets may take nothing at all: somebody may have stopped to look at one.
	captureWriteLimit = time.Minute
)

type capturesInput struct {
	Mirror string `query:"mirror" doc:"Only of this mirror" example:"web"`
}

type capturesOutput struct{ Body List[Capture] }

type packetsInput struct {
	Mirror   string `path:"mirror" doc:"Name of the mirror" example:"web"`
	Host     string `query:"host" doc:"Id of the host that has the packets; needed where several have"`
	Since    string `query:"since" doc:"Not older than this: RFC 3339, or a duration before now" example:"30s"`
	Until    string `query:"until" doc:"Older than this: RFC 3339, or a duration before now; not with follow"`
	Follow   bool   `query:"follow" doc:"Packets as they come, until either side closes or the mirror ends"`
	Packets  int    `query:"packets" minimum:"1" doc:"At most this many, the oldest first" example:"100"`
	Duration string `query:"duration" doc:"Follow for so long at most; what a buffer holds ends by itself" example:"1m"`
}

type captureFileInput struct {
	Mirror string `path:"mirror" doc:"Name of the mirror" example:"web"`
	File   string `path:"file" doc:"Name of the file" example:"web_00001_20261129120000.pcapng"`
	Host   string `query:"host" doc:"Id of the host that has the file; needed where several have one of the name"`
}

func (s *Server) registerCaptures() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "list-captures", Method: http.MethodGet, Path: capturePath, Tags: []string{"captures"},
		Summary: "List what packets there are",
		Description: "The targets of mirrors that tapwall reads, or can read for who follows them, with what became of their packets and the " +
			"files that there are, also of mirrors that have ended.",
		Responses: d.responses(schemaFor[List[Capture]](d), nil, 422)}, func(_ context.Context, in *capturesInput) (*capturesOutput, error) {
		return &capturesOutput{Body: List[Capture]{Items: notNil(s.o.Engine.Captures(in.Mirror)), Problems: s.o.Engine.Unknown()}}, nil
	})
	responses := d.responses(nil, nil, 404, 409, 422, 503)
	responses["200"] = &huma.Response{Description: "A pcapng stream", Content: map[string]*huma.MediaType{typePcapng: {Schema: binary()}}}
	huma.Register(s.api, huma.Operation{OperationID: "read-capture", Method: http.MethodGet, Path: capturePath + "/{mirror}",
		Tags: []string{"captures"}, Summary: "Read packets of a mirror",
		Description: "What its target buffer holds or, with follow, packets as they come: then of any mirror with a target pcap, buffer or " +
			"events, or a port that it makes. With follow and since, what the buffer holds since then comes first, without gap or repetition. " +
			"A reader that is too slow loses packets, which are counted in the stream. That somebody reads is an event, captures-read.",
		Responses: responses}, func(ctx context.Context, in *packetsInput) (*huma.StreamResponse, error) {
		out, err := s.readPackets(ctx, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return out, nil
	})
	responses = d.responses(nil, nil, 404, 409, 422)
	responses["200"] = &huma.Response{Description: "The file", Content: map[string]*huma.MediaType{typePcapng: {Schema: binary()}}}
	huma.Register(s.api, huma.Operation{OperationID: "read-capture-file", Method: http.MethodGet, Path: capturePath + "/{mirror}/files/{file}",
		Tags: []string{"captures"}, Summary: "Read a file of a mirror",
		Description: "As it is now: one that is being written ends with the last packet so far. That somebody reads is an event, captures-read.",
		Responses:   responses}, func(ctx context.Context, in *captureFileInput) (*huma.StreamResponse, error) {
		out, err := s.readFile(ctx, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return out, nil
	})
}

func binary() *huma.Schema { return &huma.Schema{Type: huma.TypeString, Format: "binary"} }

func (in *packetsInput) query(now time.Time) (q backend.CaptureQuery, err error) {
	q = backend.CaptureQuery{Mirror: in.Mirror, Host: in.Host, Follow: in.Follow, Packets: in.Packets}
	p := problem(http.StatusUnprocessableEntity, "the input has 1 fault")
	fault := func(name, value, format string, args ...any) {
		p.Errors = append(p.Errors, InputError{Parameter: "query." + name, Detail: fmt.Sprintf(format, args...), Value: value})
		countFaults(p)
	}
	at := func(name, text string) (t time.Time) {
		if text != "" {
			if t, err = event.ParseTime(strings.TrimPrefix(text, "-"), now); err != nil {
				fault(name, text, "must be a time as in RFC 3339, or a duration before now like \"30s\"")
			}
		}
		return t
	}
	q.Since, q.Until = at("since", in.Since), at("until", in.Until)
	if in.Duration != "" {
		if q.Duration, err = duration.Parse(in.Duration); err != nil || q.Duration <= 0 {
			fault("duration", in.Duration, "must be a duration like \"1m\"")
		}
	}
	switch {
	case in.Follow && in.Until != "":
		fault("until", in.Until, "goes without follow; use duration")
	case !q.Until.IsZero() && q.Until.Before(q.Since):
		fault("until", in.Until, "is before since")
	}
	if len(p.Errors) > 0 {
		return q, p
	}
	return q, nil
}

// readPackets finds out what is to be read first, so that errors are still answers, then streams.
func (s *Server) readPackets(ctx context.Context, in *packetsInput) (*huma.StreamResponse, error) {
	q, err := in.query(time.Now())
	if err != nil {
		return nil, err
	}
	write, err := s.o.Engine.Packets(q)
	if err != nil {
		return nil, err
	}
	what := "of its buffer"
	if q.Follow {
		what = "as they came"
	}
	for _, bound := range []struct{ name, value string }{{"since", in.Since}, {"until", in.Until}} {
		if bound.value != "" {
			what += ", " + bound.name + " " + bound.value
		}
	}
	release := func() {}
	if q.Follow {
		select {
		case s.followers <- struct{}{}:
			release = func() { <-s.followers }
		default:
			p := problem(http.StatusServiceUnavailable, "%d clients follow packets already", maxFollowers)
			p.headers = http.Header{"Retry-After": {"5"}}
			return nil, p
		}
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer release()
		r, w := humachi.Unwrap(hctx)
		s.attach(w, in.Mirror+".pcapng")
		if r.Method == http.MethodHead {
			return
		}
		s.noteRead(ctx, in.Mirror, "packets of mirror "+in.Mirror+" "+what)
		w.Header().Set("X-Accel-Buffering", "no") // proxies must pass packets on at once
		s.hand(r, w, write, q.Follow)
	}}, nil
}

func (s *Server) readFile(ctx context.Context, in *captureFileInput) (*huma.StreamResponse, error) {
	f, err := s.o.Engine.CaptureFile(in.Mirror, in.Host, in.File)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer f.Close()
		r, w := humachi.Unwrap(hctx)
		s.attach(w, in.File)
		w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
		if r.Method == http.MethodHead {
			return
		}
		s.noteRead(ctx, in.Mirror, "file "+in.File+" of mirror "+in.Mirror)
		s.hand(r, w, func(_ context.Context, w io.Writer) error {
			_, err := io.CopyN(onlyWriter{w}, f, info.Size())
			return err
		}, false)
	}}, nil
}

// attach sets headers of packets that are saved under a name.
func (s *Server) attach(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", typePcapng)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
}

// noteRead records that somebody was handed packets.
func (s *Server) noteRead(ctx context.Context, mirror, what string) {
	who := s.note(ctx, "captures read", slog.String("what", what))
	message := what + " were read"
	if strings.HasPrefix(what, "file ") {
		message = what + " was read"
	}
	s.tell(event.NewAccess(event.ActionCapturesRead, event.Notice{Message: message + byWhom(who), Count: 1,
		Objects: []string{"mirror/" + mirror}, By: who.By, From: who.From}))
}

// hand hands packets to a client until there are no more. If they break off the connection does, so that the client sees it.
func (s *Server) hand(r *http.Request, w http.ResponseWriter, write backend.WritePackets, follow bool) {
	out := &patient{w: w, ctl: http.NewResponseController(w), flush: follow}
	if err := write(r.Context(), out); err != nil {
		s.log.DebugContext(r.Context(), "packets broke off", slog.Any("error", err), slog.String("request", requestID(r.Context())))
		panic(http.ErrAbortHandler)
	}
}

// patient is a client that may be slow, but not for ever.
type patient struct {
	w     http.ResponseWriter
	ctl   *http.ResponseController
	flush bool // after every write
}

// Write implements io.Writer.
func (p *patient) Write(b []byte) (int, error) {
	_ = p.ctl.SetWriteDeadline(time.Now().Add(captureWriteLimit)) // without deadlines a dead peer is found by TCP alone
	n, err := p.w.Write(b)
	if err == nil && p.flush {
		err = p.ctl.Flush()
	}
	return n, err
}

// onlyWriter hides what else a writer can do, such as to read a whole file in one call that no deadline of a write bounds.
type onlyWriter struct{ io.Writer }
