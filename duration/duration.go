// Package duration reads lengths of time as people write them, in documents, flags and parameters alike.
package duration

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Forms says what Parse takes.
const Forms = "a duration such as 90s, 5m, 1h30m, 2d or 30d"

var errForm = errors.New("want " + Forms)

const (
	day = 24 * time.Hour
	// longest is two hundred years.
	longest = 73000 * day
)

// Parse reads what time.ParseDuration takes, with days ahead of it (30d, 1d12h), which are of 24 hours, and not below 0.
func Parse(s string) (time.Duration, error) {
	rest, days := s, time.Duration(0)
	if d, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(d, 10, 32)
		if err != nil || n > uint64(longest/day) {
			return 0, errForm
		}
		rest, days = after, time.Duration(n)*day
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > longest-days || strings.ContainsAny(rest[:1], "+-") {
		return 0, errForm
	}
	return days + d, nil
}
