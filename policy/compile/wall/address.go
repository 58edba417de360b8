package wall

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
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

// settleAddresses decides which choices are numbered, and how rules match them. What it decides does not depend on the order in which
// it comes by them: a choice that comes to be numbered is held against all that are, and not against some that no longer are.
func (f *Firewall) settleAddresses() {
	a, worlds := f.atlas, false
	var come []*choice
	for x := range f.readdressed {
		worlds = worlds || x.now.world || x.was.world
		if f.choices.byHash[x.hash] != x {
			continue
		}
		users := f.countUse(x)
		wants := len(x.now.prefixes) > 0 && (users > 1 || users == 1 && len(x.now.prefixes) > fewPrefixes)
		if f.compiled && x.changed {
			x.address.raw = false // it may be told otherwise now
		}
		switch {
		case x.address.raw || !wants:
			a.remove(x)
		case x.address.listed == nil:
			come = append(come, x)
		default:
			a.list(x, x.now.prefixes)
		}
	}
	if worlds {
		f.listKnown()
	}
	slices.SortFunc(come, func(x, y *choice) int { return cmp.Compare(x.hash, y.hash) })
	for _, x := range come {
		if f.compiled && a.crowded(x) {
			x.address.raw = true
			f.changedChoices[x] = struct{}{}
			continue
		}
		a.list(x, x.now.prefixes)
	}
	for f.thin() {
	}
	a.settle()
	maps.Copy(f.readdressed, a.touched)
	for x := range f.readdressed {
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
		if x != f.entities.known && x.address.listed != nil && x.address.count() > len(x.address.listed) && (out == nil || x.hash < out.hash) {
			out = x
		}
	}
	if out == nil && max(a.settled[0], a.settled[1]) > a.most {
		for x := range a.touched {
			if x != f.entities.known && x.address.listed != nil && (out == nil || cmp.Or(cmp.Compare(x.address.users(), out.address.users()),
				cmp.Compare(x.hash,
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
