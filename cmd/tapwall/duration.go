package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/duration"
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
