package wall

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// point is one packet of a universe that is small enough to be enumerated.
type point struct {
	subject, peer int // serials; 0 = the world
	addr          netip.Addr
	proto         uint8
	port          uint16
}

var universe = func() []point {
	var out []point
	for _, subject := range []int{1, 2} {
		for peer := range 3 {
			for i := range 8 {
				for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.AddrFrom16([16]byte{0xfd, 15: byte(i)})} {
					for port := range uint16(8) {
						out = append(out, point{subject, peer, a, policy.ProtoTCP, port + 1})
					}
					if a.Is4() {
						out = append(out, point{subject, peer, a, policy.ProtoICMP, 0})
					}
				}
			}
		}
	}
	return out
}()

var people = []*endpoint{{serial: 0}, {serial: 1}, {serial: 2}}

func (s *space) has(p point) bool {
	if !slices.Contains(s.subjects, people[p.subject]) {
		return false
	}
	if !s.peers.any && !(s.peers.world && p.peer == 0) && !slices.Contains(s.peers.endpoints, people[p.peer]) &&
		!slices.ContainsFunc(s.peers.prefixes, func(x netip.Prefix) bool { return x.Contains(p.addr) }) {
		return false
	}
	return s.services.Any || slices.ContainsFunc(s.services.Protos, func(v policy.ProtoPorts) bool {
		return v.Proto == p.proto && (v.Ports == nil || slices.ContainsFunc(v.Ports, func(r policy.PortRange) bool { return r.Contains(p.port) }))
	})
}

// genSpace draws a space and what it was made of.
func genSpace(t *rapid.T) (space, []netip.Prefix) {
	var s space
	s.subjects = rapid.SampledFrom([][]*endpoint{people[1:2], people[2:], people[1:]}).Draw(t, "subjects")
	prefixes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
		if rapid.Bool().Draw(t, "v6") {
			p, _ := netip.AddrFrom16([16]byte{0xfd, 15: byte(rapid.IntRange(0, 7).Draw(t, "addr"))}).Prefix(rapid.IntRange(124, 128).Draw(t, "bits"))
			return p
		}
		p, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 7).Draw(t, "addr"))}).Prefix(rapid.IntRange(28, 32).Draw(t, "bits"))
		return p
	}), 0, 4).Draw(t, "prefixes")
	if s.peers.any = rapid.IntRange(0, 5).Draw(t, "any") == 0; !s.peers.any {
		s.peers.world = rapid.IntRange(0, 3).Draw(t, "world") == 0
		s.peers.endpoints = rapid.SampledFrom([][]*endpoint{nil, people[1:2], people[2:], people[1:]}).Draw(t, "peers")
		s.peers.prefixes = policy.DistinctPrefixes(slices.Clone(prefixes))
		for _, p := range s.peers.prefixes {
			s.peers.fams |= familyOf(p)
		}
	}
	var services []policy.Service
	for range rapid.IntRange(0, 2).Draw(t, "services") {
		services = append(services, rapid.SampledFrom([]policy.Service{
			{Protocol: "icmp"}, {Protocol: "tcp"}, {Protocol: "tcp", Ports: []string{"1-3"}}, {Protocol: "tcp", Ports: []string{"2", "4-6"}},
			{Protocol: "tcp", Ports: []string{"7-8"}}, {Protocol: "tcp", Ports: []string{"1-65535"}},
		}).Draw(t, "service"))
	}
	s.services = policy.NewServiceSet(services)
	return s, prefixes
}

// TestSpaces compares the operations on spaces with counting packets.
func TestSpaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, prefixes := genSpace(t)
		b, _ := genSpace(t)
		added := a.added(&b)
		overlaps, any := false, false
		for _, p := range universe {
			inA, inB := a.has(p), b.has(p)
			any = any || inA
			overlaps = overlaps || inA && inB
			inAdded := slices.ContainsFunc(added, func(s space) bool { return s.has(p) })
			if inA && !inB && !inAdded {
				t.Fatalf("%+v is in\n%+v and not in\n%+v, but not in what was added:\n%+v", p, a, b, added)
			}
			if inAdded && !inA {
				t.Fatalf("%+v was added by\n%+v, which does not have it", p, a)
			}
			if !a.peers.any && a.peers.prefixes.Covers(netip.PrefixFrom(p.addr, p.addr.BitLen())) != slices.ContainsFunc(prefixes,
				func(x netip.Prefix) bool {
					return x.Contains(p.addr)
				}) {
				t.Fatalf("%v changed by joining %v into %v", p.addr, prefixes, a.peers.prefixes)
			}
		}
		if (a.families() == 0) == any {
			t.Fatalf("%+v is empty: %v", a, any)
		}
		if overlaps && !a.overlaps(&b) {
			t.Fatalf("%+v overlaps\n%+v", a, b)
		}
		if a.overlaps(&b) != b.overlaps(&a) {
			t.Fatalf("overlap is not symmetric:\n%+v\n%+v", a, b)
		}
		if len(a.added(&a)) != 0 {
			t.Fatalf("%+v differs from itself", a)
		}
	})
}

// TestLostPrefixesIsExact: what addresses lost is told exactly, so that nothing is re-versioned in vain.
func TestLostPrefixesIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _ := genSpace(t)
		b, _ := genSpace(t)
		covered := true
		for _, p := range universe {
			host := netip.PrefixFrom(p.addr, p.addr.BitLen())
			covered = covered && (!a.peers.prefixes.Covers(host) || b.peers.prefixes.Covers(host))
		}
		// Ranges shorter than the universe cannot be told apart by it.
		for _, p := range append(slices.Clone(a.peers.prefixes), b.peers.prefixes...) {
			if p.Addr().BitLen()-p.Bits() > 3 {
				return
			}
		}
		if (len(policy.LostPrefixes(a.peers.prefixes, b.peers.prefixes)) == 0) != covered {
			t.Fatalf("%v within %v: want %v", a.peers.prefixes, b.peers.prefixes, covered)
		}
	})
}

// TestOrder inserts and removes at random: priorities fall strictly along the order, stay in range, and change only for rules that are
// new, save when all are numbered anew.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o ordered
		name := func() string { return rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "name") }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			var gone []*rule
			before := map[*rule]uint16{}
			for _, r := range o.rules {
				if rapid.IntRange(0, 9).Draw(t, "remove") == 0 {
					gone = append(gone, r)
				} else {
					before[r] = r.priority
				}
			}
			var added []*rule
			for range rapid.SampledFrom([]int{0, 1, 2, 5, 40}).Draw(t, "add") {
				r := &rule{ref: policy.RuleRef{Policy: name(), Rule: name()}, rank: policy.Rank{Priority: rapid.IntRange(0, 3).Draw(t, "rank")}}
				taken := func(x *rule) bool { return compareRules(x, r) == 0 }
				if !slices.ContainsFunc(o.rules, taken) && !slices.ContainsFunc(added, taken) {
					added = append(added, r)
				}
			}
			changed := o.update(gone, slices.Clone(added))
			if len(o.rules) != len(before)+len(added) {
				t.Fatalf("%d rules, want %d", len(o.rules), len(before)+len(added))
			}
			for i, r := range o.rules {
				if r.priority < 2 || r.priority > 65000 || i > 0 && (o.rules[i-1].priority <= r.priority || compareRules(o.rules[i-1], r) >= 0) {
					t.Fatalf("rule %d has priority %d after %d", i, r.priority, o.rules[max(i-1, 0)].priority)
				}
				if p, ok := before[r]; (!ok || p != r.priority) && !slices.Contains(changed, r) {
					t.Fatalf("rule %d changed silently", i)
				}
			}
		}
	})
}

// TestOrderRoom puts rules in where room is scarcest, among many: few others have to move for it.
func TestOrderRoom(t *testing.T) {
	const many, inserted = 10000, 2000
	id := uint32(0)
	at := func(n int) *rule {
		id++
		return &rule{rank: policy.Rank{Priority: n}, id: id}
	}
	for name, next := range map[string]func(i int) int{
		"downwards": func(i int) int { return many*inserted + i },
		"first":     func(i int) int { return -i },
		"last":      func(i int) int { return 2*many*inserted + i },
		"upwards":   func(i int) int { return many*inserted + inserted - i },
	} {
		t.Run(name, func(t *testing.T) {
			var o ordered
			var base []*rule
			for i := range many {
				base = append(base, at(2*i*inserted+3*inserted/2))
			}
			o.update(nil, base)
			moved := 0
			for i := range inserted {
				moved += len(o.update(nil, []*rule{at(next(i))})) - 1
			}
			for i, r := range o.rules {
				if i > 0 && o.rules[i-1].priority <= r.priority || r.priority < 2 || r.priority > 65000 {
					t.Fatalf("rule %d has priority %d", i, r.priority)
				}
			}
			t.Logf("%d insertions moved %d rules", inserted, moved)
			if moved > 20*inserted {
				t.Errorf("%d insertions moved %d rules", inserted, moved)
			}
		})
	}
}

// TestImportedPrioritiesAreChecked: priorities of an earlier run that contradict the order are replaced.
func TestImportedPrioritiesAreChecked(t *testing.T) {
	for name, given := range map[string][]uint16{
		"reversed": {10, 20, 30}, "equal": {20, 20, 10}, "too high": {65500, 20, 10}, "too low": {30, 20, 1}, "gap": {30, 0, 29},
	} {
		var o ordered
		var added []*rule
		for i, p := range given {
			added = append(added, &rule{rank: policy.Rank{Priority: i}, priority: p})
		}
		o.update(nil, added)
		for i, r := range o.rules {
			if r.priority < 2 || r.priority > 65000 || i > 0 && o.rules[i-1].priority <= r.priority {
				t.Errorf("%s: priorities %d, %d, %d", name, o.rules[0].priority, o.rules[1].priority, o.rules[2].priority)
				break
			}
		}
	}
	var o ordered
	kept := []*rule{{rank: policy.Rank{Priority: 0}, priority: 300}, {rank: policy.Rank{Priority: 1}}, {rank: policy.Rank{Priority: 2},
		priority: 100}}
	o.update(nil, slices.Clone(kept))
	if kept[0].priority != 300 || kept[1].priority != 200 || kept[2].priority != 100 {
		t.Errorf("priorities %d, %d, %d", kept[0].priority, kept[1].priority, kept[2].priority)
	}
}

// TestNumbersWrap: numbers begin again when they are used up, and leave out those that something carries.
func TestNumbersWrap(t *testing.T) {
	f, err := NewFirewall(Options{Bridge: "br0", Assignments: &Assignments{
		Next: 1<<29 - 1, Policies: map[string]PolicyAssignment{"p": {"ingress/x": {ID: 1}}},
		Endpoints: map[string]EndpointAssignment{"w": {ID: 2}}, Classes: map[uint16]ClassAssignment{16: {EgressAllow: 4}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.registry.set(5, RuleInfo{})
	f.byID[6] = &endpoint{}
	var got []uint32
	for range 4 {
		got = append(got, f.number())
	}
	if want := []uint32{1<<29 - 1, 3, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("numbers %d, want %d", got, want)
	}
}
