package inventory

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// guard returns what the endpoint is held to in what it sends; nil = nothing. Only what is declared counts, and where the resource means
// several ports, their addresses are not.
func guard(w *policy.Workload, spec *policy.EndpointSpec, only bool) *policy.Guard {
	declared := only && len(spec.Addresses) > 0
	if spec.AntiSpoof == policy.AntiSpoofOff || spec.AntiSpoof != policy.AntiSpoofOn && !declared {
		return nil
	}
	g := &policy.Guard{
		Demanded: spec.AntiSpoof == policy.AntiSpoofOn, AnySource: spec.Forwards,
		AnyMAC: w.MAC == "" || spec.UnknownMAC == policy.UnknownMACJudge,
	}
	add := func(p netip.Prefix) { g.Addresses = append(g.Addresses, p) }
	if g.AnyMAC {
		add(netip.MustParsePrefix("fe80::/10"))
	} else {
		g.MACs = append([]string{w.MAC}, w.MACs...)
		slices.Sort(g.MACs)
		for _, mac := range g.MACs {
			a := policy.LinkLocal(mac)
			add(netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if !declared { // which they are is not known, so that nothing but the rest can be looked at
		add(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
		add(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	} else {
		for _, a := range parseAddresses(spec.Addresses) {
			add(netip.PrefixFrom(a, a.BitLen()))
		}
		for _, s := range spec.AllowedAddresses {
			if p, err := policy.ParseAllowed(s); err == nil {
				add(p)
			}
		}
	}
	slices.SortFunc(g.Addresses, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	g.Addresses = slices.Compact(g.Addresses)
	return g
}
