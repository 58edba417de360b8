package wall

import (
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// SetGrace says whether the time of grace of guards goes on, in which those that nobody demanded only tell of what they would drop.
func (f *Firewall) SetGrace(on bool) {
	if on == f.grace {
		return
	}
	f.grace = on
	for key, e := range f.endpoints {
		if e.w.Guard != nil {
			f.dirtyEndpoints[key] = struct{}{}
		}
	}
}

// guardFlows puts an endpoint under its guard: flows are those of its MAC addresses.
func (f *Firewall) guardFlows(e *endpoint, cookie flow.Cookie, flows []flow.Flow) []flow.Flow {
	g := e.w.Guard
	if g == nil {
		return flows
	}
	pipeline.Guard(flows, e.id, g.Tells(f.grace))
	of := pipeline.Guarded{Endpoint: e.id, Addresses: g.Addresses, AnySource: g.AnySource, DHCPServer: e.w.DHCPServer, Router: e.w.Forwards}
	for _, s := range g.MACs {
		if mac, ok := parseMAC(s); ok {
			of.MACs = append(of.MACs, mac)
		}
	}
	return append(flows, pipeline.GuardFlows(cookie, of)...)
}
