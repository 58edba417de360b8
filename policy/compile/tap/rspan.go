package tap

import (
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// floods is the form of mirrors whose copies go to a VLAN.
var floods = Form{Because: "only a Mirror row of Open vSwitch copies to a VLAN"}

// flood compiles a mirror whose copies go to a VLAN: a Mirror row on each bridge with sources. Where several mirrors copy to one VLAN, Open
// vSwitch makes one copy for all of them. It copies nothing that is in that VLAN already, nor what goes to reserved addresses (STP, LLDP).
func (w *mirrorWork) flood(t *policy.RSPANTarget) {
	w.info.Targets = append(w.info.Targets, map[string]string{"vlan": strconv.Itoa(t.VLAN)})
	sources := w.sources()
	var on []*vswitch.Bridge
	for _, b := range w.bridges {
		s := sources[b.Name]
		if s == nil {
			continue
		}
		if len(s.entered) > 0 {
			w.problem(false, policy.ReasonPatchPort, "Open vSwitch copies nothing at the patch ports of bridge %s that are sources, and to a VLAN "+
				"only a Mirror row copies; name other ports, or deliver to a port", b.Name)
		}
		for _, name := range s.ports {
			if tag := b.Ports[name].Tag; tag != nil && *tag == t.VLAN && w.names(b, name, w.port(b, name).Workload) {
				w.faultAt("/spec/targets/0/rspan/vlan", policy.ReasonSourceCarriesTarget,
					"source %s of bridge %s is a port of VLAN %d, of which Open vSwitch copies nothing there", name, b.Name, t.VLAN)
			}
		}
		if len(s.ports) > 0 {
			on = append(on, b)
		}
	}
	if w.fatal() || len(on) == 0 {
		return
	}
	for _, b := range on {
		s := sources[b.Name]
		w.devices(b, s)
		spec := w.spec(b, s, vswitch.OutputSpec{})
		spec.OutputVLAN = t.VLAN
		w.plan.Specs = append(w.plan.Specs, spec)
		for _, port := range s.ports {
			w.info.Sources = append(w.info.Sources, b.Name+"/"+port)
		}
	}
	slices.Sort(w.info.Sources)
	w.once(on, sources)
	w.info.Sends = []Send{{Bridge: on[0].Name}}
}
