package api_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/internal/backend"
)

func TestTrace(t *testing.T) {
	f := newFixture(t)
	var q backend.TraceQuestion
	var failure error
	f.engine.traced = func(got backend.TraceQuestion) (api.Trace, error) {
		q = got
		return api.Trace{Verdict: "deny"}, failure
	}
	if w := f.must(200, "GET", "/v1/trace?from=vm7&to=10.0.0.9&port=postgresql", ""); !strings.Contains(w.Body.String(), `"crossings":[]`) {
		t.Errorf("%s", w.Body)
	}
	same := func(want backend.TraceQuestion) {
		t.Helper()
		if diff := cmp.Diff(want, q, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	same(backend.TraceQuestion{From: "vm7", To: "10.0.0.9", Proto: 6, DstPort: 5432, Probe: true})
	f.must(200, "GET",
		"/v1/trace?from=a&to=b&protocol=udp&port=53&from-port=1024&family=6&from-ip=fd00::1&to-ip=fd00::2&vlan=0&host=h&bridge=br0"+
			"&probe=false", "")
	same(backend.TraceQuestion{From: "a", To: "b", Proto: 17, DstPort: 53, SrcPort: 1024, Family: 6, SrcIP: netip.MustParseAddr("fd00::1"),
		DstIP: netip.MustParseAddr("fd00::2"), VLAN: new(0), Host: "h", Bridge: "br0"})
	f.must(200, "GET", "/v1/trace?from=a&to=b&protocol=icmp", "")
	same(backend.TraceQuestion{From: "a", To: "b", Proto: 1, Type: 8, Probe: true})
	f.must(200, "GET", "/v1/trace?from=a&to=b&protocol=icmpv6&type=1&code=4", "")
	same(backend.TraceQuestion{From: "a", To: "b", Proto: 58, Type: 1, Code: 4, Probe: true})
	f.must(200, "GET", "/v1/trace?from=a&to=b&protocol=112", "")
	same(backend.TraceQuestion{From: "a", To: "b", Proto: 112, Probe: true})
	for _, bad := range []string{"from=a", "to=b", "from=&to=b&port=1", "from=a&to=b", "from=a&to=b&port=0", "from=a&to=b&port=1-2",
		"from=a&to=b&port=x", "from=a&to=b&protocol=tpc&port=1", "from=a&to=b&protocol=icmp&port=1", "from=a&to=b&port=1&type=8",
		"from=a&to=b&port=1&code=8", "from=a&to=b&port=1&family=5", "from=a&to=b&port=1&from-ip=10.0.0.0/8",
		"from=a&to=b&port=1&to-ip=fe80::1%25x",
		"from=a&to=b&port=1&vlan=4095", "from=a&to=b&protocol=icmp&type=256", "from=a&to=b&port=1&what=1"} {
		f.must(422, "GET", "/v1/trace?"+bad, "")
	}
	if w := f.must(422, "GET", "/v1/trace?from=a&to=b&protocol=icmp&port=8", ""); !strings.Contains(w.Body.String(), "type and code say") {
		t.Errorf("a port of ICMP: %s", w.Body)
	}
	failure = backend.BadQuestion("to", "nobody goes by %q", "b")
	if w := f.must(422, "GET", "/v1/trace?from=a&to=b&port=1", ""); !strings.Contains(w.Body.String(), `"query.to"`) ||
		!strings.Contains(w.Body.String(), "nobody goes by") {
		t.Errorf("%s", w.Body)
	}
	failure = fmt.Errorf("%w: bridge br0: nothing is installed yet", backend.ErrUnavailable)
	f.must(503, "GET", "/v1/trace?from=a&to=b&port=1", "")
	failure = fmt.Errorf("%w: bridge br0 has no wall", backend.ErrUnable)
	f.must(409, "GET", "/v1/trace?from=a&to=b&port=1", "")
}
