package wall

import (
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// Entities that are more than a fixed set:
//
//   - world is who is no endpoint of the bridge (class 0, or 1 for the host) and has the address of none elsewhere. The addresses of
//     endpoints are in the atlas, as if a choice listed them (known), and numbers of regions in it have the bit pipeline.KnownAddress. So a
//     rule that names world matches one bit more, and an address that comes or goes changes no flow but its own;
//   - host is the bridge's own port, which has a class of its own, and the host's addresses where other stations have them that are no
//     endpoints.
//
// Endpoints that an entity means are a selection like others.
type entities struct {
	bridge    string
	counts    map[netip.Addr]int // how many workloads have an address
	known     *choice            // lists them
	addresses []netip.Prefix     // the same, sorted; immutable
	stale     bool               // they are others than counts says
	host      hosts
	worlds    map[*choice]struct{} // that are world, among other things
	hosted    map[*choice]struct{} // that are host
	foreign   int                  // addresses of workloads elsewhere
	warned    bool                 // that there are some
}

// hosts is the host itself, with is set. It is immutable.
type hosts struct {
	is        bool
	local     string         // by what the bridge's own port is known
	addresses []netip.Prefix // sorted
}

func newEntities(bridge string) *entities {
	return &entities{bridge: bridge, counts: map[netip.Addr]int{}, worlds: map[*choice]struct{}{}, hosted: map[*choice]struct{}{},
		known: &choice{hash: hashOf("addresses of endpoints"), text: "endpoints"}}
}

// count notes that the addresses of a workload are known, or (by -1) are not any more.
func (e *entities) count(w *policy.Workload, by int) {
	if w == nil {
		return
	}
	w.EachAddress(func(a netip.Addr) {
		before := e.counts[a]
		if e.counts[a] = before + by; before+by == 0 {
			delete(e.counts, a)
		}
		e.stale = e.stale || before == 0 || before+by == 0
		if w.Remote || w.Bridge != e.bridge {
			e.foreign += by
		}
	})
}

// leave forgets a choice that is no more.
func (e *entities) leave(x *choice) {
	delete(e.worlds, x)
	delete(e.hosted, x)
}

// knownAddresses returns the addresses of endpoints, in order.
func (f *Firewall) knownAddresses() []netip.Prefix {
	if e := f.entities; e.stale {
		out := make([]netip.Prefix, 0, len(e.counts))
		for a := range e.counts {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
		slices.SortFunc(out, netip.Prefix.Compare)
		e.addresses, e.stale = out, false
	}
	return f.entities.addresses
}

// staleWorlds has the choices looked at that are world, after addresses have come or gone.
func (f *Firewall) staleWorlds() {
	if e := f.entities; e.foreign > 0 != e.warned {
		e.warned = e.foreign > 0
		for x := range e.worlds {
			for r := range x.peerOf {
				f.told[r.owner] = struct{}{}
			}
		}
	}
	if f.entities.stale {
		for x := range f.entities.worlds {
			f.staleAddresses(x)
		}
	}
}

// SetHost replaces the addresses of the host, as policy.Set has them.
func (f *Firewall) SetHost(addresses []netip.Addr) {
	var now []netip.Prefix
	for _, a := range addresses {
		now = append(now, netip.PrefixFrom(a, a.BitLen()))
	}
	slices.SortFunc(now, netip.Prefix.Compare)
	f.setHost(f.entities.host.local, slices.Compact(now))
}

func (f *Firewall) setHost(local string, addresses []netip.Prefix) {
	e := f.entities
	if e.host.local == local && slices.Equal(e.host.addresses, addresses) {
		return
	}
	e.host = hosts{true, local, addresses}
	for x := range e.hosted {
		f.staleAddresses(x)
	}
}

// localOf spells by what the bridge's own port is known; "" = it is an endpoint, or not there.
func localOf(ports []Port) string {
	for _, p := range ports {
		if p.Host {
			return p.Name + " " + p.MAC
		}
	}
	return ""
}

// readEntities computes the entities that are chosen.
func (f *Firewall) readEntities(x *choice) {
	e, before := f.entities, x.now.host
	e.leave(x)
	x.now.any, x.now.world, x.now.known, x.now.host = false, false, nil, hosts{}
	for i := range x.selectors {
		switch x.selectors[i].Entity {
		case policy.EntityAny:
			x.now.any = true
		case policy.EntityWorld:
			x.now.world, x.now.known = true, f.knownAddresses()
			e.worlds[x] = struct{}{}
		case policy.EntityHost:
			x.now.host = hosts{true, e.host.local, e.host.addresses}
			e.hosted[x] = struct{}{}
		}
	}
	if !slices.Equal(before.addresses, x.now.host.addresses) {
		f.rewritten[x] = struct{}{}
	}
}

// loses reports whether a peer by address or entity is in c that is not in now.
func (c *content) loses(now *content) bool {
	return !now.any && (c.any || c.world && !now.world || c.world && len(policy.LostPrefixes(now.known, c.known)) > 0 ||
		c.host.loses(&now.host) || len(policy.LostPrefixes(c.prefixes, now.prefixes)) > 0)
}

func (h *hosts) loses(now *hosts) bool {
	return h.is && (!now.is || h.local != "" && h.local != now.local || len(policy.LostPrefixes(h.addresses, now.addresses)) > 0)
}

// listKnown has the atlas list the addresses of endpoints while rules name world.
func (f *Firewall) listKnown() {
	e := f.entities
	used := [2]bool{e.known.address.use[egress] > 0, e.known.address.use[ingress] > 0}
	e.known.address.use = [2]int{}
	for x := range e.worlds {
		for r := range x.peerOf {
			if r.id != 0 {
				e.known.address.use[r.side]++
			}
		}
	}
	for side, u := range used {
		if u != (e.known.address.use[side] > 0) {
			for r := range e.known.address.regions {
				f.atlas.touch(r)
			}
		}
	}
	var now []netip.Prefix
	if e.known.address.users() > 0 {
		now = f.knownAddresses()
	}
	if len(now) > 0 || e.known.address.listed != nil {
		f.atlas.list(e.known, now)
	}
}

// strangers appends what matches peers that are no endpoint of the bridge, by what their choices say of entities.
func (d dimensions) strangers(r *rule, number pipeline.Field, out []flow.Match) []flow.Match {
	var world bool
	var host hosts
	for _, x := range r.scope.peers {
		world = world || x.now.world
		if x.now.host.is {
			host = x.now.host
		}
	}
	if world {
		out = append(out, number.IsMasked(d.peer().IsMasked(nil, 0, uint64(pipeline.ClassNobody)), 0, uint64(pipeline.KnownAddress)))
	}
	if host.is {
		out = append(out, d.peer().Is(nil, uint64(pipeline.ClassHost)))
		for _, p := range host.addresses {
			if m, ok := both(d.peer().Is(nil, 0), prefixMatch(p, d == ingress)); ok {
				out = append(out, m)
			}
		}
	}
	return out
}

// hostFlows returns the flows that classify what the bridge's own port sends and gets.
func (f *Firewall) hostFlows(out []flow.Flow, p Port) []flow.Flow {
	cookie := pipeline.SystemCookie(pipeline.TableSource, pipeline.ItemPort)
	who := pipeline.Identity{Class: pipeline.ClassHost}
	out = appendSource(out, f.opt.BridgeIndex, cookie, who, p)
	if mac, ok := parseMAC(p.MAC); ok {
		d := destination(f.opt.BridgeIndex, pipeline.SystemCookie(pipeline.TableDestination, pipeline.ItemPort), who, mac, p.VLAN)
		d.Priority = pipeline.PriorityHostMAC
		out = append(out, d)
	}
	return out
}
