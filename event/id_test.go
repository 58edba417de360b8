package event_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/event"
)

func TestIDText(t *testing.T) {
	id := event.ID{Install: 0x9f3a21c4, Epoch: 1, Sequence: 5001327}
	if got, want := id.String(), "9f3a21c4-0001-000000004ok3f"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, s := range []string{
		"", "9f3a21c4", "9f3a21c4-0001-000000004ok3", "9f3a21c4-0001-000000004ok3ff", "9f3a21c4_0001-000000004ok3f",
		"9f3a21cx-0001-000000004ok3f", "9f3a21c4-000x-000000004ok3f", "9f3a21c4-0001-000000004ok3w", "9f3a21c4-0001-000000004OK3F",
		"9f3a21c4-0001-zzzzzzzzzzzzz", "9f3a21c4-0001-vvvvvvvvvvvvv", "+f3a21c4-0001-000000004ok3f",
	} {
		if id, err := event.ParseID(s); !errors.Is(err, event.ErrBadID) {
			t.Errorf("%q is taken for %+v", s, id)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		gen := func(label string) event.ID {
			return event.ID{Install: 7, Epoch: rapid.Uint16().Draw(rt, label+" epoch"), Sequence: rapid.Int64Min(0).Draw(rt, label+" seq")}
		}
		a, b := gen("a"), gen("b")
		got, err := event.ParseID(a.String())
		if err != nil || got != a {
			rt.Errorf("%v came back as %v, %v", a, got, err)
		}
		if lost, err := event.ParseID(a.String() + "-lost"); err != nil || lost != a {
			rt.Errorf("%v-lost came back as %v, %v", a, lost, err)
		}
		if a.Epoch == b.Epoch && (a.String() < b.String()) != (a.Sequence < b.Sequence) {
			rt.Errorf("%v and %v sort differently as text", a, b)
		}
	})
}
