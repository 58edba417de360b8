package store_test

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// writer starts this test binary as a writer on dir and returns its output, opened.
func writer(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("the writer did not open the store: %q", lines.Text())
	}
	return cmd, lines
}

// TestKill kills a writer in the middle of writes and finds every write that it said was acknowledged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]int64{}
	for round := range 3 {
		cmd, lines := writer(t, dir)
		for n := 0; lines.Scan(); n++ {
			name, rev, _ := strings.Cut(lines.Text(), " ")
			r, err := strconv.ParseInt(rev, 10, 64)
			if err != nil {
				t.Fatalf("line %q: %v", lines.Text(), err)
			}
			acked[name] = r
			if n == 150+97*round { // go on reading what the pipe still holds
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()

		s, err := store.Open(t.Context(), store.Options{DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		all, _, err := s.List(t.Context(), policy.KindGroup, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for _, r := range all {
			got[r.GetMeta().Name] = r.GetMeta().Revision
		}
		states, err := s.ListStates(t.Context(), "h1", "rules/")
		if err != nil {
			t.Fatal(err)
		}
		lost := 0
		for name, rev := range acked {
			if got[name] != rev || string(states["rules/"+name]) != name {
				lost++
				t.Logf("%s: revision %d, acknowledged as %d; state %q", name, got[name], rev, states["rules/"+name])
			}
		}
		if lost > 0 {
			t.Fatalf("round %d: %d of %d acknowledged writes are lost", round, lost, len(acked))
		}
		t.Logf("round %d: %d acknowledged, %d found", round, len(acked), len(got))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	cmd, _ := writer(t, dir)
	start := time.Now()
	_, err := store.Open(t.Context(), store.Options{DataDir: dir})
	if took := time.Since(start); took > time.Second {
		t.Errorf("the answer took %v", took)
	}
	want := "store: data directory " + dir + " is in use by another tapwall (pid " + strconv.Itoa(cmd.Process.Pid) + ")"
	if !errors.Is(err, store.ErrLocked) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	open(t, store.Options{DataDir: dir}) // the kernel has dropped the lock
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bridge.lock")
	release, err := store.LockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.LockFile(path)
	var locked *store.LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Path != path {
		t.Errorf("second lock: %v", err)
	}
	release()
	release()
	again, err := store.LockFile(path)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again()
	if _, err := store.LockFile(filepath.Join(path, "x")); err == nil || errors.Is(err, store.ErrLocked) {
		t.Errorf("a path that cannot be: %v", err)
	}
}

// TestDamaged overwrites files of a data directory. Whatever etcd makes of it, the answer is an error and the files are left as they are.
func TestDamaged(t *testing.T) {
	for _, tt := range []struct{ name, pattern string }{
		{"database", "store/member/snap/db"},
		{"log", "store/member/wal/*.wal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := store.Open(t.Context(), store.Options{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			put(t, s, group("a", "10.0.0.0/8"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, tt.pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("no file matches: %v", err)
			}
			f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			for off := int64(0); off < 32<<10; off += 512 { // over all headers
				if _, err := f.WriteAt([]byte("this is no etcd file"), off); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			_, err = store.Open(t.Context(), store.Options{DataDir: dir})
			t.Log(err)
			if !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
			after, err := os.ReadFile(files[0])
			if err != nil || string(after) != string(before) {
				t.Errorf("the damaged file was changed or removed: %v", err)
			}
			// The error must not keep the directory locked for this process.
			release, err := store.LockFile(filepath.Join(dir, "tapwall.lock"))
			if err != nil {
				t.Fatal(err)
			}
			release()
		})
	}
}

func TestOpenBad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    store.Options
		want string
	}{
		{"bad nothing", store.Options{}, "store: neither a data directory nor an external cluster is given"},
		{"bad both", store.Options{DataDir: "/x", External: []string{"http://a:1"}}, "store: a data directory is for the embedded store; it cannot be given together with an external cluster"},
		{"bad certificate without key", store.Options{DataDir: "/x", CertFile: "c"}, "store: certificate and key are given together"},
		{"bad file for a directory", store.Options{DataDir: file}, "store: the data directory cannot be made: mkdir " + file + ": not a directory"},
		{"bad read-only file system", store.Options{DataDir: "/proc/self"}, "store: the data directory /proc/self is not writable: "},
		{"bad endpoint", store.Options{External: []string{"a:2379"}}, `store: "a:2379" is not an endpoint of etcd such as https://host:2379`},
		{"bad CA", store.Options{External: []string{"https://a:2379"}, CAFile: file}, "store: CA: " + file + " holds no certificate in PEM form"},
		{"bad TLS without https", store.Options{External: []string{"http://a:2379"}, CAFile: file}, "store: certificates are given but no endpoint is https"},
		{"bad no cluster there", store.Options{External: []string{"http://127.0.0.1:1"}, StartTimeout: 300 * time.Millisecond}, "store: store: etcd did not answer in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := store.Open(t.Context(), tt.o)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s…", err, tt.want)
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a missing directory is not an error: %v", err)
			}
		})
	}
}
