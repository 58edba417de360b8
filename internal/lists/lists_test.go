package lists

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	many := strings.Repeat("192.0.2.1\n", 40)
	for _, tc := range []struct{ name, text, want string }{
		{"OK", "\ufeff# a feed\n10.0.0.1 ; why\r\n10.1.0.0/16#x\n\n; end\n2001:db8::/32\n2001:DB8::1\n10.0.0.1/32\n",
			"10.0.0.1/32 10.1.0.0/16 2001:db8::/32 2001:db8::1/128"},
		{"OK nobody", "# none today\n", ""},
		{"OK one bad line", "10.0.0.1\nhunter2\n", "10.0.0.1/32 skipped [2]"},
		{"OK one of twenty", many + "a\nb\n", "192.0.2.1/32 skipped [41 42]"},
		{"OK no host bits", many + "10.0.0.1/8\nfe80::1%eth0\n", "192.0.2.1/32 skipped [41 42]"},
		{"bad empty", " \n", "it is empty: a list of nobody has a comment at least"},
		{"bad all", "<html>\n", "1 of its 1 entries are no addresses or address ranges, the first in line 1"},
		{"bad many", "10.0.0.1\n10.0.0.2\n<p>hunter2\n</p>\n", "2 of its 4 entries are no addresses or address ranges, the first in lines 3, 4"},
		{"bad very many", "10.0.0.1\n" + strings.Repeat("x\n", 20),
			"20 of its 21 entries are no addresses or address ranges, the first in lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and more"},
	} {
		c, err := parse([]byte(tc.text))
		var got []string
		for _, p := range c.prefixes {
			got = append(got, p.String())
		}
		if c.skipped > 0 {
			got = append(got, fmt.Sprint("skipped ", c.lines))
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if text := strings.Join(got, " "); text != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, text, tc.want)
		}
	}
}

// What a group has become by another list is what the list says, however it is told.
func TestMembersOfAList(t *testing.T) {
	list := func(entries ...string) *content {
		c, err := parse([]byte("#\n" + strings.Join(entries, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		return &c
	}
	was := list("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5").members("g", nil)
	now := list("10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.9").members("g", was)
	c, ok := now.Spec.Since(&was.Spec)
	if !ok || len(c.Added) != 1 || c.Added[0].CIDR != "10.0.0.9/32" || len(c.Removed) != 1 || c.Removed[0].CIDR != "10.0.0.2/32" {
		t.Errorf("the change is %+v, known: %v", c, ok)
	}
	last := list("10.0.0.9", "10.0.0.1", "10.0.0.3", "10.0.0.5").members("g", now)
	if got := cidrs(last); !slices.Equal(got, []string{"10.0.0.1/32", "10.0.0.3/32", "10.0.0.5/32", "10.0.0.9/32"}) {
		t.Errorf("it has %v", got)
	}
	if same := list("10.0.0.9", "10.0.0.5", "10.0.0.3", "10.0.0.1").members("g", last); same != last {
		t.Error("the same list is another group")
	}
}

func cidrs(g *policy.Group) (out []string) {
	if g != nil {
		for _, m := range g.Spec.Members {
			out = append(out, m.CIDR)
		}
	}
	slices.Sort(out)
	return out
}

// log is what a keeper logs, for tests to look at.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// feed is a server of one list whose answers a test sets.
type feed struct {
	*httptest.Server
	mu       sync.Mutex
	status   int
	text     string
	location string
	asked    int
	same     int // answers that nothing has changed
}

func newFeed(t *testing.T, tls bool) *feed {
	f := &feed{status: 200}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asked++
		tag := fmt.Sprintf("%q", fmt.Sprint(len(f.text)))
		if f.location != "" && r.URL.Path != "/end" {
			http.Redirect(w, r, f.location, http.StatusFound)
			return
		}
		if r.Header.Get("Referer") != "" {
			t.Error("the next server is told of the last one")
		}
		w.Header().Set("ETag", tag)
		if f.status == 200 && r.Header.Get("If-None-Match") == tag {
			f.same++
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.WriteHeader(f.status)
		_, _ = w.Write([]byte(f.text))
	})
	if tls {
		f.Server = httptest.NewTLSServer(handler)
	} else {
		f.Server = httptest.NewServer(handler)
	}
	t.Cleanup(f.Close)
	return f
}

func (f *feed) set(status int, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.text = status, text
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// try reads a source once.
func try(t *testing.T, k *Keeper, group string, from policy.GroupSource) error {
	t.Helper()
	k.Follow(group, &from)
	k.mu.Lock()
	l := k.lists[group]
	k.mu.Unlock()
	return k.read(t.Context(), group, l, from)
}

func keeper(t *testing.T, o Options) (*Keeper, *log) {
	t.Helper()
	l := &log{}
	o.Logger = slog.New(slog.NewTextHandler(l, nil))
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return k, l
}

// A URL is asked only for what is new; garbage and errors keep the last good list, which outlives the process; nothing that may be
// secret is told.
func TestURL(t *testing.T) {
	f := newFeed(t, false)
	dir := t.TempDir()
	o := Options{StateDir: filepath.Join(dir, "lists"), PlainHTTP: true, Allow: loopback}
	k, l := keeper(t, o)
	from := policy.GroupSource{URL: strings.Replace(f.URL, "http://", "http://user:passw0rd@", 1) + "/list?token=s3cret"}
	f.set(200, "10.0.0.1\n10.0.0.2\n10.0.0.3\n")
	if err := try(t, k, "g", from); err != nil {
		t.Fatal(err)
	}
	if got := k.Take()["g"]; len(cidrs(got)) != 3 {
		t.Errorf("it has %v", cidrs(got))
	}
	if err := try(t, k, "g", from); err != nil || f.same != 1 || len(k.Take()) != 0 {
		t.Errorf("%v, %d answers that it is the same", err, f.same)
	}
	want := cidrs(k.Follow("g", &from))
	for name, answer := range map[string]func(){
		"the server answers 500":              func() { f.set(500, "hunter2") },
		"it is empty":                         func() { f.set(200, "") },
		"2 of its 2 entries are no addresses": func() { f.set(200, "<p>hunter2\n<p>hunter2\n") },
		"the server's answer cannot be read":  func() { f.set(200, "1.2.3.4"); f.location = ":hunter2" },
		"it redirects more than 3 times":      func() { f.location = "/again" },
		"it is longer than 32 MiB":            func() { f.location = ""; f.set(200, strings.Repeat("#\n", maxBytes/2+1)) },
	} {
		f.mu.Lock()
		f.location = ""
		f.mu.Unlock()
		answer()
		if err := try(t, k, "g", from); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%v, want %s", err, name)
		}
		s := k.Status("g")
		if s.Error == "" || s.Entries != 3 || s.FetchedAt == nil || len(k.Take()) != 0 || !slices.Equal(cidrs(k.Follow("g", &from)), want) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	f.Close()
	if err := try(t, k, "g", from); err == nil || err.Error() != "connection refused" {
		t.Errorf("nobody listens: %v", err)
	}

	again, _ := keeper(t, o)
	if got := cidrs(again.Follow("g", &from)); !slices.Equal(got, want) {
		t.Errorf("another process has %v", got)
	}
	if s := again.Status("g"); s.Entries != 3 || s.FetchedAt == nil || s.CheckedAt != nil {
		t.Errorf("another process says %+v", s)
	}
	for what, text := range map[string]string{"log": l.String(), "status": fmt.Sprintf("%+v", *k.Status("g"))} {
		for _, secret := range []string{"passw0rd", "s3cret", "hunter2", "user"} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s tells %s:\n%s", what, secret, text)
			}
		}
	}
	// It is another list for another group, and gone with its own.
	if again.Follow("h", &from) != nil {
		t.Error("another group has it")
	}
	again.Follow("g", nil)
	if _, err := os.Stat(filepath.Join(dir, "lists", "g")); !os.IsNotExist(err) {
		t.Errorf("what nobody needs is kept: %v", err)
	}
	if again.Status("g") != nil {
		t.Error("what nobody needs has a status")
	}
}

// What only this machine answers, and what is not encrypted, has to be allowed; also where a server sends us on.
func TestURLForbidden(t *testing.T) {
	open, secure := newFeed(t, false), newFeed(t, true)
	open.set(200, "10.0.0.1\n")
	secure.set(200, "10.0.0.1\n")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pemOf(secure.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	secure.location = open.URL + "/end"
	for _, tc := range []struct {
		name string
		o    Options
		url  string
		want error
	}{
		{"plain", Options{Allow: loopback}, open.URL, errPlain},
		{"loopback", Options{PlainHTTP: true}, open.URL, errForbidden},
		{"loopback by name", Options{PlainHTTP: true}, strings.Replace(open.URL, "127.0.0.1", "localhost", 1), errForbidden},
		{"loopback in IPv6", Options{PlainHTTP: true}, strings.Replace(open.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1), errForbidden},
		{"down from TLS", Options{PlainHTTP: true, Allow: loopback, CAFile: ca}, secure.URL, errPlain},
		{"OK", Options{PlainHTTP: true, Allow: loopback}, open.URL, nil},
	} {
		k, _ := keeper(t, tc.o)
		if err := try(t, k, "g", policy.GroupSource{URL: tc.url}); err != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	k, _ := keeper(t, Options{Allow: loopback})
	if err := try(t, k, "g", policy.GroupSource{URL: secure.URL + "/end"}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}
	secure.location = ""
	k, _ = keeper(t, Options{Allow: loopback, CAFile: ca})
	if err := try(t, k, "g", policy.GroupSource{URL: secure.URL}); err != nil {
		t.Errorf("by TLS: %v", err)
	}
	for text, want := range map[string]bool{
		"127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "::": false, "224.0.0.1": false,
		"0.1.2.3":                false,
		"::ffff:169.254.169.254": false, "64:ff9b::a9fe:a9fe": false, "fd00:ec2::254": false, "100.100.100.200": false,
		"168.63.129.16": false, "::ffff:192.0.0.192": false,
		"10.0.0.1": true, "192.0.2.1": true, "2001:db8::1": true, "fd00::1": true, "64:ff9b::c000:201": true,
	} {
		k, _ := keeper(t, Options{})
		if got := k.mayConnect(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s may be connected to: %v", text, got)
		}
	}
}

// A file is read below the directory, and nothing outside of it or that is no file.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	inside := filepath.Join(dir, "lists")
	if err := os.MkdirAll(filepath.Join(inside, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	put("secret", "10.9.9.9\n")
	put("lists/a", "10.0.0.1\n")
	put("lists/sub/b", "10.0.0.2\n")
	for name, target := range map[string]string{"out": "../secret", "abs": filepath.Join(dir, "secret"), "in": "sub/b", "up": ".."} {
		if err := os.Symlink(target, filepath.Join(inside, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(inside, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, _ := keeper(t, Options{Dir: inside})
	for _, tc := range []struct{ name, want string }{
		{"a", ""}, {"sub/b", ""}, {"in", ""},
		{"out", "path escapes from parent"}, {"abs", "path escapes from parent"}, {"up/secret", "path escapes from parent"},
		{"../secret", "path escapes from parent"}, {filepath.Join(dir, "secret"), "path escapes from parent"},
		{"none", "no such file or directory"}, {"sub", "it is no regular file"}, {"fifo", "it is no regular file"},
	} {
		err := try(t, k, "g", policy.GroupSource{File: tc.name})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasSuffix(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	none, _ := keeper(t, Options{})
	if err := try(t, none, "g", policy.GroupSource{File: "a"}); err == nil {
		t.Error("without a directory a file is read")
	}
}

// What is followed is read by itself, again and again; another source takes the place of what the first one gave when it has been read.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		tmp := filepath.Join(dir, "tmp")
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Hour)
		_ = os.Chtimes(tmp, old, old)
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "10.0.0.1\n")
	k, _ := keeper(t, Options{Dir: dir})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	k.Follow("g", &policy.GroupSource{File: "a"})
	wait := func(want ...string) {
		t.Helper()
		for {
			select {
			case <-k.News():
			case <-time.After(5 * time.Second):
				t.Fatal("no news")
			}
			if g, ok := k.Take()["g"]; ok {
				if got := cidrs(g); !slices.Equal(got, want) {
					t.Fatalf("it has %v, not %v", got, want)
				}
				return
			}
		}
	}
	wait("10.0.0.1/32")
	if got := cidrs(k.Follow("g", &policy.GroupSource{File: "b"})); !slices.Equal(got, []string{"10.0.0.1/32"}) {
		t.Errorf("with another source it has %v", got)
	}
	for k.Status("g").Error == "" {
		time.Sleep(time.Millisecond)
	}
	put("b", "10.0.0.2\n")
	k.Follow("g", &policy.GroupSource{File: "b", Every: "10s"})
	wait("10.0.0.2/32")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func pemOf(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
