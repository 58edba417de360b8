package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/event"
)

// durationValue is the value of a flag that takes what [duration.Parse] does: days, too.
type durationValue struct{ *time.Duration }

// Set implements pflag.Value.
func (v durationValue) Set(s string) (err error) {
	*v.Duration, err = duration.Parse(s)
	return err
}

// String implements pflag.Value.
func (v durationValue) String() string {
	if v.Duration == nil || *v.Duration == 0 {
		return ""
	}
	return v.Duration.String()
}

// Type implements pflag.Value.
func (v durationValue) Type() string { return "duration" }

// durationFlag defines a flag for a length of time, which is 0 without it; the values are offered.
func durationFlag(c *cobra.Command, d *time.Duration, name, usage string, offered ...string) {
	c.Flags().Var(durationValue{d}, name, usage)
	completeFlag(c, name, fixed(offered...))
}

// timeOf reads the value of a flag that takes what [event.ParseTime] does, zero if there is none. People also write how long ago with a
// minus, -30s, which is taken out of the text: the server does not take it.
func timeOf(flag string, text *string, now time.Time) (time.Time, error) {
	if *text == "" {
		return time.Time{}, nil
	}
	given := *text
	*text = strings.TrimPrefix(given, "-")
	t, err := event.ParseTime(*text, now)
	if err != nil {
		return t, usage("--%s %s: %w", flag, event.Escape(given), err)
	}
	return t, nil
}
