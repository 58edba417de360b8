package main

import (
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

func TestRates(t *testing.T) {
	k := kinds()[3]
	at := time.Unix(1000, 0)
	look := func(r *rates, after time.Duration, counters ...map[string]int64) []string {
		d := &client.Document{}
		d.Name = "m"
		for _, c := range counters {
			d.Status.Hosts = append(d.Status.Hosts, policy.HostStatus{Counters: c})
		}
		items := []item{{kind: k, name: "m", document: d, rows: [][]string{{"m"}}}}
		r.add(items, at.Add(after))
		return items[0].rows[0]
	}
	var r rates
	for i, x := range []struct {
		after time.Duration
		hosts []map[string]int64
		want  []string
	}{
		{0, []map[string]int64{{"selectedPackets": 10, "selectedBytes": 1000}}, []string{"m", "-", "-"}},
		{2 * time.Second, []map[string]int64{{"selectedPackets": 14, "selectedBytes": 4000}}, []string{"m", "2 p/s, 1.50kB/s", "-"}},
		// It became a filtered one, and another host has it too.
		{4 * time.Second, []map[string]int64{{"selectedPackets": 99, "acceptedPackets": 20, "acceptedBytes": 5000, "sentPackets": 7},
			{"acceptedPackets": 24_686, "acceptedBytes": 99_000_000, "sentPackets": 3}}, []string{"m", "12.3k p/s, 49.5MB/s", "5 p/s"}},
		{6 * time.Second, []map[string]int64{{"acceptedPackets": 0}}, []string{"m", "0 p/s, 0B/s", "-"}}, // a host is away
		{6 * time.Second, []map[string]int64{{"acceptedPackets": 9}}, []string{"m", "-", "-"}},
	} {
		if got := look(&r, x.after, x.hosts...); !slices.Equal(got, x.want) {
			t.Errorf("look %d: %q, want %q", i, got, x.want)
		}
	}
}
