package tap

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// A staged mirror is made where a Mirror row does not suffice: the row copies to a patch port, behind which a bridge of our own filters and
// delivers. Mirrors with the same sources share the row and the ports: see SourceSet. docs/design/0014-staged-mirrors.md has the reasons.

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
	return hashed(string(text), keyBytes)
}

// takeNumbers gives each staged mirror numbers of its own, from the hash of its name and uid, or the next ones: a multiple of deeds
// that is not 0, and those of its meters. So flows of one that was made anew do not go on counting for it.
func (p *mirrorPlanner) takeNumbers(works []*mirrorWork) {
	p.numbers = map[string]uint32{}
	used, meters := map[uint32]bool{0: true}, map[uint32]bool{}
	for _, w := range works {
		m := w.m
		if !w.info.Form.Staged {
			continue
		}
		sum := sha256.Sum256([]byte(m.Name + m.UID))
		n := binary.BigEndian.Uint32(sum[:]) &^ uint32(deeds-1)
		for used[n] {
			n += uint32(deeds)
		}
		used[n], p.numbers[m.Name] = true, n
		id := n / uint32(deeds) % maxMeters
		for meters[id] && len(meters) < maxMeters {
			id = (id + 1) % maxMeters
		}
		meters[id] = true
		w.limit, w.cuts = 1+id, 1+maxMeters+id
		if p.plan.Numbers == nil {
			p.plan.Numbers = map[uint32]string{}
		}
		p.plan.Numbers[n] = m.Name
	}
}

// stage compiles a staged mirror.
func (w *mirrorWork) stage() {
	sources := w.sources()
	var on []*vswitch.Bridge
	for _, b := range w.bridges {
		if sources[b.Name] != nil {
			on = append(on, b)
		}
	}
	datapathType := w.home(on)
	tapBridge := tapBridgeOf(datapathType)
	var targets []mirrorTarget
	var bad []*Problem
	for i := range w.m.Spec.Targets {
		t, where := w.target(i)
		w.takeFile(t)
		if t.at == nil {
			where = tapBridge
			if len(on) == 0 && !w.stays(t) {
				where = ""
			}
		}
		w.reach(i, &t, on)
		w.shared(&t)
		w.report(t, where)
		if t.bad == nil {
			t.bad = w.unreachable(t, on)
		}
		switch {
		case t.bad != nil:
			bad = append(bad, t.bad)
			continue
		case slices.ContainsFunc(targets, func(o mirrorTarget) bool { return o.identity == t.identity }):
			w.warn(policy.Warning{Code: WarnTargetTwice, Message: "two targets are port " + t.spec.Port + ", which gets each copy once"})
			continue
		}
		targets = append(targets, t)
		for _, b := range on {
			w.guard(b, sources[b.Name], t)
		}
	}
	for _, b := range on {
		w.realisable(b, sources[b.Name])
	}
	w.refuse(len(targets) == 0, bad...)
	if len(on) == 0 {
		targets = slices.DeleteFunc(targets, func(t mirrorTarget) bool { return !w.stays(t) })
	}
	if len(targets) == 0 || w.fatal() || !w.share(targets) {
		return
	}
	w.homes[tapBridge] = datapathType
	var elsewhere []string
	var here []*vswitch.Bridge
	for _, b := range on {
		if tapBridgeOf(b.DatapathType) != tapBridge {
			elsewhere = append(elsewhere, b.Name)
			continue
		}
		here = append(here, b)
		w.devices(b, sources[b.Name])
		w.join(b, sources[b.Name])
		for _, port := range sources[b.Name].ports {
			w.info.Sources = append(w.info.Sources, b.Name+"/"+port)
		}
	}
	w.info.Sources = append(w.info.Sources, w.patched...)
	slices.Sort(w.info.Sources)
	if len(elsewhere) > 0 {
		w.problem(false, policy.ReasonTargetOnOtherBridge,
			"bridge %s has another datapath_type than bridge %s, and copies do not pass from one to the other; make a mirror for each",
			strings.Join(elsewhere, ", "), on[0].Name)
	}
	w.once(here, sources)
	w.read(here, sources, targets)
	w.deliver(tapBridge, targets)
	w.info.Through = tapBridge
}

// share takes the targets, which other staged mirrors may have too. It returns whether all are to be had.
func (w *mirrorWork) share(targets []mirrorTarget) bool {
	for _, t := range targets {
		if there := w.ports[t.spec.Port]; there != nil && !maps.Equal(there.Options, t.spec.Options) {
			w.problem(true, policy.ReasonOutputShared,
				"mirror %s already delivers there with another version, index or hardwareId, of which a session has one; choose another session",
				w.taken[t.identity])
			return false
		}
	}
	for _, t := range targets {
		w.taken[t.identity] = w.m.Name
	}
	w.isStaged[w.m.Name] = true
	return true
}

// setOwner is whom the rows of a source set are for. Its key is of the sources as written, so that a set stays itself when machines come
// and go.
func setOwner(key string) string { return "sources/" + key }

// targetOwner is whom the rows of a port are for that staged mirrors deliver to.
func targetOwner(port string) string { return "targets/" + port }

// deliver has the targets made on the tap bridge, and what the mirror takes sent there.
func (w *mirrorWork) deliver(tapBridge string, targets []mirrorTarget) {
	d := delivery{number: w.numbers[w.m.Name], snaplen: w.m.Spec.Snaplen, tag: w.m.Spec.VLANTag}
	w.info.Owners = append(w.info.Owners, TapOwner)
	for i, t := range targets {
		owner := targetOwner(t.spec.Port)
		if t.at != nil {
			w.info.Owners = append(w.info.Owners, owner)
			w.device(t.at, t.spec)
			if n := w.goBack(tapBridge, t, d.snaplen); n > 0 {
				d.ways, d.wayTargets = append(d.ways, n), append(d.wayTargets, i)
				w.sends(i, t.at.Name, t.spec.Port)
			} else {
				w.info.Unfinished = true
			}
			continue
		}
		w.ports[t.spec.Port] = &vswitch.PortSpec{Owner: owner, Bridge: tapBridge, Name: t.spec.Port, Type: t.spec.Type, Options: t.spec.Options}
		w.info.Owners = append(w.info.Owners, owner)
		w.device(w.in.Topology.Bridges[tapBridge], t.spec)
		if n := w.ofPort(tapBridge, t.spec.Port); n > 0 {
			d.sinks = append(d.sinks, sink{port: n, target: i, room: w.room(&t)})
			w.sends(i, tapBridge, t.spec.Port)
		} else {
			w.info.Unfinished = true
		}
	}
	if len(d.cutTo()) > 0 {
		if w.info.CutsUnknown = !w.measures(w.homes[tapBridge]); !w.info.CutsUnknown {
			d.cuts = w.cuts
			w.addMeter(tapBridge, &w.plan.Cuts, d.cuts, cutsRate)
		}
	}
	d.balanced = w.m.Spec.Balance != nil
	chosen := w.chooseTargets(tapBridge, targets, d.targets())
	var filter *policy.ParsedFilter
	if f := w.m.Spec.Filter; f != nil {
		parsed, err := policy.ParseFilter(f)
		if err != nil { // Validate lets none of these through
			w.problem(true, policy.ReasonInvalid, "filter: %s", err)
			return
		}
		filter = &parsed
	}
	if s := w.m.Spec.Sample; s.Limited() {
		d.meter = w.limit
		w.addMeter(tapBridge, &w.plan.Limits, d.meter, s.MaxPacketsPerSecond)
	}
	w.addFlows(tapBridge, MirrorOwner(w.m.Name), slices.Concat(filterFlows(d.number, filter, first(&w.m.Spec)),
		sessionFlows(d.number, w.m.Spec.Sample.OneOf(), chosen), d.flows()))
}

// sends notes that copies for a target go out at a port.
func (w *mirrorWork) sends(target int, bridge, port string) {
	w.info.Sends = append(w.info.Sends, Send{target, bridge, port, w.ofPort(bridge, port)})
}

// addMeter has the mirror have a meter, and notes in names that it is the mirror's.
func (w *mirrorWork) addMeter(bridge string, names *map[uint32]string, id uint32, perSecond int) {
	if *names == nil {
		*names = map[uint32]string{}
	}
	(*names)[id] = w.m.Name
	if w.plan.Flows == nil {
		w.plan.Flows = map[string]Flows{}
	}
	f := w.plan.Flows[bridge]
	f.Meters = append(f.Meters, flow.MeterDesc{ID: id, Flags: flow.MeterPktps,
		Bands: []flow.Band{{Type: flow.BandDrop, Rate: uint32(perSecond)}}})
	w.plan.Flows[bridge] = f
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
	p.finishWays()
	p.keepServing()
	for _, s := range p.sets { // those that serve for a while yet, too
		p.homes[tapBridgeOf(s.DatapathType)] = s.DatapathType
	}
	for _, name := range slices.Sorted(maps.Keys(p.homes)) {
		p.plan.Bridges = append(p.plan.Bridges, vswitch.BridgeSpec{Owner: TapOwner, Name: name, DatapathType: p.homes[name]})
	}
	for _, key := range slices.Sorted(maps.Keys(p.sets)) {
		s := p.sets[key]
		tapBridge := tapBridgeOf(s.DatapathType)
		in := inPrefix + key
		p.patch(setOwner(key), s.Row.Bridge, outPrefix+key, tapBridge, in)
		p.plan.Specs = append(p.plan.Specs, s.rows()...)
		switch n := p.ofPort(tapBridge, in); {
		case n > 0 && len(s.Members) > 0:
			p.addFlows(tapBridge, setOwner(key), []flow.Flow{sourceFlow(n, s.Members)})
		case n == 0:
			for _, m := range s.Members {
				p.pending(m.Mirror)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.ports)) {
		p.plan.Ports = append(p.plan.Ports, *p.ports[name])
	}
	slices.SortFunc(p.plan.Specs, func(a, b vswitch.MirrorSpec) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Bridge, b.Bridge))
	})
	if len(p.sets) > 0 {
		p.plan.Sets = p.sets
	}
}

// patch has two bridges connected by a pair of patch ports.
func (p *mirrorPlanner) patch(owner, from, out, to, in string) {
	end := func(bridge, name, peer string) vswitch.PortSpec {
		return vswitch.PortSpec{Owner: owner, Bridge: bridge, Name: name, Type: "patch", Options: map[string]string{"peer": peer}}
	}
	p.plan.Ports = append(p.plan.Ports, end(from, out, in), end(to, in, out))
}

// pending notes that a mirror is not served yet as it should be.
func (p *mirrorPlanner) pending(mirror string) {
	info := p.plan.Info[mirror]
	info.Unfinished = true
	p.plan.Info[mirror] = info
}
