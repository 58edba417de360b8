// Bench measures the budgets of the design on this machine. Absolute times mean little on a shared machine, so every line is a ratio to
// a peer or to a limit that is measured in the same run, or a figure against a fixed budget. `make bench` prints the lines;
// docs/benchmarks.md keeps those that were measured once.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// line is one measurement.
type line struct {
	what   string
	figure string
	budget string
	ok     bool
	was    string // before rules were compiled by classes, and what OVN needed then; "" where that is not known
}

// atMost is a line that is judged by a value; a limit of 0 is none. more is what else the budget asks for.
func atMost[T int | time.Duration](what, figure, was string, value, limit T, more ...string) line {
	if limit == 0 {
		return line{what, figure, "-", true, was}
	}
	return line{what, figure, strings.Join(append(more, fmt.Sprintf("<= %v", limit)), ", "), value <= limit, was}
}

// and judges by one thing more.
func (l line) and(ok bool) line {
	l.ok = l.ok && ok
	return l
}

func main() {
	rounds := flag.Int("rounds", minRounds, "pairs of rounds of the throughput benchmarks")
	flag.BoolVar(&quick, "quick", false, "small sizes and few rounds, to see that the benchmarks work; nothing is judged")
	benchmarks := []struct {
		name string
		run  func() ([]line, error)
	}{
		{"throughput", func() ([]line, error) { return benchThroughput(byHand, *rounds) }},
		{"normal", func() ([]line, error) { return benchThroughput(byNormal, *rounds) }},
		{"ovn", func() ([]line, error) { return benchThroughput(byOVN, *rounds) }},
		{"bundle", benchBundle}, {"put", benchPut}, {"restart", benchRestart}, {"revoke", benchRevoke}, {"replace", benchReplace},
		{"events", benchEvents}, {"query", benchQuery}, {"export", benchExport}, {"recipe", benchRecipe},
		{"footprint", benchFootprint}, {"bulk", benchBulk},
		{"classes", benchClasses}, {"worst", benchWorst}, {"rules", benchRules}, {"member", benchMember}, {"feed", benchFeed},
		{"first", benchFirst},
		{"mirror", func() ([]line, error) { return benchMirror(*rounds) }}, {"tap", benchTap}, {"sets", benchSets},
		{"capture", func() ([]line, error) { return benchCapture(*rounds) }},
		{"record", func() ([]line, error) { return benchRecord(*rounds) }},
	}
	var names []string
	for _, b := range benchmarks {
		names = append(names, b.name)
	}
	only := flag.String("rows", "", "only the benchmarks of these names, separated by commas: "+strings.Join(names, ", "))
	flag.Parse()
	missed := 0
	for _, b := range benchmarks {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), b.name) {
			continue
		}
		start := time.Now()
		lines, err := b.run()
		for _, l := range lines {
			verdict := "ok"
			switch {
			case quick:
				verdict = "quick"
			case l.budget == "-":
				verdict = "-"
			case !l.ok:
				verdict = "MISSED"
				missed++
			}
			was := ""
			if l.was != "" {
				was = "was " + l.was
			}
			fmt.Printf("%-10s %-52s %-58s %-28s budget %-28s %s\n", b.name, l.what, l.figure, was, l.budget, verdict)
		}
		if errors.Is(err, errNoOVN) {
			fmt.Printf("%-10s left out: %v\n", b.name, err)
		} else if err != nil {
			fmt.Printf("%-10s FAILED: %v\n", b.name, err)
			missed++
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
