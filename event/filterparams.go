package event

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapwall/tapwall/duration"
)

// ParamError is one query parameter that makes no sense. ParseFilter and Filter.Compile return several joined by errors.Join;
// ParamErrors takes them apart.
type ParamError struct {
	Param  string // its name, as in the query
	Value  string
	Reason string
}

func (e *ParamError) Error() string { return fmt.Sprintf("%s: %q is %s", e.Param, e.Value, e.Reason) }

// ParamErrors returns the ParamErrors in err, in order.
func ParamErrors(err error) []*ParamError {
	if err == nil {
		return nil
	}
	if p, ok := err.(*ParamError); ok {
		return []*ParamError{p}
	}
	var out []*ParamError
	switch u := err.(type) {
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			out = append(out, ParamErrors(e)...)
		}
	case interface{ Unwrap() error }:
		out = ParamErrors(u.Unwrap())
	}
	return out
}

// notPrefix before the name of a parameter of Params asks for what does not match.
const notPrefix = "not."

// ParseFilter reads a filter from query parameters: those of Params, also with "not." before their names, since, until, after, limit and
// first. A parameter may be repeated and may hold several values separated by commas:
// they are alternatives. Times are RFC 3339, or a duration like 5m, 1h30m or 2d before now. A parameter that is no filter's is an
// error too, so that a misspelt one is not ignored: take out your own first. The error joins one *ParamError per fault.
func ParseFilter(q url.Values, now time.Time) (Filter, error) {
	var f Filter
	var errs paramErrors
	for _, name := range sortedKeys(q) {
		var vals []string
		for _, v := range q[name] {
			for s := range strings.SplitSeq(v, ",") {
				if s = strings.TrimSpace(s); s != "" {
					vals = append(vals, s)
				}
			}
		}
		if len(vals) == 0 {
			continue
		}
		if list := f.list(name); list != nil {
			*list = vals
			continue
		}
		switch name {
		case "since":
			f.Since = errs.time(name, vals, now)
		case "until":
			f.Until = errs.time(name, vals, now)
		case "after":
			f.After = errs.one(name, vals)
		case "limit":
			f.Limit = errs.limit(name, vals)
		case "first":
			f.First = errs.bool(name, vals)
		default:
			errs.add(name, strings.Join(q[name], ","), "not a known parameter; known are "+knownParams())
		}
	}
	_, err := f.Compile()
	for _, p := range ParamErrors(err) { // both kinds of fault at once, each parameter once
		if !errs.has(p.Param) {
			errs.list = append(errs.list, p)
		}
	}
	return f, errs.err()
}

func knownParams() string {
	var names []string
	for i := range params {
		names = append(names, params[i].Name)
	}
	return strings.Join(names, ", ") + ", each also with " + notPrefix + " before it; since, until, after, limit, first"
}

// list is the field behind a parameter of Params, or nil.
func (f *Filter) list(name string) *[]string {
	of, not := strings.CutPrefix(name, notPrefix)
	at := slices.IndexFunc(params, func(p Param) bool { return p.Name == of })
	switch {
	case at < 0:
		return nil
	case not && f.Not == nil:
		f.Not = &Filter{}
	}
	if not {
		f = f.Not
	}
	return params[at].list(f)
}

// Values is the filter as query parameters: ParseFilter makes the same filter of them.
func (f Filter) Values() url.Values {
	q := url.Values{}
	for i := range params {
		p := &params[i]
		if values := *p.list(&f); len(values) > 0 {
			q[p.Name] = slices.Clone(values)
		}
		if f.Not != nil && len(*p.list(f.Not)) > 0 {
			q[notPrefix+p.Name] = slices.Clone(*p.list(f.Not))
		}
	}
	for name, t := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !t.IsZero() {
			q.Set(name, t.Format(time.RFC3339Nano))
		}
	}
	if f.After != "" {
		q.Set("after", f.After)
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	if f.First {
		q.Set("first", "true")
	}
	return q
}

// ParseTime reads RFC 3339 (also a date alone, in UTC), "now", or a duration before now: 90s, 5m, 1h30m, 2d.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	d, err := duration.Parse(s)
	if err != nil {
		return time.Time{}, errTime
	}
	return now.Add(-d), nil
}

var errTime = errors.New("not a time: give RFC 3339 (2026-01-02T15:04:05Z), a date (2026-01-02, UTC) or how long ago (90s, 5m, 1h30m, 2d)")

// paramErrors collects faults.
type paramErrors struct{ list []*ParamError }

func (e *paramErrors) add(name, value, reason string) {
	e.list = append(e.list, &ParamError{Param: name, Value: value, Reason: reason})
}

func (e *paramErrors) has(name string) bool {
	for _, p := range e.list {
		if p.Param == name {
			return true
		}
	}
	return false
}

func (e *paramErrors) err() error {
	errs := make([]error, len(e.list))
	for i, p := range e.list {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// bounded is the values, none if they are too many.
func (e *paramErrors) bounded(name string, values []string) []string {
	if len(values) > MaxValues {
		e.add(name, values[0]+",…", fmt.Sprintf("the first of %d values: give %d at most", len(values), MaxValues))
		return nil
	}
	return values
}

func (e *paramErrors) one(name string, vals []string) string {
	if len(vals) != 1 {
		e.add(name, strings.Join(vals, ","), "given more than once")
	}
	return vals[0]
}

func (e *paramErrors) time(name string, vals []string, now time.Time) time.Time {
	s := e.one(name, vals)
	t, err := ParseTime(s, now)
	if err != nil {
		e.add(name, s, err.Error())
	}
	return t
}

func (e *paramErrors) limit(name string, vals []string) int {
	s := e.one(name, vals)
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxLimit {
		e.add(name, s, fmt.Sprintf("not between 1 and %d", MaxLimit))
		return 0
	}
	return n
}

func (e *paramErrors) bool(name string, vals []string) bool {
	s := e.one(name, vals)
	b, err := strconv.ParseBool(s)
	if err != nil {
		e.add(name, s, "not true or false")
	}
	return b
}
