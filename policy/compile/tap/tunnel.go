package tap

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// tunnelOf describes the tunnel of a target, whose VNI, key or session is id: the port, and by what a datapath knows it from others.
func tunnelOf(target *policy.MirrorTarget, id int64) (mirrorTarget, bool) {
	x, ok := target.Tunnel()
	if !ok {
		return mirrorTarget{}, false
	}
	remote, _ := netip.ParseAddr(x.Remote)
	local, _ := netip.ParseAddr(x.Local)
	t := mirrorTarget{remote: remote, idName: x.IDName,
		identity: output{kind: interfaceType(x.Protocol, remote), remote: remote, local: local, id: id, dstPort: x.DstPort}}
	options := map[string]string{"remote_ip": remote.String(), "key": strconv.FormatInt(id, 10)}
	if local.IsValid() {
		options["local_ip"] = local.String()
	}
	if x.DstPort != 0 {
		options["dst_port"] = strconv.Itoa(x.DstPort)
	}
	if e := target.ERSPAN; e != nil {
		erspanOptions(options, e)
	}
	// A VLAN tag means something on this bridge only. An access port of VLAN 0 takes mirrored packets of every VLAN and strips the tag
	// (seen on OVS 3.1.0).
	t.spec = vswitch.OutputSpec{Port: tunnelName(t.identity), Create: true, Type: t.identity.kind, Options: options, Tag: new(int)}
	return t, true
}

// erspanOptions adds what ERSPAN has of its own. Open vSwitch reads erspan_idx and erspan_hwid as hexadecimal, whatever they look like
// (lib/netdev-vport.c).
func erspanOptions(options map[string]string, e *policy.ERSPANTarget) {
	if e.Version == 1 {
		options["erspan_ver"], options["erspan_idx"] = "1", fmt.Sprintf("0x%x", e.Index)
		return
	}
	options["erspan_ver"], options["erspan_dir"], options["erspan_hwid"] = "2", "0", fmt.Sprintf("0x%x", e.HardwareID)
}

// interfaceType is how Open vSwitch calls a tunnel: GRE and ERSPAN over IPv6 are types of their own.
func interfaceType(protocol string, remote netip.Addr) string {
	if remote.Is6() && (protocol == "gre" || protocol == "erspan") {
		return "ip6" + protocol
	}
	return protocol
}

// tunnelName derives the name of a tunnel port, at most 15 bytes, from where it leads. The type is part of it, so that no port ever has to
// become one of another type, which ovs-vswitchd has not survived.
func tunnelName(o output) string {
	text := fmt.Sprintf("%s %s %d %d", o.remote, o.local, o.id, o.dstPort)
	if o.kind != "vxlan" { // whose names are older
		text = o.kind + " " + text
	}
	return tunnelPrefix + hashed(text, 6)
}

// takeIDs gives a VNI, key or session to each tunnel that names none: from the hash of its mirror's name, or the next that no mirror has
// that sends to the same collector by the same protocol.
func (p *mirrorPlanner) takeIDs(mirrors []*policy.Mirror) {
	type tunnel struct {
		protocol, remote string
		id               int64
	}
	used := map[tunnel]bool{}
	p.ids = map[place]int64{}
	tunnels := func(yield func(place, policy.Tunnel)) {
		for _, m := range mirrors {
			for i := range m.Spec.Targets {
				if x, ok := m.Spec.Targets[i].Tunnel(); ok {
					yield(place{m.Name, i}, x)
				}
			}
		}
	}
	tunnels(func(at place, x policy.Tunnel) {
		if x.ID != nil {
			used[tunnel{x.Protocol, x.Remote, *x.ID}] = true
			p.ids[at] = *x.ID
		}
	})
	tunnels(func(at place, x policy.Tunnel) {
		if x.ID != nil {
			return
		}
		sum := sha256.Sum256([]byte(at.mirror))
		id := int64(binary.BigEndian.Uint32(sum[:])>>8) % (x.MaxID + 1)
		for range x.MaxID { // where all are taken, one is shared
			if id != 0 && !used[tunnel{x.Protocol, x.Remote, id}] {
				break
			}
			id = (id + 1) % (x.MaxID + 1)
		}
		used[tunnel{x.Protocol, x.Remote, id}] = true
		p.ids[at] = id
	})
}

// tunnel prepares a target that is one. A datapath has one tunnel of an identity only, so it stays at the bridge where it is.
func (w *mirrorWork) tunnel(t mirrorTarget) (mirrorTarget, string) {
	if types := w.in.Topology.InterfaceTypes; len(types) > 0 && !slices.Contains(types, t.spec.Type) {
		w.problem(true, policy.ReasonTunnelUnsupported, "Open vSwitch of host %s has no interfaces of type %s (iface_types)", w.in.Topology.Host,
			t.spec.Type)
	}
	return t, w.bridgeOf(t.spec.Port)
}

// describe adds to the description of a target what is known of its tunnel.
func (t *mirrorTarget) describe(out map[string]string) {
	if !t.remote.IsValid() {
		return
	}
	out["remote"] = t.remote.String()
	out[t.idName] = strconv.FormatInt(t.identity.id, 10)
	if t.identity.dstPort != 0 {
		out["dstPort"] = strconv.Itoa(t.identity.dstPort)
	}
	if t.identity.local.IsValid() {
		out["local"] = t.identity.local.String()
	}
}

// overlay warns of a collector that is an overlay peer too: the mirror's tunnel port is the more specific one and takes what the peer
// sends with the same key.
func (w *mirrorWork) overlay(t mirrorTarget) {
	same := inventory.Tunnel{Type: t.identity.kind, Remote: t.remote, DstPort: t.identity.dstPort}
	instead := "dstPort"
	if same.DstPort == 0 {
		instead = "target"
	}
	for _, p := range w.in.Inventory.Ports {
		if p.Host != w.in.Topology.Host || p.Kind == inventory.KindTap {
			continue
		}
		if slices.ContainsFunc(p.Interfaces, func(i inventory.Interface) bool { return i.Tunnel == same }) {
			w.warn(policy.Warning{Code: WarnTunnelOverlay, Message: fmt.Sprintf(
				"port %s of bridge %s is a tunnel to the same address; packets from there with %s %d would be lost; use another %s",
				p.Name, p.Bridge, t.idName, t.identity.id, instead)})
			return
		}
	}
}
