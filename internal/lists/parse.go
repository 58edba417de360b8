package lists

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// Bounds of a list.
const (
	maxBytes   = 32 << 20
	maxEntries = policy.MaxMembers
	maxTold    = 10 // numbers of lines that were skipped
)

// content is what a list holds.
type content struct {
	prefixes []netip.Prefix // in order, each once
	skipped  int            // lines that are no address
	lines    []int          // the first of them
}

// parse reads a list: an address or an address range on each line, with or without a comment behind # or ;. A line that is none of that is
// skipped, as long as it is the only one, or one of twenty at most; else the list is refused, and so is one without any line, which may
// have been cut off: a list of nobody has a comment. Errors name lines by their numbers, and never quote them.
func parse(text []byte) (content, error) {
	var c content
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if len(bytes.TrimSpace(text)) == 0 {
		return c, errors.New("it is empty: a list of nobody has a comment at least")
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if i := bytes.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		p, ok := parseEntry(string(line))
		if !ok {
			if c.skipped++; len(c.lines) < maxTold {
				c.lines = append(c.lines, n)
			}
			continue
		}
		if c.prefixes = append(c.prefixes, p); len(c.prefixes) > maxEntries {
			return content{}, fmt.Errorf("it has more than %d entries", maxEntries)
		}
	}
	if all := len(c.prefixes) + c.skipped; c.skipped > 0 && len(c.prefixes) == 0 || c.skipped > 1 && c.skipped*20 > all {
		return content{}, fmt.Errorf("%d of its %d entries are no addresses or address ranges, the first in %s", c.skipped, all,
			linesText(c.lines,
				c.skipped))
	}
	slices.SortFunc(c.prefixes, netip.Prefix.Compare)
	c.prefixes = slices.Compact(c.prefixes)
	return c, nil
}

// parseEntry reads an address or a range without host bits.
func parseEntry(s string) (netip.Prefix, bool) {
	if len(s) > 64 {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := policy.ParseCIDR(s)
	return p, err == nil
}

// linesText names the first of n lines.
func linesText(lines []int, n int) string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = fmt.Sprint(l)
	}
	more := ""
	if n > len(lines) {
		more = " and more"
	}
	if n == 1 {
		return "line " + texts[0]
	}
	return "lines " + strings.Join(texts, ", ") + more
}

// members makes a group of a list. Where it came from another by a change, the group knows that.
func (c *content) members(name string, before *policy.Group) *policy.Group {
	fresh := func() *policy.Group {
		g := &policy.Group{Meta: policy.Meta{Name: name}, Spec: policy.GroupSpec{Members: make([]policy.Selector, len(c.prefixes))}}
		for i, p := range c.prefixes {
			g.Spec.Members[i].CIDR = p.String()
		}
		return g
	}
	if before == nil {
		return fresh()
	}
	there := make(map[netip.Prefix]bool, len(c.prefixes))
	for _, p := range c.prefixes {
		there[p] = true
	}
	change := &policy.MemberChange{}
	for i := range before.Spec.Members {
		p := netip.MustParsePrefix(before.Spec.Members[i].CIDR) // as fresh wrote it
		if there[p] {
			delete(there, p)
			continue
		}
		change.Removed, change.RemovedAt = append(change.Removed, before.Spec.Members[i]), append(change.RemovedAt, i)
	}
	for _, p := range c.prefixes {
		if there[p] {
			change.Added = append(change.Added, policy.Selector{CIDR: p.String()})
		}
	}
	switch n := len(change.Added) + len(change.Removed); {
	case n == 0:
		return before
	case n > len(before.Spec.Members)/2:
		return fresh()
	}
	return before.Changed(change)
}
