package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// TestEventsAudit: who changed what, and from where, is in the record, also whoever came without the token. What changes nothing is not.
// Ten thousand changes displace no deny.
func TestEventsAudit(t *testing.T) {
	t.Parallel()
	s := plugged(t, 2)
	token := filepath.Join(s.Dir, "token")
	must(t, os.WriteFile(token, []byte("a token of some length\n"), 0o600))
	var err error
	s.tw, err = s.StartTapwall("--bridge", "br0=owned", "--listen", "tcp:127.0.0.1:7443", "--token-file", token)
	must(t, err)

	const shut = "kind: Policy\nname: shut\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: true}, priority: %d}\n"
	s.apply(sprintf(shut, 100))
	s.apply(sprintf(shut, 100)) // changes nothing
	s.apply(sprintf(shut, 90))
	if out, err := s.tw.RunInput(sprintf(shut, -1), "apply", "-f", "-"); err == nil {
		t.Fatalf("an impossible priority is taken:\n%s", out)
	}
	s.tapwall("delete", "policy", "shut")
	who := `by root \(uid 0\), from unix socket, process \d+`
	var lines []string
	for line := range strings.Lines(s.tapwall("observe", "--type", "change", "--user", "root", "--resource", "policy/shut", "--all")) {
		lines = append(lines, strings.TrimSpace(line))
	}
	want := []string{`: resource-created policy/shut, revision \d+ ` + who + `$`,
		`: resource-updated policy/shut, revision \d+ ` + who + `: /spec/priority$`,
		`: resource-deleted policy/shut, revision \d+ ` + who + `$`}
	at := 0
	for _, line := range lines {
		if at < len(want) && regexp.MustCompile(want[at]).MatchString(line) {
			at++
		} else if strings.Contains(line, "policy/shut") {
			t.Errorf("not expected: %s", line)
		}
	}
	if at != len(want) {
		t.Errorf("%s is missing in\n%s", want[at], strings.Join(lines, "\n"))
	}
	if out := s.tapwall("observe", "--type", "change", "--user", "daemon", "--all"); strings.Contains(out, "resource-") {
		t.Errorf("by another user:\n%s", out)
	}

	// By TCP, with the token and without.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (
		c net.Conn, err error) {
		err = s.Switch.Do(func() error { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
		return c, err
	}}}
	put := func(token string, want int) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "PUT", "http://127.0.0.1:7443/v1/groups/far",
			strings.NewReader(`{"spec":{"members":[]}}`))
		must(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Request-Id", "req-4711")
		resp, err := client.Do(r)
		must(t, err)
		must(t, resp.Body.Close())
		if resp.StatusCode != want {
			t.Errorf("%q is answered with %s", token, resp.Status)
		}
	}
	put("guess", 401)
	put("a token of some length", 201)
	one := func(flags ...string) event.Event {
		t.Helper()
		all, order := s.observed(append([]string{"--all"}, flags...)...)
		if len(order) != 1 {
			t.Fatalf("%v: %d events", flags, len(order))
		}
		return all[order[0]]
	}
	if e := one("--resource", "group/far"); e.Client == nil || e.Client.IP != "127.0.0.1" || e.Client.Port == 0 || e.User == nil ||
		e.Tapwall.Change == nil || e.Tapwall.Change.Request != "req-4711" || e.Event.Dataset != event.DatasetChange {
		t.Errorf("%+v %+v %+v", e.Client, e.User, e.Tapwall.Change)
	}
	if e := one("--action", "request-unauthorized"); e.Client == nil || e.Client.IP != "127.0.0.1" || e.User != nil ||
		!strings.HasSuffix(e.Tapwall.Notice.Message, ": PUT /v1/groups/far") {
		t.Errorf("%+v %+v %+v", e.Client, e.User, e.Tapwall.Notice)
	}

	// A storm of changes: each is told, or counted, and what is denied meanwhile is there.
	s.apply(sprintf(shut, 100))
	const many, once = 10_000, 2500
	done := make(chan error, 1)
	go func() {
		for n := 0; n < many; n += once {
			var docs strings.Builder
			for i := range once {
				fmt.Fprintf(&docs, "kind: Group\nname: g%d\nspec: {members: []}\n---\n", n+i)
			}
			if out, err := s.tw.RunInput(docs.String(), "apply", "-f", "-"); err != nil {
				done <- fmt.Errorf("%w: %s", err, out)
				return
			}
		}
		done <- nil
	}()
	denied := 0
	for running := true; running; {
		if denied++; s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 100*time.Millisecond) {
			t.Fatal("what is shut is open")
		}
		select {
		case err := <-done:
			must(t, err)
			running = false
		default:
		}
	}
	lab.Eventually(t, 10*time.Second, "every change is told", func() bool {
		out := s.tapwall("observe", "--aggregate", "action", "--action", "resource-created", "-o", "json")
		return strings.Contains(out, fmt.Sprintf(`"events": %d,`, many+3)) // and shut, twice, and far
	})
	if n := len(s.events("--verdict", "DROPPED", "--to-port", "5001", "--all")); n < denied {
		t.Errorf("%d denied connections of %d are in the record", n, denied)
	}
	if out := s.tapwall("observe", "--type", "loss", "--all"); strings.Contains(out, "EVENTS LOST") {
		t.Errorf("events were lost:\n%s", out)
	}
}

// TestEventsAuditShared: of two processes with one store, that records a change which was asked for it, although both carry it out.
func TestEventsAuditShared(t *testing.T) {
	t.Parallel()
	first, second := plugged(t, 1), plugged(t, 1)
	must(t, first.Link(second.Lab, "192.0.2.1", "192.0.2.2"))
	first.etcd(t.TempDir(), "192.0.2.1")
	for name, s := range map[string]*stage{"192.0.2.1": first, "192.0.2.2": second} {
		_, err := s.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id="+name)
		must(t, err)
		s.tw, err = s.StartTapwall("--bridge", "br0=owned", "--store", "http://192.0.2.1:2379")
		must(t, err)
	}
	first.apply("kind: Policy\nname: p\nspec: {appliesTo: [{port: vm1}], defaultDeny: {ingress: true}}\n")
	lab.Eventually(t, 5*time.Second, "the other carries it out", func() bool {
		return second.status("policy", "p").Phase == "Active" && len(second.flows("table=213")) > 0
	})
	if _, order := first.observed("--type", "change", "--all"); len(order) != 1 {
		t.Errorf("where it was asked: %d events", len(order))
	}
	second.tapwall("delete", "policy", "p", "--wait")
	if _, order := first.observed("--type", "change", "--all"); len(order) != 1 {
		t.Errorf("where it was asked, after the other deleted it: %d events", len(order))
	}
	if out := second.tapwall("observe", "--type", "change", "--all"); strings.Count(out, "resource-") != 1 ||
		!strings.Contains(out, "resource-deleted policy/p") {
		t.Errorf("the other:\n%s", out)
	}
}
