package policy

import "cmp"

// DefaultGenevePort is the UDP port of Geneve (RFC 8926 §3.3).
const DefaultGenevePort = 6081

// DefaultERSPANVersion is type III.
const DefaultERSPANVersion = 2

// Bounds of what names a tunnel beside its ends.
const (
	MaxGREKey           = 1<<32 - 1
	MaxERSPANSession    = 1<<10 - 1
	MaxERSPANIndex      = 1<<20 - 1
	MaxERSPANHardwareID = 1<<6 - 1
)

// Tunnel is what the tunnels of targets have in common, whatever their protocol.
type Tunnel struct {
	Protocol      string // vxlan | geneve | gre | erspan: the field of the target
	Remote, Local string // Local "" = the host chooses
	// ID is the VNI, key or session, as IDName says; nil = one from 1 to MaxID is derived from the name of the mirror.
	ID      *int64
	IDName  string
	MaxID   int64
	DstPort int // of UDP; 0 = the protocol has none
}

// Tunnel returns the tunnel that the target leads through; ok = it is one.
func (t *MirrorTarget) Tunnel() (x Tunnel, ok bool) {
	wide := func(n *int) *int64 {
		if n == nil {
			return nil
		}
		return ptr(int64(*n))
	}
	switch {
	case t.VXLAN != nil:
		v := t.VXLAN
		return Tunnel{"vxlan", v.Remote, v.Local, wide(v.VNI), "vni", MaxVNI, cmp.Or(v.DstPort, DefaultVXLANPort)}, true
	case t.Geneve != nil:
		v := t.Geneve
		return Tunnel{"geneve", v.Remote, v.Local, wide(v.VNI), "vni", MaxVNI, cmp.Or(v.DstPort, DefaultGenevePort)}, true
	case t.GRE != nil:
		return Tunnel{"gre", t.GRE.Remote, t.GRE.Local, t.GRE.Key, "key", MaxGREKey, 0}, true
	case t.ERSPAN != nil:
		var session *int64
		if n := t.ERSPAN.Session; n != 0 {
			session = wide(&n)
		}
		return Tunnel{"erspan", t.ERSPAN.Remote, t.ERSPAN.Local, session, "session", MaxERSPANSession, 0}, true
	}
	return Tunnel{}, false
}

// same reports whether two tunnels are certainly one.
func (x *Tunnel) same(o *Tunnel) bool {
	return x.Protocol == o.Protocol && x.Remote == o.Remote && x.ID != nil && o.ID != nil && *x.ID == *o.ID && x.DstPort == o.DstPort
}
