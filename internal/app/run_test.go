package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/internal/app"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/internal/logtest"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// started by the import of a package that etcd's server imports, for the life of the process
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// options are those of a tapwall that has nothing to manage, in directories of its own.
func options(t *testing.T) app.Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "tw") // short: a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return app.Options{
		DataDir: filepath.Join(dir, "data"), OVSDB: "unix:" + filepath.Join(dir, "db.sock"), Listen: []string{"unix:" + filepath.Join(dir,
			"api.sock")},
		Stderr: io.Discard, Version: "v0",
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What cannot work is refused with words that say what to change, and nothing is left running or locked.
func TestRunRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(t *testing.T, o *app.Options)
		want string
	}{
		{"log level", func(_ *testing.T, o *app.Options) { o.LogLevel = "loud" }, `--log-level: "loud"`},
		{"log format", func(_ *testing.T, o *app.Options) { o.LogFormat = "xml" }, `log-format: "xml"`},
		{"certificate without key", func(_ *testing.T, o *app.Options) { o.TLSCert = "cert.pem" }, "--tls-cert and --tls-key go together"},
		{"key without certificate", func(_ *testing.T, o *app.Options) { o.TLSKey = "key.pem" }, "--tls-cert and --tls-key go together"},
		{"half of the switch's TLS", func(_ *testing.T, o *app.Options) { o.OVSTLS.Cert = "cert.pem" },
			"ovs-tls: cert, key and ca are all needed"},
		{"missing TLS files", func(_ *testing.T, o *app.Options) { o.OVSTLS = app.TLSFiles{Cert: "/none", Key: "/none", CA: "/none"} },
			"ovs-tls: "},
		{"remote database without OpenFlow endpoints", func(_ *testing.T, o *app.Options) {
			o.OVSDB, o.Bridges = "tcp:192.0.2.1:6640", []host.BridgeConfig{{Name: "br0", Mode: host.Owned}}
		}, "bridge br0: the database is not on this host (tcp:192.0.2.1:6640)"},
		{"database endpoint", func(_ *testing.T, o *app.Options) { o.OVSDB = "unix:relative" }, "unix socket needs an absolute path"},
		{"database over TLS without files", func(_ *testing.T, o *app.Options) { o.OVSDB = "ssl:192.0.2.1:6640" },
			"ssl needs a TLS configuration: ovs-tls with cert, key and ca"},
		{"host over TLS without files", func(_ *testing.T, o *app.Options) {
			o.Hosts = []app.HostOptions{{Name: "rack1", OVSDB: "ssl:192.0.2.1:6640", Bridges: []host.BridgeConfig{{Name: "br0", Mode: host.Owned}}}}
		}, "host rack1: ovsdb ssl:192.0.2.1:6640: ssl needs a TLS configuration: tls with cert, key and ca"},
		{"host with missing TLS files", func(_ *testing.T, o *app.Options) {
			o.Hosts = []app.HostOptions{{Name: "rack1", OVSDB: "ssl:192.0.2.1:6640", Bridges: []host.BridgeConfig{{Name: "br0", Mode: host.Owned}},
				TLS: app.TLSFiles{Cert: "/none", Key: "/none", CA: "/none"}}}
		}, "host rack1: tls: certificate /none"},
		{"missing token file", func(_ *testing.T, o *app.Options) { o.TokenFile = "/none" }, "--token-file: "},
		{"short token", func(t *testing.T, o *app.Options) { o.TokenFile = write(t, "  secret\n") },
			"holds a token of 6 characters; at least 16"},
		{"TCP without a token", func(_ *testing.T, o *app.Options) { o.Listen = []string{"tcp:127.0.0.1:0"} }, "a token is needed"},
		{"TCP beyond loopback without TLS", func(t *testing.T, o *app.Options) {
			o.Listen, o.TokenFile = []string{"tcp:0.0.0.0:0"}, write(t, strings.Repeat("x", 32))
		}, "TLS is needed beyond loopback"},
		{"listen address", func(_ *testing.T, o *app.Options) { o.Listen = append(o.Listen, "udp:1") }, `"udp:1" is neither`},
		{"data directory that is a file", func(t *testing.T, o *app.Options) { o.DataDir = write(t, "") }, "--data-dir: "},
		{"event directory that is a file", func(t *testing.T, o *app.Options) { o.EventDir = write(t, "") }, "event file: "},
		{"file of events without a spool", func(_ *testing.T, o *app.Options) { o.NoSpool, o.EventFile = true, true },
			"sinks.jsonl: it reads the spool, which spool.disabled turns off; leave either out"},
		{"bridge mode", func(_ *testing.T, o *app.Options) { o.Bridges = []host.BridgeConfig{{Name: "br0", Mode: "borrowed"}} },
			`mode "borrowed"`},
		{"host without a proper name", func(_ *testing.T, o *app.Options) {
			o.Hosts = []app.HostOptions{{Name: "Rack 1", OVSDB: "tcp:192.0.2.1:6640"}}
		},
			`hosts[0]: name "Rack 1" is not a DNS label`},
		{"host named twice", func(_ *testing.T, o *app.Options) {
			o.Hosts = []app.HostOptions{{Name: "a", OVSDB: "tcp:192.0.2.1:6640"}, {Name: "a", OVSDB: "tcp:192.0.2.2:6640"}}
		}, "hosts[1]: a is named twice"},
		{"host without a database", func(_ *testing.T, o *app.Options) { o.Hosts = []app.HostOptions{{Name: "a"}} }, "host a: ovsdb is missing"},
		{"one database twice", func(_ *testing.T, o *app.Options) {
			o.Hosts = []app.HostOptions{{Name: "a", OVSDB: "tcp:192.0.2.1:6640"}, {Name: "b", OVSDB: "tcp:192.0.2.1:6640"}}
		}, "host b: tcp:192.0.2.1:6640 is that of host a"},
		{"two ways to reach a bridge", func(_ *testing.T, o *app.Options) {
			o.Hosts = []app.HostOptions{{Name: "a", OVSDB: "tcp:192.0.2.1:6640", Bridges: []host.BridgeConfig{
				{Name: "br0", Mode: host.Owned, OpenFlow: "tcp:192.0.2.1:6653", Listen: &vswitch.ControllerSpec{Port: 6653}}}}}
		}, "host a: bridge br0: openflow says"},
		{"host over TLS without files", func(_ *testing.T, o *app.Options) {
			o.Hosts = []app.HostOptions{{Name: "a", OVSDB: "ssl:192.0.2.1:6640"}}
		},
			"host a: "},
		{"bridge named twice", func(_ *testing.T, o *app.Options) {
			o.Bridges = []host.BridgeConfig{{Name: "br0", Mode: host.Owned}, {Name: "br0", Mode: host.Guest}}
		}, "bridge br0 is named twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := options(t)
			tc.set(t, &o)
			secret := ""
			if b, err := os.ReadFile(o.TokenFile); err == nil {
				secret = strings.TrimSpace(string(b))
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := app.Run(ctx, o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want %q", err, tc.want)
			}
			if secret != "" && strings.Contains(err.Error(), secret) {
				t.Errorf("the message shows the token: %v", err)
			}
			if _, err := os.Lstat(strings.TrimPrefix(o.Listen[0], "unix:")); err == nil {
				t.Error("the socket is left behind")
			}
			if strings.HasPrefix(o.OVSDB, "unix:/") {
				release, err := store.LockFile(filepath.Join(filepath.Dir(strings.TrimPrefix(o.OVSDB, "unix:")), "tapwall.lock"))
				if err != nil {
					t.Fatalf("the lock is still held: %v", err)
				}
				release()
			}
		})
	}
}

// Nobody may work on an Open vSwitch, a socket or a data directory that another tapwall has.
func TestRunRefusesWhatIsInUse(t *testing.T) {
	first := options(t)
	r := start(t, first)
	t.Run("switch", func(t *testing.T) {
		o := options(t)
		o.OVSDB = first.OVSDB
		if err := app.Run(t.Context(), o); !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(),
			"another tapwall manages this Open vSwitch: ") ||
			!strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("%v", err)
		}
	})
	t.Run("socket", func(t *testing.T) {
		o := options(t)
		o.Listen = first.Listen
		if err := app.Run(t.Context(), o); !errors.Is(err, api.ErrInUse) {
			t.Errorf("%v", err)
		}
	})
	t.Run("address", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		o := options(t)
		o.Listen, o.TokenFile = []string{"tcp:" + l.Addr().String()}, write(t, strings.Repeat("x", 32))
		if err := app.Run(t.Context(), o); !errors.Is(err, api.ErrInUse) {
			t.Errorf("%v", err)
		}
	})
	t.Run("data directory", func(t *testing.T) {
		o := options(t)
		o.DataDir = first.DataDir
		if err := app.Run(t.Context(), o); !errors.Is(err, store.ErrLocked) {
			t.Errorf("%v", err)
		}
	})
	if code, body := r.get("/healthz"); code != http.StatusOK {
		t.Errorf("the first one after all that: %d %s", code, body)
	}
	r.stop()
}

// It starts without a switch, says so, manages one when there is one, ends when it is told, and starts again from what it left.
func TestRun(t *testing.T) {
	o := options(t)
	r := start(t, o)
	r.eventually("/readyz", http.StatusServiceUnavailable, "no connection to the Open vSwitch database")
	r.stop()
	if _, err := os.Lstat(strings.TrimPrefix(o.Listen[0], "unix:")); err == nil {
		t.Error("the socket is left behind")
	}

	ovs := oftest.StartOVS(t, oftest.OVSOptions{})
	ovs.AddBridge("br0", "netdev")
	o.OVSDB, o.Bridges = ovs.DBAddr(), []host.BridgeConfig{{Name: "br0", Mode: host.Owned}}
	for range 2 {
		r = start(t, o)
		r.eventually("/readyz", http.StatusOK, "")
		if code, body := r.get("/metrics"); code != http.StatusOK || !strings.Contains(body, `tapwall_openflow_connected{bridge="br0"} 1`) {
			t.Errorf("metrics: %d", code)
		}
		r.stop()
		if text := r.log.String(); strings.Contains(text, "level=ERROR") || strings.Contains(text, "context canceled") {
			t.Errorf("log:\n%s", text)
		}
	}
	if out := ovs.Ofctl("dump-flows", "br0"); !strings.Contains(out, "table=200") {
		t.Error("the flows went with the process")
	}
}

// running is one app.Run.
type running struct {
	t    *testing.T
	o    app.Options
	log  *logtest.Buffer
	stop func()
	c    *http.Client
}

// start runs tapwall and returns when it answers.
func start(t *testing.T, o app.Options) *running {
	t.Helper()
	r := &running{t: t, o: o, log: &logtest.Buffer{}}
	o.Stderr, o.LogLevel = r.log, "debug"
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx, o) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(o.Listen[0], "unix:"))
	}}
	r.c = &http.Client{Transport: transport, Timeout: 5 * time.Second}
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			transport.CloseIdleConnections()
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(15 * time.Second):
				t.Errorf("still running; its log:\n%s", r.log.String())
			}
		})
	}
	t.Cleanup(r.stop)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if code, _ := r.get("/healthz"); code == http.StatusOK {
			return r
		}
		select {
		case err := <-done:
			t.Fatalf("run: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("no answer; log:\n%s", r.log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// eventually waits until path is answered with the code and the text.
func (r *running) eventually(path string, code int, text string) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, body := r.get(path)
		if got == code && strings.Contains(body, text) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %d %s\nlog:\n%s", path, got, body, r.log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *running) get(path string) (int, string) {
	resp, err := r.c.Get("http://tapwall" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
