package record_test

import (
	"path/filepath"
	"testing"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
)

// Who goes on after an event that there was not yet, as when the data directory was restored from a copy, is told that something is
// missing, and gets what comes: it would hear nothing until the numbers are as high again.
func TestSubscribeAhead(t *testing.T) {
	for name, spooled := range map[string]bool{"memory": false, "spool": true} {
		for what, ahead := range map[string]func(*event.ID){
			"number": func(id *event.ID) { id.Sequence += 1000 },
			"run":    func(id *event.ID) { id.Epoch, id.Sequence = id.Epoch+3, id.Sequence+3<<36 },
			"most":   func(id *event.ID) { id.Sequence = 1<<63 - 1 },
		} {
			dir := t.TempDir()
			o := record.Options{DataDir: dir}
			if spooled {
				o.Spool = openSpool(t, spool.Options{Dir: filepath.Join(dir, "spool")})
			}
			r, _ := start(t, o)
			send(t, r, 5)
			kept := r.Recent(event.Filter{}).Items
			id, err := event.ParseID(kept[4].Event.ID)
			if err != nil {
				t.Fatal(err)
			}
			ahead(&id)
			ch, err := r.Subscribe(t.Context(), event.Filter{}, id.String())
			if err != nil {
				t.Fatal(err)
			}
			r.HandlePacketIn("br0", newSYN(ingressDrop))
			got := receive(t, ch, 7)
			if l := got[0].Tapwall.Loss; l == nil || l.Reason != "other_run" || got[1] != kept[0] || got[6].Tapwall.Verdict != event.Dropped {
				t.Errorf("%s, %s: %v", name, what, ids(got))
			}
		}
	}
}
