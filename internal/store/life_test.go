package store_test

import (
	"errors"
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
)

// The life of a mirror is written on top of what was read, or not at all, and is no resource.
func TestLives(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	at := func(value string, expect int64, want error) int64 {
		t.Helper()
		var v []byte
		if value != "" {
			v = []byte(value)
		}
		revision, err := s.PutLife(t.Context(), "tap", v, expect)
		if !errors.Is(err, want) {
			t.Errorf("%q on top of %d: %v, want %v", value, expect, err, want)
		}
		return revision
	}
	at("early", 7, backend.ErrConflict) // there is none
	one := at("one", 0, nil)
	at("again", 0, backend.ErrConflict)
	two := at("two", one, nil)
	at("", one, backend.ErrConflict)
	all, err := s.Lives(t.Context())
	if x := all["tap"]; err != nil || len(all) != 1 || string(x.Value) != "two" || x.Revision != two {
		t.Errorf("%v, %v", all, err)
	}
	at("", two, nil)
	if all, err := s.Lives(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	for _, name := range []string{"", "a/b"} {
		if _, err := s.PutLife(t.Context(), name, []byte("x"), 0); err == nil {
			t.Errorf("the mirror %q has a life", name)
		}
	}
}
