package ofctrl

import (
	"context"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// Renewal has Open vSwitch throw away what it has cached at each bundle, instead of mending it.
//
// When flow tables change, Open vSwitch translates each cached flow anew and exchanges its actions where they differ. Its userspace
// datapath before 2.17.8, 3.0.5, 3.1.3 and 3.2.0 looks for the cached flow by a packet that it matches, and two of them may match that
// packet where one was cached before an earlier change and looks at more than the other: the wrong one is mended, and the right one keeps
// its old actions as long as there are packets for it, whatever the flow tables say (flow_put_on_pmd in lib/dpif-netdev.c; commit
// 21410ff80). A cached flow that looks at too little is deleted, by its own id, and cannot go wrong.
//
// So one of many sets of flows is installed, and each bundle has the next one take its place. They match no packet. Each makes all that
// passes its tables look at something that no other set does: whatever was cached under another one looks at too little, however many
// changes the switch takes before it looks at its cache again. That changes nothing that packets meet, and is not counted.
type Renewal struct {
	// Needed is called with locks held whenever something is about to be sent: it must be fast and must not call methods of the Switch.
	Needed func() bool
	// Flows returns a set, all of it ours by cookie, and Number says of which set a flow is, if of any.
	Flows  func(n uint16) []flow.Flow
	Number func(*flow.Flow) (n uint16, ok bool)
}

// RenewalOwner is the owner of the flows of a Renewal.
const RenewalOwner = "renewal"

// adoptRenewal wants the set that is installed, so that it is nothing to be changed, unless another is wanted.
func (s *Switch) adoptRenewal() {
	r := s.opts.Renewal
	if r == nil || s.table.owners[RenewalOwner] != nil || !r.Needed() {
		return
	}
	for _, f := range s.table.strays {
		if n, ok := r.Number(&f); ok {
			s.renewalSet = n
			s.wantRenewal(r.Flows(n))
			return
		}
	}
}

// renew wants the next set, as part of a bundle that is about to be sent.
func (s *Switch) renew() {
	r := s.opts.Renewal
	switch {
	case r == nil:
	case !r.Needed():
		s.wantRenewal(nil)
	default:
		s.renewalSet++
		s.wantRenewal(r.Flows(s.renewalSet))
	}
}

// counted is how many of changes are not those of a renewal.
func (s *Switch) counted(changes []change) (added, modified, deleted int) {
	for i := range changes {
		c := &changes[i]
		if r := s.opts.Renewal; r != nil && c.foreign == nil {
			if _, ok := r.Number(c.flow); ok {
				continue
			}
		}
		switch c.command {
		case ofp.FlowAdd:
			added++
		case ofp.FlowModifyStrict:
			modified++
		default:
			deleted++
		}
	}
	return added, modified, deleted
}

func (s *Switch) wantRenewal(flows []flow.Flow) {
	if s.table.owners[RenewalOwner] == nil && flows == nil {
		return
	}
	before := s.table.ordering
	s.table.ordering = true
	defer func() { s.table.ordering = before }()
	if _, err := s.table.replace(map[string][]flow.Flow{RenewalOwner: flows}); err != nil {
		s.log.Error("the switch's caches cannot be renewed", "err", err)
	}
}

// Renew makes the switch look at every cached flow again, as [Switch.Nudge] does, and throw away each where [Options.Renewal] is needed.
// Errors are those of Nudge and of Apply, whose missing flows it installs on the way.
func (s *Switch) Renew(ctx context.Context) error {
	if r := s.opts.Renewal; r == nil || !r.Needed() {
		return s.Nudge(ctx)
	}
	conn, err := s.takeConn(ctx)
	if err != nil {
		return err
	}
	defer s.release()
	s.mu.Lock()
	s.applying, s.renewalDue = true, true
	s.mu.Unlock()
	var r Result
	_, err = s.round(ctx, conn, &r)
	s.result(r)
	return err
}
