package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
)

func TestStates(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	ctx := t.Context()
	if err := s.PutStates(ctx, "h1", map[string][]byte{"rules/web": []byte("1"), "rules/db": {}, "zones": []byte("3")}); err != nil {
		t.Fatal(err)
	}
	if err := s.PutStates(ctx, "h10", map[string][]byte{"rules/web": []byte("other host")}); err != nil {
		t.Fatal(err)
	}
	got, err := s.ListStates(ctx, "h1", "rules/")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"rules/web": "1", "rules/db": ""}, texts(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if v, err := s.GetState(ctx, "h1", "zones"); err != nil || string(v) != "3" {
		t.Errorf("zones: %q, %v", v, err)
	}
	if err := s.PutStates(ctx, "h1", map[string][]byte{"rules/web": nil}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetState(ctx, "h1", "rules/web"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("a deleted state: %v", err)
	}
	big := bytes.Repeat([]byte("x"), backend.MaxStateBytes)
	values := map[string][]byte{}
	for i := range 12 {
		values[fmt.Sprintf("big/%d", i)] = big
	}
	if err := s.PutStates(ctx, "h1", values); err != nil {
		t.Errorf("12 MB: %v", err)
	}
	for _, tt := range []struct {
		name, host, key string
		value           []byte
	}{
		{"bad too large", "h1", "x", append(big, 'x')},
		{"bad empty key", "h1", "", nil},
		{"bad empty host", "", "x", nil},
		{"bad host with a slash", "h1/state", "x", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := s.PutStates(ctx, tt.host, map[string][]byte{tt.key: tt.value}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func texts(m map[string][]byte) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = string(v)
	}
	return out
}

// TestStatesJournal writes more states than an external cluster takes in one transaction, and cuts the connection after every number of
// requests in turn: a later reader finds either all of the write or nothing.
func TestStatesJournal(t *testing.T) {
	c := startCluster(t, nil)
	ctx := t.Context()
	write := func(generation string) map[string][]byte {
		out := map[string][]byte{}
		for i := range 500 { // four transactions
			out[fmt.Sprintf("rules/%03d", i)] = []byte(generation)
		}
		return out
	}
	before, after := texts(write("old")), texts(write("new"))
	seen := map[string]int{}
	for requests := 0; ; requests++ {
		host := fmt.Sprintf("h%d", requests)
		s, err := store.Open(ctx, store.Options{External: []string{"http://" + c.addr}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.PutStates(ctx, host, write("old")); err != nil {
			t.Fatal(err)
		}
		store.FailAfter(s, requests)
		failed := s.PutStates(ctx, host, write("new"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		s, err = store.Open(ctx, store.Options{External: []string{"http://" + c.addr}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.ListStates(ctx, host, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		switch {
		case cmp.Equal(texts(got), after):
			seen["after"]++
		case failed != nil && cmp.Equal(texts(got), before):
			seen["before"]++
		default:
			t.Fatalf("after %d requests (%v) the states are neither the old nor the new: %d", requests, failed, len(got))
		}
		if failed == nil {
			break
		}
	}
	if seen["before"] < 4 || seen["after"] < 4 {
		t.Errorf("the cuts did not hit both sides of the decision: %v", seen)
	}
}
