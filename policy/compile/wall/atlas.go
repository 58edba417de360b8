package wall

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// The atlas divides the addresses that rules name into regions: addresses that are in the same choices. Each region has a number.
type atlas struct {
	spots     bart.Table[*spot]
	regions   map[string]*region // by the hashes of their choices
	settled   [2]int             // regions that have spots: others, and those of known addresses
	most      int                // how many of either may have
	numbers   [2]pool            // likewise; see region.half
	endpoints *choice            // lists the addresses that are known
	known     map[uint64]uint16  // numbers of regions of an earlier run, by region.hash
	shards    map[uint16][]*spot

	dirty   map[uint16]struct{}  // shards
	touched map[*choice]struct{} // whose regions changed
	movers  []*spot
	visited map[*region]struct{} // those that are new, or that spots have left
	named   map[uint16]*region   // that were given numbers; nil = the number was taken back
	steps   map[transition]*region
}

// spot is a prefix that some choice lists.
type spot struct {
	prefix netip.Prefix
	listed []*choice
	region *region
	was    *region // when numbers were last given, if it has moved since
	at     int     // in region.spots
	shard  uint16
	place  int // in its shard
}

// region is where all addresses are in the same choices.
type region struct {
	key     string
	choices []*choice // by hash
	number  uint16
	spots   []*spot
}

// transition leads from a region to the one with a choice more or less.
type transition struct {
	from *region
	by   *choice
}

func newAtlas(endpoints *choice) *atlas {
	return &atlas{regions: map[string]*region{}, shards: map[uint16][]*spot{}, dirty: map[uint16]struct{}{}, touched: map[*choice]struct{}{},
		visited: map[*region]struct{}{}, named: map[uint16]*region{}, steps: map[transition]*region{}, most: mostRegions,
		endpoints: endpoints}
}

// mostRegions is how many numbers there are for regions of either half.
const mostRegions = int(pipeline.KnownAddress) - 1

// half is 1 for addresses of endpoints that are known, whose numbers have the bit pipeline.KnownAddress, and 0 for others.
func (a *atlas) half(r *region) int {
	if _, in := r.find(a.endpoints); in {
		return 1
	}
	return 0
}

func (r *region) find(x *choice) (int, bool) {
	return slices.BinarySearchFunc(r.choices, x.hash, compareHash)
}

// halfOf returns the half that a number is of, and its number there.
func halfOf(n uint16) (half int, in uint16) {
	return int(n / pipeline.KnownAddress), n &^ pipeline.KnownAddress
}

// hash names the region in the state of later runs.
func (r *region) hash() uint64 { return hashOf(r.key) }

// list brings the prefixes of a choice in the atlas up to date; none takes it out. Both lists are distinct.
func (a *atlas) list(x *choice, now []netip.Prefix) {
	before := x.address.listed
	for p := range missing(before, now) {
		a.strike(x, p)
	}
	for p := range missing(now, before) {
		a.add(x, p)
	}
	x.address.listed = now
	a.touched[x] = struct{}{}
}

// missing yields the prefixes of a that are not in b; both are sorted.
func missing(a, b []netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		i := 0
		for _, p := range a {
			if i < len(b) && b[i] == p { // most are in both
				i++
				continue
			}
			for i < len(b) && b[i].Compare(p) < 0 {
				i++
			}
			if (i == len(b) || b[i] != p) && !yield(p) {
				return
			}
		}
	}
}

func (a *atlas) add(x *choice, p netip.Prefix) {
	s, ok := a.spots.Get(p)
	if !ok {
		s = &spot{prefix: p, shard: shardOf(p)}
		if above, ok := a.spots.LookupPrefix(p); ok {
			a.enter(s, above.region)
		} else {
			a.enter(s, a.regionOf(nil))
		}
		a.spots.Insert(p, s)
		s.place = len(a.shards[s.shard])
		a.shards[s.shard] = append(a.shards[s.shard], s)
	}
	s.listed = append(s.listed, x)
	for _, in := range a.spots.Subnets(p) {
		a.move(in, x)
	}
}

// strike takes a prefix of a choice away. The choice's prefixes are distinct, so none covers it or is in it.
func (a *atlas) strike(x *choice, p netip.Prefix) {
	s, ok := a.spots.Get(p)
	if !ok {
		return
	}
	s.listed = slices.DeleteFunc(s.listed, func(y *choice) bool { return y == x })
	for _, in := range a.spots.Subnets(p) {
		a.move(in, x)
	}
	if len(s.listed) > 0 {
		return
	}
	a.spots.Delete(p)
	a.exit(s)
	shard := a.shards[s.shard]
	last := shard[len(shard)-1]
	shard[s.place], last.place = last, s.place
	a.shards[s.shard] = shard[:len(shard)-1]
	a.dirty[s.shard] = struct{}{}
}

// move takes a spot to the region that is in x if its own is not, and the other way round.
func (a *atlas) move(s *spot, x *choice) {
	from := s.region
	to := a.steps[transition{from, x}]
	if to == nil || a.regions[to.key] != to {
		i, in := from.find(x)
		choices := slices.Clone(from.choices)
		if in {
			choices = slices.Delete(choices, i, i+1)
		} else {
			choices = slices.Insert(choices, i, x)
		}
		to = a.regionOf(choices)
		a.steps[transition{from, x}] = to
	}
	if s.was == nil {
		s.was = from
		a.movers = append(a.movers, s)
	}
	a.exit(s)
	a.enter(s, to)
}

// regionOf returns the region of choices.
func (a *atlas) regionOf(choices []*choice) *region {
	key := make([]byte, 0, 8*len(choices))
	for _, x := range choices {
		key = binary.BigEndian.AppendUint64(key, x.hash)
	}
	r := a.regions[string(key)]
	if r == nil {
		r = &region{key: string(key), choices: choices}
		a.regions[r.key], a.visited[r] = r, struct{}{}
		for _, x := range choices {
			if x.address.regions == nil {
				x.address.regions = map[*region]struct{}{}
			}
			x.address.regions[r] = struct{}{}
			a.touched[x] = struct{}{}
		}
	}
	return r
}

func (a *atlas) enter(s *spot, r *region) {
	if s.region, s.at = r, len(r.spots); s.at == 0 {
		a.settled[a.half(r)]++
	}
	r.spots = append(r.spots, s)
	a.dirty[s.shard] = struct{}{}
}

func (a *atlas) exit(s *spot) {
	r := s.region
	last := r.spots[len(r.spots)-1]
	r.spots[s.at], last.at = last, s.at
	if r.spots = r.spots[:len(r.spots)-1]; len(r.spots) == 0 {
		a.settled[a.half(r)]--
	}
	a.visited[r] = struct{}{}
}

// crowded reports whether the addresses of a choice would have more numbers than prefixes.
func (a *atlas) crowded(x *choice) bool {
	parts := map[*region]struct{}{} // nil = addresses that are in no other choice
	for _, p := range x.now.prefixes {
		if _, ok := a.spots.Get(p); !ok { // it would be a spot of its own
			var in *region
			if above, ok := a.spots.LookupPrefix(p); ok {
				in = above.region
			}
			parts[in] = struct{}{}
		}
		for _, s := range a.spots.Subnets(p) {
			parts[s.region] = struct{}{}
			if len(parts) > len(x.now.prefixes) {
				return true
			}
		}
	}
	return len(parts) > len(x.now.prefixes)
}

// settle gives each region a number: of what a region was, the largest part keeps it.
func (a *atlas) settle() {
	type pair struct{ to, from *region }
	moved := map[pair]int{}
	for _, s := range a.movers {
		if s.region != s.was && s.was.number != 0 && s.region.number == 0 && len(s.region.spots) > 0 {
			moved[pair{s.region, s.was}]++
		}
		s.was = nil
	}
	a.movers = nil
	claims := slices.SortedFunc(maps.Keys(moved), func(x, y pair) int {
		return cmp.Or(cmp.Compare(moved[y], moved[x]), cmp.Compare(x.from.key, y.from.key), cmp.Compare(x.to.key, y.to.key))
	})
	for _, c := range claims {
		if c.to.number == 0 && c.from.number != 0 && a.half(c.to) == a.half(c.from) && moved[c] > len(c.from.spots) {
			a.name(c.to, c.from.number)
			c.from.number = 0
		}
	}
	visited := slices.SortedFunc(maps.Keys(a.visited), func(x, y *region) int { return cmp.Compare(x.key, y.key) })
	for _, r := range visited {
		if len(r.spots) == 0 {
			a.abandon(r)
		}
	}
	for _, r := range visited {
		if r.number != 0 || len(r.spots) == 0 {
			continue
		}
		half := a.half(r)
		of, n := halfOf(a.known[r.hash()])
		if n == 0 || of != half || !a.numbers[half].take(n) {
			n = a.numbers[half].next()
		}
		a.name(r, n|uint16(half)*pipeline.KnownAddress)
	}
	clear(a.visited)
	clear(a.steps)
}

// abandon gives up a region without spots.
func (a *atlas) abandon(r *region) {
	delete(a.regions, r.key)
	if r.number != 0 {
		half, n := halfOf(r.number)
		a.numbers[half].free(n)
		a.named[r.number] = nil
		r.number = 0
	}
	for _, x := range r.choices {
		delete(x.address.regions, r)
		a.touched[x] = struct{}{}
	}
}

// name gives a region a number.
func (a *atlas) name(r *region, n uint16) {
	r.number = n
	a.named[n] = r
	a.touch(r)
	for _, x := range r.choices {
		a.touched[x] = struct{}{}
	}
}

// touch has the flows of all spots of a region looked at.
func (a *atlas) touch(r *region) {
	for _, s := range r.spots {
		a.dirty[s.shard] = struct{}{}
	}
}

func (a *atlas) remove(x *choice) {
	if x.address.listed != nil {
		a.list(x, nil)
		x.address.listed = nil
	}
}

// shards are how many owners the flows of the atlas have: a change of some prefixes touches as many of them, and not all flows.
const shards = 4096

func shardOf(p netip.Prefix) uint16 {
	h := fnv.New32a()
	b, _ := p.AppendBinary(make([]byte, 0, 32))
	_, _ = h.Write(b)
	return uint16(h.Sum32() % shards)
}

// flows appends the flows by which the addresses of the spot get their number.
func (s *spot) flows(out []flow.Flow) []flow.Flow {
	var used [2]bool
	for _, x := range s.region.choices {
		for side := range used {
			used[side] = used[side] || x.address.use[side] > 0
		}
	}
	cookie := pipeline.NewCookie(pipeline.CookieNumber, uint32(s.region.number))
	priority := pipeline.PriorityPrefix + uint16(s.prefix.Bits())
	if used[ingress] { // the peer is the initiator
		out = append(out, flow.Flow{Table: pipeline.TableAddressSource, Priority: priority, Cookie: cookie, Match: prefixMatch(s.prefix, true),
			Actions: []flow.Action{pipeline.SourceAddress.Load(uint64(s.region.number)), flow.GotoTable{Table: pipeline.TableAddressDestination}}})
	}
	if used[egress] {
		out = append(out, flow.Flow{Table: pipeline.TableAddressDestination, Priority: priority, Cookie: cookie,
			Match:   prefixMatch(s.prefix, false),
			Actions: []flow.Action{pipeline.DestinationAddress.Load(uint64(s.region.number)), flow.GotoTable{Table: pipeline.TableService}}})
	}
	return out
}
