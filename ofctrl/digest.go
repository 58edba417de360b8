package ofctrl

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// key stands for the identity of a flow on a switch, (table, priority, match). It is a hash, because 100,000 identities as
// text would take tens of megabytes: 128 bits under seeds that nobody outside knows, so that no input can be made to collide.
type key [2]uint64

// content stands for the rest of a flow. What differs in attrs (cookie, timeouts, flags) can only be changed by replacing
// the flow; what differs in actions alone can be modified with the counters kept.
type content struct{ attrs, actions uint64 }

// digester computes keys and contents from the flow's wire form, in which different values that mean the same to the switch
// are the same. It is not safe for concurrent use.
type digester struct {
	seeds [2]maphash.Seed
	buf   []byte
	keyed []byte
}

func newDigester() digester {
	return digester{seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// The layout of a flow-mod (OpenFlow 1.3.5 §7.3.4.1).
const (
	modCookie   = 8
	modTable    = 24
	modIdle     = 26
	modPriority = 30
	modFlags    = 44
	modMatch    = 48
)

// stateFlags are the flags that stay with a flow; the others only concern its flow-mod, and no switch reports them.
const stateFlags = flow.SendFlowRem | flow.NoPktCounts | flow.NoBytCounts

// digest returns what stands for f. Errors are those of the encoder.
func (d *digester) digest(f *flow.Flow) (key, content, error) {
	g := flow.Flow{
		Table: f.Table, Priority: f.Priority, Cookie: f.Cookie, IdleTimeout: f.IdleTimeout, HardTimeout: f.HardTimeout,
		Importance: f.Importance, Flags: f.Flags & stateFlags, Match: f.Match.Normalize(), Actions: f.Actions,
	}
	b, err := ofp.AppendFlowMod(d.buf[:0], 0, ofp.FlowAdd, &g, ofp.FlowModOptions{})
	d.buf = b[:0]
	if err != nil {
		return key{}, content{}, err
	}
	matchLen := int(binary.BigEndian.Uint16(b[modMatch+2:]))
	instructions := modMatch + (matchLen+7)&^7

	d.keyed = append(d.keyed[:0], b[modTable])
	d.keyed = append(d.keyed, b[modPriority:modPriority+2]...)
	d.keyed = append(d.keyed, b[modMatch:modMatch+matchLen]...)
	k := key{maphash.Bytes(d.seeds[0], d.keyed), maphash.Bytes(d.seeds[1], d.keyed)}

	d.keyed = append(d.keyed[:0], b[modCookie:modCookie+8]...)
	d.keyed = append(d.keyed, b[modIdle:modPriority]...)
	d.keyed = append(d.keyed, b[modFlags:modFlags+2]...)
	return k, content{maphash.Bytes(d.seeds[0], d.keyed), maphash.Bytes(d.seeds[0], b[instructions:])}, nil
}
