package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/tapwall/tapwall/event"
)

// Errors that a *Problem matches, by errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrConflict     = errors.New("changed by somebody else")
	ErrInvalid      = errors.New("invalid input")
	ErrNotInstalled = errors.New("written, but not installed in time")
)

// Problem is an answer that is no success (RFC 9457).
type Problem struct {
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail"`
	Errors    []Fault `json:"errors"`
	RequestID string  `json:"requestId"`
	// Result is that of an apply whose wait was too long; Resource likewise of a single write.
	Result   *ApplyResult `json:"result"`
	Resource *Document    `json:"resource"`
}

// Fault is one fault of the input: Pointer says where in the document (RFC 6901), Parameter where in the request.
type Fault struct {
	Pointer   *string `json:"pointer"`
	Parameter string  `json:"parameter"`
	Detail    string  `json:"detail"`
	Document  int     `json:"document"`
	Line      int     `json:"line"`
}

// String is the fault in one line, safe for a terminal.
func (f Fault) String() string { return event.Escape(f.text()) }

func (f Fault) text() string {
	var where []string
	if f.Document > 1 {
		where = append(where, fmt.Sprintf("document %d", f.Document))
	}
	if f.Line > 0 {
		where = append(where, fmt.Sprintf("line %d", f.Line))
	}
	if f.Pointer != nil && *f.Pointer != "" {
		where = append(where, *f.Pointer)
	}
	if f.Parameter != "" {
		where = append(where, f.Parameter)
	}
	if len(where) == 0 {
		return f.Detail
	}
	return strings.Join(where, ", ") + ": " + f.Detail
}

// Error is the detail with every fault on a line of its own, safe for a terminal.
func (p *Problem) Error() string {
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

// Is matches the errors of this package.
func (p *Problem) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return p.Status == http.StatusNotFound
	case ErrConflict:
		return p.Status == http.StatusConflict || p.Status == http.StatusPreconditionFailed
	case ErrInvalid:
		return p.Status == http.StatusUnprocessableEntity || p.Status == http.StatusBadRequest
	case ErrNotInstalled:
		return p.Status == http.StatusGatewayTimeout
	}
	return false
}
