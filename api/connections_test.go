package api_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
)

func TestConnections(t *testing.T) {
	f := newFixture(t)
	var q backend.ConnectionQuery
	var answer api.Connections
	var failure error
	f.engine.tracked = func(got backend.ConnectionQuery) (api.Connections, error) { q = got; return answer, failure }
	if w := f.must(200, "GET", "/v1/connections", ""); strings.TrimSpace(w.Body.String()) != `{"items":[],"matched":0}` {
		t.Errorf("%s", w.Body)
	}
	if !q.Everything() || q.Limit != 1000 || q.Force {
		t.Errorf("%+v", q)
	}
	f.must(200, "GET", "/v1/connections?bridge=br0&vlan=0&vlan=7&protocol=ICMPv6&protocol=6&state=ESTABLISHED&policy=web&rule=a&rule=b"+
		"&ip=10.0.0.0/8&from-ip=10.0.0.1&to-ip=::1&port=1&from-port=2&to-port=3&endpoint=vm1&from=vm2&to=vm3&host=h1&force=true&limit=5", "")
	want := backend.ConnectionQuery{Filter: event.Filter{Bridge: []string{"br0"}, Protocol: []string{"ICMPv6", "6"},
		Policy: []string{"web"}, Rule: []string{"a", "b"},
		IP: []string{"10.0.0.0/8"}, FromIP: []string{"10.0.0.1"}, ToIP: []string{"::1"}, Port: []string{"1"},
		FromPort: []string{"2"}, ToPort: []string{"3"}}, Endpoint: []string{"vm1"}, From: []string{"vm2"}, To: []string{"vm3"}, Host: "h1",
		VLAN: []int{0, 7}, State: []string{"ESTABLISHED"}, Force: true, Limit: 5}
	if diff := cmp.Diff(want, q); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"ip=x", "port=0", "port=x", "vlan=4095", "vlan=-1", "limit=0", "verdict=DROPPED", "endpoint="} {
		for _, method := range []string{"GET", "DELETE"} {
			f.must(422, method, "/v1/connections?"+bad, "")
		}
	}

	// A kill says what it means.
	for _, path := range []string{"", "?dryRun=true", "?limit=5&force=true", "?all=true&rule=a", "?all=false", "?rule=,"} {
		f.must(422, "DELETE", "/v1/connections"+path, "")
	}
	if f.engine.kills != 0 {
		t.Errorf("%d kills", f.engine.kills)
	}
	f.must(200, "DELETE", "/v1/connections?rule=a&dryRun=true", "")
	if f.engine.kills != 0 {
		t.Error("a dry run kills")
	}
	answer = api.Connections{Items: []wire.Connection{{Protocol: "tcp"}, {Protocol: "udp", NotKilled: "no"}}, Matched: 2}
	if w := f.must(200, "DELETE", "/v1/connections?all=true", ""); strings.Contains(w.Body.String(), "notes") || f.engine.kills != 1 {
		t.Errorf("%d kills: %s", f.engine.kills, w.Body)
	}
	answer.Items[1].NotKilled = ""
	if w := f.must(200, "DELETE", "/v1/connections?rule=a", ""); !strings.Contains(w.Body.String(), "begins anew") || f.engine.kills != 2 {
		t.Errorf("%d kills: %s", f.engine.kills, w.Body)
	}
	if log := f.log.String(); strings.Count(log, "connections killed") != 2 || !strings.Contains(log, `which="all=true"`) {
		t.Errorf("log: %s", log)
	}

	failure = fmt.Errorf("h1: %w", &backend.PartialError{Problems: []string{"host h2: away"}})
	for _, method := range []string{"GET", "DELETE"} {
		if w := f.must(200, method, "/v1/connections?rule=a", ""); !strings.Contains(w.Body.String(), `"problems":["host h2: away"]`) {
			t.Errorf("%s: %s", method, w.Body)
		}
		for status, err := range map[int]error{409: fmt.Errorf("%w: 5,000", backend.ErrLimit), 503: backend.ErrUnavailable} {
			failure = err
			f.must(status, method, "/v1/connections?rule=a", "")
		}
		failure = fmt.Errorf("%w: far away", backend.ErrUnable)
		if w := f.must(409, method, "/v1/connections?rule=a", ""); !strings.Contains(w.Body.String(), "far away") {
			t.Errorf("%s", w.Body)
		}
		failure = errors.Join(&backend.PartialError{Problems: []string{"host h2: away"}})
	}
}

func TestExplainConnection(t *testing.T) {
	f := newFixture(t)
	line := "udp,orig=(src=1.1.1.1,dst=2.2.2.2,sport=1,dport=2),zone=5"
	w := f.must(200, "GET", "/v1/connections/explain?bridge=br0&host=h1&entry="+url.QueryEscape(line), "")
	if strings.TrimSpace(w.Body.String()) != `{"items":[]}` ||
		f.engine.asked != (backend.ConnectionQuestion{Entry: line, Host: "h1", Bridge: "br0"}) {
		t.Errorf("%s; asked %+v", w.Body, f.engine.asked)
	}
	f.must(200, "GET", "/v1/connections/explain?label=0x12", "")
	for _, bad := range []string{"", "label=0x12&entry=x", "label=bad", "entry=bad", "label="} {
		if w := f.must(422, "GET", "/v1/connections/explain?"+bad, ""); !strings.Contains(w.Body.String(), "query.") {
			t.Errorf("%q: %s", bad, w.Body)
		}
	}
}
