package event_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
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

// TestIdentity: no id is ever given twice, whatever happens to the file.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "event-identity")
	var all []string
	run := func() event.ID {
		r, stop := start(t, event.Options{DataDir: dir})
		send(t, r, 2)
		items := ids(r.Query(event.Filter{}).Items)
		stop()
		all = append(all, items...)
		id, err := event.ParseID(items[0])
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := run()
	if second := run(); second.Install != first.Install || second.Epoch != first.Epoch+1 || second.Sequence <= first.Sequence {
		t.Errorf("%v follows %v", second, first)
	}
	if err := os.WriteFile(file, []byte("00000000 garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if third := run(); third.Install == first.Install {
		t.Errorf("after the file was spoilt %v follows %v", third, first)
	}
	if err := os.WriteFile(file, []byte("9f3a21c4 ffff\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fourth := run(); fourth.Install == 0x9f3a21c4 || fourth.Epoch != 1 {
		t.Errorf("after the last epoch comes %v", fourth)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil { // neither readable nor writable as a file, for root too
		t.Fatal(err)
	}
	a, b := run(), run()
	if a.Install == b.Install {
		t.Errorf("without a file %v follows %v", b, a)
	}
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 12 {
		t.Errorf("%d different ids, want 12", n)
	}
}
