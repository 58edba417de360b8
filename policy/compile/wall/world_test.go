package wall_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// world is everything that decides about packets of bridge br0: what is wanted, the firewall that compiles it, and a switch with the
// flows that came of it.
type world struct {
	t         failer
	workloads map[string]*policy.Workload
	groups    map[string]*policy.Group // as in documents
	roster    *policy.Roster           // as the firewall is told
	policies  map[string]*policy.Policy
	host      []netip.Addr // the host's addresses
	localMAC  string       // of the bridge's own port
	pickup    bool
	crowd     []string // keys of workloads beside keys; see genCrowd
	conjoin   bool     // rules are conjunctions where they can be
	shares    bool     // and share clauses where they can
	walked    int      // conjunctions of a class beyond which rules are multiplied out; 0 = as usual
	surplus   int      // flows more by which no more are
	record    policy.Record

	fw          *wall.Firewall
	owners      map[string][]flow.Flow
	ends        map[string]int64
	assignments wall.Assignments
	states      map[string]*wall.PolicyState
	names       map[uint32]*wall.RuleInfo
	sw          *tables.Switch
}

// failer is what testing.TB and rapid.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

const uplink = 100

func newWorld(t failer) *world {
	w := &world{
		t: t, workloads: map[string]*policy.Workload{}, groups: map[string]*policy.Group{}, roster: policy.NewRoster(),
		policies: map[string]*policy.Policy{},
		sw:       tables.New(), localMAC: macOf(bridgePort),
	}
	w.start(nil)
	return w
}

// start makes a new firewall, as after a restart.
func (w *world) start(a *wall.Assignments) {
	w.t.Helper()
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0", Assignments: a, Record: w.record})
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	if w.conjoin {
		fw.Conjoin(w.shares)
	}
	if w.walked > 0 {
		fw.Crowd(w.walked, w.surplus)
	}
	w.ends = map[string]int64{}
	w.fw, w.owners, w.states = fw, map[string][]flow.Flow{}, map[string]*wall.PolicyState{}
	w.assignments, w.names = wall.Assignments{}, map[uint32]*wall.RuleInfo{}
	w.tell()
	for _, p := range w.policies {
		fw.SetPolicy(p)
	}
	fw.SetPickup(w.pickup, nil)
	w.compile()
}

// tell passes on workloads and groups.
func (w *world) tell() {
	w.fw.SetWorkloads(slices.Collect(maps.Values(w.workloads)), []wall.Port{{Name: "eth0", OFPort: uplink, Tagged: true},
		{Name: "br0", OFPort: 65534, Tagged: true, Host: true, MAC: w.localMAC}})
	w.fw.SetHost(w.host)
	changes := map[string]*policy.Group{}
	for name := range w.roster.All() {
		changes[name] = nil
	}
	maps.Copy(changes, w.groups)
	maps.DeleteFunc(changes, func(name string, g *policy.Group) bool { return g == w.roster.Raw(name) })
	w.roster, _ = w.roster.With(changes)
	w.fw.SetGroups(slices.Collect(maps.Values(w.roster.All())))
}

// compile compiles and brings the switch up to date.
func (w *world) compile() wall.Changes {
	w.t.Helper()
	c := w.fw.Compile()
	for owner, flows := range c.Owners {
		if at, ends := c.Ends[owner]; ends && flows != nil {
			w.ends[owner] = at
		} else {
			delete(w.ends, owner)
		}
		if flows == nil {
			delete(w.owners, owner)
		} else {
			w.owners[owner] = flows
		}
	}
	for name, s := range c.Policies {
		if s == nil {
			delete(w.states, name)
		} else {
			w.states[name] = s
		}
	}
	w.assignments.Apply(stored(w.t, c.Assignments))
	maps.Copy(w.names, c.Names)
	if err := w.sw.SetFlows(w.flows()); err != nil {
		w.t.Fatalf("%v", err)
	}
	return c
}

// stored is v after it was written and read back.
func stored[T any](t failer, v T) T {
	t.Helper()
	var out T
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// flows returns all flows, ordered by owner.
func (w *world) flows() []flow.Flow {
	var out []flow.Flow
	for _, o := range slices.Sorted(maps.Keys(w.owners)) {
		out = append(out, w.owners[o]...)
	}
	return out
}

func (w *world) set() *policy.Set {
	s := &policy.Set{Groups: w.groups, HostAddresses: w.host, Record: w.record}
	for _, n := range slices.Sorted(maps.Keys(w.policies)) {
		s.Policies = append(s.Policies, w.policies[n])
	}
	for _, k := range slices.Sorted(maps.Keys(w.workloads)) {
		s.Workloads = append(s.Workloads, w.workloads[k])
	}
	return s
}

// The universe is small, so that rules, endpoints and packets meet.
var (
	apps       = []string{"a", "b", "c"}
	envs       = []string{"x", "y"}
	addresses4 = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.6", "10.0.1.1", "192.0.2.7"}
	addresses6 = []string{"fd00::1", "fd00::2", "fd00::9", "2001:db8::1"}
	cidrs      = []policy.Selector{
		{CIDR: "10.0.0.0/30"}, {CIDR: "10.0.0.2/32"}, {CIDR: "10.0.0.0/29", Except: []string{"10.0.0.2/31"}}, {CIDR: "10.0.0.0/8"},
		{CIDR: "0.0.0.0/0"}, {CIDR: "10.0.0.0/16", Except: []string{"10.0.0.0/30", "10.0.1.0/25"}}, {CIDR: "192.0.2.0/24"},
		{CIDR: "fd00::/126"}, {CIDR: "::/0", Except: []string{"fd00::2/128"}}, {CIDR: "2001:db8::/32"},
		{CIDR: "fd00::/64", Except: []string{"fd00::8/125"}},
	}
	ports = []string{"22", "80", "443", "80-443", "8000-8099", "8064-8100", "1-65535"}
	// Of the ports that packets come from, about half are in each.
	sourcePorts = []string{"443", "1-1023", "unprivileged", "40000-40001", "8000-65535"}
	// Those that open connections.
	icmpTypes, icmpv6Types = []uint8{8, 13, 15}, []uint8{128}
	groupList              = []string{"g0", "g1"}
	keys                   = []string{"w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "wa"}
)

func genEndpointSelector(t *rapid.T, groups bool) policy.Selector {
	n := 4
	if groups {
		n = 5
	}
	switch rapid.IntRange(0, n).Draw(t, "selector") {
	case 0:
		return policy.Selector{Port: "tap-" + rapid.SampledFrom(keys).Draw(t, "port")}
	case 1:
		return policy.Selector{Bridge: rapid.SampledFrom([]string{"br0", "br1"}).Draw(t, "bridge")}
	case 5:
		return policy.Selector{Group: rapid.SampledFrom(groupList).Draw(t, "group")}
	}
	labels := genLabels(t)
	switch rapid.IntRange(0, 3).Draw(t, "by") {
	case 0:
		delete(labels, "app")
	case 1, 2:
		delete(labels, "env")
	}
	return policy.Selector{Labels: labels}
}

func genLabels(t *rapid.T) map[string]string {
	return map[string]string{"app": rapid.SampledFrom(apps).Draw(t, "app"), "env": rapid.SampledFrom(envs).Draw(t, "env")}
}

func genPeer(t *rapid.T, groups bool) policy.Selector {
	switch rapid.IntRange(0, 9).Draw(t, "peer") {
	case 0:
		return policy.Selector{Entity: policy.EntityAny}
	case 1:
		return policy.Selector{Entity: rapid.SampledFrom([]string{policy.EntityWorld, policy.EntitySameNetwork, policy.EntityWorld,
			policy.EntityHost}).Draw(t, "entity")}
	case 2, 3, 4, 5:
		return rapid.SampledFrom(cidrs).Draw(t, "cidr")
	}
	return genEndpointSelector(t, groups)
}

func genService(t *rapid.T) policy.Service {
	s := policy.Service{Protocol: rapid.SampledFrom([]policy.Protocol{"tcp", "tcp", "tcp", "udp", "udp", "icmp", "icmpv6", "sctp", "112"}).
		Draw(t, "protocol")}
	switch s.Protocol {
	case "tcp", "udp", "sctp":
		s.Ports = rapid.SliceOfN(rapid.SampledFrom(ports), 0, 3).Draw(t, "ports")
		if rapid.IntRange(0, 2).Draw(t, "narrow") == 0 {
			s.SourcePorts = rapid.SliceOfN(rapid.SampledFrom(sourcePorts), 1, 2).Draw(t, "source ports")
		}
	case "icmp", "icmpv6":
		kinds := icmpTypes
		if s.Protocol == "icmpv6" {
			kinds = icmpv6Types
		}
		if rapid.Bool().Draw(t, "with type") {
			s.Type = new(int(rapid.SampledFrom(kinds).Draw(t, "type")))
			if rapid.Bool().Draw(t, "with code") {
				s.Code = new(0)
			}
		}
	}
	return s
}

// actions are as frequent as it takes for each to decide about enough packets.
var actions = []policy.Effect{policy.Deny, policy.Pass, policy.Allow, policy.Reject, policy.Allow, policy.Pass, policy.Deny, policy.Reject}

func genRules(t *rapid.T, d policy.Direction) []policy.Rule {
	n := rapid.IntRange(0, 3).Draw(t, "rules")
	var out []policy.Rule
	for i := range n {
		r := policy.Rule{
			Name: fmt.Sprint("r", i), Log: policy.RuleLog{All: rapid.Bool().Draw(t, "log")},
			Action: rapid.SampledFrom(actions).Draw(t, "action"),
		}
		var peers []policy.Selector
		for range rapid.IntRange(0, 3).Draw(t, "peers") {
			peers = append(peers, genPeer(t, true))
		}
		wide := r.Action == policy.Pass && rapid.Bool().Draw(t, "wide") // or hardly anything would be led on
		if wide {
			peers = nil
		}
		if d == policy.Ingress {
			r.From = peers
		} else {
			r.To = peers
		}
		for range rapid.IntRange(0, 2).Draw(t, "services") {
			r.Services = append(r.Services, genService(t))
		}
		if wide {
			r.Services = nil
		}
		if n := [...]int{2, 3, 0, 1, 50}[(len(peers)+len(r.Services))%5]; n > 0 && r.Log.All && r.Action == policy.Allow {
			r.Log = policy.RuleLog{Sample: fmt.Sprint("1/", n)}
		}
		if !r.Log.All && len(r.Services) < 2 && r.Action == policy.Allow {
			r.Log.L7 = true
		}
		out = append(out, r)
	}
	return out
}

func genPolicy(t *rapid.T, name string) *policy.Policy {
	p := &policy.Policy{Meta: policy.Meta{Name: name}}
	p.Spec.Tier = rapid.SampledFrom([]policy.Tier{"", policy.TierSecurity, policy.TierBaseline}).Draw(t, "tier")
	if rapid.Bool().Draw(t, "hasPriority") {
		n := rapid.IntRange(99, 101).Draw(t, "priority")
		p.Spec.Priority = &n
	}
	if rapid.IntRange(0, 3).Draw(t, "mode") == 3 {
		p.Spec.Mode = policy.ModeAudit
	}
	for range rapid.IntRange(1, 3).Draw(t, "appliesTo") {
		p.Spec.AppliesTo = append(p.Spec.AppliesTo, genEndpointSelector(t, true))
	}
	p.Spec.Ingress, p.Spec.Egress = genRules(t, policy.Ingress), genRules(t, policy.Egress)
	if rapid.Bool().Draw(t, "hasDefault") {
		yes, no := true, false
		opt := rapid.SampledFrom([]*bool{nil, &yes, &no, &no})
		p.Spec.DefaultDeny = &policy.DefaultDeny{Ingress: opt.Draw(t, "in"), Egress: opt.Draw(t, "out"), Log: rapid.Bool().Draw(t, "logDefault")}
	}
	if rapid.Bool().Draw(t, "hasRecord") {
		p.Spec.Record = new(genRecord(t))
	}
	return p
}

// genRecord draws what a bridge or a policy records.
func genRecord(t *rapid.T) policy.Record {
	words := rapid.SampledFrom([]string{"", policy.RecordAll, policy.RecordLogged, policy.RecordNone})
	return policy.Record{Connections: words.Draw(t, "connections"), Denies: words.Draw(t, "denies")}
}

func genGroup(t *rapid.T, name string) *policy.Group {
	g := &policy.Group{Meta: policy.Meta{Name: name}}
	if name == "g1" && rapid.IntRange(0, 2).Draw(t, "nests") == 0 { // whether or not there is a g0
		g.Spec.Members = append(g.Spec.Members, policy.Selector{Group: "g0"})
	}
	for range rapid.IntRange(1, 5).Draw(t, "members") {
		if rapid.Bool().Draw(t, "memberCIDR") {
			g.Spec.Members = append(g.Spec.Members, rapid.SampledFrom(cidrs).Draw(t, "cidr"))
		} else {
			g.Spec.Members = append(g.Spec.Members, genEndpointSelector(t, false))
		}
	}
	return g
}

// genWorkload draws a workload; key w6 never has a known MAC if noMAC.
func genWorkload(t *rapid.T, key string, noMAC bool) *policy.Workload {
	i := slices.Index(keys, key)
	w := &policy.Workload{Key: key, Labels: genLabels(t), Addresses: genAddresses(t)}
	w.Learned = slices.DeleteFunc(genAddresses(t), func(a netip.Addr) bool { return slices.Contains(w.Addresses, a) })
	w.Audit = rapid.IntRange(0, 11).Draw(t, "audit") == 11
	switch rapid.IntRange(0, 5).Draw(t, "where") {
	case 0:
		w.Remote = true
		return w
	case 1:
		w.Bridge = "br1"
	default:
		w.Bridge = "br0"
		w.VLAN = rapid.SampledFrom([]int{0, 0, 10}).Draw(t, "vlan")
	}
	w.Port, w.OFPort = "tap-"+key, uint32(i+1)
	if !noMAC || key != "w6" {
		w.MAC = macOf(key)
	}
	return w
}

func genAddresses(t *rapid.T) []netip.Addr {
	var out []netip.Addr
	for _, a := range rapid.SliceOfNDistinct(rapid.SampledFrom(slices.Concat(addresses4, addresses6)), 0, 2, rapid.ID).Draw(t, "addresses") {
		out = append(out, netip.MustParseAddr(a))
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// macOf is the address of a workload whose key is a letter and a number in hexadecimal.
func macOf(key string) string {
	n, err := strconv.ParseUint(key[1:], 16, 8)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("52:54:00:00:00:%02x", n)
}

func macNumber(s string) uint64 {
	var b [6]uint64
	if _, err := fmt.Sscanf(s, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]); err != nil {
		panic(err)
	}
	var v uint64
	for _, x := range b {
		v = v<<8 | x
	}
	return v
}

// randomize fills an empty world.
func (w *world) randomize(t *rapid.T, noMAC bool) {
	for _, k := range keys[:rapid.IntRange(1, len(keys)).Draw(t, "workloads")] {
		w.workloads[k] = genWorkload(t, k, noMAC)
	}
	if noMAC {
		w.workloads["w6"] = genWorkload(t, "w6", true)
	}
	for _, g := range groupList[:rapid.IntRange(0, len(groupList)).Draw(t, "groups")] {
		w.groups[g] = genGroup(t, g)
	}
	w.host = genAddresses(t)
	w.tell()
	for i := range rapid.IntRange(0, 6).Draw(t, "policies") {
		p := genPolicy(t, fmt.Sprint("p", i))
		w.policies[p.Name] = p
		w.fw.SetPolicy(p)
	}
	w.compile()
}

// local returns the workload with the key if it is on br0, else nil.
func (w *world) local(key string) *policy.Workload {
	if x := w.workloads[key]; x != nil && !x.Remote && x.Bridge == "br0" {
		return x
	}
	return nil
}

func (w *world) locals() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(w.workloads)) {
		if w.local(k) != nil {
			out = append(out, k)
		}
	}
	return out
}

// station is who sends or receives: the workload of a key while it is on br0, else somebody behind the uplink.
type station struct{ key string }

// outside is a station that never is a workload.
const outside = "w9"

// bridgePort is the station behind the bridge's own port.
const bridgePort = "wb"

// talk is a packet or connection between two stations in one VLAN.
type talk struct {
	from, to station
	vlan     int
	tuple    tables.Tuple
}

// chooser returns a number of 0..n-1.
type chooser func(n int) int

// drawn is the chooser that rapid can shrink.
func drawn(t *rapid.T) chooser {
	return func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
}

// seeded is a chooser for choices that are too many to be drawn one by one.
func seeded(seed uint64) chooser { return rand.New(rand.NewPCG(seed, 0)).IntN }

func choose[T any](c chooser, from []T) T { return from[c(len(from))] }

func genTuple(c chooser) tables.Tuple {
	pool, icmp := addresses4, uint8(1)
	if c(2) == 1 {
		pool, icmp = addresses6, 58
	}
	src := c(len(pool))
	dst := (src + 1 + c(len(pool)-1)) % len(pool)
	tu := tables.Tuple{
		Src: netip.MustParseAddr(pool[src]), Dst: netip.MustParseAddr(pool[dst]), Proto: choose(c, []uint8{6, 6, 6, 17, icmp, 112, 132}),
	}
	switch tu.Proto {
	case 6, 17, 132:
		tu.SrcPort = choose(c, []uint16{80, 443, 8010, 40000, 40001})
		tu.DstPort = choose(c, []uint16{22, 80, 443, 8000, 8064, 8099, 8100})
	case 1:
		tu.Type = choose(c, icmpTypes)
	case 58:
		tu.Type = choose(c, icmpv6Types)
	}
	return tu
}

// genTalk draws a packet of which at least one station is a workload on br0, or reports that there is none.
func (w *world) genTalk(c chooser) (talk, bool) {
	locals := w.locals()
	if len(locals) == 0 {
		return talk{}, false
	}
	x := talk{from: station{outside}, to: station{outside}, tuple: genTuple(c)}
	one := choose(c, locals)
	x.vlan = w.local(one).VLAN
	if x.vlan == 0 && c(2) == 1 {
		x.vlan = 10
	}
	other := []string{outside, outside, bridgePort}[c(3)]
	all := slices.Concat(keys, w.crowd)
	if i := c(len(all) + 1); i < len(all) && all[i] != one && w.fits(station{all[i]}, x.vlan) {
		other = all[i]
	}
	if c(2) == 1 {
		x.from.key, x.to.key = one, other
	} else {
		x.from.key, x.to.key = other, one
	}
	return x, true
}

// fits reports whether the station can talk in the VLAN.
func (w *world) fits(s station, vlan int) bool {
	x := w.local(s.key)
	return x == nil || x.VLAN == 0 || x.VLAN == vlan
}

// packet is what one station sends to the other: the initiator's packet or, reversed, an answer.
func (w *world) packet(x talk, reply bool, tcpFlags uint16) tables.Packet {
	from, to, tuple := x.from, x.to, x.tuple
	if reply {
		from, to, tuple = to, from, tuple.Reversed()
	}
	port, tag := uint32(uplink), x.vlan
	if from.key == bridgePort {
		port = flow.PortLocal
	}
	if l := w.local(from.key); l != nil {
		port = l.OFPort
		if l.VLAN != 0 {
			tag = 0
		}
	}
	p := tables.IP(port, macNumber(macOf(from.key)), macNumber(macOf(to.key)), tuple, tcpFlags)
	if tag != 0 {
		p.Tag(uint16(tag))
	}
	return p
}

// evaluate asks the reference.
func (w *world) evaluate(x talk) policy.Decision {
	p := policy.Packet{
		SrcHost: x.from.key == bridgePort, DstHost: x.to.key == bridgePort, Bridge: "br0", Src: w.local(x.from.key), Dst: w.local(x.to.key),
		SrcIP: x.tuple.Src, DstIP: x.tuple.Dst, Proto: x.tuple.Proto,
		SrcPort: x.tuple.SrcPort, DstPort: x.tuple.DstPort, ICMPType: x.tuple.Type, ICMPCode: x.tuple.Code,
	}
	if p.Dst != nil && p.Dst.MAC == "" {
		p.Dst = nil // it cannot be recognised
	}
	return policy.Evaluate(w.set(), p)
}

const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	ack = 0x10
)

func register(r tables.Result, f pipeline.Field) uint32 {
	return uint32(r.Fields[f.Field].Shr(int(f.Ofs)).And(flow.Ones(int(f.Bits))).Lo)
}

func bits(v flow.U128, f pipeline.Field) uint32 {
	return uint32(v.Shr(int(f.Ofs)).And(flow.Ones(int(f.Bits))).Lo)
}

func check(t *testing.T, f func(*rapid.T)) {
	t.Helper()
	rapid.Check(t, f)
}
