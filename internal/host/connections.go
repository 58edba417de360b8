package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/policy"
)

// Bounds of what a listing of connections costs others. While ovs-vswitchd writes them out it does nothing else: some 8 µs for each
// connection that it writes, 0.3 µs for each that it counts and 0.04 µs for each that it passes over (docs/benchmarks.md). These numbers
// keep every single piece below 20 ms.
const (
	maxDumped   = 1_000  // connections in one piece
	maxCounted  = 40_000 // connections of the datapath beyond which zones are not even counted
	maxListTime = 30 * time.Second
)

// errRemote: only ovs-vswitchd's control socket tells connections.
var errRemote = fmt.Errorf("%w: only the control socket of ovs-vswitchd tells of connections, and it cannot be reached over the network; "+
	"run there: ovs-appctl dpctl/dump-conntrack | tapwall connections explain -", backend.ErrUnable)

// tracked is a tracked connection of a bridge.
type tracked struct {
	unixctl.Entry
	b *wallView
	wire.Connection
}

// Connections lists what conntrack tracks of the managed bridges. Beside the connections comes a *backend.PartialError if bridges or zones
// were not looked at, or an error alone if none was.
func (e *Engine) Connections(ctx context.Context, q backend.ConnectionQuery) (wire.Connections, error) {
	out := wire.Connections{Items: []wire.Connection{}}
	all, err := e.connections(ctx, q)
	var partial *backend.PartialError
	if err != nil && !errors.As(err, &partial) {
		return out, err
	}
	out.Matched = len(all)
	for _, x := range all {
		if q.Limit > 0 && len(out.Items) == q.Limit {
			break
		}
		out.Items = append(out.Items, x.Connection)
	}
	return out, err
}

// connections finds those that match, by bridge, zone and tuple. Errors are those of Connections.
func (e *Engine) connections(ctx context.Context, q backend.ConnectionQuery) ([]tracked, error) {
	v := e.view.Load()
	if q.Host != "" && q.Host != v.host {
		return nil, nil
	}
	match, err := q.Filter.Compile()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxListTime)
	defer cancel()
	done, err := e.turn(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: other listings are under way", backend.ErrUnavailable)
	}
	defer done()
	var out []tracked
	partial, looked := &backend.PartialError{}, false
	var failed []error
	for i := range v.walls {
		b := &v.walls[i]
		if len(q.Filter.Bridge) > 0 && !slices.Contains(q.Filter.Bridge, b.cfg.Name) {
			continue
		}
		s := search{v: v, b: b, q: q, match: match, directory: newDirectory(v, b)}
		err := e.search(ctx, &s)
		for _, err := range s.refused {
			err = fmt.Errorf("bridge %s: %w", b.cfg.Name, err)
			partial.Problems, failed = append(partial.Problems, err.Error()), append(failed, err)
		}
		if err != nil {
			err = fmt.Errorf("bridge %s: %w", b.cfg.Name, err)
			partial.Problems, failed = append(partial.Problems, err.Error()), append(failed, err)
			continue
		}
		looked = looked || s.looked
		out = append(out, s.out...)
	}
	slices.SortStableFunc(out, func(a, b tracked) int {
		return cmp.Or(strings.Compare(a.Bridge, b.Bridge), cmp.Compare(a.Entry.Zone, b.Entry.Zone), cmp.Compare(a.Proto, b.Proto),
			a.Orig.Src.Compare(b.Orig.Src), a.Orig.Dst.Compare(b.Orig.Dst), cmp.Compare(a.Orig.SrcPort, b.Orig.SrcPort),
			cmp.Compare(a.Orig.DstPort, b.Orig.DstPort), cmp.Compare(a.Orig.ICMPID, b.Orig.ICMPID))
	})
	switch {
	case len(failed) > 0 && !looked:
		return nil, errors.Join(failed...)
	case len(failed) > 0:
		return out, partial
	}
	return out, nil
}

// search looks for connections of one bridge.
type search struct {
	v         *view
	b         *wallView
	q         backend.ConnectionQuery
	match     matcher
	directory *directory

	out     []tracked
	looked  bool    // at some zone
	refused []error // zones
}

func (e *Engine) search(ctx context.Context, s *search) error {
	br := s.v.topo.Bridges[s.b.cfg.Name]
	switch {
	case !e.canAskCaches(s.b.link):
		return errRemote
	case br == nil:
		return fmt.Errorf("%w: it does not exist", backend.ErrUnavailable)
	}
	kind := orElse(br.DatapathType, kernelDatapath)
	scope := unixctl.Scope{Datapath: kind + "@ovs-" + kind}
	daemon := unixctl.Daemon{RunDir: e.opt.RunDir}
	total, err := daemon.CountConntrack(ctx, scope)
	if err != nil {
		return unavailable(err)
	}
	zones, others := s.zones()
	switch {
	case total <= maxDumped, s.q.Force && others:
		return unavailable(s.read(ctx, daemon, scope))
	case total > maxCounted && !s.q.Force:
		return fmt.Errorf("%w: the datapath has %d connections; with more than %d not even those of a zone can be counted without delaying "+
			"packets for more than 20 ms. --force (force=true) asks all the same: nothing is forwarded for up to some %d ms",
			backend.ErrLimit, total, maxCounted, cost(total))
	}
	most := maxDumped
	if s.q.Force {
		most = 0
	}
	n := len(s.refused)
	if err := eachZone(ctx, daemon, scope, zones, most, func(part unixctl.Scope) error { return s.read(ctx, daemon, part) },
		func(zone uint16, n int) {
			s.refused = append(s.refused, fmt.Errorf("%w: zone %d (%s) has %d connections, and more than %d cannot be listed without delaying "+
				"packets for more than 20 ms. Name another VLAN, or ask with --force (force=true) all the same: nothing is forwarded for some %d ms",
				backend.ErrLimit, zone, zoneText(s.b.index, zone), n, maxDumped, cost(n)))
		}); err != nil {
		return unavailable(err)
	}
	s.looked = s.looked || len(s.refused)-n < len(zones)
	if others {
		s.refused = append(s.refused, fmt.Errorf("%w: the datapath has %d connections, more than the %d that are listed at once, so only the "+
			"VLANs of access ports and untagged packets were looked at: name others by --vlan (vlan=)", backend.ErrLimit, total, maxDumped))
	}
	return nil
}

// eachZone calls read with each zone that has connections, and tooMany with one that has more than most, 0 = however many there are.
func eachZone(ctx context.Context, d unixctl.Daemon, scope unixctl.Scope, zones []uint16, most int, read func(unixctl.Scope) error,
	tooMany func(zone uint16, n int)) error {
	for _, zone := range zones {
		scope.Zone = &zone
		n := 1
		if most > 0 {
			var err error
			if n, err = d.CountConntrack(ctx, scope); err != nil {
				return err
			}
		}
		switch {
		case most > 0 && n > most:
			tooMany(zone, n)
		case n > 0:
			if err := read(scope); err != nil {
				return err
			}
		}
	}
	return nil
}

// cost is how many milliseconds ovs-vswitchd takes to write out n connections.
func cost(n int) int { return n*8/1000 + 1 }

// unavailable is an error of the control socket.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
}

// read takes what of a part of the table belongs to the bridge and matches.
func (s *search) read(ctx context.Context, d unixctl.Daemon, scope unixctl.Scope) error {
	text, err := d.DumpConntrack(ctx, scope)
	if err != nil {
		return err
	}
	s.looked = true
	unread := 0
	for x, err := range unixctl.Entries(text) {
		if err != nil {
			unread++
			continue
		}
		if _, ours := pipeline.OppositeZone(s.b.index, x.Zone); !ours {
			continue
		}
		c := s.directory.connection(x)
		if s.wants(&c, x) {
			s.out = append(s.out, tracked{x, s.b, c})
		}
	}
	if unread > 0 {
		s.refused = append(s.refused, fmt.Errorf("%w: %d lines of conntrack cannot be read", backend.ErrUnavailable, unread))
	}
	return nil
}

// zones are those of the bridge in which what is asked for may be. others tells that it may be in further ones, of VLANs of trunks.
func (s *search) zones() (zones []uint16, others bool) {
	add := func(vlan int) {
		if zone, err := pipeline.Zone(s.b.index, vlan); err == nil && !slices.Contains(zones, zone) {
			zones = append(zones, zone)
		}
	}
	names := slices.Concat(s.q.Endpoint, s.q.From, s.q.To)
	named := func(w *policy.Workload) bool {
		return w.Bridge == s.b.cfg.Name && slices.ContainsFunc(names, func(n string) bool { return goesBy(w, n) })
	}
	if !slices.ContainsFunc(s.v.inventory.Workloads, named) {
		names = nil // they may be of endpoints that are no more
	}
	for _, vlan := range s.q.VLAN {
		add(vlan)
	}
	for _, w := range s.v.inventory.Workloads {
		if len(s.q.VLAN) > 0 || w.Bridge != s.b.cfg.Name || len(names) > 0 && !named(w) {
			continue
		}
		add(w.VLAN)
		others = others || w.VLAN == 0 && s.trunk(w.Port)
	}
	if len(s.q.VLAN) == 0 && len(names) == 0 {
		add(0)
	}
	for _, a := range each(s.b.numbers.endpoints) {
		if a.Forwarder > 0 && len(s.q.VLAN) == 0 {
			in, out := pipeline.ForwarderZones(s.b.index, a.Forwarder-1)
			zones = append(zones, in, out)
		}
	}
	slices.Sort(zones)
	return zones, others
}

// trunk reports whether a port may carry tagged packets.
func (s *search) trunk(port string) bool {
	p, ok := s.v.topo.Bridges[s.b.cfg.Name].Ports[port]
	return ok && p.Tag == nil
}

// zoneText says what a zone is for.
func zoneText(index int, zone uint16) string {
	switch vlan, is := vlanOf(index, zone); {
	case !is:
		return "of a forwarding endpoint"
	case vlan == 0:
		return "untagged"
	default:
		return "VLAN " + strconv.Itoa(vlan)
	}
}

// vlanOf is the VLAN of a zone of the bridge; false = it is a forwarding endpoint's.
func vlanOf(index int, zone uint16) (int, bool) {
	base := pipeline.ZoneBase(index)
	return int(zone) - int(base), zone >= base && zone-base <= 0xfff
}

// KillConnections has the switches forget the connections that match. Errors are those of Connections; what could not be forgotten is
// listed with the reason.
func (e *Engine) KillConnections(ctx context.Context, q backend.ConnectionQuery, dryRun bool) (wire.Killed, error) {
	out := wire.Killed{Connections: wire.Connections{Items: []wire.Connection{}}, DryRun: dryRun}
	all, err := e.connections(ctx, q)
	var partial *backend.PartialError
	if err != nil && !errors.As(err, &partial) {
		return out, err
	}
	out.Matched = len(all)
	for _, x := range all {
		why := ofctrl.Flushable(x.Proto, tupleOf(x.Orig))
		if why == nil && !dryRun {
			why = e.forget(ctx, x)
		}
		if why != nil {
			x.NotKilled = why.Error()
		} else {
			out.Killed++
		}
		if why != nil || q.Limit == 0 || len(out.Items) < q.Limit {
			out.Items = append(out.Items, x.Connection)
		}
	}
	for i := range e.view.Load().walls {
		b := &e.view.Load().walls[i]
		if b.pickupOpen.Load() && slices.ContainsFunc(all, func(x tracked) bool { return x.b.cfg.Name == b.cfg.Name && x.Proto == protocolTCP }) {
			out.Notes = append(out.Notes, fmt.Sprintf("a pickup window is open on bridge %s: TCP connections that policy allows are taken up again",
				b.cfg.Name))
		}
	}
	return out, err
}

// forget flushes one connection.
func (e *Engine) forget(ctx context.Context, x tracked) error {
	err := x.b.sw.FlushConnection(ctx, x.Entry.Zone, x.Proto, tupleOf(x.Orig))
	if !errors.Is(err, ofctrl.ErrRejected) {
		return err
	}
	// Open vSwitch before 3.1 cannot be asked by OpenFlow.
	br := e.view.Load().topo.Bridges[x.b.cfg.Name]
	if br == nil {
		return err
	}
	kind := orElse(br.DatapathType, kernelDatapath)
	err = unixctl.Daemon{RunDir: e.opt.RunDir}.FlushEntry(ctx, kind+"@ovs-"+kind, x.Entry)
	if errors.Is(err, unixctl.ErrNoEntry) {
		return nil
	}
	return err
}

func tupleOf(t unixctl.Tuple) ofp.CTTuple {
	return ofp.CTTuple{Src: t.Src, Dst: t.Dst, SrcPort: t.SrcPort, DstPort: t.DstPort, ICMPID: t.ICMPID, ICMPType: t.ICMPType,
		ICMPCode: t.ICMPCode}
}
