package ofctrl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Refusal says that the switch does not take the flows of an owner.
type Refusal struct {
	Owner string
	Flow  flow.Flow // the first that was refused
	Err   error     // a *[RequestError], or why the flow does not fit a bundle
}

// RefusedError lists the owners whose flows the switch does not take, each once. It matches what the errors of its refusals do.
type RefusedError struct{ Refusals []Refusal }

// Error names the first few refusals.
func (e *RefusedError) Error() string {
	var b strings.Builder
	for i, r := range e.Refusals {
		if i == MaxObjects {
			fmt.Fprintf(&b, "; and flows of %d more", len(e.Refusals)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(r.Err.Error())
	}
	return b.String()
}

// Unwrap returns what errors.Is and errors.As look at.
func (e *RefusedError) Unwrap() []error {
	errs := make([]error, len(e.Refusals))
	for i, r := range e.Refusals {
		errs[i] = r.Err
	}
	return errs
}

// err returns what Apply does when err is wrong beside what was refused.
func (r *Result) err(err error) error {
	switch {
	case r.Refused == nil:
		return err
	case err == nil:
		return r.Refused
	}
	return errors.Join(r.Refused, err)
}

// refusals makes a *RefusedError of the error of a bundle if that is about flows of owners.
func refusals(err error, changes []change) error {
	refused := &RefusedError{}
	for _, e := range requestErrors(err) { // each owner once, see transaction.refused
		if e.Owner != "" {
			refused.Refusals = append(refused.Refusals, Refusal{e.Owner, *changes[e.Index].flow, e})
		}
	}
	if len(refused.Refusals) == 0 {
		return err
	}
	return refused
}

// setAside leaves out the owners of refused flows and adds to r those that are news. Those in old get back what they had, and are taken
// out of old: if that is refused as well, they are not sent again.
func (s *Switch) setAside(refused *RefusedError, old map[string][]flow.Flow, r *Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range refused.Refusals {
		if s.refused[x.Owner] == nil {
			if r.Refused == nil {
				r.Refused = &RefusedError{}
			}
			r.Refused.Refusals = append(r.Refused.Refusals, x)
		}
		s.refused[x.Owner] = x.Err
		if flows, ok := old[x.Owner]; ok {
			s.table.giveBack(x.Owner, flows)
			delete(old, x.Owner)
		} else {
			s.table.owners[x.Owner].aside = true
		}
	}
}

// requestErrors returns all *RequestError that err joins.
func requestErrors(err error) []*RequestError {
	switch e := err.(type) {
	case *RequestError:
		return []*RequestError{e}
	case interface{ Unwrap() []error }:
		var out []*RequestError
		for _, err := range e.Unwrap() {
			out = append(out, requestErrors(err)...)
		}
		return out
	case interface{ Unwrap() error }:
		return requestErrors(e.Unwrap())
	}
	return nil
}
