package host

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
	"github.com/tapwall/tapwall/policy/inventory"
)

const (
	// strayAge is for how long an address is remembered that is not used any more; OVS forgets MACs after the same time (mac-aging-time).
	strayAge = 5 * time.Minute
	// strayPoll is how often the switch is asked which addresses are in use.
	strayPoll = 30 * time.Second
	// maxStrayMoves is how often an address may move between ports before it is bound to none.
	maxStrayMoves = 8
	// maxSightings bounds what is reported between two looks of the loop.
	maxSightings = 1024
)

// address is a MAC address, lower-case colon form, in a VLAN (0 = untagged).
type address struct {
	vlan int
	mac  string
}

// sighting is an address that an endpoint (its id; 0 = a station that is none) was seen to send under.
type sighting struct {
	endpoint uint32
	address
}

// strays are the addresses that were seen behind the ports of endpoints that do not declare them, on one bridge. A guest chooses them, so
// everything is bounded: by the meter of the copies, by wall.MaxStrays for each endpoint, and in time by strayAge.
//
// The loop owns it; what is seen between two of its turns is in sightings.
type strays struct {
	recovered bool // those of an earlier process were read from the switch
	seen      map[string]map[address]time.Time
	holders   map[address]*holder
	next      time.Time // when the first of seen is too old; zero = none
	bridge    string
	workloads []*policy.Workload // all, by key
}

func newStrays() strays {
	return strays{seen: map[string]map[address]time.Time{}, holders: map[address]*holder{}}
}

// endpoint returns one of the bridge whose address is known; nil = there is none with this key.
func (s *strays) endpoint(key string) *policy.Workload {
	if w := workload(s.workloads, key); w != nil && w.Bridge == s.bridge && !w.Remote && w.MAC != "" {
		return w
	}
	return nil
}

// sightings are what was seen since the loop last looked: true = to be used still, by the counter of its flow. It is safe for concurrent
// use.
type sightings struct {
	mu       sync.Mutex
	reported map[sighting]bool
}

// holder is the endpoint that used an address last, by its workload key; "" = another station did.
type holder struct {
	key   string
	moves int       // in quick succession
	moved time.Time // last
}

func (h *holder) move(key string, now time.Time) {
	if h.key != key {
		h.key, h.moves, h.moved = key, h.moves+1, now
	}
}

// report notes an address; more than the loop keeps up with are dropped, as they will be seen again.
func (s *sightings) report(x sighting, used bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reported == nil {
		s.reported = map[sighting]bool{}
	}
	if len(s.reported) < maxSightings {
		s.reported[x] = used && (s.reported[x] || !has(s.reported, x))
	}
}

func has[K comparable, V any](m map[K]V, k K) bool { _, ok := m[k]; return ok }

// take returns what was reported since the last call.
func (s *sightings) take() map[sighting]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.reported
	s.reported = nil
	return out
}

// note takes a sighting of the endpoint with this key into account. drops: the endpoint drops such frames, so they move nothing.
func (s *strays) note(key string, a address, drops bool, now time.Time) {
	h := s.holders[a]
	switch {
	case key == "":
		if h != nil {
			h.move("", now)
		}
		return
	case !has(s.seen[key], a) && len(s.seen[key]) >= wall.MaxStrays:
		return
	case s.seen[key] == nil:
		s.seen[key] = map[address]time.Time{}
	}
	s.seen[key][a] = now
	switch {
	case drops:
	case h == nil:
		s.holders[a] = &holder{key: key}
	default:
		h.move(key, now)
	}
}

// forget drops what is too old and what keep does not want.
func (s *strays) forget(now time.Time, keep func(key string, a address) bool) {
	s.next = time.Time{}
	until := func(t time.Time) {
		if s.next.IsZero() || t.Before(s.next) {
			s.next = t
		}
	}
	alive := map[address]bool{}
	for key, addresses := range s.seen {
		maps.DeleteFunc(addresses, func(a address, last time.Time) bool { return now.Sub(last) > strayAge || !keep(key, a) })
		if len(addresses) == 0 {
			delete(s.seen, key)
		}
		for a, last := range addresses {
			alive[a] = true
			until(last.Add(strayAge))
		}
	}
	maps.DeleteFunc(s.holders, func(a address, h *holder) bool {
		if h.key != "" && !has(s.seen[h.key], a) {
			h.key = ""
		}
		if now.Sub(h.moved) > strayAge {
			h.moves = 0
		} else if alive[a] {
			until(h.moved.Add(strayAge))
		}
		return !alive[a]
	})
}

// contested reports whether several ports use the address in turn.
func (h *holder) contested() bool { return h != nil && h.moves > maxStrayMoves }

// flows returns what the firewall has to know. An address that another station used since is left out: when the endpoint uses it again,
// that is seen.
func (s *strays) flows(drops func(key string) bool, claims func() map[address]string) map[string][]wall.Stray {
	out := map[string][]wall.Stray{}
	for key, addresses := range s.seen {
		for a := range addresses {
			h := s.holders[a]
			bound := h != nil && h.key == key && !h.contested() && claimed(claims(), a) == ""
			if bound || drops(key) || h.contested() || claimed(claims(), a) != "" {
				out[key] = append(out[key], wall.Stray{MAC: a.mac, VLAN: a.vlan, Bound: bound})
			}
		}
		slices.SortFunc(out[key], func(a, b wall.Stray) int { return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.MAC, b.MAC)) })
	}
	return out
}

// anyVLAN stands for all VLANs in claims.
const anyVLAN = -1

// claimed says who declares the address in its VLAN, in words; "" = nobody.
func claimed(claims map[address]string, a address) string {
	return orElse(claims[a], claims[address{anyVLAN, a.mac}])
}

// newClaims lists the addresses that are somebody's on a bridge: those that endpoints declare, and those of the devices of other ports.
func newClaims(bridge string, ports []inventory.Port, ws []*policy.Workload) map[address]string {
	out := map[address]string{}
	for _, w := range ws {
		if w.Bridge != bridge || w.Remote {
			continue
		}
		for _, mac := range append([]string{w.MAC}, w.MACs...) {
			out[claimOf(mac, w.VLAN, w.VLAN == 0)] = "endpoint " + w.Key
		}
	}
	for _, p := range ports {
		for _, i := range p.Interfaces {
			if at := claimOf(i.MAC, p.VLAN, p.Tagged); p.Workload == nil && out[at] == "" {
				out[at] = "port " + p.Name
			}
		}
	}
	return out
}

// claimOf is where an address of a port is looked for: in its VLAN or, of a trunk, in all.
func claimOf(mac string, vlan int, trunk bool) address {
	if trunk {
		vlan = anyVLAN
	}
	return address{vlan, mac}
}

// sees takes over a copy of a frame of an unknown address.
func (l *link) sees(in *record.PacketIn) {
	if len(in.Data) < 12 || in.Data[6]&1 != 0 || [6]byte(in.Data[6:12]) == [6]byte{} {
		return // nobody can be reached under such an address
	}
	a := address{int(register(in, pipeline.ZoneVLAN)), net.HardwareAddr(in.Data[6:12]).String()}
	l.sightings.report(sighting{register(in, pipeline.SourceEndpoint), a}, false)
}

// readStrays asks the switch for the addresses that have flows, with their counters.
func (l *link) readStrays(ctx context.Context) (map[sighting]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out := map[sighting]uint64{}
	ours := ofp.FlowFilter{Table: pipeline.TableSpoof, Cookie: uint64(pipeline.CookieMagic), CookieMask: uint64(pipeline.CookieMagicMask)}
	err := l.sw.EachFlow(ctx, ours, func(f *ofp.FlowStats) {
		if endpoint, vlan, mac, ok := pipeline.ParseStrayMAC(f.Match); ok {
			out[sighting{endpoint, address{vlan, mac.String()}}] = f.Stats.Packets
		}
	})
	return out, err
}

// watchStrays reports which of the known addresses are still used, until ctx ends: their frames are not copied any more.
func (e *Engine) watchStrays(ctx context.Context, l *link) {
	before := map[sighting]uint64{}
	for pause(ctx, strayPoll) {
		now, err := l.readStrays(ctx)
		if err != nil {
			continue // the next connection is asked again
		}
		for x, packets := range now {
			if packets > before[x] {
				l.sightings.report(x, true)
			}
		}
		before = now
	}
}

// tendStrays brings the firewall up to date with the addresses that were seen.
func (w *firewall) tendStrays(ctx context.Context, ready bool, now time.Time) {
	s := &w.strays
	if ready && !s.recovered {
		left, err := w.readStrays(ctx)
		if err != nil {
			return
		}
		for x := range left {
			w.sightings.report(x, false)
		}
		s.recovered = true
	}
	if reported := w.sightings.take(); len(reported) > 0 {
		keys := map[uint32]string{}
		for key, a := range each(w.numbers.endpoints) {
			keys[pipeline.EndpointBase(a.ID)] = key
		}
		for x, used := range reported {
			key := keys[pipeline.EndpointBase(x.endpoint)]
			ep := s.endpoint(key)
			switch {
			case x.endpoint != 0 && ep == nil:
			case used:
				if has(s.seen[key], x.address) {
					s.seen[key][x.address] = now
				}
			default:
				s.note(key, x.address, ep != nil && ep.DropsUnknownMAC(w.inGrace()), now)
			}
		}
	}
	s.forget(now, func(key string, a address) bool {
		ep := s.endpoint(key)
		return ep != nil && ep.MAC != a.mac && !slices.Contains(ep.MACs, a.mac)
	})
	w.fw.SetStrays(s.flows(func(key string) bool { return s.endpoint(key).DropsUnknownMAC(w.inGrace()) }, w.claims))
}

// strayWarnings tells of the addresses of a bridge.
func (w *firewall) strayWarnings() []policy.Warning {
	var out []policy.Warning
	for _, key := range slices.Sorted(maps.Keys(w.strays.seen)) {
		x, addresses := w.strays.endpoint(key), w.strays.seen[key]
		if x == nil {
			continue
		}
		for _, a := range slices.SortedFunc(maps.Keys(addresses), func(a, b address) int {
			return cmp.Or(cmp.Compare(a.vlan, b.vlan),
				cmp.Compare(a.mac, b.mac))
		}) {
			text := fmt.Sprintf("port %s of bridge %s sends under the MAC address %s in VLAN %d, which is not that of its endpoint", x.Port,
				x.Bridge, a.mac, a.vlan)
			declared, h := claimed(w.claims(), a), w.strays.holders[a]
			switch {
			case x.DropsUnknownMAC(w.inGrace()):
				text += "; such frames are dropped; add the address to macs of its Endpoint if it belongs there"
			case declared != "":
				text += " but of " + declared + "; it is judged as sent by the endpoint, and what is sent to the address as sent to that one"
			case h.contested():
				text += "; other ports use the address too, so it is judged as sent by the endpoint, but what is sent to it is not judged"
			case h == nil || h.key != x.Key:
				text += "; another port has used the address since"
			default:
				text += "; it is judged as sent by the endpoint and to it; add the address to macs of its Endpoint, or set unknownMac: drop"
			}
			code := policy.WarnUnknownMAC
			if x.DropsUnknownMAC(false) && !x.DropsUnknownMAC(w.inGrace()) {
				code, text = WarnSpoofWouldDrop, text+"; it will be dropped "+w.graceEnds()
			}
			out = append(out, policy.Warning{Code: code, Endpoint: x.Key, Message: text})
		}
		if len(addresses) >= wall.MaxStrays {
			out = append(out, policy.Warning{Code: policy.WarnUnknownMAC, Endpoint: x.Key, Message: fmt.Sprintf(
				"port %s of bridge %s sends under %d MAC addresses that are not those of its endpoint, and perhaps more: further ones are not "+
					"looked at",
				x.Port, x.Bridge, len(addresses))})
		}
	}
	return out
}
