package tap

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// A staged mirror is made where a Mirror row does not suffice: the row copies to a patch port, behind which a bridge of our own filters and
// delivers. Mirrors with the same sources share the row and the ports: see sourceSet. docs/design/0013-staged-mirrors.md has the reasons.

// Names of what is made for staged mirrors, each at most 15 bytes with what follows.
const (
	tapBridgePrefix = "tw-tap-" // the datapath type follows
	outPrefix       = "tws-"    // patch port on the sources' bridge
	inPrefix        = "twt-"    // its peer on the tap bridge
)

// TapOwner is whom a tap bridge is for.
const TapOwner = "taps"

// tapBridgeOf names the tap bridge for a datapath type.
func tapBridgeOf(datapathType string) string {
	name := tapBridgePrefix + vswitch.DatapathName(datapathType)
	return name[:min(len(name), policy.MaxPortNameLength)]
}

// sourceSet is what one Mirror row copies for staged mirrors: the sources that some of them name on one bridge, in one direction or both.
type sourceSet struct {
	bridge  *vswitch.Bridge
	key     string // of the sources as written, so that a set stays itself when machines come and go
	row     vswitch.MirrorSpec
	names   []string // of the mirrors
	members []member
}

func (s *sourceSet) owner() string { return "sources/" + s.key }

// staged reports whether the mirror takes more than a Mirror row. It depends on nothing but the mirror, so that no mirror changes its form,
// and with it the place of its target, because another one comes or goes.
func staged(m *policy.Mirror) bool { return m.Spec.Filter != nil || m.Spec.Snaplen > 0 }

// setKey names the source set of a mirror on a bridge, in 10 digits.
func setKey(bridge string, s *policy.MirrorSpec, direction string) string {
	canonical := func(in []policy.Selector) []string {
		var out []string
		for i := range in {
			text, err := json.Marshal(in[i])
			if err != nil {
				panic(err) // texts and numbers only
			}
			out = append(out, string(text))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	text, err := json.Marshal([]any{bridge, direction, canonical(s.Sources), canonical(s.Exclude)})
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:5])
}

// takeNumbers gives each staged mirror a number of its own, even and not 0: from the hash of its name, or the next one.
func (p *mirrorPlanner) takeNumbers(mirrors []*policy.Mirror) {
	p.numbers = map[string]uint32{}
	used := map[uint32]bool{0: true}
	for _, m := range mirrors {
		if !staged(m) {
			continue
		}
		sum := sha256.Sum256([]byte(m.Name))
		n := binary.BigEndian.Uint32(sum[:]) &^ 1
		for used[n] {
			n += 2
		}
		used[n], p.numbers[m.Name] = true, n
		if p.plan.Numbers == nil {
			p.plan.Numbers = map[uint32]string{}
		}
		p.plan.Numbers[n] = m.Name
	}
}

// stage compiles a staged mirror.
func (w *mirrorWork) stage() {
	sources := w.sources()
	target, where := w.target()
	var on []*vswitch.Bridge
	for _, b := range w.bridges {
		if sources[b.Name] != nil {
			on = append(on, b)
		}
	}
	if len(on) == 0 || w.fatal() {
		w.report(target, nil)
		return
	}
	tapBridge := tapBridgeOf(on[0].DatapathType)
	w.reach(target, where, tapBridge)
	for _, b := range on {
		w.guard(b, sources[b.Name], target)
	}
	if w.share(target); w.fatal() {
		w.report(target, nil)
		return
	}
	var elsewhere []string
	for _, b := range on {
		if tapBridgeOf(b.DatapathType) != tapBridge {
			elsewhere = append(elsewhere, b.Name)
			continue
		}
		w.devices(b, sources[b.Name], vswitch.OutputSpec{})
		w.join(b, sources[b.Name])
		for _, port := range sources[b.Name].ports {
			w.info.Sources = append(w.info.Sources, b.Name+"/"+port)
		}
	}
	if len(elsewhere) > 0 {
		w.problem(false, policy.ReasonTargetOnOtherBridge,
			"bridge %s has another datapath_type than bridge %s, and copies do not pass from one to "+
				"the other; make a mirror for each", strings.Join(elsewhere, ", "), on[0].Name)
	}
	w.deliver(tapBridge, target)
	w.info.Through = tapBridge
	w.report(target, &vswitch.Bridge{Name: tapBridge})
}

// reach refuses targets that are out of reach of a tap bridge.
func (w *mirrorWork) reach(t mirrorTarget, where, tapBridge string) {
	if !t.spec.Create && where != tapBridge {
		w.problem(true, policy.ReasonTargetOnOtherBridge,
			"port %s is on bridge %s, where Open vSwitch can copy to it and not filter; write create: "+
				"true and another name for a port on bridge %s, or leave the filter out", t.spec.Port, where, tapBridge)
	}
}

// share takes the target, which other staged mirrors may have too.
func (w *mirrorWork) share(t mirrorTarget) {
	if w.fatal() {
		return
	}
	by, taken := w.taken[t.identity]
	if taken && !w.isStaged[by] {
		w.problem(true, policy.ReasonOutputShared,
			"mirror %s already delivers there without a filter, and Open vSwitch reserves the port for it; "+
				"choose another port or vni, or give that mirror filter: {default: accept}", by)
		return
	}
	w.taken[t.identity], w.isStaged[w.m.Name] = w.m.Name, true
}

// join adds the mirror to its source sets on a bridge: one for each direction if a rule asks for it.
func (w *mirrorWork) join(b *vswitch.Bridge, s *bridgeSources) {
	ways := []string{w.m.Spec.Direction}
	if both := ways[0] == "" || ways[0] == policy.MirrorBoth; both {
		ways[0] = policy.MirrorBoth
		if w.m.Spec.Filter.AsksForDirection() {
			ways = []string{policy.MirrorFromSource, policy.MirrorToSource}
			if len(s.ports) > 1 {
				w.info.Warnings = append(w.info.Warnings, policy.Warning{Code: WarnDuplicates, Message: "rules of the filter name directions, and a " +
					"packet between two sources goes both ways: it is judged, and may be copied, once for each"})
			}
		}
	}
	for _, way := range ways {
		key := setKey(b.Name, &w.m.Spec, way)
		set := w.sets[key]
		if set == nil {
			set = &sourceSet{bridge: b, key: key, row: w.row(b, s, way)}
			w.sets[key] = set
		}
		set.names = append(set.names, w.m.Name)
		set.members = append(set.members, member{w.numbers[w.m.Name], wayOf(way)})
		w.info.Owners = append(w.info.Owners, set.owner())
	}
}

// row is the Mirror row of a set.
func (w *mirrorWork) row(b *vswitch.Bridge, s *bridgeSources, way string) vswitch.MirrorSpec {
	key := setKey(b.Name, &w.m.Spec, way)
	return selecting(vswitch.MirrorSpec{Owner: "sources/" + key, Bridge: b.Name, Name: mirrorRowPrefix + key, SelectVLAN: s.vlans,
		Output: vswitch.OutputSpec{Port: outPrefix + key}}, s, way)
}

// deliver has the target made on the tap bridge, and what the mirror takes sent there.
func (w *mirrorWork) deliver(tapBridge string, t mirrorTarget) {
	if t.spec.Create && w.ports[t.spec.Port] == nil {
		w.ports[t.spec.Port] = &vswitch.PortSpec{Owner: w.m.Name, Bridge: tapBridge, Name: t.spec.Port, Type: t.spec.Type,
			Options: t.spec.Options}
	}
	w.info.Owners = append(w.info.Owners, TapOwner)
	var filter *policy.ParsedFilter
	if f := w.m.Spec.Filter; f != nil {
		parsed, err := policy.ParseFilter(f)
		if err != nil { // Validate lets none of these through
			w.problem(true, policy.ReasonInvalid, "filter: %s", err)
			return
		}
		filter = &parsed
	}
	number := w.numbers[w.m.Name]
	flows := filterFlows(number, filter)
	if p := w.ofPort(tapBridge, t.spec.Port); p > 0 {
		flows = append(flows, targetFlows(number, []int64{p}, w.m.Spec.Snaplen)...)
	} else {
		w.info.Unnumbered = true
	}
	w.addFlows(tapBridge, flowOwner("mirror", w.m.Name), flows)
}

func (p *mirrorPlanner) addFlows(bridge, owner string, flows []flow.Flow) {
	if p.plan.Flows == nil {
		p.plan.Flows = map[string]Flows{}
	}
	f := p.plan.Flows[bridge]
	if f.Owners == nil {
		f.Owners = map[string][]flow.Flow{}
	}
	f.Owners[owner] = flows
	p.plan.Flows[bridge] = f
}

// ofPort is the OpenFlow number of a port; 0 = it has none yet.
func (p *mirrorPlanner) ofPort(bridge, port string) int64 {
	b := p.in.Topology.Bridges[bridge]
	if b == nil || b.Ports[port] == nil || len(b.Ports[port].Interfaces) == 0 {
		return 0
	}
	return max(0, b.Ports[port].Interfaces[0].OFPort)
}

// finish makes what staged mirrors share: the tap bridges, and for each source set the row, the pair of patch ports and the flow behind it.
func (p *mirrorPlanner) finish() {
	made := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(p.sets)) {
		s := p.sets[key]
		tapBridge := tapBridgeOf(s.bridge.DatapathType)
		if !made[tapBridge] {
			made[tapBridge] = true
			p.plan.Bridges = append(p.plan.Bridges, vswitch.BridgeSpec{Owner: TapOwner, Name: tapBridge, DatapathType: s.bridge.DatapathType})
		}
		out, in := outPrefix+key, inPrefix+key
		patch := func(bridge, name, peer string) vswitch.PortSpec {
			return vswitch.PortSpec{Owner: s.owner(), Bridge: bridge, Name: name, Type: "patch", Options: map[string]string{"peer": peer}}
		}
		p.plan.Ports = append(p.plan.Ports, patch(s.bridge.Name, out, in), patch(tapBridge, in, out))
		p.plan.Specs = append(p.plan.Specs, s.row)
		if n := p.ofPort(tapBridge, in); n > 0 {
			p.addFlows(tapBridge, s.owner(), []flow.Flow{sourceFlow(n, sortedMembers(s.members))})
			continue
		}
		for _, name := range s.names {
			info := p.plan.Info[name]
			info.Unnumbered = true
			p.plan.Info[name] = info
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.ports)) {
		p.plan.Ports = append(p.plan.Ports, *p.ports[name])
	}
	slices.SortFunc(p.plan.Specs, func(a, b vswitch.MirrorSpec) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Bridge, b.Bridge))
	})
}
