// Package tap turns mirrors and what is known of the ports into the mirror rows of a host. It is pure: no I/O, no clock.
package tap

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// Input is all that Compile looks at. Nothing of it is changed.
type Input struct {
	Mirrors []*policy.Mirror
	Groups  map[string]*policy.Group
	// Topology is that of the host, and Inventory what was found there.
	Topology  *vswitch.Topology
	Inventory inventory.Inventory
	// Bridges are the managed ones; mirrors are made on no other.
	Bridges []string
	// NoDevices: the host is managed over the network, so a port that tapwall makes cannot be brought up.
	NoDevices bool
	// Version is that of Open vSwitch, "" = unknown.
	Version string
	// Guests are those of Bridges whose flows are not tapwall's: packets may be changed there.
	Guests []string
	// Before is what was compiled last, nil = nothing was: what it made for staged mirrors serves them until what takes its place stands.
	Before *Plan
	// Routes are the ways by which this host reaches collectors, where they are known. With it, mirrors that would copy their own
	// tunnel packets are refused; without, they get a warning.
	Routes map[netip.Addr]Route
	// Addressed are the devices that have an address of the host's, as far as that is known; link-local ones count for nothing.
	Addressed map[string]bool
	// Hardware are the devices of the host that are network cards, as far as that is known.
	Hardware map[string]bool
	// Open are the ways back, by key of Plan.Ways, whose flows are in force: copies are sent there only then.
	Open map[string]bool
	// Silent are the collectors that do not answer, with why that is known; the others are well, or have not been asked.
	Silent map[Probe]string
}

// Plan is the result of Compile.
type Plan struct {
	// Specs are the wanted rows, ordered by owner and bridge.
	Specs []vswitch.MirrorSpec
	// Bridges and Ports are the wanted ones of tapwall's own, and Flows what bridges are to do with what comes there, by name: of those that
	// are somebody else's, with what comes by a way back.
	Bridges []vswitch.BridgeSpec
	Ports   []vswitch.PortSpec
	Flows   map[string]Flows
	// Numbers are those of the staged mirrors, with their names: see [ParseCookie].
	Numbers map[uint32]string
	// Limits are the ids of the meters of those that are limited, likewise, and Cuts of those that count the copies that are cut.
	Limits, Cuts map[uint32]string
	// Probes are what mirrors that balance ask of their targets, each perhaps several times.
	Probes []Probe
	// Sets are the source sets of staged mirrors, by key; see [Input.Before].
	Sets map[string]*SourceSet
	// Ways are the ways back to ports of production bridges, by key; see [Input.Open].
	Ways map[string]Way
	// Info describes every mirror of the input by name.
	Info map[string]Info
}

// Flows are what one bridge of tapwall's own should have.
type Flows struct {
	Owners map[string][]flow.Flow // by owner
	Meters []flow.MeterDesc
}

// Info is what became of a mirror on this host.
type Info struct {
	// Form is how it is made; the zero value where it is not.
	Form Form
	// Sources are the ports that are copied, as "bridge/port", sorted.
	Sources []string
	// Behind names the bridges whose flows have to be in force before anything is copied: what comes there without them is dropped, or worse.
	Behind []string
	// Through is the tap bridge that copies pass, "" = none does. They are delivered when its flows are in force.
	Through string
	// Ways are the ways back that it delivers by.
	Ways []Way
	// Unfinished: it is not served as it should be yet: a port there that flows have to name has no number, or source sets are being changed.
	Unfinished bool
	// Owners are whom the rows that serve the mirror are for, beside itself.
	Owners []string
	// Targets describe where copies go: port, bridge and vm, or a tunnel's remote, vni, key or session, dstPort, local, port and bridge.
	Targets []map[string]string
	// CutsUnknown: copies are cut and the datapath cannot tell how many.
	CutsUnknown bool
	// Sends are the targets that copies are sent to, by the port that they go out at.
	Sends    []Send
	Problems []Problem
	// Twice says why a packet may be copied more than once; none = it is copied exactly once.
	Twice    []string
	Warnings []policy.Warning
	// Captures are the targets that this host reads itself. Readable are these, and the ports that the mirror makes.
	Captures, Readable []Capture
}

// Send is a target that copies are sent to.
type Send struct {
	Target       int    // index, counted as in Deed and Info.Targets
	Bridge, Port string // Port is "" of a VLAN
	OFPort       int64  // 0 = it has none yet
}

// Serves reports whether rows of an owner serve the mirror of this name.
func (i Info) Serves(name, owner string) bool {
	return owner == name || slices.Contains(i.Owners, owner)
}

// Problem is a reason why a mirror does less than it says. A fatal one means that it does nothing.
type Problem struct {
	Reason  policy.Reason
	Message string
	Fatal   bool
	// At is the place of the mirror that is to blame, as a JSON pointer; "" = none is by itself.
	At string
	// Soon: tapwall made the port and is bringing it up.
	Soon bool
}

// Codes of warnings of mirrors.
const (
	WarnTunnelOverlay        policy.Code = "OVERLAY_REMOTE"          // the collector is an overlay peer on the same UDP port too
	WarnCopiesMayBeCut       policy.Code = "COPIES_MAY_BE_CUT"       // frames may be larger than a tunnel carries
	WarnVNIShared            policy.Code = "VNI_SHARED"              // mirrors send to one collector under one number
	WarnDuplicates           policy.Code = "DUPLICATES_POSSIBLE"     // a packet may be copied more than once
	WarnSourceMayCarryTarget policy.Code = "SOURCE_MAY_CARRY_TARGET" // it is unknown whether a source would see the copies
	WarnTargetExcluded       policy.Code = "TARGET_EXCLUDED"         // what a source gets is not copied, because copies are delivered there
	WarnCopiesMayGoOn        policy.Code = "COPIES_MAY_GO_ON"        // running traffic may be copied behind the end
	WarnTargetTwice          policy.Code = "TARGET_TWICE"            // two targets are one port, which gets each copy once
)

// Names of what is made: the Mirror row and the tunnel port.
const (
	mirrorRowPrefix = "tapwall-"
	tunnelPrefix    = "tw"
)

// hashed is a part of a name that stands for a text: so many bytes of its hash, in hexadecimal.
func hashed(text string, bytes int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:bytes])
}

// keyBytes is how long the hashes are that tell the ports of one kind apart.
const keyBytes = 5

// Compile compiles the mirrors. Where that suffices, a mirror is one row, on the bridge where its sources and its target are; else it is
// staged.
func Compile(in Input) Plan {
	p := mirrorPlanner{in: in, taken: map[output]string{}, isStaged: map[string]bool{}, sets: map[string]*SourceSet{},
		ports: map[string]*vswitch.PortSpec{}, homes: map[string]string{}, ways: map[string]*way{},
		files: map[string]string{}, plan: Plan{Info: map[string]Info{}}}
	if len(in.Mirrors) == 0 {
		return p.plan
	}
	if in.Topology == nil {
		p.in.Topology = &vswitch.Topology{}
	}
	p.index()
	mirrors := slices.SortedFunc(slices.Values(in.Mirrors), byName)
	p.takeIDs(mirrors)
	var works []*mirrorWork
	for _, m := range mirrors {
		if runs(m) {
			works = append(works, &mirrorWork{mirrorPlanner: &p, m: m, rooms: map[string]int{}})
		} else {
			p.plan.Info[m.Name] = Info{}
		}
	}
	p.findReceivers(works, func(w *mirrorWork) bool { return staged(w.m) })
	p.chooseForms(works)
	p.findReceivers(works, func(w *mirrorWork) bool { return w.info.Form.Staged })
	p.takeNumbers(works)
	for _, w := range works {
		w.compile()
		p.plan.Info[w.m.Name] = w.info
	}
	p.finish()
	return p.plan
}

// mirrorPlanner is the state of one call of Compile.
type mirrorPlanner struct {
	in      Input
	bridges []*vswitch.Bridge              // managed and existing, by name
	outputs map[string]map[string]struct{} // by bridge: ports that only receive copies
	taken   map[output]string              // by which staged mirror
	files   map[string]string              // likewise, names of pcapng files
	users   map[output][]string            // mirrors by target
	ids     map[place]int64                // of tunnels
	// receivers are the ports that ways lead back to, by bridge, with the mirrors that deliver there.
	receivers map[string]map[string][]string

	// Of staged mirrors.
	isStaged map[string]bool              // those that deliver
	numbers  map[string]uint32            // by mirror name
	sets     map[string]*SourceSet        // by key
	ports    map[string]*vswitch.PortSpec // where they deliver, by name
	homes    map[string]string            // the tap bridges that they are on, with the datapath type of each
	ways     map[string]*way              // where they deliver on bridges of production, by key
	plan     Plan
}

// place is one target of a mirror.
type place struct {
	mirror string
	index  int
}

// output identifies a target: two mirrors may not have the same one, unless they are staged.
type output struct {
	port          string // a local port, or a tunnel:
	kind          string // the type of its interface
	remote, local netip.Addr
	id            int64 // VNI, key or session
	dstPort       int
}

func (p *mirrorPlanner) index() {
	for _, name := range slices.Sorted(slices.Values(p.in.Bridges)) {
		if b := p.in.Topology.Bridges[name]; b != nil {
			p.bridges = append(p.bridges, b)
		}
	}
	p.outputs = map[string]map[string]struct{}{}
	for _, b := range p.bridges {
		out := map[string]struct{}{}
		for _, m := range b.Mirrors {
			out[m.OutputPort] = struct{}{}
		}
		for name := range b.Ports {
			if p.port(b, name).Kind == inventory.KindTap {
				out[name] = struct{}{}
			}
		}
		p.outputs[b.Name] = out
	}
}

// port returns what was found at a port, which may be nothing.
func (p *mirrorPlanner) port(b *vswitch.Bridge, name string) *inventory.Port {
	if found := p.in.Inventory.Port(p.in.Topology.Host, b.Name, name); found != nil {
		return found
	}
	return &inventory.Port{Host: p.in.Topology.Host, Bridge: b.Name, Name: name, Kind: inventory.KindUnknown}
}

// mirrorWork compiles one mirror.
type mirrorWork struct {
	*mirrorPlanner
	m    *policy.Mirror
	info Info
	// rooms are how many bytes of a copy tunnels carry, by port.
	rooms map[string]int
	// found are the sources by bridge; nil = nobody has looked yet.
	found map[string]*bridgeSources
	// patched are the patch ports among the sources, as "bridge/port".
	patched []string
	// limit and cuts are its meters, if it is staged: the one that limits it and the one that counts what is cut.
	limit, cuts uint32
}

func problemf(reason policy.Reason, format string, args ...any) *Problem {
	return &Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (w *mirrorWork) problem(fatal bool, reason policy.Reason, format string, args ...any) {
	p := problemf(reason, format, args...)
	p.Fatal = fatal
	w.info.Problems = append(w.info.Problems, *p)
}

// warn adds a warning, once.
func (w *mirrorWork) warn(x policy.Warning) {
	if !slices.Contains(w.info.Warnings, x) {
		w.info.Warnings = append(w.info.Warnings, x)
	}
}

func (w *mirrorWork) fatal() bool {
	return slices.ContainsFunc(w.info.Problems, func(p Problem) bool { return p.Fatal })
}

func (w *mirrorWork) compile() {
	w.info.Warnings = policy.FilterNeverMatches(w.m)
	if w.info.Form.Staged {
		w.stage()
		return
	}
	if t := w.m.Spec.Floods(); t != nil {
		w.flood(t)
		return
	}
	sources := w.sources()
	target, where := w.target(0)
	w.refuse(true, target.bad)
	bridge := w.only(sources)
	if bridge == nil || w.fatal() {
		w.report(target, w.waitFor(target, where))
		return
	}
	s := sources[bridge.Name]
	w.guard(bridge, s, target)
	w.reach(0, &target, []*vswitch.Bridge{bridge})
	w.shared(&target)
	w.report(target, bridge.Name)
	if w.fatal() {
		return
	}
	s.ports = slices.DeleteFunc(s.ports, func(p string) bool { return p == target.spec.Port })
	if len(s.ports) == 0 {
		w.waitFor(target, bridge.Name)
		w.problem(true, policy.ReasonSourceMissing, "nothing but the target is left to copy from")
		return
	}
	w.devices(bridge, s)
	w.device(bridge, target.spec)
	w.once([]*vswitch.Bridge{bridge}, sources)
	w.plan.Specs = append(w.plan.Specs, w.spec(bridge, s, target.spec))
	w.sends(0, bridge.Name, target.spec.Port)
	for _, port := range s.ports {
		w.info.Sources = append(w.info.Sources, bridge.Name+"/"+port)
	}
	w.read([]*vswitch.Bridge{bridge}, sources, []mirrorTarget{target})
}

// only returns the bridge of the sources; nil = there are none. A mirror whose sources are on several, or on another than its target, is
// staged: see chooseForms.
func (w *mirrorWork) only(sources map[string]*bridgeSources) *vswitch.Bridge {
	for _, b := range w.bridges {
		if sources[b.Name] != nil {
			return b
		}
	}
	return nil
}

// spec returns the wanted row.
func (w *mirrorWork) spec(b *vswitch.Bridge, s *bridgeSources, out vswitch.OutputSpec) vswitch.MirrorSpec {
	return selecting(vswitch.MirrorSpec{Owner: w.m.Name, Bridge: b.Name, Name: mirrorRowPrefix + w.m.Name, SelectVLAN: s.vlans, Output: out},
		s, w.m.Spec.Direction)
}

// selecting returns the row with what it selects: the sources, in a direction.
func selecting(spec vswitch.MirrorSpec, s *bridgeSources, direction string) vswitch.MirrorSpec {
	switch {
	case s.all && (direction == "" || direction == policy.MirrorBoth):
		spec.SelectAll = true
	case direction == policy.MirrorFromSource:
		spec.SelectSrcPort = s.ports
	case direction == policy.MirrorToSource:
		spec.SelectDstPort = without(s.ports, s.deaf)
	default:
		spec.SelectSrcPort, spec.SelectDstPort = s.ports, without(s.ports, s.deaf)
	}
	return spec
}

// report describes a target, which is made or found on the bridge; "" = on none.
func (w *mirrorWork) report(t mirrorTarget, bridge string) {
	out := map[string]string{}
	for key, value := range map[string]string{"port": t.spec.Port, "bridge": bridge, "vm": t.vm} {
		if value != "" {
			out[key] = value
		}
	}
	if len(out) == 0 {
		return
	}
	t.describe(out)
	if t.capture != nil {
		t.capture.describe(out)
	}
	if room := w.rooms[t.spec.Port]; room > 0 {
		out["maxInnerBytes"] = strconv.Itoa(room)
	}
	w.info.Targets = append(w.info.Targets, out)
}
