package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// diskSyncs returns how often etcd has synced its log and its database, in all members of this process.
func diskSyncs(t *testing.T) (log, database uint64) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		switch f.GetName() {
		case "etcd_disk_wal_fsync_duration_seconds":
			log = f.GetMetric()[0].GetHistogram().GetSampleCount()
			found++
		case "etcd_disk_backend_commit_duration_seconds":
			database = f.GetMetric()[0].GetHistogram().GetSampleCount()
			found++
		}
	}
	if found != 2 {
		t.Fatalf("%d of 2 metrics of etcd found", found)
	}
	return log, database
}

// A write is answered behind exactly one sync of the disk. That of the database, which nobody waits for, comes once a second at most.
func TestOneSyncPerWrite(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	write := map[string]func(i int) error{
		"a resource": func(i int) error {
			_, err := s.Commit(t.Context(), []backend.Change{{Kind: policy.KindGroup, Name: "g", Resource: group("g", fmt.Sprintf("10.0.%d.0/24",
				i&255))}})
			return err
		},
		"a hundred resources": func(i int) error {
			var changes []backend.Change
			for n := range 100 {
				name := fmt.Sprintf("g%d", n)
				changes = append(changes, backend.Change{Kind: policy.KindGroup, Name: name, Resource: group(name, fmt.Sprintf("10.0.%d.0/24", i&255))})
			}
			_, err := s.Commit(t.Context(), changes)
			return err
		},
		"the state of a host": func(i int) error {
			return s.PutStates(t.Context(), "h1", map[string][]byte{"a": fmt.Append(nil, i), "b": fmt.Append(nil, i)})
		},
	}
	for what, w := range write {
		if err := w(0); err != nil {
			t.Fatalf("%s: %v", what, err) // the first of a host looks for a journal
		}
	}
	start := time.Now()
	_, databaseBefore := diskSyncs(t)
	for i := 1; time.Since(start) < 1200*time.Millisecond; i++ {
		for what, w := range write {
			before, _ := diskSyncs(t)
			if err := w(i); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if after, _ := diskSyncs(t); after != before+1 {
				t.Fatalf("%s took %d syncs of the log, want 1", what, after-before)
			}
		}
	}
	_, database := diskSyncs(t)
	if most := uint64(time.Since(start)/time.Second) + 1; database-databaseBefore > most {
		t.Errorf("%d syncs of the database in %v, want %d at most", database-databaseBefore, time.Since(start), most)
	}
}
