package wire

import (
	"fmt"
	"strings"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// Problem is the body of every answer that is no success (RFC 9457). R is the written resource: whatever the server answers, what a
// client makes of it.
type Problem[R any] struct {
	// Type is a URI that names the sort of problem; about:blank where the status says it all.
	Type   string `json:"type,omitempty" format:"uri-reference" doc:"Sort of problem; about:blank where the status says it all" example:"about:blank"`
	Title  string `json:"title" doc:"Short summary, the same for every problem of this sort" example:"Unprocessable Entity"`
	Status int    `json:"status" doc:"HTTP status code" example:"422"`
	Detail string `json:"detail,omitempty" doc:"What is wrong this time" example:"the document has 2 faults"`
	// Errors lists every fault of the input, not only the first.
	Errors []InputError `json:"errors,omitempty" doc:"Every fault of the input"`
	// RequestID is that of the X-Request-Id header, and of the server's log.
	RequestID string `json:"requestId,omitempty" doc:"The answer's X-Request-Id; the server's log has it, too"`
	// Resource is the written resource with its status, where the write is done but waiting for it to be installed took too long.
	Resource R `json:"resource,omitempty" doc:"The resource as written, where only the wait for it failed (504)"`
	// Result is that of an apply, likewise.
	Result *ApplyResult `json:"result,omitempty" doc:"The result of an apply, where only the wait for it failed (504)"`
}

// InputError is one fault of the input. One of Pointer and Parameter says where.
type InputError struct {
	Pointer   *string     `json:"pointer,omitempty" doc:"Place in the document (RFC 6901); empty = the whole document" example:"/spec/ingress/0/services/0/ports/1"`
	Parameter string      `json:"parameter,omitempty" doc:"Place in the request outside the body" example:"query.limit"`
	Detail    string      `json:"detail" doc:"What is wrong and what would be right" example:"port 70000 is not in 1-65535"`
	Value     any         `json:"value,omitempty" doc:"What was found there, shortened"`
	Code      policy.Code `json:"code,omitempty" doc:"Sort of fault, where programs may want to tell it apart: SOURCE_IS_TARGET, UNKNOWN_REFERENCE, GROUP_CYCLE, NOT_SUPPORTED, SYNTAX, TOO_LARGE" example:"NOT_SUPPORTED"`
	Document  int         `json:"document,omitempty" doc:"Which document of a stream or list, from 1" example:"2"`
	Line      int         `json:"line,omitempty" doc:"Line of the text, from 1, where known" example:"14"`
}

// Error is the detail with every fault on a line of its own, safe for a terminal.
func (p *Problem[R]) Error() string {
	var b strings.Builder
	if p.Detail != "" {
		b.WriteString(event.Escape(p.Detail))
	} else {
		b.WriteString(event.Escape(p.Title))
	}
	for _, f := range p.Errors {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// String is the fault in one line, safe for a terminal.
func (e InputError) String() string { return event.Escape(e.text()) }

func (e InputError) text() string {
	var where []string
	if e.Document > 1 {
		where = append(where, fmt.Sprintf("document %d", e.Document))
	}
	if e.Line > 0 {
		where = append(where, fmt.Sprintf("line %d", e.Line))
	}
	if e.Pointer != nil && *e.Pointer != "" {
		where = append(where, *e.Pointer)
	}
	if e.Parameter != "" {
		where = append(where, e.Parameter)
	}
	if len(where) == 0 {
		return e.Detail
	}
	return strings.Join(where, ", ") + ": " + e.Detail
}
