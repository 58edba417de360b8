package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ResolveWorkloads finds the endpoints among the ports: a port is one if the orchestrator marked it (external_ids iface-id,
// attached-mac, vm-uuid or vm-id) or an Endpoint resource matches it. Endpoint resources that match no port become Remote workloads.
// A port row without a device claims nothing against one with: where both have an iface-id, or a MAC in one VLAN, in common, it is what
// was left of a port that went, so it is no workload, and a warning names it.
// The result is ordered by Key and, like the warnings, does not depend on the order of the arguments, which are not changed.
// Endpoint resources must be valid and their names unique.
func ResolveWorkloads(ports []PortInfo, endpoints []*Endpoint) ([]*Workload, []Warning) {
	r := resolver{
		ports:     slices.Clone(ports),
		endpoints: slices.SortedFunc(slices.Values(endpoints), func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) }),
		keys:      make(map[string]claim),
		stations:  make(map[station]claim),
	}
	// Claims are given in this order: to ports with a device first.
	alive := func(p *PortInfo) int {
		if p.dead() {
			return 1
		}
		return 0
	}
	slices.SortFunc(r.ports, func(a, b PortInfo) int {
		return cmp.Or(alive(&a)-alive(&b), cmp.Compare(a.Bridge, b.Bridge), cmp.Compare(a.Port, b.Port))
	})
	r.match()
	for i := range r.ports {
		if e := r.byPort[i]; e != nil || r.ports[i].claims() {
			r.local(&r.ports[i], e)
		}
	}
	for _, e := range r.endpoints {
		if r.hits[e.Name] == 0 {
			w := remote(e)
			w.Key = r.free(w.Key)
			r.add(w, nil)
		}
	}
	slices.SortFunc(r.workloads, func(a, b *Workload) int { return cmp.Compare(a.Key, b.Key) })
	r.duplicateAddresses()
	return r.workloads, r.warnings
}

type resolver struct {
	ports     []PortInfo
	endpoints []*Endpoint
	byPort    []*Endpoint    // the endpoint of each port, nil without
	hits      map[string]int // how many ports each endpoint found: those with a device, or the others if there is none
	deadOnly  map[string]bool
	keys      map[string]claim
	stations  map[station]claim
	workloads []*Workload
	warnings  []Warning
}

// claim is a workload with its port, nil for a remote one.
type claim struct {
	w *Workload
	p *PortInfo
}

// station is where frames to a local workload are recognised.
type station struct {
	bridge string
	vlan   int
	mac    string
}

func (r *resolver) warn(code, endpoint, format string, args ...any) {
	r.warnings = append(r.warnings, Warning{Code: code, Endpoint: endpoint, Message: fmt.Sprintf(format, args...)})
}

// match gives each port the first endpoint, by name, that finds it. Endpoints are looked up by what they match, so the cost is the sum
// of ports and endpoints.
func (r *resolver) match() {
	byKey := make(map[string][]*Endpoint, len(r.endpoints))
	for _, e := range r.endpoints {
		m := e.Spec.Match
		m.Host = "" // one that the identities of a port do not have
		k := m.String()
		byKey[k] = append(byKey[k], e)
	}
	r.byPort = make([]*Endpoint, len(r.ports))
	r.hits = make(map[string]int, len(r.endpoints))
	r.deadOnly = make(map[string]bool)
	candidates := make([][]*Endpoint, len(r.ports))
	for i := range r.ports {
		p := &r.ports[i]
		var found []*Endpoint
		for _, s := range p.identities() {
			for _, e := range byKey[s.String()] {
				if p.matchedBy(e) && !slices.Contains(found, e) {
					found = append(found, e)
				}
			}
		}
		slices.SortFunc(found, func(a, b *Endpoint) int { return cmp.Compare(a.Name, b.Name) })
		for _, e := range found {
			if !p.dead() || r.hits[e.Name] == 0 || r.deadOnly[e.Name] {
				r.hits[e.Name]++ // also those that lose: they do name a local port, so they are not remote
				r.deadOnly[e.Name] = p.dead()
			}
		}
		candidates[i] = found
	}
	for i, found := range candidates {
		r.choose(i, found)
	}
	for _, e := range r.endpoints {
		if n := r.hits[e.Name]; n > 1 && (e.Spec.MAC != "" || len(e.Spec.MACs) > 0 || len(e.Spec.Addresses) > 0) {
			r.warn(WarnEndpointAmbiguous, e.Name, "endpoint %q matches %d ports, so its MAC and addresses belong to none of them; match by port or neutronPort",
				e.Name, n)
		}
	}
}

// choose gives port i the first endpoint that does not contradict it.
func (r *resolver) choose(i int, found []*Endpoint) {
	p := &r.ports[i]
	for _, e := range found {
		switch used := r.byPort[i]; {
		case p.contradicts(e) && (r.only(p, e) || e.Spec.Match.VM == ""): // of a machine with several ports, mac names none
			r.warn(WarnMACContradiction, e.Name, "endpoint %q has the MAC %s, but external_ids:attached-mac of port %s is %s: another machine is plugged in there, "+
				"so the endpoint and its labels do not apply to it; if it is the same one, correct mac, or add the address to macs", e.Name, strings.ToLower(e.Spec.MAC),
				p, strings.ToLower(p.ExternalIDs[labelAttachedMAC]))
		case used == nil:
			r.byPort[i] = e
		default:
			r.warn(WarnEndpointConflict, e.Name, "endpoints %q and %q both match port %s of bridge %s; %q is used", used.Name, e.Name,
				p.Port, p.Bridge, used.Name)
		}
	}
}

// only reports whether the port is the only one that the endpoint finds, so that its addresses are those of the port.
func (r *resolver) only(p *PortInfo, e *Endpoint) bool {
	return r.hits[e.Name] == 1 && (!p.dead() || r.deadOnly[e.Name])
}

// contradicts reports whether the Endpoint resource means another machine than the one that the orchestrator says is plugged here: names of
// ports move between machines.
func (p *PortInfo) contradicts(e *Endpoint) bool {
	attached, err := parseMAC(p.ExternalIDs[labelAttachedMAC])
	own, err2 := parseMAC(e.Spec.MAC)
	return err == nil && err2 == nil && attached != own && !slices.Contains(parseMACs(e.Spec.MACs), attached)
}

// parseMACs returns the valid addresses in canonical form.
func parseMACs(in []string) []string {
	var out []string
	for _, s := range in {
		if m, err := parseMAC(s); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// declare sets the addresses of a workload: first is its own, and the others are beside it.
func (w *Workload) declare(first string, others ...string) {
	all := slices.DeleteFunc(append([]string{first}, others...), func(s string) bool { return s == "" })
	if len(all) == 0 {
		return
	}
	w.MAC = all[0]
	for _, s := range all {
		if s != w.MAC && !slices.Contains(w.MACs, s) {
			w.MACs = append(w.MACs, s)
		}
	}
	slices.Sort(w.MACs)
}

// identities lists the selectors by which an Endpoint resource may match the port.
func (p *PortInfo) identities() []Selector {
	ids := []Selector{{Port: p.Port}}
	if v := p.ExternalIDs[labelIfaceID]; v != "" {
		ids = append(ids, Selector{NeutronPort: v})
	}
	for _, k := range vmLabels {
		if v := p.ExternalIDs[k]; v != "" {
			ids = append(ids, Selector{VM: v})
		}
	}
	if m := p.mac(); m != "" {
		ids = append(ids, Selector{MAC: m})
	}
	return ids
}

// local adds the workload of a port, unless the port is what was left of another one.
func (r *resolver) local(p *PortInfo, e *Endpoint) {
	w := &Workload{
		Host:      p.Host,
		Bridge:    p.Bridge,
		Port:      p.Port,
		MAC:       p.mac(),
		Labels:    make(map[string]string, len(p.ExternalIDs)+3),
		LabelFrom: make(map[string]string, len(p.ExternalIDs)+3),
	}
	for _, n := range append([]int64{p.OFPort}, p.Members...) {
		switch {
		case n <= 0 || n > 0xffffffff:
		case w.OFPort == 0:
			w.OFPort = uint32(n)
		default:
			w.Members = append(w.Members, uint32(n))
		}
	}
	label := func(k, v, from string) { w.Labels[k], w.LabelFrom[k] = v, from }
	for k, v := range p.ExternalIDs {
		label(k, v, labelFromOVSDB)
	}
	if p.Host != "" {
		label(LabelHost, p.Host, labelFromOVSDB)
	}
	label(LabelBridge, p.Bridge, labelFromOVSDB)
	label(LabelPort, p.Port, labelFromOVSDB)
	if p.Tag != nil && !p.Trunk {
		w.VLAN = *p.Tag
		label(LabelVLAN, strconv.Itoa(*p.Tag), labelFromOVSDB)
	}
	if p.Trunk {
		w.Native = p.Native
	}
	if e != nil {
		w.Endpoint, w.Forwards, w.DHCPServer = e.Name, e.Spec.Forwards, e.Spec.DHCPServer
		w.DropUnknownMAC = e.Spec.UnknownMAC == UnknownMACDrop || e.Spec.UnknownMAC == "" && len(e.Spec.MACs) > 0 && r.only(p, e)
		for k, v := range e.Spec.Labels {
			label(k, v, "endpoint/"+e.Name)
		}
		if r.only(p, e) {
			if own, err := parseMAC(e.Spec.MAC); err == nil {
				attached, _ := parseMAC(p.ExternalIDs[labelAttachedMAC])
				w.declare(own, append(parseMACs(e.Spec.MACs), attached)...)
			} else {
				w.declare(w.MAC, parseMACs(e.Spec.MACs)...)
			}
			w.Addresses = parseAddresses(e.Spec.Addresses)
		}
	}
	w.Key = p.Bridge + "/" + p.Port
	if r.identify(w, p) {
		if s := p.ExternalIDs[labelAttachedMAC]; s != "" && w.MAC == "" {
			_, err := parseMAC(s)
			r.warn(WarnBadMAC, w.Key, "external_ids:attached-mac %s of port %s of bridge %s %v", quote(s), p.Port, p.Bridge, err)
		}
		r.add(w, p)
	}
}

// identify gives w its key and its station. It reports false where p has no device and a port with one has either of them.
func (r *resolver) identify(w *Workload, p *PortInfo) bool {
	id := p.ExternalIDs[labelIfaceID]
	byID, taken := r.keys[id]
	taken = taken && id != ""
	at := func(mac string) station { return station{w.Bridge, w.VLAN, mac} }
	var byMAC claim
	macs := append([]string{w.MAC}, w.MACs...)
	i := slices.IndexFunc(macs, func(m string) (is bool) { byMAC, is = r.stations[at(m)]; return is })
	occupied := i >= 0
	left := func(live claim, is bool) bool { return is && p.dead() && !live.p.dead() }
	const leftover = "port row %s has the %s of port %s and is left out; ovs-vsctl del-port %s %s removes it"
	if left(byID, taken) {
		r.warn(WarnDuplicateIface, byID.w.Key, leftover, p, "external_ids:iface-id "+id, byID.p, p.Bridge, p.Port)
		return false
	}
	if left(byMAC, occupied) {
		r.warn(WarnDuplicateMAC, byMAC.w.Key, leftover, p, "MAC "+macs[i], byMAC.p, p.Bridge, p.Port)
		return false
	}
	both := func(code string, other claim, format string, args ...any) {
		for _, key := range [...]string{other.w.Key, w.Key} {
			r.warn(code, key, format, args...)
		}
	}
	if id != "" && !taken {
		w.Key = id
	}
	w.Key = r.free(w.Key)
	if taken {
		both(WarnDuplicateIface, byID, "ports %s and %s have the same external_ids:iface-id %s", byID.p, p, id)
	}
	if occupied {
		both(WarnDuplicateMAC, byMAC, "endpoints %s (port %s) and %s (port %s) have the same MAC %s in VLAN %d of bridge %s", byMAC.w.Key,
			byMAC.p, w.Key, p, macs[i], w.VLAN, w.Bridge)
	}
	for _, m := range macs {
		if _, taken := r.stations[at(m)]; !taken && m != "" {
			r.stations[at(m)] = claim{w, p}
		}
	}
	return true
}

// remote builds the workload of an endpoint that is not on this host. What its match says of it is known too, so that peers that
// select it by machine, Neutron port, port or MAC find its addresses.
func remote(e *Endpoint) *Workload {
	from := "endpoint/" + e.Name
	w := &Workload{
		Key: from, Remote: true, Endpoint: e.Name,
		Labels: make(map[string]string, len(e.Spec.Labels)+1), LabelFrom: make(map[string]string, len(e.Spec.Labels)+1),
		Port: e.Spec.Match.Port, Addresses: parseAddresses(e.Spec.Addresses),
	}
	label := func(k, v string) { w.Labels[k], w.LabelFrom[k] = v, from }
	if e.Spec.Match.VM != "" {
		label("vm-id", e.Spec.Match.VM)
	}
	if e.Spec.Match.NeutronPort != "" {
		label(labelIfaceID, e.Spec.Match.NeutronPort)
	}
	for k, v := range e.Spec.Labels {
		label(k, v)
	}
	w.declare("", parseMACs(append([]string{e.Spec.MAC, e.Spec.Match.MAC}, e.Spec.MACs...))...)
	return w
}

// free keeps keys unique whatever an orchestrator writes into iface-id.
func (r *resolver) free(base string) string {
	key := base
	for n := 2; ; n++ {
		if _, taken := r.keys[key]; !taken {
			return key
		}
		key = base + "#" + strconv.Itoa(n)
	}
}

// add takes a workload whose key is free.
func (r *resolver) add(w *Workload, p *PortInfo) {
	r.keys[w.Key] = claim{w, p}
	r.workloads = append(r.workloads, w)
}

// duplicateAddresses warns of addresses that two workloads have where they can meet: in one VLAN of a bridge, or one of them elsewhere, of
// which only the addresses are known.
func (r *resolver) duplicateAddresses() {
	holders := make(map[netip.Addr][]*Workload)
	for _, w := range r.workloads {
		for _, a := range w.Addresses {
			holders[a] = append(holders[a], w)
		}
	}
	meet := func(a, b *Workload) bool {
		return a != b && (a.Remote || b.Remote || a.Bridge == b.Bridge && a.VLAN == b.VLAN)
	}
	for _, w := range r.workloads {
		for _, a := range w.Addresses {
			hs := holders[a]
			if i := slices.IndexFunc(hs, func(o *Workload) bool { return meet(w, o) }); i >= 0 {
				r.warn(WarnDuplicateAddress, w.Key, "endpoints %s and %s both have the address %s, so rules that know them by it take one for "+
					"the other", w.Key, hs[i].Key, a)
			}
		}
	}
}

// parseAddresses returns the valid addresses, sorted and without repetition.
func parseAddresses(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
