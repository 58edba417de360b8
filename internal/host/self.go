package host

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// selfPoll is how often the host's own addresses are read.
const selfPoll = time.Second

// ownAddresses are those of a host: of a local one what its interfaces have, without loopback and link-local ones; of another one the
// address that its database is reached at.
func (e *Engine) ownAddresses() []netip.Addr {
	var out []netip.Addr
	if !e.local() {
		_, rest, _ := strings.Cut(e.opt.DB.Status().Address, ":")
		if ap, err := netip.ParseAddrPort(rest); err == nil {
			out = append(out, ap.Addr().Unmap())
		}
		return out
	}
	all, _ := net.InterfaceAddrs() // what cannot be read now is read the next time
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if addr, ok := netip.AddrFromSlice(n.IP); ok && !addr.Unmap().IsLoopback() && !addr.Unmap().IsLinkLocalUnicast() {
			out = append(out, addr.Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// watchSelf follows them until ctx ends.
func (e *Engine) watchSelf(ctx context.Context) {
	for pause(ctx, selfPoll) {
		now := e.ownAddresses()
		if before := e.self.Load(); !slices.Equal(*before, now) {
			e.self.Store(&now)
			e.poke()
		}
	}
}
