package policy

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// GroupSource is a list of addresses that is kept elsewhere: exactly one of File and URL.
type GroupSource struct {
	File string `json:"file,omitempty"` // below the directory that the configuration names
	URL  string `json:"url,omitempty"`
	// Every is how often it is read again, as a Go duration; default 1m for a file, 1h for a URL.
	Every string `json:"every,omitempty"`
}

// Bounds and defaults of GroupSource.Every.
const (
	MinSourceEvery   = 10 * time.Second
	MaxSourceEvery   = 30 * 24 * time.Hour
	DefaultFileEvery = time.Minute
	DefaultURLEvery  = time.Hour

	maxURLLength = 2048
)

// same reports whether both, which may be nil, ask for the same.
func (s *GroupSource) same(o *GroupSource) bool { return s == o || s != nil && o != nil && *s == *o }

// Interval is Every with the default applied.
func (s *GroupSource) Interval() time.Duration {
	d, err := time.ParseDuration(s.Every)
	switch {
	case err == nil:
		return min(max(d, MinSourceEvery), MaxSourceEvery)
	case s.File != "":
		return DefaultFileEvery
	}
	return DefaultURLEvery
}

// String names the source without what may be secret of it: of a URL the scheme, the host and the path.
func (s *GroupSource) String() string {
	if s.File != "" {
		return "file " + s.File
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return "a URL"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// source checks where a group takes members from. What is wrong with a URL is said without it: it may hold a password.
func (c *checker) source(at pointer, s *GroupSource) {
	switch {
	case s.File == "" && s.URL == "":
		c.addf(at, nil, "says not where from: give file or url")
	case s.File != "" && s.URL != "":
		c.addf(at, nil, "has both file and url: give one of them")
	case s.File != "":
		if !filepath.IsLocal(s.File) || !isPrintable(s.File) || strings.Contains(s.File, `\`) || len(s.File) > MaxLabelValueLength {
			c.addf(at.field("file"), s.File, "must be the name of a file below the directory that the configuration names (group-lists.dir), "+
				"without .. or a / ahead")
		}
	default:
		c.sourceURL(at.field("url"), s.URL)
	}
	if s.Every != "" {
		if d, err := time.ParseDuration(s.Every); err != nil || d < MinSourceEvery || d > MaxSourceEvery {
			c.addf(at.field("every"), s.Every, "must be a duration between %s and %s, such as 15m or 1h", MinSourceEvery, "720h")
		}
	}
}

func (c *checker) sourceURL(at pointer, text string) {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxURLLength:
		c.addf(at, nil, "is longer than %d bytes", maxURLLength)
	case err != nil || u.Opaque != "" || u.Hostname() == "" || !isPrintable(text) || strings.Contains(text, " "):
		c.addf(at, nil, "must be a URL like %q", "https://lists.example.org/drop.txt")
	case u.Scheme != "https" && u.Scheme != "http":
		c.addf(at, nil, "must begin with https:// (http:// where the configuration allows it), not with %s", fmt.Sprintf("%.20q", u.Scheme))
	case u.Fragment != "":
		c.addf(at, nil, "must not have a #fragment")
	}
}

// SourceStatus is what became of a list that a group takes members from, in one process.
type SourceStatus struct {
	From string `json:"from"` // without what may be secret of a URL
	// Entries are the addresses and ranges in force, Skipped the lines that are none and were left out, SkippedLines where the first of
	// them are.
	Entries      int        `json:"entries"`
	Skipped      int        `json:"skipped,omitempty"`
	SkippedLines []int      `json:"skippedLines,omitempty"`
	FetchedAt    *time.Time `json:"fetchedAt,omitempty"` // when it was last seen to be what is in force; nil = never
	CheckedAt    *time.Time `json:"checkedAt,omitempty"` // when it was last tried; nil = not since the process began
	Error        string     `json:"error,omitempty"`     // of the last try; what is in force is from before
}
