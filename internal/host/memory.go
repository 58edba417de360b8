package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
)

// Bounds of what is remembered. A dump holds up ovs-vswitchd, and on a userspace datapath its packets, for about 8 µs per connection.
const (
	rememberEvery  = 5 * time.Second
	maxRead        = 2_500   // connections that are read in one piece: 20 ms
	maxRemembered  = 16_384  // connections kept of a bridge
	maxMemoryFile  = 8 << 20 // bytes: more than they take
	rememberedFor  = 10 * time.Minute
	protocolTCP    = 6
	kernelDatapath = "system"
)

// memory holds who opened the TCP connections of endpoints with a policy, as conntrack last told. Userspace conntrack forgets it when the
// switch restarts, and then no packet tells.
type memory struct {
	file string // "" = not kept over a restart of tapwall

	mu   sync.Mutex
	last snapshot
}

// snapshot is what is written to the file.
type snapshot struct {
	At          time.Time             `json:"at"`
	Connections []pipeline.Connection `json:"connections"`
}

// newMemory takes up what an earlier process left. A file that cannot be read is as good as none.
func newMemory(dir, bridge string) (*memory, error) {
	m := &memory{}
	if dir == "" {
		return m, nil
	}
	m.file = filepath.Join(dir, url.PathEscape(bridge)+".json")
	_, err := readJSON(m.file, maxMemoryFile, &m.last)
	if err == nil {
		err = m.last.check()
	}
	if err != nil {
		m.last = snapshot{}
	}
	return m, err
}

// check holds a snapshot that was read from a file to what is written to one.
func (s *snapshot) check() error {
	if len(s.Connections) > maxRemembered {
		return fmt.Errorf("%d connections, more than %d", len(s.Connections), maxRemembered)
	}
	for i, c := range s.Connections {
		if !c.Src.IsValid() || !c.Dst.IsValid() || c.Src.Addr().Is4() != c.Dst.Addr().Is4() || c.Src.Addr().Zone() != "" ||
			c.Dst.Addr().Zone() != "" {
			return fmt.Errorf("connection %d has no two addresses of one family", i)
		}
	}
	return nil
}

// recall returns the connections that were open when the switch was last asked, unless that is too long ago to be of use.
func (m *memory) recall(now time.Time) []pipeline.Connection {
	m.mu.Lock()
	defer m.mu.Unlock()
	if age := now.Sub(m.last.At); age < 0 || age > rememberedFor {
		return nil
	}
	return m.last.Connections
}

// due reports whether it is time to ask.
func (m *memory) due(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.Sub(m.last.At) >= rememberEvery || now.Before(m.last.At)
}

// keep replaces what is remembered. The file is not synced: a host that crashes loses its connections too.
func (m *memory) keep(s snapshot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = s
	if m.file == "" {
		return nil
	}
	return replaceJSON(m.file, s)
}

// remember asks conntrack of the bridges' datapaths every few seconds.
func (e *Engine) remember(ctx context.Context) {
	daemon := unixctl.Daemon{RunDir: e.opt.RunDir}
	told := map[string]string{}          // what went wrong last, by bridge
	lastNotTakenUp := map[*link]uint64{} // as last read
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v := e.view.Load()
		for i := range v.walls {
			b := &v.walls[i]
			if b.pickupOpen.Load() || b.arrivals.Load() {
				b.countNotTakenUp(ctx, lastNotTakenUp)
			}
			br := v.topo.Bridges[b.cfg.Name]
			if !onUserspace(v.topo, b.cfg.Name) || b.cfg.OpenFlow != "" || !e.local() {
				continue // conntrack of the kernel survives ovs-vswitchd
			}
			epoch, ok := b.inPlace()
			if !ok || !b.memory.due(time.Now()) {
				continue
			}
			err := e.inTurn(ctx, func() error { return b.readConnections(ctx, &search{v: v, b: b}, daemon, br.DatapathType, epoch) })
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != told[b.cfg.Name] && text != "" && ctx.Err() == nil {
				e.log.Warn("who opened the connections is not known", "bridge", b.cfg.Name, "err", text)
			}
			told[b.cfg.Name] = text
		}
	}
}

// countNotTakenUp counts what the open window drops because nobody knows who opened it.
func (l *link) countNotTakenUp(ctx context.Context, last map[*link]uint64) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var n uint64
	filter := ofp.FlowFilter{Table: pipeline.TablePickupReversed, Cookie: uint64(pipeline.DropNotTakenUp.Cookie()), CookieMask: ^uint64(0)}
	if err := l.sw.EachFlow(ctx, filter, func(f *ofp.FlowStats) { n += f.Stats.Packets }); err != nil {
		return
	}
	if n < last[l] { // another window
		last[l] = 0
	}
	l.notTakenUp.Add(n - last[l])
	last[l] = n
}

// inPlace reports whether the pipeline is in force and no pickup window is open, and on which connection to the switch.
func (l *link) inPlace() (epoch uint64, ok bool) {
	st := l.sw.State()
	return st.Epoch, st.Ready && st.Missing == 0 && !l.pickupOpen.Load() && l.sw.Has(entryKey())
}

// readConnections asks for all connections at once where they are few, else for those of one zone after another. Those of zones that have
// too many for that are not remembered: after a restart of the switch such a connection is judged in both orientations.
func (l *link) readConnections(ctx context.Context, zones *search, daemon unixctl.Daemon, datapathType string, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s := snapshot{At: time.Now()}
	judged := l.judged.Load()
	if judged == nil || len(*judged) == 0 {
		return l.memory.keep(s)
	}
	scope := unixctl.Scope{Datapath: datapathType + "@ovs-" + datapathType}
	total, err := daemon.CountConntrack(ctx, scope)
	if err != nil {
		return err
	}
	var open, ended []pipeline.Connection
	var failed []error
	read := func(part unixctl.Scope) error {
		text, err := daemon.DumpConntrack(ctx, part)
		if err != nil {
			return err
		}
		o, n, err := l.connections(text, *judged)
		open, ended = append(open, o...), append(ended, n...)
		if err != nil {
			failed = append(failed, err)
		}
		return nil
	}
	switch in, others := zones.zones(); {
	case total > maxCounted:
		failed = append(failed, fmt.Errorf("conntrack holds %d connections, more than the %d among which those of a zone are counted", total,
			maxCounted))
	case total <= maxRead:
		err = read(scope)
	default:
		err = eachZone(ctx, daemon, scope, in, maxRead, read, func(zone uint16, n int) {
			failed = append(failed, fmt.Errorf("zone %d (%s) has %d connections, more than the %d that are read at once", zone,
				zoneText(l.index, zone), n, maxRead))
		})
		if others {
			failed = append(failed, errors.New("those in VLANs that only trunks carry are not looked at"))
		}
	}
	if err != nil {
		return err
	}
	if now, ok := l.inPlace(); !ok || now != epoch {
		return nil // the switch went away: this may be what it remembers after a restart
	}
	if n := len(open); n > maxRemembered {
		open = open[:maxRemembered]
		failed = append(failed, fmt.Errorf("%d connections are open: more than %d are not remembered", n, maxRemembered))
	}
	s.Connections = append(open, ended[:min(len(ended), maxRemembered-len(open))]...)
	return errors.Join(append(failed, l.memory.keep(s))...)
}

// connections finds the TCP connections of the bridge in which an endpoint with a policy has a part: those that are open, and the others,
// as whose end a peer can feign while it goes on. With an error, these are not all.
func (l *link) connections(text string, judged map[uint32]bool) (open, ended []pipeline.Connection, failed error) {
	for x, err := range unixctl.Entries(text) {
		if err != nil {
			failed = err
			continue
		}
		reply, ours := pipeline.OppositeZone(l.index, x.Zone)
		from, to := uint32(x.LabelsHi), uint32(x.LabelsHi>>32)
		if !ours || x.Proto != protocolTCP || from == 0 || to == 0 || !judged[from] && !judged[to] {
			continue
		}
		c := pipeline.Connection{
			Zone: x.Zone, ReplyZone: reply, Initiator: endpointID(from), Responder: endpointID(to),
			Src: netip.AddrPortFrom(x.Orig.Src, x.Orig.SrcPort), Dst: netip.AddrPortFrom(x.Orig.Dst, x.Orig.DstPort),
		}
		if slices.Contains(openStates[:], x.State) {
			open = append(open, c)
		} else {
			ended = append(ended, c)
		}
	}
	return open, ended, failed
}

// openStates are those in which a TCP connection may carry data, as the datapath names them for its original direction.
var openStates = [...]string{"ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT"}

// endpointID turns an end in ct_label into what reg8 and reg9 hold.
func endpointID(stamped uint32) uint32 {
	if stamped == pipeline.IDNoEndpoint {
		return 0
	}
	return stamped
}
