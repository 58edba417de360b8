package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
	"github.com/tapwall/tapwall/policy/inventory"
)

// cells is the part of the quarantines in an owned bridge: flows that drop what quarantined ports send and what is sent to them, and the
// configuration of the ports, which keeps away from them what goes to no address of theirs. The loop owns it.
//
// The flows of a port are its mark: as long as they are on the switch, its configuration is tapwall's, also after a restart. So what is
// to go from the configuration goes before the flows, and what is to come, too, because it keeps more away.
type cells struct {
	*bridge
	w *firewall
	e *Engine

	last  map[string][]flow.Flow // contributed, by owner
	want  map[uint32]uint32      // configuration by OpenFlow port
	mine  map[uint32]bool        // ports that were configured, or are said to have been
	have  map[uint32]uint32      // as read back
	epoch uint64                 // connection that have is of
	asked time.Time              // when it was read
	dirty bool                   // what is wanted differs from what was when it was read
	err   error                  // why the configuration is not as desired
	held  []cell
	// forgetAt is when the switch is to forget once more what it has learned, after a port was configured; zero = not.
	forgetAt time.Time
}

// forgetAgain is how long after a port is configured its flows stand and no cached decision is left, by which what the machine sends could
// still teach the switch.
const forgetAgain = 500 * time.Millisecond

// cell is a quarantined port.
type cell struct {
	quarantine string // whose flows it has
	also       []string
	port       string
	ofports    []uint32
	sealed     bool   // nothing passes
	why        string // why nothing passes although there is a pass list
}

// portsAsked is how often it is looked whether the configuration of quarantined ports is as it should be: of floods no message tells.
const portsAsked = 5 * time.Second

// contribute implements part.
func (c *cells) contribute(ctx context.Context, st ofctrl.State, now time.Time) bool {
	cells, held := c.find()
	c.held = cells
	flows := wall.Quarantines(c.index, held)
	changed := map[string][]flow.Flow{}
	for owner, now := range flows {
		if before, there := c.last[owner]; !there || !slices.EqualFunc(before, now, flow.Flow.Equal) {
			changed[owner] = now
		}
	}
	for owner := range c.last {
		if _, still := flows[owner]; !still {
			changed[owner] = nil
		}
	}
	if len(changed) > 0 {
		c.bridge.want(changed)
	}
	c.last = flows
	if len(flows) > 0 {
		c.meters = append(slices.Clone(c.meters), wall.MeterQuarantine())
	}
	want := map[uint32]uint32{}
	for _, x := range cells {
		for _, port := range x.ofports {
			want[port] = ofctrl.PortNoForward
			if !x.sealed {
				want[port] = ofctrl.PortNoFlood
			}
		}
	}
	if !maps.Equal(want, c.want) {
		c.want, c.dirty = want, true
	}
	names := map[uint32]string{}
	for owner := range flows {
		name, _ := wall.QuarantineOf(owner)
		names[wall.QuarantineID(name, false)], names[wall.QuarantineID(name, true)] = name, name
	}
	c.link.held.publish(names)
	if st.Ready {
		c.configure(ctx, st, now)
		if c.forgets(now) {
			c.forgetAt = time.Time{}
			c.forget(ctx)
		}
	}
	return true
}

// configure brings the configuration of the ports up to date. A port with a pass list is kept out of floods; until that is known to be
// so, nothing at all is sent to it.
func (c *cells) configure(ctx context.Context, st ofctrl.State, now time.Time) {
	if c.mine == nil {
		c.mine = map[uint32]bool{}
	}
	again := st.Epoch != c.epoch
	if again {
		for port := range c.link.held.marked() {
			c.mine[port] = true
		}
		for _, port := range c.over() {
			c.mine[port] = true
		}
	}
	for port := range c.want {
		c.mine[port] = true
	}
	if len(c.mine) == 0 {
		c.epoch, c.dirty = st.Epoch, false
		return
	}
	if told := c.link.held.takeChanged(); !again && !told && !c.dirty && now.Sub(c.asked) < c.pause() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	forward, flood, floods := map[uint32]uint32{}, map[uint32]uint32{}, false
	for port := range c.mine {
		flood[port] = c.want[port] & ofctrl.PortNoFlood
		forward[port] = c.want[port] & ofctrl.PortNoForward
		_, wanted := c.want[port]
		floods = floods || flood[port] != 0 || c.have[port]&ofctrl.PortNoFlood != 0 || !wanted
	}
	var errs []error
	have, was, fresh := map[uint32]uint32{}, c.have, false
	if floods {
		kept, err := c.sw.FloodPorts(ctx, flood)
		if err != nil && slices.ContainsFunc(slices.Collect(maps.Values(flood)), func(v uint32) bool { return v != 0 }) {
			errs = append(errs, fmt.Errorf("nothing passes, not even by the pass list: %w", err))
		}
		for port, v := range flood {
			if kept[port]&v != v {
				forward[port] = ofctrl.PortNoForward // what cannot be kept out of floods gets nothing
			}
			have[port] |= kept[port] & ofctrl.PortNoFlood
			fresh = fresh || v != 0 && was[port]&ofctrl.PortNoFlood == 0
		}
	}
	bits, err := c.sw.ConfigurePorts(ctx, forward)
	if err != nil {
		errs = append(errs, err)
	}
	for port, v := range bits {
		have[port] |= v
		fresh = fresh || forward[port] != 0 && was[port]&ofctrl.PortNoForward == 0
	}
	if fresh {
		c.forget(ctx)
		c.forgetAt = now.Add(forgetAgain)
	}
	if c.err, c.asked = errors.Join(errs...), now; bits == nil {
		return
	}
	c.have, c.epoch, c.dirty = have, st.Epoch, false
	for port := range c.mine {
		_, wanted := c.want[port]
		_, there := bits[port]
		if !wanted && (!there || have[port]&(ofctrl.PortNoForward|ofctrl.PortNoFlood) == 0) {
			delete(c.mine, port)
		}
	}
}

// forgets reports whether it is time to have the switch forget once more.
func (c *cells) forgets(now time.Time) bool { return !c.forgetAt.IsZero() && !now.Before(c.forgetAt) }

// forget has the switch forget which addresses it has seen where: those of a quarantined port that nobody declares would find it, and what
// is sent to a router whose address the machine has claimed would get lost there.
func (c *cells) forget(ctx context.Context) {
	if !c.e.local() {
		return
	}
	if _, err := (unixctl.Daemon{RunDir: c.e.opt.RunDir}).Call(ctx, "fdb/flush", c.cfg.Name); err != nil {
		c.e.log.Warn("the switch would not forget what it has learned", "bridge", c.cfg.Name, "err", err)
	}
}

// over are the ports of quarantines that have ended and are still stored: their end may have come while nobody looked.
func (c *cells) over() (out []uint32) {
	for _, q := range ofKind[*policy.Quarantine](c.e.resources, policy.KindQuarantine) {
		if c.e.terms.over(q.Name) {
			for _, p := range c.ports() {
				if holds(q, &p) {
					out = append(out, numbersOf(&p)...)
				}
			}
		}
	}
	return out
}

func (c *cells) ports() []inventory.Port { return c.e.inventory.On(c.e.topo.Host, c.cfg.Name) }

// find lists the quarantined ports of the bridge. Where several quarantines hold a port that do not let the same pass, nothing does.
func (c *cells) find() (cells []cell, held []wall.Held) {
	var active []*policy.Quarantine
	for _, q := range ofKind[*policy.Quarantine](c.e.resources, policy.KindQuarantine) {
		if !c.e.terms.over(q.Name) {
			active = append(active, q)
		}
	}
	if len(active) == 0 {
		return nil, nil
	}
	ports := c.ports()
	type place struct {
		vlan int
		mac  string
	}
	declared := map[place][]*policy.Workload{}
	for i := range ports {
		if w := ports[i].Workload; w != nil && w.MAC != "" {
			for _, mac := range append([]string{w.MAC}, w.MACs...) {
				declared[place{w.VLAN, mac}] = append(declared[place{w.VLAN, mac}], w)
			}
		}
	}
	strays := c.w.fw.Strays()
	for i := range ports {
		p := &ports[i]
		var by []*policy.Quarantine
		for _, q := range active {
			if holds(q, p) {
				by = append(by, q)
			}
		}
		if len(by) == 0 {
			continue
		}
		x := cell{quarantine: by[0].Name, port: p.Name, ofports: numbersOf(p)}
		h := wall.Held{Quarantine: by[0].Name, OFPorts: numbersOf(p), Pass: by[0].PassList()}
		for _, q := range by[1:] {
			x.also = append(x.also, q.Name)
			if !wall.SamePass(by[0].PassList(), q.PassList()) {
				h.Pass, x.why = nil, "several quarantines hold port "+p.Name+" that do not let the same pass, so nothing does"
			}
		}
		if !p.Tagged {
			h.VLAN = p.VLAN
		}
		if w := p.Workload; w != nil {
			h.Addresses = w.Addresses
			if w.MAC != "" {
				h.MACs = append([]string{w.MAC}, w.MACs...)
			}
			// Others that it has used may be those of a router, which is not to be cut off: where the switch can be told to forget, none of
			// them leads to the port.
			for _, s := range strays[w.Key] {
				if s.Bound && !c.e.local() && len(declared[place{w.VLAN, s.MAC}]) == 0 {
					h.MACs = append(h.MACs, s.MAC)
				}
			}
			// An address that another port has as well is not to be cut off from there.
			h.MACs = slices.DeleteFunc(h.MACs, func(mac string) bool {
				others := slices.ContainsFunc(declared[place{w.VLAN, mac}], func(o *policy.Workload) bool { return o != w })
				if others && h.Pass != nil {
					h.Pass, x.why = nil, fmt.Sprintf("port %s shares the address %s with another one, so nothing passes", p.Name, mac)
				}
				return others
			})
		} else if p.MAC != "" {
			h.MACs = []string{p.MAC}
		}
		if h.Pass != nil && len(h.MACs) == 0 {
			x.why = "no MAC address of port " + p.Name + " is known, so nothing passes"
		}
		x.sealed = h.Sealed()
		if len(x.ofports) == 0 {
			continue // there is no such port on the switch
		}
		cells, held = append(cells, x), append(held, h)
	}
	return cells, held
}

// holds reports whether a quarantine is for a port.
func holds(q *policy.Quarantine, p *inventory.Port) bool {
	m := &q.Spec.Match
	switch {
	case m.Host != "" && m.Host != p.Host:
		return false
	case m.Kind() == policy.SelectPort:
		return m.Port == p.Name || slices.ContainsFunc(p.Interfaces, func(i inventory.Interface) bool { return i.Name == m.Port })
	case m.Kind() == policy.SelectMAC && p.MAC != "" && strings.EqualFold(p.MAC, m.MAC):
		return true
	}
	return p.Workload != nil && m.MatchesWorkload(p.Workload)
}

func numbersOf(p *inventory.Port) (out []uint32) {
	for _, i := range p.Interfaces {
		switch {
		case i.OFPort == localOFPort:
			out = append(out, flow.PortLocal)
		case i.OFPort > 0:
			out = append(out, i.OFPort)
		}
	}
	return out
}

// localOFPort is LOCAL as OVSDB numbers it.
const localOFPort = 65534

// before, after and settle implement part.
func (c *cells) before(context.Context)     {}
func (c *cells) after(ofctrl.Result, error) {}

func (c *cells) settle() error { return nil } // what is wrong with a port is told by the status of its quarantine

// releasing reports whether ports that are not wanted any more may still be configured.
func (c *cells) releasing() bool {
	for port := range c.mine {
		if _, wanted := c.want[port]; !wanted {
			return true
		}
	}
	return false
}

// due reports whether it is time to look at the ports again.
func (c *cells) due(now time.Time) bool {
	return len(c.mine) > 0 && now.Sub(c.asked) >= c.pause() || c.forgets(now)
}

// pause is how long to wait before the ports are looked at again.
func (c *cells) pause() time.Duration {
	if c.err != nil {
		return time.Second
	}
	return portsAsked
}

// cellView is what a bridge does about one quarantine, as the loop left it.
type cellView struct {
	ports   []string
	sealed  int
	trouble []string
	covered []string
}

// views returns what is done about each quarantine, by name.
func (c *cells) views() map[string]cellView {
	out := map[string]cellView{}
	for _, x := range c.held {
		for _, name := range append([]string{x.quarantine}, x.also...) {
			v := out[name]
			v.ports = append(v.ports, x.port)
			if x.sealed {
				v.sealed++
			}
			if x.why != "" {
				v.covered = append(v.covered, x.why)
			}
			for _, port := range x.ofports {
				want, have := c.want[port], c.have[port]
				if c.err != nil {
					v.trouble = append(v.trouble, fmt.Sprintf("port %s: %v", x.port, c.err))
				} else if have&want != want {
					v.trouble = append(v.trouble, fmt.Sprintf("port %s is not configured yet", x.port))
				}
			}
			out[name] = v
		}
	}
	return out
}

// takeQuarantined records a packet that a quarantine dropped.
func takeQuarantined(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	_, id, _ := pipeline.ParseCookie(flow.Cookie(in.Cookie))
	name, ok := l.held.name(id)
	if !ok {
		name = fmt.Sprintf("0x%08x", id&^1) // it has just ended
	}
	side := record.VerdictSide{Direction: event.Egress, RuleID: id, Drop: true, Quarantine: name}
	if id&1 != 0 {
		side.Direction = event.Ingress
	}
	in.Verdicts = []record.VerdictSide{side}
	e.opt.Recorder.HandlePacketIn(l.cfg.Name, *in)
}
