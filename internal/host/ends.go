package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
)

const (
	// endsEvery is how often recorded connections are looked for that have ended. It is shorter than the 30 s for which a userspace datapath
	// keeps TCP that was closed, so that each is seen then and tells when its last packet came.
	endsEvery = 10 * time.Second
	// maxDumpedKernel is maxDumped on the kernel's datapath, where a look holds up ovs-vswitchd's other work and no packet.
	maxDumpedKernel = 10_000
	// closeTimeout is for how many seconds a userspace datapath keeps closed TCP, where no timeout tcp_close says otherwise
	// (ct_dpif_netdev_tp_def in lib/conntrack-tp.c).
	closeTimeout = 30
)

// errEndsRemote says why no ends are told of a switch on another machine.
const errEndsRemote = "only the control socket of ovs-vswitchd tells of them, and it cannot be reached over the network"

// endsTold is what is known of the ends of a bridge's connections.
type endsTold struct {
	stopped map[int]string // why they are not told, by zone; wholeDatapath = of all zones
	trouble string         // of the last look; "" = none
}

// wholeDatapath stands for all zones in endsTold.
const wholeDatapath = -1

// String says why ends are not told now; "" = they are.
func (t *endsTold) String() string {
	if t == nil {
		return ""
	}
	var out []string
	if t.trouble != "" {
		out = append(out, t.trouble)
	}
	for _, zone := range slices.Sorted(maps.Keys(t.stopped)) {
		out = append(out, t.stopped[zone])
	}
	return strings.Join(out, "; ")
}

// watchEnds tells the recorder which of the recorded connections are still there, until ctx ends. While none is open it asks nothing.
func (e *Engine) watchEnds(ctx context.Context) {
	if !e.local() {
		return
	}
	for pause(ctx, endsEvery) {
		v := e.view.Load()
		if v.topo == nil || !v.ready {
			continue
		}
		open := e.opt.Recorder.OpenConnections(v.topo.Host)
		for _, bridge := range slices.Sorted(maps.Keys(open)) {
			b := v.wallOf(bridge)
			if now := time.Now(); b == nil || v.topo.Bridges[bridge] == nil || !e.canAskCaches(b.link) {
				e.opt.Recorder.ConnectionsSeen(&record.Look{Host: v.topo.Host, Bridge: bridge, Began: now, Ended: now, Unwatched: true})
				continue
			}
			l := endsLook{e: e, v: v, b: b, open: open[bridge], stopped: map[int]string{}}
			now := endsTold{stopped: l.stopped}
			if err := l.run(ctx); err != nil {
				now.trouble = err.Error()
			}
			if ctx.Err() == nil {
				e.tellEnds(b.link, &now)
			}
		}
		for i := range v.walls {
			if b := v.walls[i].link; open[b.cfg.Name] == nil {
				e.tellEnds(b, nil)
			}
		}
	}
}

// tellEnds notes whether ends are told, and has an event where that changes. nil: there was nothing to look for. It is for watchEnds alone.
func (e *Engine) tellEnds(l *link, now *endsTold) {
	var before, after map[int]string
	if old := l.ends.Load(); old != nil {
		before = old.stopped
	}
	if now != nil {
		after = now.stopped
		for zone, why := range before {
			if now.trouble != "" && after[zone] == "" { // a look that failed says nothing of it
				after[zone] = why
			}
		}
	}
	l.ends.Store(now)
	for _, zone := range slices.Sorted(maps.Keys(after)) {
		if before[zone] == "" {
			e.tell(l, event.ActionEndsStopped, event.Notice{Message: after[zone]})
		}
	}
	for _, zone := range slices.Sorted(maps.Keys(before)) {
		if after[zone] == "" {
			e.tell(l, event.ActionEndsResumed, event.Notice{Message: "ends of connections " + l.whose(zone) + " are told again, of those that " +
				"ended meanwhile too: between when and when"})
		}
	}
}

// whose names a zone as endsTold does.
func (l *link) whose(zone int) string {
	if zone == wholeDatapath {
		return "of the whole datapath"
	}
	return fmt.Sprintf("in zone %d (%s)", zone, zoneText(l.index, uint16(zone)))
}

// endsLook is one look for the connections of a bridge.
type endsLook struct {
	e       *Engine
	v       *view
	b       *wallView
	open    map[uint16]int
	stopped map[int]string
	kind    string // of the datapath
}

// run looks at all zones at once where there are few connections, else at one after another, as far as the bounds of a listing allow.
func (l *endsLook) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxListTime)
	defer cancel()
	l.kind = orElse(l.v.topo.Bridges[l.b.cfg.Name].DatapathType, kernelDatapath)
	scope := unixctl.Scope{Datapath: l.kind + "@ovs-" + l.kind}
	most, all := maxDumped, maxCounted
	if l.kind == kernelDatapath {
		most, all = maxDumpedKernel, 1<<31-1
	}
	total, err := l.count(ctx, scope)
	switch {
	case err != nil:
		return err
	case total <= most:
		return l.look(ctx, scope)
	case total > all:
		l.stopped[wholeDatapath] = fmt.Sprintf("ends of connections are not told: the datapath has %d connections, and with more than %d not "+
			"even those of a zone are counted, so that packets are not delayed for more than 20 ms", total, all)
		return nil
	}
	for _, zone := range slices.Sorted(maps.Keys(l.open)) {
		scope.Zone = &zone
		n, err := l.count(ctx, scope)
		switch {
		case err != nil:
			return err
		case n > most:
			l.stopped[int(zone)] = fmt.Sprintf("ends of connections %s are not told: it has %d, and more than %d are not looked at, so that "+
				"packets are not delayed for more than 20 ms", l.b.whose(int(zone)), n, most)
			continue
		}
		if err := l.look(ctx, scope); err != nil {
			return err
		}
	}
	return nil
}

func (l *endsLook) count(ctx context.Context, scope unixctl.Scope) (n int, err error) {
	err = l.e.inTurn(ctx, func() error {
		n, err = unixctl.Daemon{RunDir: l.e.opt.RunDir}.CountConntrack(ctx, scope)
		return err
	})
	return n, unavailable(err)
}

// look tells the recorder what is there.
func (l *endsLook) look(ctx context.Context, scope unixctl.Scope) error {
	r := record.Look{Host: l.v.topo.Host, Bridge: l.b.cfg.Name, Found: map[uint16]map[record.Tuple]record.Tracked{}}
	if scope.Zone != nil {
		r.Zones = []uint16{*scope.Zone}
	}
	var text string
	err := l.e.inTurn(ctx, func() (err error) {
		r.Began = time.Now()
		text, err = unixctl.Daemon{RunDir: l.e.opt.RunDir}.DumpConntrack(ctx, scope)
		r.Ended = time.Now()
		return err
	})
	if err != nil {
		return unavailable(err)
	}
	for x, err := range unixctl.Entries(text) {
		if err != nil {
			return unavailable(fmt.Errorf("conntrack cannot be read, so it is not known what has ended: %w", err))
		}
		if l.open[x.Zone] == 0 {
			continue
		}
		if r.Found[x.Zone] == nil {
			r.Found[x.Zone] = map[record.Tuple]record.Tracked{}
		}
		r.Found[x.Zone][recordTuple(x)] = l.tracked(x, r.Ended)
	}
	l.e.opt.Recorder.ConnectionsSeen(&r)
	return nil
}

// recordTuple is the original tuple as the recorder has it.
func recordTuple(x unixctl.Entry) record.Tuple {
	if x.Proto == protocolICMP || x.Proto == protocolICMPv6 {
		return record.NewTuple(x.Proto, x.Orig.Src, x.Orig.Dst, x.Orig.ICMPID, record.ICMPPort(x.Orig.ICMPType, x.Orig.ICMPCode))
	}
	return record.NewTuple(x.Proto, x.Orig.Src, x.Orig.Dst, x.Orig.SrcPort, x.Orig.DstPort)
}

// closedStates are those of both sides of TCP that was closed or reset, as the datapaths name them.
var closedStates = [...]string{"FIN_WAIT_2", "TIME_WAIT", "CLOSED"}

// tracked says what an entry tells of its connection.
func (l *endsLook) tracked(x unixctl.Entry, at time.Time) record.Tracked {
	t := record.Tracked{
		Sent:     record.Traffic{Packets: int64(x.Orig.Packets), Bytes: int64(x.Orig.Bytes)},
		Returned: record.Traffic{Packets: int64(x.Reply.Packets), Bytes: int64(x.Reply.Bytes)},
	}
	if x.Proto != protocolTCP || !slices.Contains(closedStates[:], x.State) || !slices.Contains(closedStates[:], x.StateReply) {
		return t
	}
	t.Closed = true
	if timeout := l.closeTimeout(x.Zone); timeout >= int(x.Timeout) { // the last packet set it
		t.Last = at.Add(-time.Duration(timeout-int(x.Timeout)) * time.Second)
	}
	return t
}

// closeTimeout is for how many seconds closed TCP is kept in a zone; -1 = not known, as of the kernel, whose timeouts are its host's.
func (l *endsLook) closeTimeout(zone uint16) int {
	if z, is := l.v.topo.Datapaths[l.kind].Zones[int(zone)]; is && z.Policy != nil {
		if set, is := z.Policy.Timeouts["tcp_close"]; is {
			return set
		}
	}
	if l.kind == kernelDatapath {
		return -1
	}
	return closeTimeout
}

// turnRest is how long ovs-vswitchd is left alone after a question that holds it up, so that what packets wait for does not add up.
const turnRest = 20 * time.Millisecond

// inTurn calls f, which asks ovs-vswitchd for connections, while nobody else does or has just done so. The error is f's, or that of ctx.
func (e *Engine) inTurn(ctx context.Context, f func() error) error {
	done, err := e.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	return f()
}

// turn waits until nobody else asks ovs-vswitchd for connections, or has just done so; done ends the turn.
func (e *Engine) turn(ctx context.Context) (done func(), err error) {
	select {
	case e.listing <- struct{}{}:
		return func() { time.AfterFunc(turnRest, func() { <-e.listing }) }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
