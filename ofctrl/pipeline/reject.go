package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// What a side rejects is dropped here like what it denies; the controller gets a copy, by which it tells the sender. What either side
// denies is not answered, whatever the other says: an answer would tell what deny means to hide.
//
// The answer goes out by the port that the packet came in by, past all tables: it is no packet of the connection, conntrack never sees it,
// and nobody judges, or rejects, it.

// reject is beneath all that drops and above all that lets pass.
func (p *program) reject(send func(CopyReason) flow.Action) {
	rejected := EgressVerdict.Is(nil, uint64(VerdictReject))
	p.add(TableVerdict, 366, DropEgress.Cookie(), EgressLog.Is(rejected, 1), send(CopyEgressDrop), askAnswer())
	p.add(TableVerdict, 364, DropEgress.Cookie(), rejected, askAnswer())
	rejected = IngressVerdict.Is(nil, uint64(VerdictReject))
	p.add(TableVerdict, 363, DropIngress.Cookie(), IngressLog.Is(rejected, 1), send(CopyIngressDrop), askAnswer())
	p.add(TableVerdict, 360, DropIngress.Cookie(), rejected, askAnswer())
}

// askAnswer copies a packet that is to be answered. A meter of its own keeps a flood of what is rejected from displacing the record.
func askAnswer() flow.Action {
	return flow.Controller{MaxLen: RejectBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyReject.UserData(), MeterID: MeterReject}
}
