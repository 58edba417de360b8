package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// small mounts a file system of its own of so many MiB; root only.
func small(t *testing.T, mib int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill takes all the space that is left but so many MiB.
func fill(t *testing.T, dir string, leave int64) (free func()) {
	t.Helper()
	f, err := os.CreateTemp(dir, "other-data-*")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for try := 0; ; try++ { // etcd allocates its next log at the same time
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-leave<<20)
		if err == nil {
			break
		}
		if try == 1000 {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}

func TestDiskFullAtStart(t *testing.T) {
	dir := small(t, 64)
	_, err := store.Open(t.Context(), store.Options{DataDir: dir})
	want := "store: no space left on the file system of " + dir + ": 63 MiB free, 224 MiB needed to write safely"
	if !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, backend.ErrUnavailable) || strings.Replace(err.Error(), "64 MiB free",
		"63 MiB free", 1) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestDiskFull fills the disk below a running store: writes are refused with a reason, reads go on, and writes work again at once when
// there is space.
func TestDiskFull(t *testing.T) {
	dir := small(t, 300)
	s := open(t, store.Options{DataDir: dir})
	put(t, s, group("before", "10.0.0.0/8"))
	free := fill(t, dir, 20)
	_, err := s.Commit(t.Context(), []backend.Change{{Kind: policy.KindGroup, Name: "full", Resource: group("full")}})
	if !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("commit: %v", err)
	}
	if err := s.PutStates(t.Context(), "h", map[string][]byte{"a": nil}); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("states: %v", err)
	}
	if st := s.Status(); !strings.Contains(st.Message, "no space left") {
		t.Errorf("status: %+v", st)
	}
	if _, err := s.Get(t.Context(), policy.KindGroup, "before"); err != nil {
		t.Errorf("read: %v", err)
	}
	free()
	put(t, s, group("after", "10.0.0.0/8"))
	if st := s.Status(); !st.Connected || st.Message != "" {
		t.Errorf("status: %+v", st)
	}
}

// TestDiskFullRevokes fills the disk to the last byte, again and again: what takes access away is written all the same, by space that was
// kept for it, and durably; other writes are refused. With space again there is some for the next time.
func TestDiskFullRevokes(t *testing.T) {
	dir := small(t, 300)
	s := open(t, store.Options{DataDir: dir})
	const rounds = 3
	for i := range rounds {
		put(t, s, group(fmt.Sprintf("g%d", i), "10.0.0.0/8"))
	}
	quarantine := func(i int) *policy.Quarantine {
		q := &policy.Quarantine{Meta: policy.Meta{Name: fmt.Sprintf("q%d", i)}}
		q.Spec.Match.Port = "p"
		return q
	}
	commit := func(kind policy.Kind, name string, r policy.Resource) error {
		_, err := s.Commit(t.Context(), []backend.Change{{Kind: kind, Name: name, Resource: r}})
		return err
	}
	time.Sleep(1500 * time.Millisecond) // the database is on the disk
	for i := range rounds {
		free := fill(t, dir, 0)
		defer free()
		if err := commit(policy.KindGroup, "full", group("full")); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("an ordinary write: %v", err)
		}
		if err := commit(policy.KindGroup, fmt.Sprintf("g%d", i), nil); err != nil {
			t.Errorf("deletion %d: %v", i, err)
		}
		if err := commit(policy.KindQuarantine, quarantine(i).Name, quarantine(i)); err != nil {
			t.Errorf("quarantine %d: %v", i, err)
		}
		mixed := []backend.Change{{Kind: policy.KindQuarantine, Name: "q0"}, {Kind: policy.KindGroup, Name: "full", Resource: group("full")}}
		if _, err := s.Commit(t.Context(), mixed); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("an ordinary write beside a deletion: %v", err)
		}
		time.Sleep(1500 * time.Millisecond) // etcd writes its database
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	again := open(t, store.Options{DataDir: copied})
	for kind, want := range map[policy.Kind]int{policy.KindGroup: 0, policy.KindQuarantine: rounds} {
		if all, _, err := again.List(t.Context(), kind, "", 0); err != nil || len(all) != want {
			t.Errorf("%d %s of %d: %v", len(all), kind, want, err)
		}
	}
}

// TestDiskFullBehindTheGuard takes the guard away, so that etcd itself meets the full disk and gives up: the process goes on, says why,
// and after a restart with space every acknowledged write is there.
func TestDiskFullBehindTheGuard(t *testing.T) {
	if os.Getenv(leakEnv) == "" { // a failed etcd cannot be stopped
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), leakEnv+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Skip("in the process of its own")
		}
		return
	}
	dir := small(t, 300)
	s, err := store.Open(t.Context(), store.Options{DataDir: dir, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, group("before", "10.0.0.0/8"))
	time.Sleep(time.Second) // etcd writes its database every 100 ms
	free := fill(t, dir, 0)
	acked := 0
	var failed error
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := 0; failed == nil && i < 200; i++ {
		big := group(fmt.Sprintf("g%d", i))
		for j := range 20000 {
			big.Spec.Members = append(big.Spec.Members, policy.Selector{CIDR: fmt.Sprintf("10.%d.%d.0/24", j/256, j%256)})
		}
		if _, failed = s.Commit(ctx, []backend.Change{{Kind: policy.KindGroup, Name: big.Name, Resource: big}}); failed == nil {
			acked++
		}
	}
	t.Logf("%d acknowledged, then: %v", acked, failed)
	select {
	case <-s.Failed():
	case <-time.After(10 * time.Second):
		t.Fatalf("the store has not failed: %v", failed)
	}
	if err := s.Err(); !errors.Is(err, store.ErrFailed) || !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, backend.ErrUnavailable) ||
		!strings.Contains(err.Error(), "no space left") {
		t.Errorf("why: %v", err)
	}
	if _, err := s.Get(t.Context(), policy.KindGroup, "before"); err != nil && !errors.Is(err, store.ErrFailed) {
		t.Errorf("read after the failure: %v", err)
	}
	if st := s.Status(); st.Connected || !strings.Contains(st.Message, "no space left") {
		t.Errorf("status: %+v", st)
	}
	free()
	// What a new process finds: a copy, as this one still holds the old files open.
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	again := open(t, store.Options{DataDir: copied})
	all, _, err := again.List(t.Context(), policy.KindGroup, "", 0)
	if err != nil || len(all) < 1+acked {
		t.Errorf("%d groups of %d acknowledged are there: %v", len(all), 1+acked, err)
	}
}

// TestQuota fills the database up to its quota: writes are refused, deletions are not, and writes work again soon after them.
func TestQuota(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir(), QuotaBytes: 8 << 20})
	value := make([]byte, 900<<10)
	n := 0
	var err error
	for ; n < 40 && err == nil; n++ {
		err = s.PutStates(t.Context(), "h", map[string][]byte{fmt.Sprint(n): value})
	}
	if !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, backend.ErrUnavailable) || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("after %d values: %v", n, err)
	}
	gone := map[string][]byte{}
	for i := range n {
		gone[fmt.Sprint(i)] = nil
	}
	if err := s.PutStates(t.Context(), "h", gone); err != nil {
		t.Fatalf("deletion: %v", err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := s.PutStates(t.Context(), "h", map[string][]byte{"x": value})
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrNoSpace) || time.Now().After(deadline) {
			t.Fatalf("after the deletion: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
