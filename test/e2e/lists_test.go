package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// listConfig is a configuration file that lets groups take lists from a directory, and from servers of this machine.
func listConfig(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tapwall.yaml")
	must(t, os.WriteFile(path, []byte(fmt.Sprintf("group-lists: {dir: %s, plain-http: true, allow: [127.0.0.0/8]}\n", dir)), 0o600))
	return path
}

// listStatus is what the status of a group says of its list.
func (s *stage) listStatus(group string) (phase, reason, text string, entries int) {
	s.t.Helper()
	text = s.tapwall("get", "group", group, "-o", "json")
	var doc struct {
		Status struct {
			Phase, Reason string
			Source        *struct {
				Entries   int
				FetchedAt *time.Time
			}
		}
	}
	must(s.t, json.Unmarshal([]byte(text), &doc))
	if _, status, ok := strings.Cut(text, `"status":`); ok {
		text = status
	}
	if doc.Status.Source != nil {
		entries = doc.Status.Source.Entries
	}
	return doc.Status.Phase, doc.Status.Reason, text, entries
}

const feedPolicy = `
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: in, action: allow, from: [{group: friends}], services: [{protocol: udp, ports: ["5001"]}, {protocol: tcp, ports: ["5001"]}]}
`

// What a file lists is in the group, beside the members of its own: what comes is permitted, what goes is cut, garbage changes nothing, and
// neither does a restart.
func TestGroupFromFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(text string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, "tmp"), []byte(text), 0o600))
		old := time.Now().Add(-time.Minute)
		must(t, os.Chtimes(filepath.Join(dir, "tmp"), old, old))
		must(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "friends.txt")))
	}
	s := ground(t, 3)
	strangers := ""
	for i := range 20 {
		strangers += sprintf("192.0.2.%d ; somebody\n", i)
	}
	put(strangers)
	s.wall("--config", listConfig(t, dir))
	group := func(every int) string {
		return sprintf("kind: Group\nname: friends\nspec: {members: [{port: vm3}], from: {file: friends.txt, every: %ds}}\n---", every)
	}
	s.applyUncached(group(10) + feedPolicy)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	other := s.datagrams(s.vm[3], s.vm[2], 5001, 10*time.Millisecond)
	s.running(other)
	entries := func(n int) {
		t.Helper()
		lab.Eventually(t, 20*time.Second, fmt.Sprintf("the list has %d entries", n), func() bool {
			_, _, _,
				have := s.listStatus("friends")
			return have == n
		})
		s.revalidated()
	}
	entries(20)
	before := s.health().FlowMods
	put(strangers + s.vm[1].IPv4 + " # vm1\n")
	entries(21)
	if n := s.health().FlowMods - before; n == 0 || n > 12 {
		t.Errorf("an entry more cost %d flow-mods", n)
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	stream := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(stream)
	put("<html>hunter2</html>\n<p>\n")
	s.apply(group(3600)) // is a reason to read it at once
	lab.Eventually(t, 20*time.Second, "the group is stale", func() bool {
		_, reason, _,
			_ := s.listStatus("friends")
		return reason == "ListStale"
	})
	phase, _, text, n := s.listStatus("friends")
	if phase != "Degraded" || n != 21 || strings.Contains(text, "hunter2") || !strings.Contains(text, "lines 1, 2") {
		t.Errorf("after garbage it says %s", text)
	}
	s.lossless(stream, "after garbage")
	s.unchangedByRestart()
	put(strangers)
	s.apply(group(10))
	entries(20)
	s.quiet(stream, time.Now(), time.Second, "the list has lost the address")
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.lossless(other, "of a member of the group's own")
	// What leads out of the directory is refused where it is written, or not read.
	if out := s.refused("kind: Group\nname: x\nspec: {from: {file: ../secret}}\n", "apply", "-f", "-"); !strings.Contains(out,
		"/spec/from/file") {
		t.Error(out)
	}
	must(t, os.Symlink("/etc/hostname", filepath.Join(dir, "link")))
	must(t, s.tw.Apply("kind: Group\nname: x\nspec: {from: {file: link}}\n"))
	if _, reason, text, _ := s.listStatus("x"); reason != "ListMissing" || !strings.Contains(text, "escapes") {
		t.Errorf("a link that leads out: %s", text)
	}
}

// What a URL answers is in the group. The last good answer stays in force while the server fails, and over a restart without it.
func TestGroupFromURL(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	status, text, asked := 200, "", 0
	answer := func(code int, body string) {
		mu.Lock()
		defer mu.Unlock()
		status, text = code, body
	}
	s := ground(t, 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if user, password, _ := r.BasicAuth(); user != "feed" || password != "passw0rd" || r.URL.Query().Get("token") != "s3cret" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}))
	must(t, s.Switch.Do(func() (err error) { // where tapwall runs
		_ = server.Listener.Close()
		server.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	server.Start()
	defer server.Close()
	answer(200, fmt.Sprintf("# friends\n%s\n2001:db8::/32\n192.0.2.0/24\n", s.vm[1].IPv4))
	s.wall("--config", listConfig(t, t.TempDir()))
	url := strings.Replace(server.URL, "http://", "http://feed:passw0rd@", 1) + "/list?token=s3cret"
	s.applyUncached(sprintf("kind: Group\nname: friends\nspec: {from: {url: %q, every: 10s}}\n---", url) + feedPolicy)
	lab.Eventually(t, 10*time.Second, "the list is in force", func() bool { _, _, _, n := s.listStatus("friends"); return n == 3 })
	s.revalidated()
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	stream := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(stream)

	answer(500, "hunter2")
	lab.Eventually(t, 20*time.Second, "the group is stale", func() bool {
		_, reason, _,
			_ := s.listStatus("friends")
		return reason == "ListStale"
	})
	phase, _, said, n := s.listStatus("friends")
	if phase != "Degraded" || n != 3 || !strings.Contains(said, "the server answers 500") || !strings.Contains(said, "fetchedAt") {
		t.Errorf("after a 500 it says %s", said)
	}
	s.lossless(stream, "after a 500")
	server.Close()
	s.unchangedByRestart()
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.lossless(stream, "after a restart without the server")
	_, _, again, n := s.listStatus("friends")
	if n != 3 {
		t.Errorf("after a restart it says %s", again)
	}
	log, err := os.ReadFile(filepath.Join(s.Dir, "tapwall.log"))
	must(t, err)
	for _, secret := range []string{"passw0rd", "s3cret", "hunter2", "feed:"} {
		if strings.Contains(said+again+string(log), secret) {
			t.Errorf("%s is told", secret)
		}
	}
}
