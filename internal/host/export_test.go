package host

import (
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy/compile/tap"
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

// Takes reports whether something is done with copies of the kind.
func Takes(r pipeline.CopyReason) bool { return packetIns[r] != nil }

// Names are what the ids of a bridge stand for.
func (e *Engine) Names(bridge string) *record.Names {
	for _, b := range e.view.Load().bridges {
		if b.cfg.Name == bridge {
			return b.directory.Names()
		}
	}
	return nil
}

// Unsaved counts the entries that the store does not have yet.
func (e *Engine) Unsaved() int { return e.view.Load().waiting }

// SetNumberBlock sets how many numbers are reserved at a time. It comes before Run.
func (e *Engine) SetNumberBlock(n uint32) { e.block = n }

// SetTapCompiler sets what makes rows and flows of mirrors. It comes before Run.
func (e *Engine) SetTapCompiler(f func(tap.Input) tap.Plan) { e.tapCompiler = f }
