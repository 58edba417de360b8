package main

import (
	"errors"
	"fmt"

	"github.com/tapwall/tapwall/api/client"
)

// missingError says that there is nothing of that name; it matches client.ErrNotFound.
type missingError struct{ kind, name string }

func (e *missingError) Error() string { return fmt.Sprintf("there is no %s %q", e.kind, e.name) }
func (e *missingError) Unwrap() error { return client.ErrNotFound }

// failures collects what went wrong with several names, each of which is tried.
type failures []error

func (f *failures) add(err error) {
	if err != nil {
		*f = append(*f, err)
	}
}

// err is nil if nothing went wrong. Its exit code is that of all failures if they agree, and else 1.
func (f failures) err() error {
	if len(f) < 2 {
		return errors.Join(f...)
	}
	code := codeOf(f[0])
	for _, err := range f {
		if codeOf(err) != code {
			code = exitFailed
		}
	}
	return &exitError{code, errors.Join(f...)}
}

func codeOf(err error) int {
	var e *exitError
	if errors.As(err, &e) {
		return e.Code
	}
	return exitFailed
}
