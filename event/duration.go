package event

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// DurationForms says what ParseDuration takes.
const DurationForms = "a duration such as 90s, 5m, 1h30m, 2d or 30d"

var errDuration = errors.New("want " + DurationForms)

// maxDuration is two hundred years.
const maxDuration = 73000 * day

const day = 24 * time.Hour

// ParseDuration reads a length of time as people write it everywhere in tapwall: what time.ParseDuration takes, with days ahead of it (30d,
// 1d12h), which are of 24 hours, and not below 0.
func ParseDuration(s string) (time.Duration, error) {
	rest, days := s, time.Duration(0)
	if d, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(d, 10, 32)
		if err != nil || n > uint64(maxDuration/day) {
			return 0, errDuration
		}
		rest, days = after, time.Duration(n)*day
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > maxDuration-days || strings.ContainsAny(rest[:1], "+-") {
		return 0, errDuration
	}
	return days + d, nil
}
