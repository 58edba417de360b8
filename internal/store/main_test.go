package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// childEnv makes the test binary a writer on the data directory it names.
const childEnv = "TAPWALL_TEST_STORE_CHILD"

// leakEnv is set where one test runs in a process of its own because it leaves goroutines behind.
const leakEnv = "TAPWALL_TEST_STORE_LEAK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(leakEnv) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m,
		// started by the import of a package that etcd's server imports, for the life of the process
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// child writes groups and host states from four goroutines for ever and prints the name of each write after it was acknowledged.
func child(dir string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Options{DataDir: dir})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	var mu sync.Mutex
	say := func(format string, args ...any) error {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format, args...)
		return out.Flush()
	}
	if err := say("open\n"); err != nil {
		return err
	}
	errs := make(chan error)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("w%d-%06d", w, i)
				got, err := s.Commit(ctx, []backend.Change{{Kind: policy.KindGroup, Name: name, Resource: group(name, "10.0.0.0/8")}})
				if err != nil {
					errs <- err
					return
				}
				if err := s.PutStates(ctx, "h1", map[string][]byte{"rules/" + name: []byte(name)}); err != nil {
					errs <- err
					return
				}
				if err := say("%s %d\n", name, got[0].GetMeta().Revision); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

func group(name string, cidrs ...string) *policy.Group {
	g := &policy.Group{Meta: policy.Meta{Name: name}}
	for _, c := range cidrs {
		g.Spec.Members = append(g.Spec.Members, policy.Selector{CIDR: c})
	}
	return g
}

func open(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func put(t *testing.T, s *store.Store, g *policy.Group) policy.Resource {
	t.Helper()
	got, err := s.Commit(t.Context(), []backend.Change{{Kind: policy.KindGroup, Name: g.Name, Resource: g}})
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}
