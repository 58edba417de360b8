package client

import (
	"errors"
	"net/http"

	"github.com/tapwall/tapwall/api/wire"
)

// Errors that a *Problem matches, by errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrConflict     = errors.New("changed by somebody else")
	ErrInvalid      = errors.New("invalid input")
	ErrNotInstalled = errors.New("written, but not installed in time")
)

// Problem is an answer that is no success (RFC 9457).
type Problem struct{ wire.Problem[*Document] }

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
