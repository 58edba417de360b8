package ovsdb_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/pki/pkitest"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
)

// runLock runs a lock until stop is called or the test ends.
func runLock(t *testing.T, address string, change ...func(*ovsdb.Options)) (l *ovsdb.Lock, stop func()) {
	t.Helper()
	opts := ovsdb.Options{
		Address: address, BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		// Who waits for the lock learns of another holder with its next probe.
		ProbeInterval: 20 * time.Millisecond,
		Logger:        slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	for _, f := range change {
		f(&opts)
	}
	l, err := ovsdb.NewLock(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx); close(ended) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return l, stop
}

// awaitLock waits until ok holds, looking after every wake-up.
func awaitLock(t *testing.T, l *ovsdb.Lock, what string, ok func(error) bool) error {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		err := l.Err()
		if ok(err) {
			return err
		}
		select {
		case <-l.Wake():
		case <-timeout:
			t.Fatalf("%s: not within 20 s; held %v, %v", what, l.Held(), l.Err())
		}
	}
}

func awaitHeld(t *testing.T, l *ovsdb.Lock) {
	t.Helper()
	awaitLock(t, l, "held", func(err error) bool { return err == nil })
	if !l.Held() {
		t.Error("no error, and not held")
	}
}

func names(holder string) func(error) bool {
	return func(err error) bool { return errors.Is(err, ovsdb.ErrLocked) && strings.Contains(err.Error(), holder) }
}

// holder is what the database says.
func holder(o *ovsdbtest.OVS) string {
	return strings.Trim(o.Vsctl("--no-wait", "--if-exists", "get", "Open_vSwitch", ".", "external_ids:tapwall-holder"), `"`)
}

// twoTapwalls checks that of two locks one is held, the other names the holder, and that it takes over.
func twoTapwalls(t *testing.T, o *ovsdbtest.OVS, first, second string, change ...func(*ovsdb.Options)) {
	t.Helper()
	o.Vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:theirs=kept")
	a, stopA := runLock(t, first, change...)
	awaitHeld(t, a)
	was := holder(o)
	if !strings.HasPrefix(was, "pid ") || !strings.Contains(was, " since ") {
		t.Errorf("the holder is %q", was)
	}
	b, stopB := runLock(t, second, change...)
	awaitLock(t, b, "the other is named", names(was))
	if b.Held() || !a.Held() {
		t.Errorf("held: %v, %v", a.Held(), b.Held())
	}
	stopA()
	awaitHeld(t, b)
	if a.Held() || !errors.Is(a.Err(), ovsdb.ErrNotConnected) {
		t.Errorf("after its end the first holds: %v, %v", a.Held(), a.Err())
	}
	if now := holder(o); now == was || !strings.HasPrefix(now, "pid ") {
		t.Errorf("the holder was %q and is %q", was, now)
	}
	stopB()
	if left := o.Vsctl("--no-wait", "get", "Open_vSwitch", ".", "external_ids"); left != "{theirs=kept}" {
		t.Errorf("external_ids afterwards: %s", left)
	}
}

func TestLockUnix(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	twoTapwalls(t, o, o.Address(), o.Address())
}

func TestLockTCP(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	port := freePort(t)
	o.DBArgs = []string{fmt.Sprintf("--remote=ptcp:%d:127.0.0.1", port)}
	o.StartDB()
	twoTapwalls(t, o, fmt.Sprintf("tcp:127.0.0.1:%d", port), o.Address())
}

func TestLockTLS(t *testing.T) {
	switches, tapwalls := pkitest.NewAuthority(t, "switchca"), pkitest.NewAuthority(t, "controllerca")
	o, address := sslDatabase(t, switches.Issue("sw1", tapwalls))
	twoTapwalls(t, o, address, address, with(t, address, tapwalls.Issue("tapwall", switches)))

	l, _ := runLock(t, address, with(t, address, switches.Issue("tapwall", switches)))
	awaitLock(t, l, "refused", func(err error) bool {
		return errors.Is(err, ovsdb.ErrNotConnected) && strings.Contains(err.Error(), "does not accept our certificate")
	})
}

// The lock goes with the server, and comes back with it; a server that hangs is noticed.
func TestLockLost(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	l, _ := runLock(t, o.Address(), func(opts *ovsdb.Options) { opts.ProbeTimeout = time.Second })
	lost := func(err error) bool { return errors.Is(err, ovsdb.ErrNotConnected) }
	awaitHeld(t, l)
	o.KillDB()
	awaitLock(t, l, "lost with the server", lost)
	if l.Held() {
		t.Error("held without a server")
	}
	o.StartDB()
	awaitHeld(t, l)
	o.FreezeDB()
	awaitLock(t, l, "lost as the server hangs", lost)
	o.ThawDB()
	awaitHeld(t, l)
}

// A client of RFC 7047 that takes the lock by force, and dies.
func TestLockStolen(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	l, _ := runLock(t, o.Address())
	awaitHeld(t, l)
	conn, err := net.Dial("unix", o.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, `{"method":"steal","params":["tapwall"],"id":1}`); err != nil {
		t.Fatal(err)
	}
	if err := awaitLock(t, l, "stolen", names("")); l.Held() || strings.Contains(err.Error(), "pid ") {
		t.Errorf("after the theft: held %v, %v", l.Held(), err)
	}
	conn.Close()
	awaitHeld(t, l)
}

// Who is told to steal gets the lock from whoever has it, once: stolen back, it waits like anybody, and gets it when the other ends.
func TestLockSteal(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	steal := func(o *ovsdb.Options) { o.Steal = true }
	first, stopFirst := runLock(t, o.Address())
	awaitHeld(t, first)
	second, _ := runLock(t, o.Address(), steal)
	awaitHeld(t, second)
	awaitLock(t, first, "the first is named the second", names("pid "))
	third, stop := runLock(t, o.Address(), steal)
	awaitHeld(t, third)
	awaitLock(t, second, "the second is named the third", names("pid "))
	stop()
	awaitHeld(t, first) // who asked first
	if second.Held() {
		t.Error("two hold the lock")
	}
	stopFirst()
	awaitHeld(t, second) // also what was stolen and stolen back
}

// While another tapwall has the lock nothing is written.
func TestLockGuardsApply(t *testing.T) {
	o := newSwitch(t)
	first, stop := runLock(t, o.Address())
	awaitHeld(t, first)
	second, _ := runLock(t, o.Address())
	c := connected(t, o, func(opts *ovsdb.Options) { opts.Lock = second })
	awaitLock(t, second, "the other is named", names("pid "))
	if _, err := c.Apply(t.Context(), desired(mirrorSpec("web", "vm1"))); !names("pid ")(err) {
		t.Errorf("Apply: %v", err)
	}
	if n := c.Status().Transactions; n != 0 {
		t.Errorf("%d transactions", n)
	}
	stop()
	awaitHeld(t, second)
	apply(t, c, 1, desired(mirrorSpec("web", "vm1")))
}

// A server that says something else than RFC 7047 gives no lock, takes no memory, and is asked again.
func TestLockGarbage(t *testing.T) {
	granted := `{"id":"lock","result":{"locked":true},"error":null}`
	for _, tt := range []struct{ what, says, want string }{
		{"nothing of the holder", granted, "no answer within"},
		{"no JSON", "HTTP/1.1 400 Bad Request\r\n", "invalid character"},
		{"no object", `[1,2]`, "cannot unmarshal"},
		{"endless", `{"method":"` + strings.Repeat("x", 3<<20), "longer than"},
		{"deep", strings.Repeat("[", 20000), "depth"},
		{"refusal", `{"id":"lock","result":null,"error":"unknown method"}`, "unknown method"},
		{"answer of another kind", `{"id":"lock","result":[true],"error":null}`, "answer to lock"},
		{"answer to nothing", `{"id":"other","result":{},"error":null}`, "was not asked"},
		{"answers without end", granted + `{"id":"hold","result":[{},{}],"error":null}` + granted, "no request"},
		{"failed transaction", granted + `{"id":"hold","result":[{},{"error":"resources exhausted","details":"full"}],"error":null}`,
			"resources exhausted: full"},
		{"other lock", `{"id":null,"method":"stolen","params":["other"]}`, `lock "other"`},
		{"lock without a name", `{"id":null,"method":"locked","params":{}}`, `lock ""`},
		{"silence", "", "no answer within"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() { _, _ = io.WriteString(conn, tt.says) }()
					_, _ = io.Copy(io.Discard, conn)
					conn.Close()
				}
			}()
			l, stop := runLock(t, "unix:"+path, func(o *ovsdb.Options) { o.ProbeTimeout = 200 * time.Millisecond })
			awaitLock(t, l, "a failure", func(err error) bool {
				if tt.what == "answers without end" && l.Held() {
					return false // for a moment, rightly
				}
				return errors.Is(err, ovsdb.ErrNotConnected) && strings.Contains(err.Error(), tt.want)
			})
			stop()
			listener.Close()
			<-served
		})
	}
}

// Echo requests of the server are answered with their parameters (RFC 7047 §4.1.11).
func TestLockEcho(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, stop := runLock(t, "unix:"+path)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, `{"method":"echo","params":["a",{"b":1}],"id":"x7"}`); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(conn)
	for {
		var m map[string]any
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		if m["id"] != "x7" {
			continue
		}
		text, _ := json.Marshal(m)
		if string(text) != `{"error":null,"id":"x7","result":["a",{"b":1}]}` {
			t.Errorf("answer %s", text)
		}
		break
	}
	conn.Close()
	listener.Close()
	stop()
}
