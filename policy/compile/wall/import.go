package wall

import (
	"maps"
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// What an earlier run left is taken up so that the first Compile finds it as every later one finds what the one before it left: classes
// with their endpoints, and what choices held (choice.was). So what changed while nobody looked is treated like any change.

// importNumbers takes the numbers of an earlier run.
func (f *Firewall) importNumbers(a *Assignments) {
	for n, v := range a.Classes {
		if n < blockSize {
			continue
		}
		c := &class{number: n, endpoints: map[*endpoint]struct{}{}, allow: [2]uint32{egress: v.EgressAllow, ingress: v.IngressAllow},
			beneath: [2]bool{egress: v.EgressEnding, ingress: v.IngressEnding}}
		for _, text := range v.Choices {
			if h, err := strconv.ParseUint(text, 16, 64); err == nil {
				c.hashes = append(c.hashes, h)
				c.key ^= h
			}
		}
		slices.Sort(c.hashes)
		f.classes.byNumber[n] = c
		f.classes.numbers.take(n)
	}
	f.classes.numbers.resting = slices.Clone(a.Resting)
	f.atlas.known, f.services.known = byHash(a.AddressNumbers), byHash(a.ServiceNumbers)
}

func byHash(numbers map[uint16]string) map[uint64]uint16 {
	out := map[uint64]uint16{}
	for n, text := range numbers {
		if h, err := strconv.ParseUint(text, 16, 64); err == nil && n != 0 {
			out[h] = n
		}
	}
	return out
}

// remember makes choices hold in was what they held when the earlier run ended, as far as that is known.
func (f *Firewall) remember() {
	for _, c := range f.classes.byNumber {
		f.index(c)
		for e := range c.endpoints {
			for _, h := range c.hashes {
				if x := f.choices.byHash[h]; x != nil {
					x.was.endpoints = append(x.was.endpoints, e)
				}
			}
		}
	}
	for _, x := range f.choices.byHash {
		slices.SortFunc(x.was.endpoints, bySerial)
		known, ok := f.imported.Addresses[hexHash(x.hash)]
		x.address.raw, x.kept = known.Raw, known.Kept
		if x.constant || ok && known.Hash == x.now.contentHash() {
			endpoints := x.was.endpoints
			x.was = x.now
			x.was.endpoints = endpoints
		} else {
			x.foreign = true
		}
	}
	for c := range f.classes.dirty {
		if len(c.endpoints) == 0 {
			f.dissolve(c)
		}
	}
}

// forgetNumbers gives up what nothing has claimed.
func (f *Firewall) forgetNumbers(out *Changes) {
	for hash := range f.imported.Addresses {
		if h, err := strconv.ParseUint(hash, 16, 64); err != nil || f.choices.byHash[h] == nil {
			out.Assignments.Addresses[hash] = nil
		}
	}
	forget := func(known map[uint64]uint16, taken map[uint16]struct{}, changes map[uint16]string) {
		for _, n := range known {
			if _, used := taken[n]; !used {
				changes[n] = ""
			}
		}
	}
	taken := maps.Clone(f.atlas.numbers[0].taken)
	if taken == nil {
		taken = map[uint16]struct{}{}
	}
	for n := range f.atlas.numbers[1].taken {
		taken[n|pipeline.KnownAddress] = struct{}{}
	}
	forget(f.atlas.known, taken, out.Assignments.AddressNumbers)
	forget(f.services.known, f.services.numbers.taken, out.Assignments.ServiceNumbers)
	f.atlas.known, f.services.known = nil, nil
}

// emitChoices tells what is to be kept of choices that changed.
func (f *Firewall) emitChoices(out *Changes) {
	for x := range f.changedChoices {
		if f.choices.byHash[x.hash] == x {
			out.Assignments.Addresses[hexHash(x.hash)] = x.assignment()
		}
	}
	for _, h := range f.dropped {
		if f.choices.byHash[h] == nil {
			out.Assignments.Addresses[hexHash(h)] = nil
		}
	}
	f.dropped = nil
}
