package host

import (
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// What conversion tests look at.
var (
	Verdicts     = verdicts
	ReadMetadata = readMetadata
	Register     = register
)

// SetRegister writes a pipeline field into the registers of in.
func SetRegister(in *record.PacketIn, f pipeline.Field, v uint32) {
	mask := uint32(flow.Ones(int(f.Bits)).Lo) << f.Ofs
	r := &in.Registers[f.Field-flow.Reg8]
	*r = *r&^mask | v<<f.Ofs&mask
}

// Unsaved counts the entries that the store does not have yet.
func (e *Engine) Unsaved() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.published.waiting
}

// SetNumberBlock sets how many numbers are reserved at a time. It comes before Run.
func (e *Engine) SetNumberBlock(n uint32) { e.block = n }
