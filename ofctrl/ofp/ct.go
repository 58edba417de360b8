package ofp

import (
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// appendCT appends NXAST_CT with what it contains. Nested actions come inside its length, the nat first as the switch itself
// puts it.
func appendCT(dst []byte, a flow.CT, depth int) ([]byte, error) {
	start := len(dst)
	var flags uint16
	if a.Commit {
		flags |= ctCommit
	}
	if a.Force {
		if !a.Commit {
			return dst, bad(a, "force without commit")
		}
		flags |= ctForce
	}
	dst = be.AppendUint16(appendNX(dst, 0, nxCT), flags)
	if a.ZoneSrc == (flow.SubField{}) {
		dst = be.AppendUint16(be.AppendUint32(dst, 0), a.Zone)
	} else {
		h, exp, ok := subHeader(a.ZoneSrc)
		if !ok || exp != 0 || a.ZoneSrc.Bits != 16 || a.Zone != 0 {
			return dst, bad(a, "zone")
		}
		dst = be.AppendUint16(be.AppendUint32(dst, h), ofsBits(a.ZoneSrc))
	}
	dst = append(dst, a.Table, 0, 0, 0)
	dst = be.AppendUint16(dst, a.Alg)
	var err error
	if a.NAT != nil {
		if dst, err = appendNAT(dst, a); err != nil {
			return dst, err
		}
	}
	for _, e := range a.Exec {
		var f flow.FieldID
		switch e := e.(type) {
		case flow.SetField:
			f = e.Field
		case flow.Load:
			f = e.Dst.Field
		case flow.Move:
			f = e.Dst.Field
		}
		if f != flow.CtMark && f != flow.CtLabel || !a.Commit {
			return dst, bad(a, "exec")
		}
	}
	if dst, err = appendActions(dst, a.Exec, depth+1); err != nil {
		return dst, err
	}
	return endAction(dst, start)
}

func appendNAT(dst []byte, a flow.CT) ([]byte, error) {
	n := a.NAT
	if n.Src && n.Dst {
		return dst, bad(a, "nat to source and destination")
	}
	lo, hi := n.AddrMin, n.AddrMax
	switch {
	case !n.Src && !n.Dst && *n != (flow.NAT{}), // a plain "nat" takes no arguments
		!lo.IsValid() && (hi.IsValid() || n.PortMin != 0),
		hi.IsValid() && (hi.Is4() != lo.Is4() || hi.Less(lo)),
		n.PortMax != 0 && n.PortMax < n.PortMin, n.PortMax != 0 && n.PortMin == 0,
		n.Hash && n.Random:
		return dst, bad(a, "nat arguments")
	}
	start := len(dst)
	dst = appendZeros(appendNX(dst, 0, nxNAT), 2)
	var flags, has uint16
	for i, f := range [...]bool{n.Src, n.Dst, n.Persistent, n.Hash, n.Random} {
		if f {
			flags |= 1 << i
		}
	}
	dst = be.AppendUint16(dst, flags)
	dst = appendZeros(dst, 2)
	dst, has = appendNATAddr(dst, lo, natIPv4Min, natIPv6Min, has)
	dst, has = appendNATAddr(dst, hi, natIPv4Max, natIPv6Max, has)
	if n.PortMin != 0 {
		dst, has = be.AppendUint16(dst, n.PortMin), has|natPortMin
	}
	if n.PortMax != 0 {
		dst, has = be.AppendUint16(dst, n.PortMax), has|natPortMax
	}
	be.PutUint16(dst[start+14:], has)
	return endAction(dst, start)
}

func appendNATAddr(dst []byte, a netip.Addr, v4, v6, has uint16) ([]byte, uint16) {
	switch {
	case a.Is4():
		b := a.As4()
		return append(dst, b[:]...), has | v4
	case a.Is6():
		b := a.As16()
		return append(dst, b[:]...), has | v6
	}
	return dst, has
}

// ct reads what follows the subtype of NXAST_CT.
func (r *reader) ct(depth int) flow.Action {
	flags := r.u16("ct flags")
	a := flow.CT{Commit: flags&ctCommit != 0, Force: flags&ctForce != 0}
	at := r.off
	h := r.u32("ct zone")
	z := r.u16("ct zone")
	if h == 0 {
		a.Zone = z
	} else {
		a.ZoneSrc = r.subField(at, h, 0, z>>6, z&63+1)
		if a.ZoneSrc.Field == 0 {
			return nil
		}
	}
	a.Table = r.u8("ct table")
	r.skip(3, "ct padding")
	a.Alg = r.u16("ct alg")
	a.Exec = r.actions(depth+1, &a.NAT)
	return a
}

// nat reads what follows the subtype of NXAST_NAT.
func (r *reader) nat() *flow.NAT {
	r.skip(2, "nat padding")
	flags, has := r.u16("nat flags"), r.u16("nat range")
	n := &flow.NAT{
		Src: flags&natSrc != 0, Dst: flags&natDst != 0, Persistent: flags&natPersistent != 0,
		Hash: flags&natHash != 0, Random: flags&natRandom != 0,
	}
	addr := func(v4, v6 uint16, a *netip.Addr) {
		size := 0
		switch {
		case has&v4 != 0:
			size = 4
		case has&v6 != 0:
			size = 16
		default:
			return
		}
		*a, _ = netip.AddrFromSlice(r.bytes(size, "nat address"))
	}
	if has&(natIPv4Min|natIPv4Max) != 0 && has&(natIPv6Min|natIPv6Max) != 0 {
		r.fail("nat range", ErrValue)
	}
	addr(natIPv4Min, natIPv6Min, &n.AddrMin)
	addr(natIPv4Max, natIPv6Max, &n.AddrMax)
	if has&natPortMin != 0 {
		n.PortMin = r.u16("nat port")
	}
	if has&natPortMax != 0 {
		n.PortMax = r.u16("nat port")
	}
	return n
}
