package wall

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// A service is a set of protocols and ports that rules name. SERVICE gives each part of what services name, ports that are in the same
// services, a number. A service whose ports are cut into more parts than it has port matches, or that a single rule names and that is
// short, is matched raw. What is told by more than protocol and destination port (source ports, types of ICMP, SCTP) is so in any case,
// beside the numbers of the rest.
type service struct {
	text    string
	set     policy.ServiceSet
	wide    []policy.ProtoPorts // what of it may have numbers
	users   map[*rule]struct{}
	matches int      // that this takes raw, in one IP version
	numbers []uint16 // of its parts, sorted; nil = it is matched raw
}

// fewPorts is how many matches a service may take without being numbered while a single rule names it.
const fewPorts = 4

type services struct {
	byText   map[string]*service
	segments []segment
	numbers  pool
	known    map[uint64]uint16 // numbers of parts of an earlier run, by hash
	parts    map[string]uint16 // numbers of parts, by key
	wanted   []*service        // as last numbered
	stale    bool
	named    map[uint16]uint64
	most     int  // how many numbers there are
	sctp     int  // how many services name ports of SCTP
	judges   bool // whether there are any has changed
}

// segment is a range of ports of a protocol, or (ports nil) all of it, that is in the same services.
type segment struct {
	proto  uint8
	all    bool
	ports  policy.PortRange
	key    string // of the services
	number uint16
}

func newServices() *services {
	return &services{byText: map[string]*service{}, parts: map[string]uint16{}, named: map[uint16]uint64{}, most: most}
}

// use returns the service of a set and notes that r uses it; nil = any.
func (s *services) use(set policy.ServiceSet, r *rule) *service {
	if set.Any {
		return nil
	}
	text := serviceText(&set)
	x := s.byText[text]
	if x == nil {
		x = &service{text: text, set: set, users: map[*rule]struct{}{}}
		for _, p := range set.Protos {
			if wide, ok := p.Wide(); ok {
				x.wide = append(x.wide, wide)
				x.matches += max(1, len(portMasks(p.Ports)))
			}
		}
		s.byText[text] = x
		s.countSCTP(x, 1)
	}
	wanted := len(x.users) > 0 && x.wants()
	x.users[r] = struct{}{}
	s.stale = s.stale || x.wants() != wanted
	return x
}

func (s *services) release(x *service, r *rule) {
	if x == nil {
		return
	}
	if _, used := x.users[r]; !used {
		return
	}
	wanted := x.wants()
	delete(x.users, r)
	s.stale = s.stale || wanted && (len(x.users) == 0 || !x.wants())
	if len(x.users) == 0 {
		delete(s.byText, x.text)
		s.countSCTP(x, -1)
	}
}

// countSCTP notes that a service has come or gone; the first and the last one that names ports of SCTP change the flows.
func (s *services) countSCTP(x *service, n int) {
	if p := x.set.Of(policy.ProtoSCTP); p != nil && !p.All() {
		was := s.sctp > 0
		s.sctp += n
		s.judges = s.judges || was != (s.sctp > 0)
	}
}

func (x *service) wants() bool { return len(x.wide) > 0 && (len(x.users) > 1 || x.matches > fewPorts) }

func serviceText(s *policy.ServiceSet) string {
	var b strings.Builder
	for _, p := range s.Protos {
		b.WriteString(strconv.Itoa(int(p.Proto)))
		for _, r := range p.Ports {
			b.WriteString(" " + r.String())
		}
		for _, x := range p.Pairs {
			b.WriteString(" (")
			for _, r := range x.Src {
				b.WriteString(r.String() + " ")
			}
			b.WriteByte('>')
			for _, r := range x.Dst {
				b.WriteString(" " + r.String())
			}
			b.WriteByte(')')
		}
		b.WriteByte(';')
	}
	return b.String()
}

func portMasks(rs []policy.PortRange) []flow.PortMask {
	var out []flow.PortMask
	for _, r := range rs {
		out = append(out, flow.PortMasks(r.Lo, r.Hi)...)
	}
	return out
}

// settleServices numbers the parts of the services that want it.
func (f *Firewall) settleServices() {
	s := f.services
	if !s.stale {
		return
	}
	s.stale = false
	var wanted []*service
	for _, x := range s.byText {
		if x.wants() {
			wanted = append(wanted, x)
		}
	}
	slices.SortFunc(wanted, func(a, b *service) int { return cmp.Compare(a.text, b.text) })
	var segments []segment
	for {
		segments = cut(wanted)
		count := map[*service]map[string]struct{}{}
		for _, g := range segments {
			for _, x := range listed(g.key, wanted) {
				if count[x] == nil {
					count[x] = map[string]struct{}{}
				}
				count[x][g.key] = struct{}{}
			}
		}
		n := len(wanted)
		wanted = slices.DeleteFunc(slices.Clone(wanted), func(x *service) bool { return len(count[x]) > x.matches })
		if len(wanted) < n {
			continue
		}
		if n = parts(segments); n <= s.most {
			break
		}
		wanted = fewer(wanted, n-s.most)
	}
	f.nameServices(segments, wanted)
}

// cut returns the segments of the services, in order, each with the indices of the services that it is in.
func cut(xs []*service) []segment {
	type edge struct {
		at    int
		proto uint8
	}
	edges := map[edge]struct{}{}
	whole := map[uint8][]byte{} // services with all of a protocol
	for i, x := range xs {
		for _, p := range x.wide {
			if p.Ports == nil {
				whole[p.Proto] = binary.BigEndian.AppendUint32(whole[p.Proto], uint32(i))
			}
			for _, r := range p.Ports {
				edges[edge{int(r.Lo), p.Proto}], edges[edge{int(r.Hi) + 1, p.Proto}] = struct{}{}, struct{}{}
			}
		}
	}
	order := slices.SortedFunc(maps.Keys(edges), func(a, b edge) int { return cmp.Or(cmp.Compare(a.proto, b.proto), cmp.Compare(a.at, b.at)) })
	at := make(map[edge]int, len(order))
	keys := make([][]byte, len(order))
	for i, e := range order {
		at[e] = i
	}
	for i, x := range xs {
		for _, p := range x.wide {
			for _, r := range p.Ports {
				for j := at[edge{int(r.Lo), p.Proto}]; j < at[edge{int(r.Hi) + 1, p.Proto}]; j++ {
					keys[j] = binary.BigEndian.AppendUint32(keys[j], uint32(i))
				}
			}
		}
	}
	var out []segment
	for _, proto := range slices.Sorted(maps.Keys(whole)) {
		out = append(out, segment{proto: proto, all: true, key: string(whole[proto])})
	}
	for j, e := range order {
		if len(keys[j]) == 0 {
			continue
		}
		key := merge(keys[j], whole[e.proto])
		out = append(out, segment{proto: e.proto, ports: policy.PortRange{Lo: uint16(e.at), Hi: uint16(order[j+1].at - 1)}, key: key})
	}
	return out
}

// listed returns the services whose indices a key holds.
func listed(key string, xs []*service) []*service {
	var out []*service
	for i := 0; i < len(key); i += 4 {
		out = append(out, xs[binary.BigEndian.Uint32([]byte(key[i:i+4]))])
	}
	return out
}

// merge joins two lists of indices.
func merge(a, b []byte) string {
	var ids []uint32
	for _, l := range [][]byte{a, b} {
		for i := 0; i < len(l); i += 4 {
			ids = append(ids, binary.BigEndian.Uint32(l[i:]))
		}
	}
	slices.Sort(ids)
	var out []byte
	for _, id := range slices.Compact(ids) {
		out = binary.BigEndian.AppendUint32(out, id)
	}
	return string(out)
}

// nameServices gives the parts numbers: the largest part of what a part was keeps its number.
func (f *Firewall) nameServices(segments []segment, wanted []*service) {
	s := f.services
	texts := map[string]string{} // keys by which parts are known in the next round, too
	for i := range segments {
		g := &segments[i]
		if texts[g.key] == "" {
			var b strings.Builder
			for _, x := range listed(g.key, wanted) {
				b.WriteString(x.text + "\n")
			}
			texts[g.key] = b.String()
		}
	}
	members := map[string][]*service{}
	for key, text := range texts {
		members[text] = listed(key, wanted)
	}
	for i := range segments {
		segments[i].key = texts[segments[i].key]
	}
	numbers := s.inherit(segments)
	for _, key := range slices.Sorted(maps.Keys(members)) {
		if numbers[key] != 0 {
			continue
		}
		hash := hashOf(key)
		n := s.known[hash]
		if n == 0 || !s.numbers.take(n) {
			n = s.numbers.next()
		}
		numbers[key] = n
		s.named[n] = hash
	}
	s.parts = numbers
	for i := range segments {
		segments[i].number = numbers[segments[i].key]
	}
	s.segments = segments
	now := map[*service][]uint16{}
	for key, xs := range members {
		for _, x := range xs {
			now[x] = append(now[x], numbers[key])
		}
	}
	for _, x := range slices.Concat(s.wanted, wanted) {
		slices.Sort(now[x])
		if !slices.Equal(x.numbers, now[x]) {
			x.numbers = now[x]
			for r := range x.users {
				f.rewrite(r)
			}
		}
	}
	s.wanted = wanted
	f.dirtyServices = true
}

// inherit returns the numbers that parts keep, and gives up the others.
func (s *services) inherit(segments []segment) map[string]uint16 {
	type pair struct {
		key    string
		number uint16
	}
	shared := map[pair]int{}
	old := s.segments
	i := 0
	for _, g := range segments {
		for i < len(old) && precedes(old[i], g) {
			i++
		}
		for j := i; j < len(old) && old[j].proto == g.proto && old[j].all == g.all && (g.all || old[j].ports.Lo <= g.ports.Hi); j++ {
			n := 1
			if !g.all {
				n = int(min(g.ports.Hi, old[j].ports.Hi)) - int(max(g.ports.Lo, old[j].ports.Lo)) + 1
			}
			shared[pair{g.key, old[j].number}] += n
		}
	}
	numbers, given := map[string]uint16{}, map[uint16]struct{}{}
	for _, p := range slices.SortedFunc(maps.Keys(shared), func(a, b pair) int {
		return cmp.Or(cmp.Compare(shared[b], shared[a]), cmp.Compare(a.number, b.number), cmp.Compare(a.key, b.key))
	}) {
		if _, taken := given[p.number]; numbers[p.key] == 0 && !taken {
			numbers[p.key], given[p.number] = p.number, struct{}{}
			if s.parts[p.key] != p.number {
				s.named[p.number] = hashOf(p.key)
			}
		}
	}
	for _, n := range s.parts {
		if _, kept := given[n]; !kept {
			s.numbers.free(n)
			s.named[n] = 0
		}
	}
	return numbers
}

// precedes reports whether a segment ends before another begins.
func precedes(a, b segment) bool {
	if a.all != b.all {
		return a.all
	}
	return a.proto < b.proto || a.proto == b.proto && !a.all && a.ports.Hi < b.ports.Lo
}

// emitServices builds the flows of SERVICE.
func (f *Firewall) emitServices(out *Changes) {
	if !f.dirtyServices && !f.services.judges {
		return
	}
	f.dirtyServices, f.services.judges = false, false
	var flows []flow.Flow
	for _, g := range f.services.segments {
		cookie := pipeline.NewCookie(pipeline.CookieNumber, uint32(g.number))
		p := policy.ProtoPorts{Proto: g.proto}
		priority := pipeline.PriorityProtocol
		if !g.all {
			p.Ports, priority = []policy.PortRange{g.ports}, pipeline.PriorityService
		}
		for _, fam := range []families{ipv4, ipv6} {
			if familiesOf(p)&fam == 0 {
				continue
			}
			for _, m := range serviceMatches(nil, fam, p) {
				flows = append(flows, flow.Flow{Table: pipeline.TableService, Priority: priority, Cookie: cookie, Match: m,
					Actions: []flow.Action{pipeline.Service.Load(uint64(g.number))}})
			}
		}
	}
	if f.services.sctp > 0 {
		flows = append(flows, pipeline.JudgeSCTP()...)
	}
	out.Owners[OwnerServices] = flows
	for n, hash := range f.services.named {
		out.Assignments.ServiceNumbers[n] = nameOf(hash)
	}
	out.Services = f.services.texts()
	clear(f.services.named)
}
