package wall

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// addressing is how rules match the addresses of a choice: by numbers that ADDRESS_SOURCE and ADDRESS_DESTINATION give, or raw, as the
// prefixes that they are, where that is the shorter list.
type addressing struct {
	// raw: there would be more numbers than prefixes, because other choices divide them.
	raw     bool
	listed  []netip.Prefix // as the atlas has them; nil = it does not
	regions map[*region]struct{}
	numbers []uint16 // those of regions, sorted
	use     [2]int   // rules that name the choice as peer, by side
}

// fewPrefixes is how many prefixes a choice may have without being numbered while a single rule names it.
const fewPrefixes = 4

// The atlas divides the addresses that rules name into regions: addresses that are in the same choices. Each region has a number.
type atlas struct {
	spots   bart.Table[*spot]
	regions map[string]*region // by the hashes of their choices
	settled int                // regions that have spots
	most    int                // how many may have
	numbers pool
	known   map[uint64]uint16 // numbers of regions of an earlier run, by region.hash
	shards  map[uint16][]*spot

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

func newAtlas() *atlas {
	return &atlas{regions: map[string]*region{}, shards: map[uint16][]*spot{}, dirty: map[uint16]struct{}{}, touched: map[*choice]struct{}{},
		visited: map[*region]struct{}{}, named: map[uint16]*region{}, steps: map[transition]*region{}, most: most}
}

// hash names the region in the state of later runs.
func (r *region) hash() uint64 { return hashOf(r.key) }

// list brings the prefixes of a choice in the atlas up to date; none takes it out. Both lists are distinct.
func (a *atlas) list(x *choice, now []netip.Prefix) {
	before := x.address.listed
	i := 0
	for _, p := range before {
		for i < len(now) && comparePrefix(now[i], p) < 0 {
			i++
		}
		if i == len(now) || now[i] != p {
			a.strike(x, p)
		}
	}
	i = 0
	for _, p := range now {
		for i < len(before) && comparePrefix(before[i], p) < 0 {
			i++
		}
		if i == len(before) || before[i] != p {
			a.add(x, p)
		}
	}
	x.address.listed = now
	a.touched[x] = struct{}{}
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
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
		i, in := slices.BinarySearchFunc(from.choices, x.hash, compareHash)
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
		a.settled++
	}
	r.spots = append(r.spots, s)
	a.dirty[s.shard] = struct{}{}
}

func (a *atlas) exit(s *spot) {
	r := s.region
	last := r.spots[len(r.spots)-1]
	r.spots[s.at], last.at = last, s.at
	if r.spots = r.spots[:len(r.spots)-1]; len(r.spots) == 0 {
		a.settled--
	}
	a.visited[r] = struct{}{}
}

// crowded reports whether the addresses of a choice would have more numbers than prefixes.
func (a *atlas) crowded(x *choice) bool {
	type part struct{ in *region }
	parts := map[part]struct{}{}
	for _, p := range x.now.prefixes {
		if _, ok := a.spots.Get(p); !ok { // it would be a spot of its own
			above, _ := a.spots.LookupPrefix(p)
			var r *region
			if above != nil {
				r = above.region
			}
			parts[part{r}] = struct{}{}
		}
		for _, s := range a.spots.Subnets(p) {
			parts[part{s.region}] = struct{}{}
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
		if c.to.number == 0 && c.from.number != 0 && moved[c] > len(c.from.spots) {
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
		n := a.known[r.hash()]
		if n == 0 || !a.numbers.take(n) {
			n = a.numbers.next()
		}
		a.name(r, n)
	}
	clear(a.visited)
	clear(a.steps)
}

// abandon gives up a region without spots.
func (a *atlas) abandon(r *region) {
	delete(a.regions, r.key)
	if r.number != 0 {
		a.numbers.free(r.number)
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

// shards are how many owners the flows of the atlas have: a change of some prefixes touches as many of them, and not all flows.
const shards = 4096

func shardOf(p netip.Prefix) uint16 {
	h := fnv.New32a()
	b, _ := p.AppendBinary(make([]byte, 0, 32))
	_, _ = h.Write(b)
	return uint16(h.Sum32() % shards)
}

// settleAddresses decides which choices are numbered, and how rules match them.
func (f *Firewall) settleAddresses() {
	a := f.atlas
	for x := range f.readdressed {
		if f.choices.byHash[x.hash] != x {
			continue
		}
		users := f.countUse(x)
		wants := len(x.now.prefixes) > 0 && (users > 1 || users == 1 && len(x.now.prefixes) > fewPrefixes)
		if f.compiled && x.changed {
			x.address.raw = false // it may be told otherwise now
		}
		if wants && f.compiled && !x.address.raw && x.address.listed == nil && a.crowded(x) {
			x.address.raw = true
			f.changedChoices[x] = struct{}{}
		}
		if x.address.raw || !wants {
			a.remove(x)
		} else {
			a.list(x, x.now.prefixes)
		}
		f.readdress(x)
	}
	for f.thin() {
	}
	a.settle()
	for x := range a.touched {
		f.readdress(x)
	}
	clear(a.touched)
	clear(f.readdressed)
}

// thin takes a choice out that has more regions than prefixes, or the one with the fewest rules where there are more regions than numbers.
// It reports whether there was one.
func (f *Firewall) thin() bool {
	a := f.atlas
	var out *choice
	for x := range a.touched {
		if x.address.listed != nil && x.address.count() > len(x.address.listed) && (out == nil || x.hash < out.hash) {
			out = x
		}
	}
	if out == nil && a.settled > a.most {
		for x := range a.touched {
			if x.address.listed != nil && (out == nil || cmp.Or(cmp.Compare(x.address.users(), out.address.users()), cmp.Compare(x.hash,
				out.hash)) < 0) {
				out = x
			}
		}
	}
	if out == nil {
		return false
	}
	out.address.raw = true
	f.changedChoices[out] = struct{}{}
	a.remove(out)
	f.rewritten[out] = struct{}{}
	return true
}

func (x *addressing) users() int { return x.use[egress] + x.use[ingress] }

// count returns how many regions the addresses of the choice are in.
func (x *addressing) count() int {
	n := 0
	for r := range x.regions {
		if len(r.spots) > 0 {
			n++
		}
	}
	return n
}

func (a *atlas) remove(x *choice) {
	if x.address.listed != nil {
		a.list(x, nil)
		x.address.listed = nil
	}
}

// countUse notes how many rules that match anything name the choice, by side.
func (f *Firewall) countUse(x *choice) int {
	var use [2]int
	for r := range x.peerOf {
		if r.id != 0 {
			use[r.side]++
		}
	}
	for side := range use {
		if (use[side] > 0) != (x.address.use[side] > 0) {
			for r := range x.address.regions {
				f.atlas.touch(r)
			}
		}
	}
	x.address.use = use
	return use[egress] + use[ingress]
}

// readdress notes whether rules are to match the addresses of the choice otherwise than before.
func (f *Firewall) readdress(x *choice) {
	var numbers []uint16
	if x.address.listed != nil {
		for r := range x.address.regions {
			numbers = append(numbers, r.number)
		}
		slices.Sort(numbers)
	}
	if x.address.listed == nil && x.changed || !slices.Equal(numbers, x.address.numbers) {
		f.rewritten[x] = struct{}{}
	}
	x.address.numbers = numbers
}

// emitAddresses builds the flows of the shards that changed.
func (f *Firewall) emitAddresses(out *Changes) {
	for shard := range f.atlas.dirty {
		var flows []flow.Flow
		for _, s := range f.atlas.shards[shard] {
			flows = s.flows(flows)
		}
		out.Owners[ownerAddresses(shard)] = flows
		if len(f.atlas.shards[shard]) == 0 {
			delete(f.atlas.shards, shard)
		}
	}
	clear(f.atlas.dirty)
	for n, r := range f.atlas.named {
		if r == nil {
			out.Assignments.AddressNumbers[n], out.Addresses[n] = "", nil
			continue
		}
		out.Assignments.AddressNumbers[n], out.Addresses[n] = hexHash(r.hash()), textsOf(r.choices)
	}
	clear(f.atlas.named)
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
