package host

import (
	"fmt"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// WarnForwards is the code of the warning that an endpoint forwards and does not say so.
const WarnForwards policy.Code = "FORWARDS"

// forwardsFor is for how long the warning stays after the last packet that shows it.
const forwardsFor = 10 * time.Minute

// forwarders are the endpoints that were seen to send on what others sent to them, by endpoint id, and when last. Its keys are ids of
// endpoints of the bridge, which bounds it.
type forwarders struct {
	mu   sync.Mutex
	last map[uint32]time.Time
}

// note looks at a copy of a packet that is no reply of its receiver's connection. If its sender opened that connection, it answers what
// somebody else asked for through it. It returns whether that is news.
func (f *forwarders) note(in *record.PacketIn, initiator uint32, now time.Time) bool {
	sender := register(in, pipeline.DestinationEndpoint) // STATE has exchanged the ends
	if sender == 0 || sender != initiator {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last = map[uint32]time.Time{}
	}
	_, known := f.last[sender]
	f.last[sender] = now
	return !known
}

// recent returns those seen lately and forgets the others.
func (f *forwarders) recent(now time.Time) map[uint32]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[uint32]bool{}
	for id, at := range f.last {
		if now.Sub(at) > forwardsFor {
			delete(f.last, id)
			continue
		}
		out[id] = true
	}
	return out
}

// forwardWarnings are those about endpoints of a bridge that forward and do not declare it.
func (w *firewall) forwardWarnings(now time.Time) []policy.Warning {
	seen := w.forwarders.recent(now)
	if len(seen) == 0 {
		return nil
	}
	var out []policy.Warning
	for _, x := range w.e.inventory.Workloads {
		if x.Bridge != w.cfg.Name || x.Remote || x.Forwards || !seen[lookUp(w.numbers.endpoints, x.Key).ID] {
			continue
		}
		out = append(out, policy.Warning{Code: WarnForwards, Endpoint: x.Key,
			Message: fmt.Sprintf("endpoint %s (port %s) sends on what others sent to it, like a router "+
				"with one port; TCP through it is cut until an Endpoint resource that matches it says forwards: true", x.Key, x.Port)})
	}
	return out
}
