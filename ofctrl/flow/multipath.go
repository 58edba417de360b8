package flow

import (
	"slices"
	"strings"
)

// Multipath writes one of Links numbers, 0 to Links-1, into Dst, chosen by a hash of the packet: multipath(…).
type Multipath struct {
	Fields    HashFields
	Basis     uint16 // by which two choices of one packet are independent
	Algorithm LinkAlgorithm
	Links     uint32 // 1 to 65536
	Arg       uint32 // of the algorithm
	Dst       SubField
}

// HashFields says what of a packet is hashed (NX_HASH_FIELDS_*). The symmetric ones give both directions of a session one hash; packets
// that have not what they ask for are hashed to the same number.
type HashFields uint16

// What may be hashed.
const (
	HashEthSrc HashFields = iota
	HashSymmetricL4
	// HashSymmetricL3L4 is of the addresses and the protocol of IP, and of the ports of TCP and SCTP; that of other packets is 0.
	HashSymmetricL3L4
	HashSymmetricL3L4UDP
	HashNwSrc
	HashNwDst
	HashSymmetricL3
)

// LinkAlgorithm says how a hash becomes a number (NX_MP_ALG_*).
type LinkAlgorithm uint16

// The algorithms.
const (
	LinkModuloN LinkAlgorithm = iota
	LinkHashThreshold
	LinkHRW
	LinkIterHash
)

const maxLinks = 1 << 16

// The names by which ovs-ofctl calls them.
var (
	hashFieldNames = []string{"eth_src", "symmetric_l4", "symmetric_l3l4", "symmetric_l3l4+udp", "nw_src", "nw_dst", "symmetric_l3"}
	linkNames      = []string{"modulo_n", "hash_threshold", "hrw", "iter_hash"}
)

func (Multipath) action() {}

// String returns the action as ovs-ofctl prints it.
func (a Multipath) String() string { return string(a.append(nil)) }

func (a Multipath) append(dst []byte) []byte {
	name := func(names []string, n uint16) {
		if int(n) < len(names) {
			dst = append(append(dst, names[n]...), ',')
		} else {
			dst = append(appendDec(append(dst, '?'), uint64(n)), ',') // no switch takes it
		}
	}
	dst = append(dst, "multipath("...)
	name(hashFieldNames, uint16(a.Fields))
	dst = append(appendDec(dst, uint64(a.Basis)), ',')
	name(linkNames, uint16(a.Algorithm))
	dst = append(appendDec(dst, uint64(a.Links)), ',')
	dst = append(appendDec(dst, uint64(a.Arg)), ',')
	return append(a.Dst.append(dst), ')')
}

func (a Multipath) validate() error {
	switch {
	case int(a.Fields) >= len(hashFieldNames) || int(a.Algorithm) >= len(linkNames):
		return invalidf("%s: no such fields, or no such algorithm", a)
	case a.Links < 1 || a.Links > maxLinks:
		return invalidf("%s: 1..%d links", a, maxLinks)
	case a.Dst.Bits > 64: // NXAST_MULTIPATH holds 6 bits of their number
		return invalidf("%s: the destination is too wide", a)
	case a.Dst.Bits < 17 && a.Links > 1<<a.Dst.Bits:
		return invalidf("%s: %d links do not fit into the destination", a, a.Links)
	}
	return validateDst(a.Dst)
}

// multipath reads multipath(fields,basis,algorithm,links,argument,destination).
func (p *actionParser) multipath(it *item) error {
	parts := strings.Split(it.value, ",")
	if it.delim != '(' || len(parts) != 6 {
		return it.errorf("multipath takes fields, a basis, an algorithm, the number of links, an argument and a field")
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	fields, algorithm := slices.Index(hashFieldNames, parts[0]), slices.Index(linkNames, parts[2])
	if fields < 0 || algorithm < 0 {
		return it.errorf("fields are one of %s, the algorithm one of %s", strings.Join(hashFieldNames, ", "), strings.Join(linkNames, ", "))
	}
	a := Multipath{Fields: HashFields(fields), Algorithm: LinkAlgorithm(algorithm)}
	var err error
	if a.Basis, err = parse16(parts[1]); err == nil {
		if a.Links, err = parse32(parts[3]); err == nil {
			if a.Arg, err = parse32(parts[4]); err == nil {
				a.Dst, err = parseSubField(parts[5])
			}
		}
	}
	if err != nil {
		return it.errorf("%v", err)
	}
	p.put(it, a)
	return nil
}
