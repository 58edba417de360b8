package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// Clients that ask for the longest answers there are, take one byte and then nothing delay neither a revocation nor an event. The
// answers are longer than what a socket holds.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	var docs strings.Builder
	for i := range 400 {
		fmt.Fprintf(&docs, "---\nkind: Policy\nname: p%d\nspec:\n  appliesTo: [{port: vm2}]\n  ingress:\n"+
			"  - {name: a, action: allow, from: [{cidr: 198.18.%d.0/24}], services: [{protocol: tcp, ports: [\"%d\"]}]}\n", i, i%256, 1000+i)
	}
	s.apply(docs.String()[len("---\n"):] + "---\n" + allowPorts("live", "vm2", "vm1", "5001"))
	flow := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(flow)

	for _, path := range []string{"/v1/policies", "/v1/flows", "/metrics", "/v1/policies", "/v1/flows", "/metrics", "/v1/events"} {
		for range 4 {
			c, err := net.Dial("unix", s.Socket())
			must(t, err)
			defer c.Close()
			_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: tapwall\r\n\r\n", path)
			must(t, err)
			must(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
			_, err = c.Read(make([]byte, 1)) // it has begun to answer
			must(t, err)
		}
	}
	began := time.Now()
	s.tapwall("delete", "policy", "live", "--wait")
	took := time.Since(began)
	s.quiet(flow, time.Now(), time.Second, "a revoked connection")
	if took > 3*time.Second {
		t.Errorf("the revocation took %v beside slow readers", took)
	}
	s.apply("kind: Policy\nname: told\nspec:\n  appliesTo: [{port: vm2}]\n  ingress: [{name: no, action: deny, log: true}]\n")
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	lab.Eventually(t, 3*time.Second, "the denial is recorded", func() bool {
		for _, v := range s.events("--last", "100") {
			if v.Rule.Name == "no" {
				return true
			}
		}
		return false
	})
}
