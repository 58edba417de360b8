package host

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/policy"
)

// A directory says what the ids in conntrack entries of a bridge stand for, as of one view. It is for one goroutine.
type directory struct {
	v         *view
	b         *wallView
	endpoints map[uint32]*policy.Workload // by the first of their ids
	former    map[uint32]string           // ports of endpoints that have other ids now, likewise
	current   map[uint32]struct{}         // ids that endpoints have
	stands    func(flow.Flow) bool        // on the switch
	gates     map[gate]bool               // asked for before
}

type gate struct {
	ingress bool
	id      uint32
}

func newDirectory(v *view, b *wallView) *directory {
	d := &directory{v: v, b: b, endpoints: map[uint32]*policy.Workload{}, former: map[uint32]string{}, current: map[uint32]struct{}{},
		stands: b.sw.Has, gates: map[gate]bool{}}
	for id, s := range b.numbers.retired {
		d.former[pipeline.EndpointBase(id)] = s.Port
	}
	for key, a := range each(b.numbers.endpoints) {
		d.current[a.ID] = struct{}{}
		if w := workload(v.inventory.Workloads, key); w != nil {
			d.endpoints[pipeline.EndpointBase(a.ID)] = w
		}
	}
	return d
}

// connection names what an entry of the bridge holds.
func (d *directory) connection(x unixctl.Entry) wire.Connection {
	c := wire.Connection{
		Host: d.v.host, Bridge: d.b.cfg.Name, Zone: int(x.Zone), Protocol: transportOf(x.Proto), State: x.State, Timeout: x.Timeout,
		Mark: fmt.Sprintf("%#x", x.Mark), Label: labelText(x),
		Ours: markedWith(x.Mark, pipeline.MarkOurs), Logged: markedWith(x.Mark, pipeline.MarkLogged),
		PickedUp: markedWith(x.Mark, pipeline.MarkPickedUp),
		Packets:  x.Orig.Packets + x.Reply.Packets, Bytes: x.Orig.Bytes + x.Reply.Bytes,
		Source:      wire.ConnectionEnd{IP: x.Orig.Src.String(), Port: int(x.Orig.SrcPort)},
		Destination: wire.ConnectionEnd{IP: x.Orig.Dst.String(), Port: int(x.Orig.DstPort)},
	}
	if vlan, is := vlanOf(d.b.index, x.Zone); is {
		c.VLAN = &vlan
	}
	if x.Proto == protocolICMP || x.Proto == protocolICMPv6 {
		c.ICMP = &wire.ConnectionICMP{Type: int(x.Orig.ICMPType), Code: int(x.Orig.ICMPCode), ID: int(x.Orig.ICMPID)}
	}
	if c.Ours {
		d.name(&c, labelled(x, pipeline.LabelInitiator), labelled(x, pipeline.LabelResponder), labelled(x, pipeline.LabelEgress),
			labelled(x, pipeline.LabelIngress))
	}
	return c
}

func (d *directory) name(c *wire.Connection, initiator, responder, egress, ingress uint32) {
	d.end(&c.Source, initiator)
	d.end(&c.Destination, responder)
	c.Egress = d.rule(false, egress, initiator)
	c.Ingress = d.rule(true, ingress, responder)
}

const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

// labelled reads a field of ct_label.
func labelled(x unixctl.Entry, f pipeline.Field) uint32 {
	return uint32(flow.U128{Hi: x.LabelsHi, Lo: x.LabelsLo}.Shr(int(f.Ofs)).And(flow.Ones(int(f.Bits))).Lo)
}

func markedWith(mark uint32, f pipeline.Field) bool { return mark>>f.Ofs&1 == 1 }

// transportOf names a protocol as events do, or spells its number.
func transportOf(proto uint8) string {
	return orElse(event.TransportName(proto), strconv.Itoa(int(proto)))
}

// end names one side of a connection by its id.
func (d *directory) end(e *wire.ConnectionEnd, id uint32) {
	e.ID = id
	if id == pipeline.IDNoEndpoint {
		e.InForce = true
		return
	}
	_, e.InForce = d.current[id]
	if w := d.endpoints[pipeline.EndpointBase(id)]; w != nil && id != 0 {
		e.Endpoint, e.PortName = orElse(w.Endpoint, w.Port), w.Port
	} else if port, was := d.former[pipeline.EndpointBase(id)]; was {
		e.PortName = port
	}
}

// rule names what allowed one side, whose endpoint has the id end.
func (d *directory) rule(ingress bool, id, end uint32) wire.ConnectionRule {
	r := wire.ConnectionRule{ID: id}
	if known := d.b.directory.Names().Rule(id); known != nil {
		r.Rule = strings.TrimLeft(known.ID, "/") // some defaults have no policy, or no direction either
	}
	if id == pipeline.IDNoEndpoint {
		r.InForce = end == pipeline.IDNoEndpoint
		return r
	}
	g := gate{ingress, id}
	stands, asked := d.gates[g]
	if !asked {
		stands = d.stands(pipeline.Gate(ingress, 0, id))
		d.gates[g] = stands
	}
	r.InForce = stands
	return r
}

// matcher is a compiled filter.
type matcher = *event.Matcher

// wants reports whether a connection is one that is asked for. A policy and a rule must be the same side's.
func (s *search) wants(c *wire.Connection, x unixctl.Entry) bool {
	if len(s.q.VLAN) > 0 && (c.VLAN == nil || !slices.Contains(s.q.VLAN, *c.VLAN)) {
		return false
	}
	if len(s.q.State) > 0 && !slices.ContainsFunc(s.q.State, func(want string) bool { return strings.EqualFold(want, c.State) }) {
		return false
	}
	names := func(want []string, ends ...*wire.ConnectionEnd) bool {
		return len(want) == 0 || slices.ContainsFunc(want, func(name string) bool {
			return slices.ContainsFunc(ends, func(e *wire.ConnectionEnd) bool { return s.directory.goesBy(e, name) })
		})
	}
	if !names(s.q.Endpoint, &c.Source, &c.Destination) || !names(s.q.From, &c.Source) || !names(s.q.To, &c.Destination) {
		return false
	}
	f := event.Facts{Src: x.Orig.Src, Dst: x.Orig.Dst, SrcPort: x.Orig.SrcPort, DstPort: x.Orig.DstPort, Bridge: c.Bridge,
		Transport: c.Protocol}
	for _, id := range []uint32{c.Egress.ID, c.Ingress.ID} {
		f.Rule = nil
		if c.Ours {
			f.Rule = s.b.directory.Names().Rule(id)
		}
		if s.match.MatchFacts(&f) {
			return true
		}
	}
	return false
}

// goesBy reports whether somebody may mean the end by name.
func (d *directory) goesBy(e *wire.ConnectionEnd, name string) bool {
	if e.ID == 0 || e.ID == pipeline.IDNoEndpoint {
		return false
	}
	w := d.endpoints[pipeline.EndpointBase(e.ID)]
	return w != nil && goesBy(w, name) || w == nil && e.PortName == name && name != ""
}

// goesBy reports whether somebody may mean the workload by name: what selectors would find it by, its key and its place.
func goesBy(w *policy.Workload, name string) bool {
	if name == w.Key || name == w.Endpoint || name == w.Bridge+"/"+w.Port {
		return name != ""
	}
	return slices.ContainsFunc([]policy.Selector{{Port: name}, {VM: name}, {NeutronPort: name}, {MAC: name}},
		func(s policy.Selector) bool { return s.MatchesWorkload(w) })
}

// labelText spells ct_label as ovs-appctl does.
func labelText(x unixctl.Entry) string {
	if x.LabelsHi == 0 {
		return fmt.Sprintf("%#x", x.LabelsLo)
	}
	return fmt.Sprintf("%#x%016x", x.LabelsHi, x.LabelsLo)
}
