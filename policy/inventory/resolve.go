package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// attachedMAC is the key of external_ids that names the MAC of the machine behind the port.
const attachedMAC = "attached-mac"

// fromOVSDB is where labels come from that no Endpoint resource gave.
const fromOVSDB = "ovsdb"

// Keys of labels that are said of every port and win over external_ids of the same name.
const (
	labelHost   = "host"
	labelBridge = "bridge"
	labelPort   = "port"
	labelVLAN   = "vlan"
)

// resolve finds the workloads of the candidates and notes them in their ports. Candidates are ordered as in Inventory.Ports, endpoints by
// name. before are the workloads that Endpoint resources were found to be which match no port; so are remotes.
func resolve(candidates []*candidate, endpoints []*policy.Endpoint, before map[*policy.Endpoint]*policy.Workload) (_ []*policy.Workload,
	_ []Warning, remotes map[*policy.Endpoint]*policy.Workload) {
	r := resolver{
		ports:     candidates,
		endpoints: endpoints,
		keys:      make(map[identity]claim, len(candidates)),
		taken:     make(map[string]bool, len(candidates)),
		stations:  make(map[station]claim, len(candidates)),
		workloads: make([]*policy.Workload, 0, len(candidates)),
	}
	// Claims are given in this order: to ports with a device first.
	dead := func(c *candidate) int {
		if c.HasDevice() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(r.ports, func(a, b *candidate) int { return dead(a) - dead(b) })
	r.match()
	for i, p := range r.ports {
		if e := r.byPort[i]; e != nil || p.Kind == KindEndpoint {
			p.use = use{e, e != nil && r.only(p, e)}
			r.local(p)
		}
	}
	remotes = make(map[*policy.Endpoint]*policy.Workload)
	for _, e := range r.endpoints {
		if r.hits[e.Name] == 0 {
			w := before[e]
			if w == nil {
				w = remote(e)
			}
			w = withKey(w, free("endpoint/"+e.Name, func(key string) bool { return r.taken[key] }))
			remotes[e] = w
			r.add(w, nil)
		}
	}
	slices.SortFunc(r.workloads, byKey)
	r.duplicateAddresses()
	return r.workloads, r.warnings, remotes
}

// withKey returns the workload under a key. One that has another already may be somebody else's, too, so it stays as it is.
func withKey(w *policy.Workload, key string) *policy.Workload {
	switch w.Key {
	case key:
		return w
	case "":
		w.Key = key
		return w
	}
	other := *w
	other.Key = key
	return &other
}

type resolver struct {
	ports     []*candidate
	endpoints []*policy.Endpoint
	byPort    []*policy.Endpoint // the endpoint of each port, nil without
	hits      map[string]int     // how many ports each endpoint found: those with a device, or the others if there is none
	deadOnly  map[string]bool
	keys      map[identity]claim
	taken     map[string]bool // keys that a workload of whatever host has
	stations  map[station]claim
	workloads []*policy.Workload
	warnings  []Warning
}

// claim is a workload with its port, nil for a remote one.
type claim struct {
	w *policy.Workload
	p *Port
}

// identity is by what a host knows a workload.
type identity struct{ host, key string }

// station is where frames to a local workload are recognised.
type station struct {
	host, bridge string
	vlan         int
	mac          string
}

// name is one that a port goes by and an Endpoint resource may use.
type name struct {
	host  string // "" = on whichever host
	kind  policy.SelectorKind
	value string
}

func (r *resolver) warn(host string, code policy.Code, endpoint, format string, args ...any) {
	r.warnings = append(r.warnings, Warning{policy.Warning{Code: code, Endpoint: endpoint, Message: fmt.Sprintf(format, args...)}, host})
}

// warnResource is warn about an Endpoint resource.
func (r *resolver) warnResource(host string, code policy.Code, e *policy.Endpoint, format string, args ...any) {
	w := policy.Warning{Code: code, Endpoint: e.Name, AboutResource: true, Message: fmt.Sprintf(format, args...)}
	r.warnings = append(r.warnings, Warning{w, host})
}

// match gives each port the first endpoint, by name, that finds it. Endpoints are looked up by what they match, so the cost is the sum
// of ports and endpoints.
func (r *resolver) match() {
	byName := make(map[name][]*policy.Endpoint, len(r.endpoints))
	kinds := make(map[policy.SelectorKind]bool) // by which anything is looked for
	onHost := false
	for _, e := range r.endpoints {
		n := nameIn(&e.Spec.Match)
		byName[n] = append(byName[n], e)
		kinds[n.kind] = true
		onHost = onHost || n.host != ""
	}
	r.byPort = make([]*policy.Endpoint, len(r.ports))
	r.hits = make(map[string]int, len(r.endpoints))
	r.deadOnly = make(map[string]bool)
	candidates := make([][]*policy.Endpoint, len(r.ports))
	for i, p := range r.ports {
		var found []*policy.Endpoint
		if p.names == nil {
			p.names = p.spell()
		}
		for _, n := range p.names {
			if kinds[n.kind] && (onHost || n.host == "") {
				found = append(found, byName[n]...)
			}
		}
		slices.SortFunc(found, func(a, b *policy.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
		for _, e := range found {
			if p.HasDevice() || r.hits[e.Name] == 0 || r.deadOnly[e.Name] {
				r.hits[e.Name]++ // also those that lose: they do name a local port, so they are not remote
				r.deadOnly[e.Name] = !p.HasDevice()
			}
		}
		candidates[i] = found
	}
	for i, found := range candidates {
		r.choose(i, found)
	}
	for _, e := range r.endpoints {
		if n := r.hits[e.Name]; n > 1 && (e.Spec.MAC != "" || len(e.Spec.MACs) > 0 || len(e.Spec.Addresses) > 0) {
			r.warnResource("", policy.WarnEndpointAmbiguous, e,
				"endpoint %q matches %d ports, so its MAC and addresses belong to none of them; match by port or neutronPort",
				e.Name, n)
		}
	}
}

// choose gives port i the first endpoint that does not contradict it.
func (r *resolver) choose(i int, found []*policy.Endpoint) {
	p := r.ports[i]
	for _, e := range found {
		switch used := r.byPort[i]; {
		case p.contradicts(e) && (r.only(p, e) || e.Spec.Match.VM == ""): // of a machine with several ports, mac names none
			r.warnResource(p.Host, policy.WarnMACContradiction, e,
				"endpoint %q has the MAC %s, but external_ids:attached-mac of port %s is %s: another machine is plugged in there, "+
					"so the endpoint and its labels do not apply to it; if it is the same one, correct mac, or add the address to macs", e.Name,
				strings.ToLower(e.Spec.MAC),
				p, strings.ToLower(p.ids[attachedMAC]))
		case used == nil:
			r.byPort[i] = e
		default:
			r.warnResource(p.Host, policy.WarnEndpointConflict, e, "endpoints %q and %q both match port %s of bridge %s; %q is used", used.Name,
				e.Name,
				p.Name, p.Bridge, used.Name)
		}
	}
}

// only reports whether the port is the only one that the endpoint finds, so that its addresses are those of the port.
func (r *resolver) only(p *candidate, e *policy.Endpoint) bool {
	return r.hits[e.Name] == 1 && (p.HasDevice() || r.deadOnly[e.Name])
}

// contradicts reports whether the Endpoint resource means another machine than the one that the orchestrator says is plugged here: names of
// ports move between machines.
func (p *candidate) contradicts(e *policy.Endpoint) bool {
	attached, err := policy.ParseMAC(p.ids[attachedMAC])
	own, err2 := policy.ParseMAC(e.Spec.MAC)
	return err == nil && err2 == nil && attached != own && !slices.Contains(parseMACs(e.Spec.MACs), attached)
}

// parseMACs returns the valid addresses in canonical form.
func parseMACs(in []string) []string {
	var out []string
	for _, s := range in {
		if m, err := policy.ParseMAC(s); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// declare sets the addresses of a workload: first is its own, and the others are beside it.
func declare(w *policy.Workload, first string, others ...string) {
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

// nameIn is what an Endpoint resource calls the port that it means.
func nameIn(match *policy.Selector) name {
	return name{match.Host, match.Kind(), match.Port + match.NeutronPort + match.VM + strings.ToLower(match.MAC)}
}

// spell lists what an Endpoint resource may call the port.
func (p *candidate) spell() []name {
	var out []name
	add := func(kind policy.SelectorKind, value string) {
		if n := (name{"", kind, value}); value != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	add(policy.SelectPort, p.Name)
	add(policy.SelectNeutronPort, p.ids[policy.LabelNeutronPort])
	for _, k := range policy.VMLabels {
		add(policy.SelectVM, p.ids[k])
	}
	add(policy.SelectMAC, p.MAC)
	if p.Host != "" {
		for _, n := range out {
			n.host = p.Host
			out = append(out, n)
		}
	}
	return out
}

// local adds the workload of a port, unless the port is what was left of another one.
func (r *resolver) local(p *candidate) {
	w := p.before.workload
	if w == nil || p.before.use != p.use {
		w = p.workload()
	}
	w, ok := r.identify(w, p)
	if !ok {
		return
	}
	if s := p.ids[attachedMAC]; s != "" && w.MAC == "" {
		_, err := policy.ParseMAC(s)
		r.warn(w.Host, policy.WarnBadMAC, w.Key, "external_ids:attached-mac %.80q of port %s of bridge %s %v", s, p.Name, p.Bridge, err)
	}
	r.add(w, p.Port)
	p.Kind, p.Workload = KindEndpoint, w
}

// workload makes the workload of a port, which has no key yet.
func (p *candidate) workload() *policy.Workload {
	w := &policy.Workload{
		Host:      p.Host,
		Bridge:    p.Bridge,
		Port:      p.Name,
		MAC:       p.MAC,
		Labels:    make(map[string]string, len(p.ids)+4),
		LabelFrom: make(map[string]string, len(p.ids)+4),
	}
	for _, i := range p.Interfaces {
		switch {
		case i.OFPort == 0:
		case w.OFPort == 0:
			w.OFPort = i.OFPort
		default:
			w.Members = append(w.Members, i.OFPort)
		}
	}
	label := func(k, v, from string) { w.Labels[k], w.LabelFrom[k] = v, from }
	for k, v := range p.ids {
		label(k, v, fromOVSDB)
	}
	if p.Host != "" {
		label(labelHost, p.Host, fromOVSDB)
	}
	label(labelBridge, p.Bridge, fromOVSDB)
	label(labelPort, p.Name, fromOVSDB)
	switch {
	case p.Tagged:
		w.Native = p.VLAN
	case p.row.Tag != nil:
		w.VLAN = p.VLAN
		label(labelVLAN, strconv.Itoa(p.VLAN), fromOVSDB)
	}
	if e, only := p.use.endpoint, p.use.only; e != nil {
		w.Endpoint, w.Forwards, w.DHCPServer = e.Name, e.Spec.Forwards, e.Spec.DHCPServer
		w.Audit = e.Spec.Mode == policy.ModeAudit
		w.DropUnknownMAC = e.Spec.UnknownMAC == policy.UnknownMACDrop || e.Spec.UnknownMAC == "" && len(e.Spec.MACs) > 0 && only
		for k, v := range e.Spec.Labels {
			label(k, v, "endpoint/"+e.Name)
		}
		if only {
			if own, err := policy.ParseMAC(e.Spec.MAC); err == nil {
				attached, _ := policy.ParseMAC(p.ids[attachedMAC])
				declare(w, own, append(parseMACs(e.Spec.MACs), attached)...)
			} else {
				declare(w, w.MAC, parseMACs(e.Spec.MACs)...)
			}
			w.Addresses = parseAddresses(e.Spec.Addresses)
		}
		w.Guard = guard(w, &e.Spec, only)
	}
	return w
}

// identify returns w with its key, and notes its station. It reports false where p has no device and a port with one has either of them.
func (r *resolver) identify(w *policy.Workload, p *candidate) (*policy.Workload, bool) {
	id := p.ids[policy.LabelNeutronPort]
	byID, taken := r.keys[identity{w.Host, id}]
	taken = taken && id != ""
	at := func(mac string) station { return station{w.Host, w.Bridge, w.VLAN, mac} }
	var byMAC claim
	macs := append([]string{w.MAC}, w.MACs...)
	i := slices.IndexFunc(macs, func(m string) (is bool) { byMAC, is = r.stations[at(m)]; return is })
	occupied := i >= 0
	left := func(live claim, is bool) bool { return is && !p.HasDevice() && live.p.HasDevice() }
	const leftover = "port row %s has the %s of port %s and is left out; ovs-vsctl del-port %s %s removes it"
	if left(byID, taken) {
		r.warn(w.Host, policy.WarnDuplicateIface, byID.w.Key, leftover, p, "external_ids:iface-id "+id, byID.p, p.Bridge, p.Name)
		return nil, false
	}
	if left(byMAC, occupied) {
		r.warn(w.Host, policy.WarnDuplicateMAC, byMAC.w.Key, leftover, p, "MAC "+macs[i], byMAC.p, p.Bridge, p.Name)
		return nil, false
	}
	both := func(code policy.Code, other claim, format string, args ...any) {
		for _, key := range [...]string{other.w.Key, w.Key} {
			r.warn(w.Host, code, key, format, args...)
		}
	}
	key := p.Bridge + "/" + p.Name
	if id != "" && !taken {
		key = id
	}
	w = withKey(w, free(key, func(key string) bool { _, taken := r.keys[identity{w.Host, key}]; return taken }))
	if taken {
		both(policy.WarnDuplicateIface, byID, "ports %s and %s have the same external_ids:iface-id %s", byID.p, p, id)
	}
	if occupied {
		both(policy.WarnDuplicateMAC, byMAC, "endpoints %s (port %s) and %s (port %s) have the same MAC %s in VLAN %d of bridge %s", byMAC.w.Key,
			byMAC.p, w.Key, p, macs[i], w.VLAN, w.Bridge)
	}
	for _, m := range macs {
		if _, taken := r.stations[at(m)]; !taken && m != "" {
			r.stations[at(m)] = claim{w, p.Port}
		}
	}
	return w, true
}

// remote builds the workload of an endpoint that is not on this host, which has no key yet. What its match says of it is known too, so that
// peers that select it by machine, Neutron port, port or MAC find its addresses.
func remote(e *policy.Endpoint) *policy.Workload {
	from := "endpoint/" + e.Name
	w := &policy.Workload{
		Remote: true, Endpoint: e.Name,
		Labels: make(map[string]string, len(e.Spec.Labels)+1), LabelFrom: make(map[string]string, len(e.Spec.Labels)+1),
		Port: e.Spec.Match.Port, Addresses: parseAddresses(e.Spec.Addresses),
	}
	label := func(k, v string) { w.Labels[k], w.LabelFrom[k] = v, from }
	if e.Spec.Match.VM != "" {
		label(policy.LabelVMID, e.Spec.Match.VM)
	}
	if e.Spec.Match.NeutronPort != "" {
		label(policy.LabelNeutronPort, e.Spec.Match.NeutronPort)
	}
	for k, v := range e.Spec.Labels {
		label(k, v)
	}
	declare(w, "", parseMACs(append([]string{e.Spec.MAC, e.Spec.Match.MAC}, e.Spec.MACs...))...)
	return w
}

// free keeps keys unique whatever an orchestrator writes into iface-id.
func free(base string, taken func(key string) bool) string {
	key := base
	for n := 2; taken(key); n++ {
		key = base + "#" + strconv.Itoa(n)
	}
	return key
}

// add takes a workload whose key is free.
func (r *resolver) add(w *policy.Workload, p *Port) {
	r.keys[identity{w.Host, w.Key}] = claim{w, p}
	r.taken[w.Key] = true
	r.workloads = append(r.workloads, w)
}

// duplicateAddresses warns of addresses that two workloads have where they can meet: in one VLAN of a bridge, or one of them elsewhere, of
// which only the addresses are known.
func (r *resolver) duplicateAddresses() {
	holders := make(map[netip.Addr][]*policy.Workload)
	for _, w := range r.workloads {
		for _, a := range w.Addresses {
			holders[a] = append(holders[a], w)
		}
	}
	meet := func(a, b *policy.Workload) bool {
		return a != b && (a.Remote || b.Remote || a.Host != b.Host || a.Bridge == b.Bridge && a.VLAN == b.VLAN)
	}
	for _, w := range r.workloads {
		for _, a := range w.Addresses {
			hs := holders[a]
			if i := slices.IndexFunc(hs, func(o *policy.Workload) bool { return meet(w, o) }); i >= 0 {
				other := hs[i].Key
				if !w.Remote && !hs[i].Remote && w.Host != hs[i].Host {
					other += " of host " + hs[i].Host
				}
				r.warn(w.Host, policy.WarnDuplicateAddress, w.Key,
					"endpoints %s and %s both have the address %s, so rules that know them by it take one for "+
						"the other", w.Key, other, a)
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
