package capture

import (
	"fmt"
	"net"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

// Origin says what is captured, by which packets are given interfaces and directions. It must not be changed.
type Origin struct {
	Mirror  string
	Sources []Source
	// Direction is that of all packets, seen from the sources, if they are copied one way only.
	Direction pcapng.Direction
}

// Source is one port that is copied.
type Source struct {
	Bridge, Port string
	MACs         []string // of what is plugged in there; none = not known
}

// encoder makes blocks of frames. Interfaces get their numbers when they are first needed and keep them.
type encoder struct {
	origin     *Origin
	comment    string
	interfaces []pcapng.Interface
	numbers    map[pcapng.Interface]uint32
	macs       map[[6]byte]pcapng.Interface
	known      map[[6]byte]uint32 // of macs, those that were seen
	sources    map[pcapng.Interface]Source
	all        pcapng.Interface // for what no MAC tells
	told       bool             // every source has a MAC that is known

	missing uint64 // packets that were lost since the last one
	newest  int64  // ns
}

func newEncoder(o *Origin) *encoder {
	e := &encoder{numbers: map[pcapng.Interface]uint32{}}
	e.setOrigin(o)
	e.number(e.all) // a section without an interface is not to everybody's taste
	return e
}

func (e *encoder) setOrigin(o *Origin) {
	e.origin = o
	e.comment = "mirror=" + o.Mirror
	e.sources = map[pcapng.Interface]Source{}
	e.macs, e.known, e.told = map[[6]byte]pcapng.Interface{}, map[[6]byte]uint32{}, true
	e.all = pcapng.Interface{Name: o.Mirror, Description: "mirror " + o.Mirror}
	for _, s := range o.Sources {
		i := pcapng.Interface{Name: s.Port, Description: s.Bridge + "/" + o.Mirror}
		e.sources[i] = s
		if len(o.Sources) == 1 {
			e.all = i
		}
		e.told = e.told && len(s.MACs) > 0
		for _, text := range s.MACs {
			if mac, err := net.ParseMAC(text); err == nil && len(mac) == 6 {
				e.macs[[6]byte(mac)] = i
			}
		}
	}
}

// maxInterfaces bounds those of one capture: a port that is plugged in anew and anew is given a number each time that its name changes.
const maxInterfaces = 4096

func (e *encoder) number(i pcapng.Interface) uint32 {
	n, ok := e.numbers[i]
	if !ok && len(e.interfaces) < maxInterfaces {
		n = uint32(len(e.interfaces))
		e.numbers[i] = n
		e.interfaces = append(e.interfaces, i)
	}
	return n
}

// at finds the interface of a MAC.
func (e *encoder) at(mac [6]byte) (uint32, bool) {
	if n, ok := e.known[mac]; ok {
		return n, true
	}
	i, ok := e.macs[mac]
	if !ok {
		return 0, false
	}
	n := e.number(i)
	e.known[mac] = n
	return n, true
}

// whose tells which source sent or received a frame. Between two of them it is the sender's, unless only what goes to them is copied.
func (e *encoder) whose(data []byte) (uint32, pcapng.Direction) {
	if len(data) >= 12 {
		from, to := [6]byte(data[6:]), [6]byte(data[:6])
		if e.origin.Direction != pcapng.Inbound {
			if n, ok := e.at(from); ok {
				return n, pcapng.Outbound
			}
		}
		if e.origin.Direction != pcapng.Outbound {
			if n, ok := e.at(to); ok {
				return n, pcapng.Inbound
			}
		}
		if e.origin.Direction == pcapng.Unknown && e.told {
			return e.number(e.all), pcapng.Inbound // none of the sources sent it
		}
	}
	return e.number(e.all), e.origin.Direction
}

func (e *encoder) append(b []byte, f frame) []byte {
	n, direction := e.whose(f.data)
	p := pcapng.Packet{Interface: n, Time: f.time, Length: f.length, Data: f.data, Direction: direction, Drops: e.missing, Comment: e.comment}
	if f.tag != 0 && len(f.data) >= 12 {
		// Rare: the switch hands over what it has as it is, and only a device that takes tags out has any to put back.
		tag := []byte{byte(f.tag >> 24), byte(f.tag >> 16), byte(f.tag >> 8), byte(f.tag)}
		p.Data = append(append(append(make([]byte, 0, len(f.data)+4), f.data[:12]...), tag...), f.data[12:]...)
		p.Length += 4
	}
	e.missing, e.newest = 0, f.time
	return pcapng.AppendPacket(b, &p)
}

// appendSection begins a section with all interfaces so far.
func (e *encoder) appendSection(b []byte) []byte {
	b = pcapng.AppendSection(b, "tapwall", fmt.Sprintf("tapwall mirror %s", e.origin.Mirror))
	return e.appendInterfaces(b, 0)
}

// appendInterfaces describes those behind the first n.
func (e *encoder) appendInterfaces(b []byte, n int) []byte {
	for _, i := range e.interfaces[n:] {
		b = pcapng.AppendInterface(b, i)
	}
	return b
}
