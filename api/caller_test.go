package api_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// Who writes is known by the socket: the user of the process at its other end, or whence whoever has the token comes. It goes into what is
// stored, into the log, and into the event of a quarantine that is released.
func TestCaller(t *testing.T) {
	var mu sync.Mutex
	var events []event.Event
	f := newFixture(t, func(o *api.Options) {
		o.Record = func(e event.Event) { mu.Lock(); defer mu.Unlock(); events = append(events, e) }
	})
	local, err := api.Listen("unix:"+filepath.Join(t.TempDir(), "s.sock"), api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	far, err := api.Listen("tcp:127.0.0.1:0", api.ListenOptions{Token: "a token of some length"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, nil, f.server, local, far) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	defer stop()
	for _, x := range []struct{ address, base, by, from string }{
		{local.Address, "http://tapwall", fmt.Sprintf(`^([^ ]+ \(uid %d\)|uid %[1]d)$`, os.Getuid()), fmt.Sprintf(`^unix socket, process %d$`,
			os.Getpid())},
		{far.Address, far.Address, "^the holder of the token$", `^127\.0\.0\.1:\d+$`},
	} {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network,
			addr string) (net.Conn, error) {
			if path, is := strings.CutPrefix(x.address, "unix:"); is {
				network, addr = "unix", path
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}}
		call := func(method, body string, want int) {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), method, x.base+"/v1/quarantines/cell", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer a token of some length")
			r.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Fatalf("%s: %s", method, resp.Status)
			}
		}
		is := func(w policy.Writer) bool {
			return regexp.MustCompile(x.by).MatchString(w.By) && regexp.MustCompile(x.from).MatchString(w.From)
		}
		call("PUT", `{"spec":{"match":{"port":"vm1"}}}`, 201)
		q, err := f.store.Get(t.Context(), policy.KindQuarantine, "cell")
		if err != nil {
			t.Fatal(err)
		}
		if w := q.GetMeta().Writer; !is(w) {
			t.Errorf("%s: written by %+v", x.address, w)
		}
		mu.Lock()
		events = nil
		mu.Unlock()
		call("DELETE", "", 204)
		mu.Lock()
		if len(events) != 2 || events[0].Event.Action != event.ActionDeleted || events[1].Event.Action != event.ActionQuarantineReleased {
			t.Fatalf("%s: %+v", x.address, events)
		}
		for _, e := range events {
			n := e.Tapwall.Notice
			if who := (policy.Writer{By: n.By, From: n.From}); !is(who) || !strings.HasSuffix(n.Message, " by "+who.String()) {
				t.Errorf("%s: %+v %+v", x.address, e.Event, n)
			}
			if c := e.Client; c == nil || c.Address != n.From || (c.IP == "127.0.0.1" && c.Port != 0) != strings.HasPrefix(x.base, far.Address) ||
				e.User == nil || !strings.Contains(n.By, e.User.Name) || e.User.ID != "" && !strings.Contains(n.By, "uid "+e.User.ID) {
				t.Errorf("%s: user %+v client %+v", x.address, e.User, e.Client)
			}
		}
		mu.Unlock()
	}
	stop()
	if text := f.log.String(); !strings.Contains(text, `by="the holder of the token" from=127.0.0.1:`) ||
		!strings.Contains(text, `from="unix socket, process `) {
		t.Errorf("the log does not say who it was:\n%s", text)
	}
}
