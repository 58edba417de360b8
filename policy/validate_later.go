package policy

import (
	"time"

	"github.com/tapwall/tapwall/duration"
)

// Bounds of what bounds a mirror.
const (
	MaxPacketsPerSecond = 1 << 24
	maxShare            = 1 << 16 // of sessions or packets: one of so many
	minFor, maxFor      = time.Second, 10 * 365 * 24 * time.Hour
)

func (c *checker) sample(at pointer, s *MirrorSample) {
	if s == nil {
		return
	}
	if s.Sessions == "" && s.MaxPacketsPerSecond == 0 {
		c.addf(at, nil, "bounds nothing: give sessions or maxPacketsPerSecond, or leave it out")
	}
	if n := s.MaxPacketsPerSecond; n < 0 || n > MaxPacketsPerSecond {
		c.addf(at.field("maxPacketsPerSecond"), n, "%d is outside the range 1-%d", n, MaxPacketsPerSecond)
	}
	if s.Sessions != "" {
		c.share(at.field("sessions"), s.Sessions)
	}
}

// share checks "1/4".
func (c *checker) share(at pointer, text string) {
	if _, err := ParseShare(text); err != nil {
		c.addf(at, text, "%s", err)
	}
}

// life checks when a mirror begins and ends.
func (c *checker) life(spec pointer, s *MirrorSpec) {
	if s.TTL != "" {
		c.period(spec.field("ttl"), s.TTL)
	}
	x := s.StopAfter
	if x == nil {
		return
	}
	at := spec.field("stopAfter")
	if *x == (StopAfter{}) {
		c.addf(at, nil, "stops after nothing: give duration, packets or bytes")
	}
	if x.Duration != "" {
		c.period(at.field("duration"), x.Duration)
	}
	if x.Packets < 0 {
		c.addf(at.field("packets"), x.Packets, "must not be negative")
	}
	if x.Bytes < 0 {
		c.addf(at.field("bytes"), x.Bytes, "must not be negative")
	}
}

// period checks a duration.
func (c *checker) period(at pointer, text string) {
	d, err := duration.Parse(text)
	switch {
	case err != nil:
		c.addf(at, text, "must be %s", duration.Forms)
	case d < minFor || d > maxFor:
		c.addf(at, text, "%s is outside the range 1s-3650d", text)
	}
}
