package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tapwall/tapwall/internal/backend"
)

// unavailable is an error of the store that goes away by itself or by an operator's hand, not by another request.
type unavailable struct {
	reason error // ErrNoSpace, ErrFailed or nil
	text   string
	cause  error
}

func (e *unavailable) Error() string {
	if e.cause == nil {
		return "store: " + e.text
	}
	return fmt.Sprintf("store: %s: %v", e.text, e.cause)
}

func (e *unavailable) Unwrap() []error {
	errs := []error{backend.ErrUnavailable}
	if e.reason != nil {
		errs = append(errs, e.reason)
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// requestError is an error of etcd's, where others are possible.
type requestError struct{ error }

func (e *requestError) Unwrap() error { return e.error }

func ofEtcd(err error) bool { var e *requestError; return errors.As(err, &e) }

// fail turns an error of the etcd client into one of this package. The end of the caller's own context stays what it is.
func (s *Store) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return ctx.Err()
	}
	if bad := (*badValue)(nil); errors.As(err, &bad) {
		return bad.error
	}
	err = s.classify(err)
	if errors.Is(err, backend.ErrUnavailable) {
		msg := err.Error()
		s.trouble.Store(&msg)
	}
	return err
}

func (s *Store) classify(err error) error {
	if failed := s.Err(); failed != nil {
		return failed
	}
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return &unavailable{reason: ErrNoSpace,
			text: "no space left in the database of the store (quota exceeded); it takes writes again after compaction and defragmentation"}
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("store: %w: the etcd cluster takes fewer changes in one transaction (its --max-txn-ops); send fewer documents at "+
			"once or raise it", backend.ErrTooLarge)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(),
		"larger than max"):
		return fmt.Errorf("store: %w: the etcd cluster takes fewer bytes in one transaction (its --max-request-bytes); send fewer documents "+
			"at once, divide a large group, or raise it", backend.ErrTooLarge)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrAuthFailed):
		return &unavailable{text: "the etcd cluster refuses tapwall's credentials", cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &unavailable{text: "etcd did not answer in time", cause: err}
	case errors.Is(err, context.Canceled):
		return &unavailable{text: "closed", cause: err}
	}
	return &unavailable{text: "etcd", cause: err}
}
