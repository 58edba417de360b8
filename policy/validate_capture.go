package policy

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is captured, and what they are if nothing is said.
const (
	minSize, maxSize = 1 << 16, 1 << 40 // bytes

	DefaultRotate = 100_000_000 // bytes of a file
	DefaultKeep   = 10          // files
	MaxKeep       = 10000

	MaxBufferSize     = 16 << 30 // bytes of memory
	DefaultBufferSize = 64_000_000
)

// captures checks the targets that tapwall reads itself, and counts them.
func (c *checker) captures(at pointer, t *MirrorTarget) (n int) {
	if p := t.Pcap; p != nil {
		n++
		at := at.field("pcap")
		c.fileName(at.field("file"), p.File)
		c.size(at.field("rotate"), p.Rotate)
		if p.Keep < 0 || p.Keep > MaxKeep {
			c.addf(at.field("keep"), p.Keep, "%d is outside the range 1-%d", p.Keep, MaxKeep)
		}
	}
	if t.Buffer != nil {
		n++
		c.buffer(at.field("buffer"), t.Buffer)
	}
	if t.Events != nil {
		n++
		if t.Events.Sample != "" {
			c.share(at.path("events", "sample"), t.Events.Sample)
		}
	}
	return n
}

func (c *checker) buffer(at pointer, b *BufferTarget) {
	if *b == (BufferTarget{}) {
		c.addf(at, nil, "has no bounds: give duration or size")
	}
	if b.Duration != "" {
		c.period(at.field("duration"), b.Duration)
	}
	c.size(at.field("size"), b.Size)
	if size, err := ParseSize(b.Size); err == nil && size > MaxBufferSize {
		c.addf(at.field("size"), b.Size, "%s is outside the range %d-%d bytes", b.Size, minSize, int64(MaxBufferSize))
	}
}

// Limits are the bounds of the files: the most bytes that one has, and how many there are.
func (t *PcapTarget) Limits() (rotate int64, keep int) {
	rotate, err := ParseSize(t.Rotate)
	if err != nil {
		rotate = DefaultRotate
	}
	return rotate, cmp.Or(t.Keep, DefaultKeep)
}

// BaseName is what the files of a pcap target are told from others by: its name, without the ending that all have.
func (t *PcapTarget) BaseName() string { return strings.TrimSuffix(t.File, ".pcapng") }

// Limits are the bounds of the buffer: how old a packet may be, 0 = as old as it likes, and the bytes of memory.
func (t *BufferTarget) Limits() (age time.Duration, size int64) {
	size, err := ParseSize(t.Size)
	if err != nil {
		size = DefaultBufferSize
	}
	return period(t.Duration), size
}

// OneOf is of how many packets one is taken; 1 = each is.
func (t *EventsTarget) OneOf() int {
	return oneOf(t.Sample)
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

// fileName checks the name of a file in the data directory.
func (c *checker) fileName(at pointer, name string) {
	switch {
	case name == "":
		c.addf(at, nil, "is required: the name of the file")
	case strings.ContainsAny(name, "/\\") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-"):
		c.addf(at, name, "must be the name of a file in the data directory, without a path and without a dot or - at the beginning")
	case len(name) > 128 || !isPrintable(name) || strings.ContainsAny(name, " *?"):
		c.addf(at, name, "must be a file name of at most 128 printable characters without blanks, * and ?")
	}
}
