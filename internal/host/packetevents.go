package host

import (
	"net"
	"slices"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/capture"
	"github.com/tapwall/tapwall/internal/capture/pcapng"
	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/policy"
)

// endpointNames are the endpoints that have a MAC. They are replaced as a whole.
type endpointNames map[packet.MAC]*event.Endpoint

// nameEndpoints brings the names that events of packets take up to date.
func (e *Engine) nameEndpoints() {
	if ws := e.inventory.Workloads; !slices.Equal(ws, e.namedEndpoints) {
		names := endpointNames{}
		for _, w := range ws {
			x := &event.Endpoint{Name: orElse(w.Endpoint, w.Port), PortName: w.Port}
			for key, from := range w.LabelFrom { // all that Open vSwitch says of the port would make a third of each document
				if from != "ovsdb" || slices.Contains(event.NameLabels(), key) {
					if x.Labels == nil {
						x.Labels = map[string]string{}
					}
					x.Labels[key] = w.Labels[key]
				}
			}
			x.Labels = event.BoundedLabels(x.Labels)
			for _, text := range append([]string{w.MAC}, w.MACs...) {
				if mac, err := net.ParseMAC(text); err == nil && len(mac) == len(packet.MAC{}) {
					names[packet.MAC(mac)] = x
				}
			}
		}
		e.namedEndpoints = ws
		e.endpointNames.Store(&names)
	}
}

// packetEvents makes events of the packets that a mirror copies. It is for one goroutine.
type packetEvents struct {
	e      *Engine
	host   string
	mirror string
	sample *sampler
	lost   uint64
	names  *endpointNames // that copies are made with
	copies map[copied]*record.MirrorCopy
}

// copied is what the copies of many packets have in common.
type copied struct {
	from, to  packet.MAC
	direction event.Direction
	weight    int64
}

// maxCopied bounds what is remembered of packets: guests choose the addresses.
const maxCopied = 4096

func (e *Engine) newPacketEvents(mirror string, t *policy.EventsTarget) *capture.Packets {
	p := &packetEvents{e: e, host: e.topo.Host, mirror: mirror, sample: newSampler(t.OneOf())}
	return &capture.Packets{Take: p.take, Lost: p.lose}
}

func (p *packetEvents) take(c capture.Packet) {
	weight := p.sample.weight(c.Data, c.Length)
	if weight == 0 {
		return
	}
	p.e.opt.Recorder.HandleCopy(c.Source.Bridge, record.PacketIn{Host: p.host, Data: c.Data, TotalLen: c.Length, InPortName: c.Source.Port,
		Time: c.Time, Copy: p.known(&c, weight)})
}

// known says what is known of a packet beside what it holds.
func (p *packetEvents) known(c *capture.Packet, weight int64) *record.MirrorCopy {
	if names := p.e.endpointNames.Load(); names != p.names || len(p.copies) >= maxCopied {
		p.names, p.copies = names, map[copied]*record.MirrorCopy{}
	}
	k := copied{weight: weight}
	if len(c.Data) >= 12 {
		k.to, k.from = packet.MAC(c.Data[:6]), packet.MAC(c.Data[6:])
	}
	switch c.Direction {
	case pcapng.Outbound:
		k.direction = event.Egress
	case pcapng.Inbound:
		k.direction = event.Ingress
	case pcapng.Unknown:
	}
	m := p.copies[k]
	if m == nil {
		m = &record.MirrorCopy{Mirror: p.mirror, Weight: weight, Direction: k.direction}
		if p.names != nil {
			m.Source, m.Destination = (*p.names)[k.from], (*p.names)[k.to]
		}
		p.copies[k] = m
	}
	return m
}

// lose counts the events that packets would have become for which the kernel had no room.
func (p *packetEvents) lose(n uint64) {
	p.lost += n
	oneOf := uint64(p.sample.oneOf)
	p.e.opt.Recorder.AddHostLoss(p.host, event.StageCaptureRing, event.P2, "full", int64(p.lost/oneOf))
	p.lost %= oneOf
}
