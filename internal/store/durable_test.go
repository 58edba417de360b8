package store_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	start := time.Now()
	cmd, _ := writer(t, dir)
	opened := time.Since(start)
	start = time.Now()
	_, err := store.Open(t.Context(), store.Options{DataDir: dir})
	if took := time.Since(start); took > opened { // it comes before anything is opened
		t.Errorf("the answer took %v, opening a store %v", took, opened)
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

// TestDamaged damages the files of a data directory in several ways. The answer is a clear error, quickly, and the files are left as
// they are.
func TestDamaged(t *testing.T) {
	overwrite := func(name string, from, to int64) func(t *testing.T, member string) {
		return func(t *testing.T, member string) {
			f, err := os.OpenFile(one(t, filepath.Join(member, name)), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for off := from; off < to; off += 512 {
				if _, err := f.WriteAt([]byte("this is no etcd file"), off); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, member string)
		want   string
	}{
		{"database, all headers", overwrite("snap/db", 0, 32<<10), "the database "},
		// Behind the two meta pages; one page alone may be a free one, whose content means nothing.
		{"database, pages", overwrite("snap/db", 8<<10, 32<<10), "the database "},
		{"database, cut", func(t *testing.T, member string) {
			if err := os.Truncate(filepath.Join(member, "snap/db"), 12<<10); err != nil {
				t.Fatal(err)
			}
		}, "the database "},
		{"log, beginning", overwrite("wal/*.wal", 0, 512), "the log "},
		{"log, middle", overwrite("wal/*.wal", 4<<10, 8<<10), "the log "},
		{"log, entries zeroed", func(t *testing.T, member string) {
			f, err := os.OpenFile(one(t, filepath.Join(member, "wal/*.wal")), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 1<<20), 4096); err != nil {
				t.Fatal(err)
			}
		}, "the log "},
		{"log gone", func(t *testing.T, member string) {
			if err := os.Remove(one(t, filepath.Join(member, "wal/*.wal"))); err != nil {
				t.Fatal(err)
			}
		}, "the database is there but the log "},
		{"database gone", func(t *testing.T, member string) {
			if err := os.Remove(filepath.Join(member, "snap/db")); err != nil {
				t.Fatal(err)
			}
		}, "the log is there but the database "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			dir := filled(t)
			ordinary := time.Since(start)
			tt.damage(t, filepath.Join(dir, "store/member"))
			before := contents(t, dir)
			start = time.Now()
			_, err := store.Open(t.Context(), store.Options{DataDir: dir})
			if took := time.Since(start); took > 5*ordinary {
				t.Errorf("the answer took %v, making the store %v", took, ordinary)
			}
			t.Log(err)
			if !errors.Is(err, store.ErrDamaged) || !strings.HasPrefix(err.Error(), "store: the data directory is damaged: "+dir+": "+tt.want) {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
				t.Errorf("the files were changed (-before +after):\n%s", diff)
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

// TestTorn ends the log in the middle of a record, as a crash in the middle of a write does, and opens the store as usual.
func TestTorn(t *testing.T) {
	dir := filled(t)
	name := one(t, filepath.Join(dir, "store/member/wal/*.wal"))
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(text, "\x00"))
	end += (8 - end%8) % 8
	// The length of a record of 1,000 bytes and some of them; what follows is still zero.
	torn := append([]byte{0xe8, 3, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte("x"), 100)...)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(torn, int64(end)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, store.Options{DataDir: dir})
	all, _, err := s.List(t.Context(), policy.KindGroup, "", 0)
	if err != nil || len(all) != filledGroups {
		t.Errorf("%d groups, %v", len(all), err)
	}
}

const filledGroups = 100

// filled makes a data directory with some groups, closed.
func filled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range filledGroups {
		put(t, s, group(fmt.Sprintf("g%d", i), "10.0.0.0/8"))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func one(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no file: %v", pattern, err)
	}
	return files[0]
}

// contents is the checksum of every file below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "tapwall.lock" {
			return err
		}
		text, err := os.ReadFile(path)
		out[path] = fmt.Sprintf("%x", sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
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
		{"bad both", store.Options{DataDir: "/x", External: []string{"http://a:1"}},
			"store: a data directory is for the embedded store; it cannot be given together with an external cluster"},
		{"bad certificate without key", store.Options{DataDir: "/x", CertFile: "c"}, "store: certificate and key are given together"},
		{"bad file for a directory", store.Options{DataDir: file}, "store: the data directory cannot be made: mkdir " + file +
			": not a directory"},
		{"bad read-only file system", store.Options{DataDir: "/proc/self"}, "store: the data directory /proc/self is not writable: "},
		{"bad endpoint", store.Options{External: []string{"a:2379"}}, `store: "a:2379" is not an endpoint of etcd such as https://host:2379`},
		{"bad CA", store.Options{External: []string{"https://a:2379"}, CAFile: file}, "store: CA: " + file + " holds no certificate in PEM form"},
		{"bad TLS without https", store.Options{External: []string{"http://a:2379"}, CAFile: file},
			"store: certificates are given but no endpoint is https"},
		{"bad no cluster there", store.Options{External: []string{"http://127.0.0.1:1"}, StartTimeout: 300 * time.Millisecond},
			"store: etcd at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := store.Open(t.Context(), tt.o)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s…", err, tt.want)
			}
		})
	}
}
