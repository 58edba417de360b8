package wall

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// MaxStrays bounds the addresses of one endpoint that Firewall.SetStrays takes. An endpoint that has so many is not watched for more.
const MaxStrays = 16

// Stray is an address that was seen behind the port of an endpoint that does not declare it.
type Stray struct {
	MAC  string // lower-case colon form, unicast
	VLAN int    // in which it was seen, 0 = untagged
	// Bound: what is sent to it is judged as sent to the endpoint, unless the endpoint drops what it does not declare. No two endpoints
	// may have the same address bound in a VLAN.
	Bound bool
}

// SetStrays replaces the strays of all endpoints, by workload key. Keys that are no endpoint of the bridge mean nothing. The slices are
// immutable.
func (f *Firewall) SetStrays(strays map[string][]Stray) {
	for key := range f.strays {
		if _, still := strays[key]; !still {
			f.dirtyEndpoints[key] = struct{}{}
		}
	}
	for key, now := range strays {
		if !slices.Equal(now, f.strays[key]) {
			f.dirtyEndpoints[key] = struct{}{}
		}
	}
	f.strays = maps.Clone(strays)
}

// Strays returns what SetStrays set. It is immutable.
func (f *Firewall) Strays() map[string][]Stray { return f.strays }

// macs are the addresses that the endpoint declares.
func macs(w *policy.Workload) []string {
	if w.MAC == "" {
		return nil
	}
	return append([]string{w.MAC}, w.MACs...)
}

// macFlows returns the flows by which the endpoint's own addresses are told from others, as sender and as receiver.
func (f *Firewall) macFlows(key string, e *endpoint, cookie flow.Cookie) []flow.Flow {
	own := macs(e.w)
	if len(own) == 0 {
		return f.guardFlows(e, cookie, []flow.Flow{pipeline.UnknownMAC(cookie, e.id, false, false)})
	}
	var out []flow.Flow
	drop := e.w.DropsUnknownMAC(f.grace)
	for _, s := range own {
		mac, ok := parseMAC(s)
		if !ok {
			continue
		}
		out = append(out, pipeline.OwnMAC(cookie, e.id, mac))
		if f.places[place{e.w.VLAN, s}][0] == key {
			out = append(out, destination(f.opt.BridgeIndex, cookie, e.identity(), mac, e.w.VLAN))
		}
	}
	strays := f.strays[key]
	for _, s := range strays {
		mac, ok := parseMAC(s.MAC)
		zone, err := pipeline.Zone(f.opt.BridgeIndex, s.VLAN)
		if !ok || err != nil {
			continue
		}
		out = append(out, pipeline.StrayMAC(cookie, e.id, zone, mac, drop))
		if s.Bound && !drop {
			out = append(out, pipeline.BindMAC(cookie, e.identity(), zone, mac), pipeline.WatchMAC(cookie, zone, mac))
		}
	}
	if full := len(strays) >= MaxStrays; full || drop || e.w.Guard != nil {
		out = append(out, pipeline.UnknownMAC(cookie, e.id, !full, drop))
	}
	return f.guardFlows(e, cookie, out)
}
