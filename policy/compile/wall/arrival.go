package wall

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// SetArrivals replaces the keys of the workloads that have a pickup window of their own. It changes the flows by which they are recognised.
func (f *Firewall) SetArrivals(keys []string) {
	now := map[string]struct{}{}
	for _, key := range keys {
		now[key] = struct{}{}
	}
	for key := range now {
		if _, was := f.arriving[key]; !was {
			f.dirtyEndpoints[key] = struct{}{}
		}
	}
	for key := range f.arriving {
		if _, still := now[key]; !still {
			f.dirtyEndpoints[key] = struct{}{}
		}
	}
	f.arriving = now
}

// noteArrival has Compile tell of a workload of the bridge whose port was not there. One that was there under another key, or whose id
// changes, does not arrive, and neither do those that the first Compile finds unless an earlier run knew others.
func (f *Firewall) noteArrival(key string, w *policy.Workload, before map[string]*policy.Workload) {
	old := before[key]
	arrives := false
	switch {
	case w.OFPort == 0:
	case old != nil && f.here(old):
		arrives = old.OFPort == 0
	case !f.compiled:
		_, known := f.imported.Endpoints[key]
		arrives = !known && len(f.imported.Endpoints) > 0
	default:
		arrives = true
		for _, o := range before {
			arrives = arrives && (o.OFPort != w.OFPort || !f.here(o))
		}
	}
	if arrives {
		f.arrived[key] = struct{}{}
	}
}

// takeArrived returns the keys of the endpoints that have arrived since it was last called.
func (f *Firewall) takeArrived() []string {
	maps.DeleteFunc(f.arrived, func(key string, _ struct{}) bool { return f.endpoints[key] == nil })
	keys := slices.Sorted(maps.Keys(f.arrived))
	clear(f.arrived)
	return keys
}

// arrivals reports whether an endpoint has a pickup window of its own.
func (f *Firewall) arrivals() bool {
	for key := range f.arriving {
		if f.endpoints[key] != nil {
			return true
		}
	}
	return false
}
