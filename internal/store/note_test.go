package store_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// A note comes and goes with the resources of its transaction or not at all, and what it undoes is undone on a full disk, too.
func TestNotes(t *testing.T) {
	dir := small(t, 300)
	s := open(t, store.Options{DataDir: dir})
	write := func(cidr string) []backend.Change {
		return []backend.Change{{Kind: policy.KindGroup, Name: "g", Resource: group("g", cidr)}}
	}
	is := func(cidr string, notes int) {
		t.Helper()
		g, err := s.Get(t.Context(), policy.KindGroup, "g")
		if err != nil || g.(*policy.Group).Spec.Members[0].CIDR != cidr {
			t.Errorf("%+v, %v; want %s", g, err, cidr)
		}
		if all, err := s.Notes(t.Context()); err != nil || len(all) != notes || notes > 0 && !bytes.Equal(all["n"], []byte("undo")) {
			t.Errorf("notes %q, %v", all, err)
		}
	}
	commit := func(want error, cidr string, n backend.Note) {
		t.Helper()
		if _, err := s.CommitNoting(t.Context(), write(cidr), n); !errors.Is(err, want) {
			t.Errorf("%s with note %q: %v, want %v", cidr, n.Value, err, want)
		}
	}
	put(t, s, group("g", "10.0.0.0/8"))
	undo, gone := backend.Note{ID: "n", Value: []byte("undo")}, backend.Note{ID: "n"}
	commit(backend.ErrConflict, "10.1.0.0/16", gone) // it is not there
	is("10.0.0.0/8", 0)
	commit(nil, "10.2.0.0/16", undo)
	is("10.2.0.0/16", 1)
	commit(backend.ErrConflict, "10.3.0.0/16", undo) // it is there
	is("10.2.0.0/16", 1)
	commit(backend.ErrTooLarge, "10.3.0.0/16", backend.Note{ID: "m", Value: make([]byte, backend.MaxNoteBytes+1)})

	free := fill(t, dir, 20)
	commit(store.ErrNoSpace, "10.4.0.0/16", backend.Note{ID: "m", Value: []byte("undo")})
	commit(nil, "10.0.0.0/8", gone)
	is("10.0.0.0/8", 0)
	free()
}
