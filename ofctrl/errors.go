package ofctrl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// Errors of this package; match with errors.Is.
var (
	// ErrNotConnected: there is no connection, or it has not been read back yet. What was to be applied is recorded.
	ErrNotConnected = errors.New("switch is not connected")
	// ErrUnknownOutcome: the request was sent but not answered in time or before the connection went. The flow tables
	// are read back before anything else is sent.
	ErrUnknownOutcome = errors.New("outcome is unknown")
	// ErrConflict: two owners want different flows with the same table, priority and match.
	ErrConflict = errors.New("owners want different flows in the same place")
	// ErrForeignFlow: a desired flow has the table, priority and match of an installed flow that is not ours.
	ErrForeignFlow = errors.New("place is taken by a foreign flow")
	// ErrRejected: the switch refused a flow or a meter, and so everything that was to be done together with it.
	ErrRejected = errors.New("rejected by the switch")
	// ErrInvalid: a flow or meter that cannot be asked for: not ours by cookie or id, or impossible on the wire.
	ErrInvalid = errors.New("invalid")
	// ErrVersion: the switch does not speak OpenFlow 1.3.
	ErrVersion = errors.New("no common OpenFlow version")
	// ErrProtocol: the switch broke the protocol so that the connection is of no more use.
	ErrProtocol = errors.New("protocol violation")
	// ErrProbe: the switch did not answer an echo request in time.
	ErrProbe = errors.New("switch does not answer")
	// ErrClosed: the connection is closed.
	ErrClosed = errors.New("connection closed")
)

// RequestError is the failure of one request, told by the switch with the request's transaction id. It matches
// [ErrRejected] and unwraps to the *ofp.Error.
type RequestError struct {
	Op     string // what was asked for, such as "add flow"
	Index  int    // of the request among those that were sent together
	Object string // the flow or meter, as text; "" if the request had none
	Owner  string // the owner of Object; "" if none
	Err    *ofp.Error
}

// Error names the request, its object and the switch's answer.
func (e *RequestError) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Owner != "" {
		b.WriteString(" of " + e.Owner)
	}
	if e.Object != "" {
		b.WriteString(" " + e.Object)
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

// Unwrap returns what errors.Is and errors.As look at.
func (e *RequestError) Unwrap() []error { return []error{ErrRejected, e.Err} }

// ConflictError names two owners that want different flows in the same place. It matches [ErrConflict].
type ConflictError struct {
	Owner, Other    string
	Flow, OtherFlow flow.Flow
}

// Error names both owners and both flows.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s wants %s, %s wants %s: %v", e.Owner, e.Flow.String(), e.Other, e.OtherFlow.String(), ErrConflict)
}

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// ForeignError names desired flows that are not installed because flows of somebody else are in their places. It matches
// [ErrForeignFlow].
type ForeignError struct {
	Count int // of such flows
	Owner string
	Flow  flow.Flow // one of them
}

// Error names one of the flows.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("%d flows are left out, one of them %s of %s: %v", e.Count, e.Flow.String(), e.Owner, ErrForeignFlow)
}

// Unwrap returns ErrForeignFlow.
func (e *ForeignError) Unwrap() error { return ErrForeignFlow }
