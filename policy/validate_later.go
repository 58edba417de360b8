package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tapwall/tapwall/duration"
)

// Bounds of what bounds a mirror.
const (
	MaxPacketsPerSecond = 1 << 24
	maxShare            = 1 << 16 // of sessions or packets: one of so many
	minSize, maxSize    = 1 << 16, 1 << 40
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

// sizes are the units of a size, in bytes.
var sizes = map[string]float64{"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// ParseSize reads a number of bytes like "100MB".
func ParseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKMGTiB")
	n, err := strconv.ParseUint(digits, 10, 32)
	unit, known := sizes[text[len(digits):]]
	if err != nil || !known {
		return 0, fmt.Errorf("must be a size like \"100MB\", in one of %s", strings.Join(sortedKeys(sizes), ", "))
	}
	if size := float64(n) * unit; size >= minSize && size <= maxSize {
		return int64(size), nil
	}
	return 0, fmt.Errorf("%s is outside the range %d-%d bytes", text, minSize, maxSize)
}

func (c *checker) size(at pointer, text string) {
	if text == "" {
		return
	}
	if _, err := ParseSize(text); err != nil {
		c.addf(at, text, "%s", err)
	}
}

// laterTargets checks the targets of a later version and counts them.
func (c *checker) laterTargets(at pointer, t *MirrorTarget) (n int) {
	target := func(given bool, name, what string, check func(at pointer)) {
		if given {
			n++
			c.notYet(true, at.field(name), what, "", check)
		}
	}
	within := func(at pointer, name string, value, lo, hi int64) {
		if value < lo || value > hi {
			c.addf(at.field(name), value, "%d is outside the range %d-%d", value, lo, hi)
		}
	}
	target(t.RSPAN != nil, "rspan", "RSPAN", func(at pointer) {
		within(at, "vlan", int64(t.RSPAN.VLAN), 1, 4094)
		if !t.RSPAN.AcknowledgeFlooding {
			c.addf(at.field("acknowledgeFlooding"), nil, "must be true: copies flood the whole VLAN, on every switch that has it")
		}
	})
	target(t.Pcap != nil, "pcap", "pcap files", func(at pointer) {
		c.fileName(at.field("file"), t.Pcap.File)
		c.size(at.field("rotate"), t.Pcap.Rotate)
		within(at, "keep", int64(t.Pcap.Keep), 0, 10000)
	})
	target(t.Buffer != nil, "buffer", "buffers", func(at pointer) {
		if *t.Buffer == (BufferTarget{}) {
			c.addf(at, nil, "has no bounds: give duration or size")
		}
		if t.Buffer.Duration != "" {
			c.period(at.field("duration"), t.Buffer.Duration)
		}
		c.size(at.field("size"), t.Buffer.Size)
	})
	target(t.Events != nil, "events", "events as a target", func(at pointer) {
		if t.Events.Sample != "" {
			c.share(at.field("sample"), t.Events.Sample)
		}
	})
	return n
}

// fileName checks the name of a file in the data directory.
func (c *checker) fileName(at pointer, name string) {
	switch {
	case name == "":
		c.addf(at, nil, "is required: the name of the file")
	case strings.ContainsAny(name, "/\\") || strings.HasPrefix(name, "."):
		c.addf(at, name, "must be the name of a file in the data directory, without a path and without a dot at the beginning")
	case len(name) > 128 || !isPrintable(name) || strings.ContainsAny(name, " *?"):
		c.addf(at, name, "must be a file name of at most 128 printable characters without blanks, * and ?")
	}
}
