package tap

import (
	"maps"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// A port that is there already is on a bridge of production. What the tap bridge delivers there goes back by a second pair of patch ports,
// and one flow of the production bridge hands it to the port and to nothing else. The returning port is the output of a Mirror row that
// selects nothing, so that NORMAL drops what comes there, whatever becomes of the flow. The port itself stays what it was: it is not
// reserved, so what its machine sends and gets goes on as ever.

// Names of the ports of a way back, each at most 15 bytes with what follows.
const (
	backPrefix   = "twb-" // patch port on the tap bridge
	returnPrefix = "twr-" // its peer on the bridge of the target
)

// wayPriority is that of the flow of a way back in table 0: above everything but what a bridge drops for good, as Neutron's agent does with
// dead ports at 65535.
const wayPriority = 65534

// wayMark is what copies on a way back bear in pkt_mark, above the bytes that they are to be cut to: production packets never match the
// flow, even if the number of the port came to be another port's. It is also how mirrors that cut differently share a way, as patch ports
// cannot cut.
const wayMark = uint64(pipeline.ControllerID) << 16

// Way is a way back.
type Way struct {
	Bridge string // of the target
	Owner  string // of the flows there
}

// way is a way back that is being planned.
type way struct {
	bridge *vswitch.Bridge
	port   string
	cuts   map[int]struct{} // what its mirrors cut to, 0 = nothing
}

// wayKey names the way back to a port, in 10 digits.
func wayKey(bridge, port string) string {
	return hashed(bridge+" "+port, keyBytes)
}

// local finds the port that a target names, without making it. bad says why it cannot be the target; then the bridge may be nil.
func (p *mirrorPlanner) local(m *policy.Mirror, t *policy.MirrorTarget) (at *vswitch.Bridge, port string, bad *Problem) {
	if t.VM != "" {
		at, port, bad = p.portOf(t.VM)
	} else {
		port = t.Port.Name
		if bridge := p.bridgeOf(port); bridge != "" {
			at = p.in.Topology.Bridges[bridge]
		} else {
			bad = problemf(policy.ReasonTargetMissing, "no managed bridge of this host has a port %s; create: true would make it", port)
		}
	}
	if bad == nil {
		bad = p.unfit(m, at, port)
	}
	return at, port, bad
}

// portOf finds the port of a machine.
func (p *mirrorPlanner) portOf(vm string) (at *vswitch.Bridge, port string, bad *Problem) {
	is := policy.Selector{VM: vm}
	var found []*inventory.Port
	for _, b := range p.bridges {
		for _, name := range portNames(b) {
			if x := p.port(b, name); x.Workload != nil && is.MatchesWorkload(x.Workload) {
				found = append(found, x)
			}
		}
	}
	if live := slices.DeleteFunc(slices.Clone(found), func(x *inventory.Port) bool { return !x.HasDevice() }); len(live) > 0 {
		found = live
	}
	switch len(found) {
	case 0:
		return nil, "", problemf(policy.ReasonTargetMissing, "no managed bridge of this host has a port of the machine %s", vm)
	case 1:
		return p.in.Topology.Bridges[found[0].Bridge], found[0].Name, nil
	}
	names := make([]string, 0, len(found))
	for _, x := range found {
		names = append(names, x.Bridge+"/"+x.Name)
	}
	return nil, "", problemf(policy.ReasonTargetAmbiguous, "the machine %s has %d ports (%s); name one of them as port, with force: true", vm,
		len(found), strings.Join(names, ", "))
}

// unfit says why copies may not be delivered to a port of a bridge; nil = they may.
func (p *mirrorPlanner) unfit(m *policy.Mirror, b *vswitch.Bridge, name string) *Problem {
	refuse := func(format string, args ...any) *Problem {
		return problemf(policy.ReasonOutputPortTaken, format, args...)
	}
	x := p.port(b, name)
	foreign := slices.IndexFunc(b.Mirrors, func(row *vswitch.Mirror) bool {
		return row.OutputPort == name && row.ExternalIDs[vswitch.MarkOwner] != vswitch.OwnerValue
	})
	switch {
	case name == b.Name:
		return refuse("port %s is the bridge's own (LOCAL), where the host itself would get the copies", name)
	case x.Kind == inventory.KindTap:
		return refuse("port %s of bridge %s was made by tapwall; to share it with the mirror that it was made for, write create: true "+
			"in both, and a filter", name, b.Name)
	case x.Kind == inventory.KindPatch:
		return refuse("port %s leads from bridge %s to another one, which would switch the copies as traffic", name, b.Name)
	case x.Kind == inventory.KindTunnel:
		return refuse("port %s of bridge %s is a tunnel, where the copies would be taken for traffic; name the collector instead of it: "+
			"vxlan: {remote: …}", name, b.Name)
	case p.in.Addressed[name]:
		return refuse("port %s of bridge %s has an address of this host, which would take the copies for traffic to it", name, b.Name)
	case p.uplink(x):
		return refuse("port %s leads from bridge %s to the network, which would switch the copies as traffic", name, b.Name)
	case foreign >= 0:
		return refuse("port %s is the output of mirror %s, which is not tapwall's: Open vSwitch reserves the port for it", name,
			b.Mirrors[foreign].Name)
	case (x.Workload != nil || x.Kind == inventory.KindEndpoint) && !m.Spec.Force:
		whose := name
		if x.Workload != nil {
			whose = x.Workload.Key
		}
		return refuse("port %s of bridge %s belongs to a machine, endpoint %s, which would see what the mirror copies; if it is to, write "+
			"force: true", name, b.Name, whose)
	}
	return nil
}

// uplink reports whether a bridge reaches the network by a port: a bond, the device that a collector is reached by, or the only hardware of
// the bridge. Of several network cards one may well lead to a sensor and nowhere else, so who names it is believed.
func (p *mirrorPlanner) uplink(x *inventory.Port) bool {
	if x.Kind != inventory.KindUplink {
		return false
	}
	for _, way := range p.in.Routes {
		if way.Device == x.Name {
			return true
		}
	}
	hardware := 0
	for _, other := range p.in.Inventory.On(x.Host, x.Bridge) {
		if other.Kind == inventory.KindUplink && p.in.Hardware[other.Name] {
			hardware++
		}
	}
	return len(x.Interfaces) > 1 || hardware == 1 && p.in.Hardware[x.Name]
}

// findReceivers notes the ports that ways lead back to, with the mirrors that deliver there. What such a port gets may be a copy, which
// must not be copied again: see bridgeSources.
func (p *mirrorPlanner) findReceivers(works []*mirrorWork, are func(*mirrorWork) bool) {
	p.receivers = map[string]map[string][]string{}
	for _, w := range works {
		if !are(w) {
			continue
		}
		m := w.m
		for i := range m.Spec.Targets {
			t := &m.Spec.Targets[i]
			if !t.There() {
				continue
			}
			at, port, bad := p.local(m, t)
			if bad != nil {
				continue
			}
			if p.receivers[at.Name] == nil {
				p.receivers[at.Name] = map[string][]string{}
			}
			p.receivers[at.Name][port] = append(p.receivers[at.Name][port], m.Name)
		}
	}
}

// existing returns a target that is there already. Why it cannot be had is in its field bad.
func (w *mirrorWork) existing(of *policy.MirrorTarget) (t mirrorTarget, bridge string) {
	t.at, t.spec.Port, t.bad = w.local(w.m, of)
	t.vm, t.identity.port = of.VM, t.spec.Port
	if t.at != nil {
		bridge = t.at.Name
	}
	return t, bridge
}

// goBack plans the way back to a target, for copies of so many bytes, and returns the number of the port of the tap bridge that it begins
// at; 0 = it does not stand yet.
func (w *mirrorWork) goBack(tapBridge string, t mirrorTarget, snaplen int) int64 {
	key := wayKey(t.at.Name, t.spec.Port)
	x := w.ways[key]
	if x == nil {
		x = &way{bridge: t.at, port: t.spec.Port, cuts: map[int]struct{}{}}
		w.ways[key] = x
	}
	x.cuts[snaplen] = struct{}{}
	w.info.Ways = append(w.info.Ways, Way{t.at.Name, targetOwner(t.spec.Port)})
	if !w.in.Open[key] {
		return 0
	}
	return w.ofPort(tapBridge, backPrefix+key)
}

// finishWays makes the ways back: for each a pair of patch ports, the row that reserves the returning one, and, when both stand, the flows
// behind it.
func (p *mirrorPlanner) finishWays() {
	for _, key := range slices.Sorted(maps.Keys(p.ways)) {
		x := p.ways[key]
		owner, in := targetOwner(x.port), returnPrefix+key
		p.patch(owner, tapBridgeOf(x.bridge.DatapathType), backPrefix+key, x.bridge.Name, in)
		p.plan.Specs = append(p.plan.Specs, vswitch.MirrorSpec{Owner: owner, Bridge: x.bridge.Name, Name: mirrorRowPrefix + key,
			Output: vswitch.OutputSpec{Port: in}})
		if p.plan.Ways == nil {
			p.plan.Ways = map[string]Way{}
		}
		p.plan.Ways[key] = Way{x.bridge.Name, owner}
		reserved := slices.ContainsFunc(x.bridge.Mirrors, func(m *vswitch.Mirror) bool {
			return m.ExternalIDs[vswitch.MarkMirror] == owner && m.OutputPort == in
		})
		from, to := p.ofPort(x.bridge.Name, in), p.ofPort(x.bridge.Name, x.port)
		if reserved && from > 0 && to > 0 {
			p.addFlows(x.bridge.Name, owner, wayFlows(from, to, slices.Sorted(maps.Keys(x.cuts))))
		}
	}
}

// wayFlows hand what comes back to the target, and to nothing else: it is not switched, learned from, or seen by a wall. The mark is taken
// off before, because a device of the host would keep it.
func wayFlows(from, to int64, cuts []int) []flow.Flow {
	var out []flow.Flow
	for _, n := range cuts {
		var send flow.Action = flow.Output{Port: uint32(to)}
		if n > 0 {
			send = flow.OutputTrunc{Port: uint32(to), MaxLen: uint32(n)}
		}
		out = append(out, flow.Flow{Table: pipeline.TableEntry, Priority: wayPriority, Cookie: system(pipeline.TableEntry),
			Match:   flow.Match{}.With(flow.InPort, flow.U64(uint64(from))).With(flow.PktMark, flow.U64(wayMark|uint64(n))),
			Actions: []flow.Action{markAs(0), send}})
	}
	return out
}

func markAs(n uint64) flow.Action { return flow.Set(flow.PktMark, flow.U64(n)) }

// onWay are the actions that send copies on ways back.
func onWay(ports []int64, snaplen int) []flow.Action {
	if len(ports) == 0 {
		return nil
	}
	out := []flow.Action{markAs(wayMark | uint64(snaplen))}
	for _, p := range ports {
		out = append(out, flow.Output{Port: uint32(p)})
	}
	return out
}

// receiver takes a source that mirrors deliver to. Where that is this mirror, or only what the port gets was asked for, it is left out.
func (w *mirrorWork) receiver(s *bridgeSources, b *vswitch.Bridge, name string, wl *policy.Workload) {
	by := w.receivers[b.Name][name]
	own := slices.Contains(by, w.m.Name)
	switch {
	case own && w.namesOne(b, name, wl):
		w.problem(true, policy.ReasonSourceCarriesTarget, "port %s of bridge %s is source and target", name, b.Name)
	case own:
		w.warn(policy.Warning{Code: WarnTargetExcluded, Message: "port " + name + " of bridge " + b.Name +
			" is the target and no source: the mirror would copy its own copies"})
	default:
		w.warn(policy.Warning{Code: WarnTargetExcluded, Message: "what port " + name + " of bridge " + b.Name +
			" gets is not copied, because mirror " + strings.Join(by, ", ") + " delivers copies there"})
		if w.m.Spec.Direction != policy.MirrorToSource {
			s.ports, s.deaf = append(s.ports, name), append(s.deaf, name)
		}
	}
}

// namesOne reports whether a source means the port and no other.
func (w *mirrorWork) namesOne(b *vswitch.Bridge, port string, wl *policy.Workload) bool {
	return slices.ContainsFunc(w.m.Spec.Sources, func(s policy.Selector) bool {
		switch s.Kind() {
		case policy.SelectPort, policy.SelectVM, policy.SelectNeutronPort, policy.SelectMAC:
			return w.selects(&s, b, port, wl)
		}
		return false
	})
}

// refuse notes why targets cannot be had. all: nothing is left to deliver to.
func (w *mirrorWork) refuse(all bool, bad ...*Problem) {
	for _, p := range bad {
		if p != nil {
			p.Fatal = all
			w.info.Problems = append(w.info.Problems, *p)
		}
	}
}

// unreachable says why a target on a production bridge cannot be delivered to from where the sources are; nil = it can.
func (w *mirrorWork) unreachable(t mirrorTarget, on []*vswitch.Bridge) *Problem {
	if t.at == nil || len(on) == 0 || tapBridgeOf(t.at.DatapathType) == tapBridgeOf(on[0].DatapathType) {
		return nil
	}
	return problemf(policy.ReasonTargetOnOtherBridge,
		"port %s is on bridge %s, which has another datapath_type than bridge %s of the sources, and copies do not pass from one to the other",
		t.spec.Port, t.at.Name, on[0].Name)
}
