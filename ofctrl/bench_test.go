package ofctrl_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
)

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

// BenchmarkInstallAgainstOfctl installs the same 100,000 flows in one bundle by turns with ovs-ofctl and with a Switch, each
// from its start to the answer to its commit, and reports the medians and their ratio.
func BenchmarkInstallAgainstOfctl(b *testing.B) {
	const n = 100_000
	o := startOVS(b)
	fs := flows(n)
	var text strings.Builder
	for i := range fs {
		text.WriteString(fs[i].String() + "\n")
	}
	file := filepath.Join(b.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	update := ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": fs}}
	check := func() {
		if got := o.Ofctl("dump-aggregate", "br0"); !strings.Contains(got, fmt.Sprintf("flow_count=%d", n)) {
			b.Fatalf("want %d flows, got %s", n, got)
		}
		o.Ofctl("del-flows", "br0")
	}
	var theirs, ours []time.Duration
	for b.Loop() {
		start := time.Now()
		o.Ofctl("--bundle", "add-flows", "br0", file)
		theirs = append(theirs, time.Since(start))
		check()

		runtime.GC()
		start = time.Now()
		s := run(b, options(o.MgmtAddr("br0")))
		s.ready()
		if res := s.apply(update); res.Added != n {
			b.Fatalf("result %+v", res)
		}
		ours = append(ours, time.Since(start))
		s.end()
		check()
	}
	b.ReportMetric(float64(median(theirs).Milliseconds()), "ofctl-ms")
	b.ReportMetric(float64(median(ours).Milliseconds()), "tapwall-ms")
	b.ReportMetric(float64(median(ours))/float64(median(theirs)), "ratio")
}

// BenchmarkOneFlow changes the actions of one flow beside many others.
func BenchmarkOneFlow(b *testing.B) {
	for _, n := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := startOVS(b)
			s := run(b, options(o.MgmtAddr("br0")))
			s.ready()
			s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"rest": flows(n)}})
			var ds []time.Duration
			i := 0
			for b.Loop() {
				i++
				f := flow.Flow{Table: 206, Cookie: testCookie, Actions: []flow.Action{flow.Output{Port: uint32(1 + i%2)}}}
				start := time.Now()
				if res := s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"one": {f}}}); res.Bundles != 1 {
					b.Fatalf("result %+v", res)
				}
				ds = append(ds, time.Since(start))
			}
			slices.Sort(ds)
			b.ReportMetric(float64(ds[len(ds)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(ds[len(ds)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkRestart connects to a switch that has the 100,000 desired flows already, and finds nothing to do.
func BenchmarkRestart(b *testing.B) {
	o := startOVS(b)
	update := ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(100_000)}}
	s := run(b, options(o.MgmtAddr("br0")))
	s.ready()
	s.apply(update)
	s.end()
	var ready []time.Duration
	for b.Loop() {
		start := time.Now()
		s := run(b, options(o.MgmtAddr("br0")))
		s.ready()
		ready = append(ready, time.Since(start))
		if res := s.apply(update); res != (ofctrl.Result{Installed: 1}) {
			b.Fatalf("result %+v", res)
		}
		b.StopTimer()
		s.end()
		b.StartTimer()
	}
	b.ReportMetric(float64(median(ready).Milliseconds()), "read-back-ms")
}

// BenchmarkMemory reports what a Switch with 100,000 installed flows holds beside the flows themselves, which are its
// owner's.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	o := startOVS(b)
	fs := flows(n)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		s := run(b, options(o.MgmtAddr("br0")))
		s.ready()
		s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": fs}})
		b.ReportMetric(float64(heap()-before)/n, "B/flow")
		s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": nil}})
		s.end()
	}
	runtime.KeepAlive(fs)
}
