package wall

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// maxRetired bounds the ids that are kept after their endpoints: connections that carry an older one are judged anew when their initiator
// sends, but not by a reply.
const maxRetired = 1024

func stationOf(w *policy.Workload) Station { return Station{Port: w.Port, MAC: w.MAC, VLAN: w.VLAN} }

// same reports whether the stations are known to be one. The VLAN is no difference: connections of another are in another zone.
func (s Station) same(o Station) bool { return s.Port == o.Port && s.MAC == o.MAC && s.MAC != "" }

// retireID keeps the id of an endpoint that goes: connections that it opened under it may live on.
func (f *Firewall) retireID(id uint32, s Station) {
	if s.Retired == 0 {
		s.Retired = f.next
	}
	f.retired[id], f.retiredNow[id], f.dirtyRetired = s, &s, true
	for len(f.retired) > maxRetired {
		oldest := f.oldestRetired()
		delete(f.retired, oldest)
		f.retiredNow[oldest] = nil
	}
}

// oldestRetired returns the id that was retired first, the smaller of two. Numbers begin again at 1 after the last.
func (f *Firewall) oldestRetired() uint32 {
	age := func(id uint32) uint32 { return (f.next - f.retired[id].Retired) & pipeline.MaxNumber }
	var oldest uint32
	for id := range f.retired {
		if oldest == 0 || age(id) > age(oldest) || age(id) == age(oldest) && id < oldest {
			oldest = id
		}
	}
	return oldest
}

// emitRetired builds the flows for retired ids of stations that are endpoints again, or still, under another id.
func (f *Firewall) emitRetired(out *Changes) {
	if !f.dirtyRetired {
		return
	}
	f.dirtyRetired = false
	now := make(map[string]*endpoint, len(f.retired)) // by port
	for _, e := range f.endpoints {
		now[e.w.Port] = e
	}
	var flows []flow.Flow
	for _, id := range slices.Sorted(maps.Keys(f.retired)) {
		// Where somebody else is there, what was opened before him is not his; where nobody is, nobody's policy has to be asked.
		if e := now[f.retired[id].Port]; e != nil && f.retired[id].same(stationOf(e.w)) {
			if _, waits := f.beyond[pipeline.EndpointBase(e.id)]; waits {
				continue // see Reserve
			}
			flows = append(flows, pipeline.BindRetired(pipeline.NewCookie(pipeline.CookieEndpoint, id), id, e.id)...)
		}
	}
	if flows != nil || f.installedRetired {
		out.Owners[OwnerRetired] = flows
	}
	f.installedRetired = flows != nil
}

// Judged returns the ids of the endpoints that a policy applies to.
func (f *Firewall) Judged() map[uint32]bool {
	out := map[uint32]bool{}
	for id, e := range f.byID {
		out[id] = slices.ContainsFunc(e.choices, func(x *choice) bool { return len(x.subjectOf) > 0 })
	}
	return out
}
