package ovsdb_test

import (
	"errors"
	"testing"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
)

// Who loses the connection asks at once whether the lock is another's. That takes no longer than it has to, where the server is down.
func TestLockAsking(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	l, _ := runLock(t, o.Address())
	awaitHeld(t, l)
	if l.Asking() {
		t.Error("asking while it is held")
	}
	o.KillDB()
	awaitLock(t, l, "refused", func(err error) bool { return errors.Is(err, ovsdb.ErrNotConnected) && !l.Asking() })
}
