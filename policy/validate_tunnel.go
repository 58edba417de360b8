package policy

import "net/netip"

// tunnels checks the tunnels among the fields of a target and counts them.
func (c *checker) tunnels(at pointer, t *MirrorTarget) (n int) {
	if v := t.VXLAN; v != nil {
		n++
		at := at.field("vxlan")
		c.ends(at, v.Remote, v.Local)
		c.vni(at, v.VNI, v.DstPort)
	}
	if v := t.Geneve; v != nil {
		n++
		at := at.field("geneve")
		c.ends(at, v.Remote, v.Local)
		c.vni(at, v.VNI, v.DstPort)
	}
	if v := t.GRE; v != nil {
		n++
		at := at.field("gre")
		c.ends(at, v.Remote, v.Local)
		if v.Key != nil {
			c.within(at, "key", *v.Key, 0, MaxGREKey)
		}
	}
	if v := t.ERSPAN; v != nil {
		n++
		c.erspan(at.field("erspan"), v)
	}
	return n
}

func (c *checker) erspan(at pointer, v *ERSPANTarget) {
	c.ends(at, v.Remote, v.Local)
	c.within(at, "version", int64(v.Version), 0, 2) // 0 = left out
	c.within(at, "session", int64(v.Session), 0, MaxERSPANSession)
	c.within(at, "index", int64(v.Index), 0, MaxERSPANIndex)
	c.within(at, "hardwareId", int64(v.HardwareID), 0, MaxERSPANHardwareID)
	switch {
	case v.Version == 1 && v.HardwareID != 0:
		c.addf(at.field("hardwareId"), v.HardwareID, "goes with version 2")
	case v.Version != 1 && v.Index != 0:
		c.addf(at.field("index"), v.Index, "goes with version 1")
	}
}

func (c *checker) within(at pointer, name string, value, lo, hi int64) {
	if value < lo || value > hi {
		c.addf(at.field(name), value, "%d is outside the range %d-%d", value, lo, hi)
	}
}

// ends checks the addresses of a tunnel.
func (c *checker) ends(at pointer, remoteText, localText string) {
	end := func(at pointer, text string) (netip.Addr, bool) {
		a, ok := c.unicast(at, text)
		switch {
		case !ok:
		case a.IsLoopback():
			c.addf(at, text, "is an address of the host itself: copies would not leave it")
			ok = false
		case a.Is6() && a.IsLinkLocalUnicast():
			c.addf(at, text, "is an address of one link only, and nothing says of which")
			ok = false
		}
		return a, ok
	}
	var remote, local netip.Addr
	var rok, lok bool
	if remoteText == "" {
		c.addf(at.field("remote"), nil, "is required")
	} else {
		remote, rok = end(at.field("remote"), remoteText)
	}
	if localText != "" {
		local, lok = end(at.field("local"), localText)
	}
	if rok && lok {
		switch {
		case remote.Is4() != local.Is4():
			c.addf(at.field("local"), localText, "is of another address family than remote")
		case remote == local:
			c.addf(at.field("local"), localText, "is the same as remote")
		}
	}
}

func (c *checker) vni(at pointer, vni *int, dstPort int) {
	if vni != nil && (*vni < 0 || *vni > MaxVNI) {
		c.addf(at.field("vni"), *vni, "VNI %d is outside the range 0-%d", *vni, MaxVNI)
	}
	if dstPort < 0 || dstPort > 65535 {
		c.addf(at.field("dstPort"), dstPort, "port %d is outside the range 1-65535", dstPort)
	}
}
