package api_test

import (
	"strings"
	"testing"
)

// The log names the revision that was deleted, which is the last one.
func TestDeletionLogged(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/g", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	f.must(204, "DELETE", "/v1/groups/g", "")
	if log := f.log.String(); !strings.Contains(log, `"resource created" resource=group/g revision=2`) ||
		!strings.Contains(log, `"resource deleted" resource=group/g revision=2`) {
		t.Errorf("%s", log)
	}
}
