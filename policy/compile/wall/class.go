package wall

import (
	"cmp"
	"maps"
	"slices"
)

// A class is a part of the endpoints of the bridge: those that are in the same choices. Flows of rules match its number, which SOURCE and
// DESTINATION write beside the id of the endpoint. It is in no conntrack entry.
//
// When memberships change, the largest part of what a class was keeps its number, so that as few flows as possible change; a part that
// splits off gets a number of the same block while there is room, if it is in all choices that the class is in, or the other way round.
// Two classes may come to be in the same choices; they stay two, unless one is small.
type class struct {
	number    uint16
	hashes    []uint64 // of the choices, sorted; an imported class may name some that are no more
	key       uint64   // all of them exclusive-or'ed
	endpoints map[*endpoint]struct{}
	allow     [2]uint32 // numbers of the default allow ids, 0 where isolated without end
	isolation [2]isolation
	beneath   [2]bool      // an earlier run left the default allow beneath a default deny that was to end
	audit     [2]isolation // by policies in mode audit

	conj [2]int // conjunctions of rules that apply to it

	stale bool // isolation may have changed
}

// smallClass is up to how many endpoints are moved to a class that is in the same choices.
const smallClass = 16

type classes struct {
	byNumber map[uint16]*class
	byKey    map[uint64][]*class
	numbers  *blocks
	dirty    map[*class]struct{}
	gone     []uint16
}

func newClasses() *classes {
	return &classes{byNumber: map[uint16]*class{}, byKey: map[uint64][]*class{}, numbers: newBlocks(), dirty: map[*class]struct{}{}}
}

// in reports whether the class is in exactly these choices.
func (c *class) in(choices []*choice) bool {
	return !c.shut() && len(c.hashes) == len(choices) && !slices.ContainsFunc(choices, func(x *choice) bool {
		_, found := slices.BinarySearch(c.hashes, x.hash)
		return !found
	})
}

// find returns a class that is in exactly the choices of e and is not but; nil = there is none.
func (s *classes) find(e *endpoint, but *class) *class {
	for _, c := range s.byKey[e.key] {
		if c != but && c.in(e.choices) {
			return c
		}
	}
	return nil
}

// settleClasses puts each endpoint whose choices changed into the class for them.
func (f *Firewall) settleClasses() {
	f.reopen()
	if len(f.moved) == 0 {
		return
	}
	parts := map[*class]map[uint64][]*endpoint{}
	for _, e := range slices.SortedFunc(maps.Keys(f.moved), bySerial) {
		if e.gone || e.class != nil && e.class.in(e.choices) {
			continue
		}
		from := e.class
		if from.shut() {
			from = nil
		}
		if parts[from] == nil {
			parts[from] = map[uint64][]*endpoint{}
		}
		parts[from][e.key] = append(parts[from][e.key], e)
	}
	clear(f.moved)
	for _, c := range slices.SortedFunc(maps.Keys(parts), func(a, b *class) int { return cmp.Compare(a.order(), b.order()) }) {
		f.divide(c, parts[c])
	}
	if c := f.classes.byNumber[shutNumber]; c != nil && len(c.endpoints) == 0 {
		f.dissolve(c)
	}
}

func (c *class) order() int {
	if c == nil {
		return -1
	}
	return int(c.number)
}

// divide moves parts out of a class, or out of none, by the exclusive-or of what their choices are.
func (f *Firewall) divide(c *class, parts map[uint64][]*endpoint) {
	keys := slices.Sorted(maps.Keys(parts))
	if c != nil {
		rest := len(c.endpoints)
		for _, part := range parts {
			rest -= len(part)
		}
		heir, largest := -1, rest
		for i, key := range keys {
			part := parts[key]
			if len(part) > largest && (len(part) > smallClass || keeps(part) || f.classes.find(part[0], c) == nil) {
				heir, largest = i, len(part)
			}
		}
		if heir >= 0 {
			staying := parts[keys[heir]]
			if rest > 0 {
				f.found(c, f.others(c, parts), slices.Clone(c.hashes))
			}
			f.rename(c, staying[0])
			delete(parts, keys[heir])
		}
	}
	for _, key := range keys {
		part := parts[key]
		if len(part) == 0 {
			continue
		}
		if to := f.classes.find(part[0], c); to != nil {
			f.put(part, to)
			continue
		}
		beside := c
		if c != nil && !nested(c.hashes, part[0].choices) {
			beside = nil // rules name one without the other, so a part that splits off there would need its number beside
		}
		f.found(beside, part, hashesOf(part[0].choices))
	}
	if c != nil && len(c.endpoints) == 0 {
		f.dissolve(c)
	}
}

// nested reports whether all choices of one are among those of the other.
func nested(hashes []uint64, choices []*choice) bool {
	both := 0
	for _, x := range choices {
		if slices.Contains(hashes, x.hash) {
			both++
		}
	}
	return both > 0 && both == min(len(hashes), len(choices))
}

// keeps reports whether some of the endpoints have connections that are kept. They may bear the default ids of the class.
func keeps(es []*endpoint) bool {
	return slices.ContainsFunc(es, func(e *endpoint) bool { return e.kept })
}

func hashesOf(choices []*choice) []uint64 {
	out := make([]uint64, len(choices))
	for i, x := range choices {
		out[i] = x.hash
	}
	return out
}

// others returns the endpoints of c that are in none of the parts.
func (f *Firewall) others(c *class, parts map[uint64][]*endpoint) []*endpoint {
	moving := map[*endpoint]struct{}{}
	for _, part := range parts {
		for _, e := range part {
			moving[e] = struct{}{}
		}
	}
	var out []*endpoint
	for e := range c.endpoints {
		if _, ok := moving[e]; !ok {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, bySerial)
	return out
}

// found makes a class, beside c if that is not nil, and puts endpoints into it.
func (f *Firewall) found(beside *class, es []*endpoint, hashes []uint64) {
	var n uint16
	if beside != nil {
		n = f.classes.numbers.near(beside.number)
	} else {
		n = f.classes.numbers.fresh()
	}
	if n == 0 {
		f.shut(es)
		return
	}
	c := &class{number: n, hashes: hashes, endpoints: map[*endpoint]struct{}{}}
	for _, h := range hashes {
		c.key ^= h
	}
	f.enter(c)
	f.put(es, c)
}

// enter makes a class known under its number and its choices.
func (f *Firewall) enter(c *class) {
	f.classes.byNumber[c.number] = c
	f.index(c)
}

func (f *Firewall) index(c *class) {
	f.classes.byKey[c.key] = append(f.classes.byKey[c.key], c)
	c.conj = [2]int{}
	for _, h := range c.hashes {
		if x := f.choices.byHash[h]; x != nil {
			x.classes[c] = struct{}{}
			c.count(x.conj)
			f.renumbered[x] = struct{}{}
		}
	}
	f.touchClass(c)
	f.touchBlock(c.number)
}

func (f *Firewall) unindex(c *class) {
	f.classes.byKey[c.key] = slices.DeleteFunc(f.classes.byKey[c.key], func(o *class) bool { return o == c })
	if len(f.classes.byKey[c.key]) == 0 {
		delete(f.classes.byKey, c.key)
	}
	for _, h := range c.hashes {
		if x := f.choices.byHash[h]; x != nil {
			delete(x.classes, c)
			f.renumbered[x] = struct{}{}
		}
	}
	f.touchBlock(c.number)
}

// touchBlock has the terms of all choices looked at that may match the block of a number at once.
func (f *Firewall) touchBlock(n uint16) {
	for m := n & blockMask; m-n&blockMask < blockSize; m++ {
		if c := f.classes.byNumber[m]; c != nil {
			for _, h := range c.hashes {
				if x := f.choices.byHash[h]; x != nil {
					f.renumbered[x] = struct{}{}
				}
			}
		}
	}
}

// rename gives a class the choices of e.
func (f *Firewall) rename(c *class, e *endpoint) {
	f.unindex(c)
	c.hashes, c.key = hashesOf(e.choices), e.key
	f.index(c)
}

// put moves endpoints into a class.
func (f *Firewall) put(es []*endpoint, to *class) {
	for _, e := range es {
		if from := e.class; from != nil {
			delete(from.endpoints, e)
			f.classes.dirty[from] = struct{}{} // it may have been known by this endpoint
			e.wasClass = from.number
		}
		e.class = to
		to.endpoints[e] = struct{}{}
		f.dirtyEndpoints[e.w.Key] = struct{}{}
	}
	f.touchClass(to)
}

// desert takes an endpoint that is no more out of its class.
func (f *Firewall) desert(e *endpoint) {
	c := e.class
	if c == nil {
		return
	}
	e.class = nil
	f.classes.dirty[c] = struct{}{}
	if delete(c.endpoints, e); len(c.endpoints) == 0 {
		f.dissolve(c)
	}
}

// dissolve gives up a class without endpoints.
func (f *Firewall) dissolve(c *class) {
	f.unindex(c)
	delete(f.classes.byNumber, c.number)
	f.classes.numbers.free(c.number)
	for side := range c.allow {
		f.registry.remove(denyID(side, c.number))
		f.registry.remove(allowID(c.allow[side]))
	}
	delete(f.classes.dirty, c)
	f.classes.gone = append(f.classes.gone, c.number)
}

func (f *Firewall) touchClass(c *class) {
	c.stale = true
	f.classes.dirty[c] = struct{}{}
}

// countTerms computes the terms of choices whose classes changed.
func (f *Firewall) countTerms() {
	for x := range f.renumbered {
		terms := f.termsOf(x.classes)
		if slices.Equal(terms, x.terms) {
			continue
		}
		x.terms = terms
		f.rewritten[x] = struct{}{}
	}
	clear(f.renumbered)
}

// termsOf returns the matches of the numbers of classes: a whole block at once where all numbers of it that are in use are among them,
// even a single one, so that a part which splits off within the choice changes no rule.
func (f *Firewall) termsOf(in map[*class]struct{}) []term {
	count := map[uint16]uint8{}
	for c := range in {
		count[c.number/blockSize]++
	}
	var out []term
	for c := range in {
		block := c.number / blockSize
		if count[block] == f.classes.numbers.used[block] {
			out = append(out, term{c.number & blockMask, blockMask})
			continue
		}
		out = append(out, term{c.number, 0xffff})
	}
	slices.SortFunc(out, compareTerms)
	return slices.Compact(out)
}

func compareTerms(a, b term) int {
	return cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.mask, b.mask))
}

// keys returns the endpoints of the class, sorted.
func (c *class) keys() []string {
	out := make([]string, 0, len(c.endpoints))
	for e := range c.endpoints {
		out = append(out, e.w.Key)
	}
	slices.Sort(out)
	return out
}

func (f *Firewall) dirtyClasses() []*class {
	return slices.SortedFunc(maps.Keys(f.classes.dirty), func(a, b *class) int { return cmp.Compare(a.number, b.number) })
}

// emitClasses builds the defaults of the classes that changed.
func (f *Firewall) emitClasses(out *Changes) {
	for _, n := range f.classes.gone {
		if f.classes.byNumber[n] == nil {
			out.Owners[ownerClass(n)] = f.released(ownerClass(n), nil)
			f.emitEnding(&class{number: n}, out)
			out.Assignments.Classes[n] = nil
		}
	}
	f.classes.gone = nil
	for _, c := range f.dirtyClasses() {
		out.Owners[ownerClass(c.number)] = f.released(ownerClass(c.number), c.flows())
		f.emitEnding(c, out)
		out.Assignments.Classes[c.number] = c.assignment()
	}
	clear(f.classes.dirty)
}

// emitEnding builds the defaults of a class that end by themselves.
func (f *Firewall) emitEnding(c *class, out *Changes) {
	for side := range c.isolation {
		owner := ownerEnding(side, c.number)
		flows := c.ending(side)
		if flows != nil {
			f.ending[owner], out.Ends[owner] = struct{}{}, c.isolation[side].ends
		} else if _, there := f.ending[owner]; !there {
			continue
		} else {
			delete(f.ending, owner)
		}
		out.Owners[owner] = flows
	}
}
