package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// What machines say of their addresses is copied to the controller as it passes PRE and LINK, behind SPOOF, so that nothing is learned from
// what a guard drops: ARP and neighbour discovery of endpoints, and the answers of whoever may answer DHCP clients. The packet goes on as
// it does without; a meter of its own keeps a flood of claims from displacing the record.

// learning returns actions with the copy before them, if addresses are learned.
func (p *program) learning(actions ...flow.Action) []flow.Action {
	if !p.opt.Learning {
		return actions
	}
	return append([]flow.Action{flow.Controller{MaxLen: LearnBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyAddress.UserData(),
		MeterID: MeterLearn}}, actions...)
}

// learnable adds a flow that copies what endpoints send, and above it the same for all others, of which nothing is learned.
func (p *program) learnable(table uint8, priority uint16, i Item, m flow.Match, actions ...flow.Action) {
	if p.opt.Learning {
		p.add(table, priority+1, SystemCookie(table, i), SourceEndpoint.Is(m, 0), actions...)
	}
	p.add(table, priority, SystemCookie(table, i), m, p.learning(actions...)...)
}
