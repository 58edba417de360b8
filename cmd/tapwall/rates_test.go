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

// What a mirror has counted is said in words, and of what did not happen only what always may.
func TestCopiedText(t *testing.T) {
	for _, c := range []struct {
		counters map[string]int64
		want     string
	}{
		{map[string]int64{"selectedPackets": 1, "selectedBytes": 98, "acceptedPackets": 1, "sentPackets": 1},
			"1 packet selected (98B): 1 accepted, 0 rejected; 1 copy sent"},
		{map[string]int64{"selectedPackets": 90, "selectedBytes": 9000, "acceptedPackets": 80, "rejectedPackets": 10, "sampledOutPackets": 5,
			"rateDroppedPackets": 15, "sentPackets": 120, "cutPackets": 30,
			"sinkDroppedPackets": 2},
			"90 packets selected (9.00kB): 80 accepted, 10 rejected, 5 of sessions that are not taken, 15 over the limit; 120 copies sent, " +
				"30 cut, 2 lost at the targets"},
	} {
		if got := copiedText(c.counters); got != c.want {
			t.Errorf("%v: %q, want %q", c.counters, got, c.want)
		}
	}
}
