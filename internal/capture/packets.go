package capture

import (
	"time"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

// Packet is one that was captured. Data is good until the call that it is given to returns.
type Packet struct {
	Time   time.Time
	Length int // on the wire; Data may be cut
	Data   []byte
	Source Source // whose packet it is; the zero value = it is not known which of several
	// Direction is the way that it went, seen from the source.
	Direction pcapng.Direction
}

// Packets hands each packet to a function instead of keeping it.
type Packets struct {
	// Take is called with each packet, Lost with how many the kernel had no room for before the next, both by one goroutine.
	Take func(Packet)
	Lost func(n uint64)
}

// looker is a Keeper that wants the packets themselves and no blocks.
type looker interface {
	look(e *encoder, f frame)
	lost(n uint64)
}

func (p *Packets) look(e *encoder, f frame) {
	n, direction := e.whose(f.data)
	e.newest = f.time
	p.Take(Packet{Time: time.Unix(0, f.time), Length: f.length, Data: f.data, Source: e.sources[e.interfaces[n]], Direction: direction})
}

func (p *Packets) lost(n uint64) { p.Lost(n) }

// keep, tick, end and report implement Keeper: nothing is kept.
func (p *Packets) keep(*batch) int { return 0 }
func (p *Packets) tick(*encoder)   {}
func (p *Packets) end(*encoder)    {}
func (p *Packets) report(*Stats)   {}
