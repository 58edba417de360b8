package record_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// TestIdentity: no id is ever given twice, whatever happens to the file.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "event-identity")
	var all []string
	run := func() event.ID {
		r, stop := start(t, record.Options{DataDir: dir})
		send(t, r, 2)
		items := ids(r.Recent(event.Filter{}).Items)
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
