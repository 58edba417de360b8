package api

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// precondition is what If-Match and If-None-Match ask for (RFC 9110 §13.1).
type precondition struct {
	anyExisting bool // If-Match: *
	revisions   []int64
	mustNotBe   bool // If-None-Match: *
}

var revisionPattern = regexp.MustCompile("^" + revisionText + "$")

func parsePrecondition(match, noneMatch string) (precondition, error) {
	var p precondition
	switch strings.TrimSpace(noneMatch) {
	case "":
	case "*":
		p.mustNotBe = true
	default:
		return p, badParameter("header.If-None-Match", noneMatch, `only * is supported: the resource must not exist yet`)
	}
	if match = strings.TrimSpace(match); match == "" {
		return p, nil
	}
	if match == "*" {
		p.anyExisting = true
		return p, nil
	}
	for part := range strings.SplitSeq(match, ",") {
		part = strings.TrimSpace(part)
		// A weak tag never matches strongly, so asking with one is a mistake. A bare number is what people type.
		rev, err := strconv.ParseInt(strings.Trim(part, `"`), 10, 64)
		if err != nil || !revisionPattern.MatchString(part) {
			return p, badParameter("header.If-Match", match, `must be the ETag of the resource, such as "17", or *`)
		}
		p.revisions = append(p.revisions, rev)
	}
	return p, nil
}

// strict reports whether a concurrent change must fail the request instead of being tried again on top of it.
func (p precondition) strict() bool { return p.anyExisting || p.mustNotBe || len(p.revisions) > 0 }

// check returns the 412 if the resource (nil = does not exist) is not as asked for.
func (p precondition) check(kind policy.Kind, name string, r policy.Resource) error {
	switch {
	case p.mustNotBe && r != nil:
		return problem(http.StatusPreconditionFailed, "%s exists already, at revision %d", refName(kind, name), r.GetMeta().Revision)
	case (p.anyExisting || len(p.revisions) > 0) && r == nil:
		return problem(http.StatusPreconditionFailed, "%s does not exist", refName(kind, name))
	}
	if len(p.revisions) == 0 {
		return nil
	}
	now := r.GetMeta().Revision
	for _, rev := range p.revisions {
		if rev == now {
			return nil
		}
	}
	return problem(http.StatusPreconditionFailed,
		"%s is at revision %d by now, not %d: it was changed by somebody else; get it again and repeat the change",
		refName(kind, name), now, p.revisions[0])
}

// refName is "policy/web".
func refName(kind policy.Kind, name string) string { return strings.ToLower(string(kind)) + "/" + name }
