package ofctrl

import (
	"context"
	"fmt"

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
// So there are two sets of flows, which match no packet and make all that passes their tables look at something that the other does not.
// One of them is installed, and each bundle has the other take its place. That changes nothing that packets meet, and is not counted.
type Renewal struct {
	// Needed is called with locks held whenever something is about to be sent: it must be fast and must not call methods of the Switch.
	Needed func() bool
	Flows  [2][]flow.Flow // ours by cookie
}

// RenewalOwner is the owner of the flows of a Renewal.
const RenewalOwner = "renewal"

// adoptRenewal wants the set that is installed, so that it is nothing to be changed, unless another is wanted.
func (s *Switch) adoptRenewal() {
	if s.opts.Renewal == nil || s.table.owners[RenewalOwner] != nil || !s.opts.Renewal.Needed() {
		return
	}
	for i := range s.opts.Renewal.Flows {
		if s.renewed(i) {
			s.wantRenewal(s.opts.Renewal.Flows[i])
			return
		}
	}
}

// renew exchanges the sets, as part of a bundle that is about to be sent.
func (s *Switch) renew() {
	r := s.opts.Renewal
	switch {
	case r == nil:
	case !r.Needed():
		s.wantRenewal(nil)
	case s.renewed(0):
		s.wantRenewal(r.Flows[1])
	default:
		s.wantRenewal(r.Flows[0])
	}
}

// renewed reports whether any flow of a set is installed.
func (s *Switch) renewed(set int) bool {
	for k, in := range s.renewals {
		if in == set && s.table.get(k).there == ours {
			return true
		}
	}
	return false
}

// renewalKeys are the places of both sets.
func (s *Switch) renewalKeys() (map[key]int, error) {
	if s.opts.Renewal == nil {
		return nil, nil
	}
	keys := map[key]int{}
	for set, flows := range s.opts.Renewal.Flows {
		for i := range flows {
			k, _, err := s.table.digest(&flows[i])
			if err != nil {
				return nil, fmt.Errorf("renewal flow %s: %w", flows[i].String(), err)
			}
			keys[k] = set
		}
	}
	return keys, nil
}

// counted is how many of changes are not those of a renewal.
func (s *Switch) counted(changes []change) (added, modified, deleted int) {
	for i := range changes {
		c := &changes[i]
		if _, renewal := s.renewals[c.key]; renewal && c.foreign == nil {
			continue
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
	if o := s.table.owners[RenewalOwner]; o == nil && flows == nil || o != nil && len(flows) > 0 && &o.flows[0] == &flows[0] {
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
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	conn := s.current()
	if conn == nil {
		return fmt.Errorf("%v: %w", s, ErrNotConnected)
	}
	s.mu.Lock()
	s.applying, s.renewal = true, true
	s.mu.Unlock()
	var r Result
	_, err := s.round(ctx, conn, &r)
	s.result(r)
	return err
}
