package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// pickup builds the tables of the pickup window: for a while, TCP packets that conntrack does not know and that are no SYN are taken
// for the middle of a connection that is older than conntrack's memory.
//
// Nobody knows who opened such a connection. An explicit rule that allows the packet as sent says that its sender did, and the
// connection is committed. Otherwise an explicit rule that allows the reverse says that this is a reply; it passes uncommitted,
// and the initiator's own next packet commits. Only then do defaults count, in the same order. No connection is ever committed the
// wrong way round, so the window leaves nothing behind but ct_mark bits.
func (p *program) pickup() {
	p.system(TablePickup, 0, nil, table(TableEgress), table(TableIngress), table(TablePickupForward))

	forget := flow.Load{Dst: flow.SubField{Field: flow.Reg13, Bits: 32}}
	allowed := bothAllow()
	byEgressRule := EgressRule.IsMasked(allowed, 0, uint64(IDKindMask))
	byIngressRule := IngressRule.IsMasked(allowed, 0, uint64(IDKindMask))
	reversed := []flow.Action{forget, table(TableEgressReversed), table(TableIngressReversed), table(TablePickupReversed)}

	p.system(TablePickupForward, 30, byEgressRule, PickedUp.Load(1), table(TableVerdict))
	p.system(TablePickupForward, 20, byIngressRule, PickedUp.Load(1), table(TableVerdict))
	p.system(TablePickupForward, 10, allowed, append([]flow.Action{ForwardDefault.Load(1)}, reversed...)...)
	p.system(TablePickupForward, 0, nil, reversed...)

	exit := table(TableExit)
	p.system(TablePickupReversed, 40, byEgressRule, exit)
	p.system(TablePickupReversed, 30, byIngressRule, exit)
	p.system(TablePickupReversed, 20, ForwardDefault.Is(nil, 1), append([]flow.Action{forget, PickedUp.Load(1)}, judge()...)...)
	p.system(TablePickupReversed, 10, allowed, exit)
	p.system(TablePickupReversed, 0, nil, append([]flow.Action{forget}, judge()...)...)
}
