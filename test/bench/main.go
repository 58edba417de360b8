// Bench measures the budgets of the design on this machine. Absolute times mean little on a shared machine, so every line is a ratio to
// a peer or to a limit that is measured in the same run, or a figure against a fixed budget. `make bench` prints the lines;
// docs/benchmarks.md keeps those that were measured once.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
)

// line is one measurement.
type line struct {
	what   string
	figure string
	budget string
	ok     bool
}

func main() {
	only := flag.String("rows", "", "only the benchmark of this name: throughput, bundle, put, restart, revoke, events, footprint, bulk")
	rounds := flag.Int("rounds", minRounds, "pairs of rounds of the throughput benchmark")
	flag.Parse()
	benchmarks := []struct {
		name string
		run  func() ([]line, error)
	}{
		{"throughput", func() ([]line, error) { return benchThroughput(*rounds) }},
		{"bundle", benchBundle}, {"put", benchPut}, {"restart", benchRestart}, {"revoke", benchRevoke}, {"events", benchEvents},
		{"footprint", benchFootprint},
		{"bulk", benchBulk},
	}
	missed := 0
	for _, b := range benchmarks {
		if *only != "" && b.name != *only {
			continue
		}
		start := time.Now()
		lines, err := b.run()
		if err != nil {
			fmt.Printf("%-10s FAILED: %v\n", b.name, err)
			missed++
			continue
		}
		for _, l := range lines {
			verdict := "ok"
			if !l.ok {
				verdict = "MISSED"
				missed++
			}
			fmt.Printf("%-10s %-52s %-58s budget %-28s %s\n", b.name, l.what, l.figure, l.budget, verdict)
		}
		fmt.Fprintf(os.Stderr, "(%s took %v)\n", b.name, time.Since(start).Round(time.Second))
	}
	if missed > 0 {
		os.Exit(1)
	}
}

// quantile returns the q-quantile (0..1) of durations.
func quantile(ds []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func median(ds []time.Duration) time.Duration { return quantile(ds, 0.5) }
