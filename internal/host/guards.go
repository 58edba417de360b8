package host

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// Codes of warnings that an endpoint sends under addresses that are not its own: the frames are dropped, or will be when the time of grace
// is over.
const (
	WarnSpoofed        policy.Code = "SPOOFED"
	WarnSpoofWouldDrop policy.Code = "SPOOF_WOULD_DROP"
)

// spoofedFor is for how long such a warning stays after the last frame that was told of.
const spoofedFor = 10 * time.Minute

// spoof is what the guard refused of an endpoint (the first of its ids) for a reason.
type spoof struct {
	endpoint uint32
	reason   pipeline.DropReason
}

// spoofs are the frames that guards refused, as far as they were told of: the last of each endpoint and reason, which bounds them. They are
// safe for concurrent use.
type spoofs struct {
	mu   sync.Mutex
	last map[spoof]spoofed
}

// spoofed is the last frame of its kind.
type spoofed struct {
	at    time.Time
	as    string // in words
	tells bool   // it was let pass
}

// note takes a frame into account, and reports whether the warnings are to be others now.
func (s *spoofs) note(x spoof, f spoofed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[spoof]spoofed{}
	}
	old, known := s.last[x]
	if known && old.tells == f.tells {
		f.as = old.as // a warning that changes with every frame says nothing
	}
	s.last[x] = f
	return !known || old.tells != f.tells
}

// recent returns those told of lately and forgets the others.
func (s *spoofs) recent(now time.Time) map[spoof]spoofed {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.last, func(_ spoof, f spoofed) bool { return now.Sub(f.at) > spoofedFor })
	return maps.Clone(s.last)
}

// takeGuarded records what a guard refused.
func takeGuarded(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	reason := pipeline.DropReason(register(in, pipeline.GuardReason))
	tells := register(in, pipeline.GuardTells) == 1
	claim, _ := learn.Spoken(in.Data)
	x := spoof{pipeline.EndpointBase(register(in, pipeline.SourceEndpoint)), reason}
	if l.spoofs.note(x, spoofed{time.Now(), spokenAs(in.Data, claim, reason), tells}) {
		e.poke()
	}
	e.recordRefused(l, in, record.VerdictSide{Guard: reason.String(), Drop: !tells, Audit: tells, Claim: spokenClaim(claim, reason)})
}

// takeDroppedMAC records what an endpoint sent under a MAC address that it does not declare, and which was dropped.
func takeDroppedMAC(e *Engine, l *link, in *record.PacketIn, _ flow.Match) {
	claim, _ := learn.Spoken(in.Data)
	e.recordRefused(l, in, record.VerdictSide{Guard: pipeline.DropUnknownMAC.String(), Drop: true,
		Claim: spokenClaim(claim, pipeline.DropUnknownMAC)})
}

// recordRefused records what SPOOF refused of an endpoint.
func (e *Engine) recordRefused(l *link, in *record.PacketIn, side record.VerdictSide) {
	l.guardCopies.Add(1)
	side.Direction = event.Egress
	in.Verdicts = []record.VerdictSide{side}
	e.opt.Recorder.HandlePacketIn(l.cfg.Name, *in)
}

// spokenClaim is what an event says of what was spoken; nil = nothing was, or it was refused for something else.
func spokenClaim(c learn.Claim, reason pipeline.DropReason) *event.Claim {
	switch reason {
	case pipeline.DropSpoofedARP, pipeline.DropSpoofedND, pipeline.DropUnknownMAC:
	default:
		return nil
	}
	if !c.Address.IsValid() {
		return nil
	}
	return &event.Claim{Protocol: string(c.Source), IP: c.Address.String(),
		MAC: strings.ToUpper(strings.ReplaceAll(net.HardwareAddr(c.MAC[:]).String(), ":", "-"))}
}

// spokenAs says, of a frame that was refused, as whom its sender spoke.
func spokenAs(data []byte, c learn.Claim, reason pipeline.DropReason) string {
	var p packet.Parsed
	packet.NewDecoder().Decode(data, len(data), &p)
	at := fmt.Sprintf(" as %s at %s", c.Address, net.HardwareAddr(c.MAC[:]))
	switch reason {
	case pipeline.DropSpoofedARP:
		if !c.Address.IsValid() {
			return "ARP that cannot be read"
		}
		return "ARP" + at
	case pipeline.DropSpoofedND:
		if !c.Address.IsValid() {
			return "neighbour discovery that cannot be read, from " + p.Src.String()
		}
		return "neighbour discovery" + at + ", from " + p.Src.String()
	case pipeline.DropRogueDHCP:
		return "answers to DHCP clients"
	case pipeline.DropRogueRouter:
		return "router advertisements"
	}
	return "packets from " + p.Src.String()
}

// advice says what to do where the frames are right.
func (x spoof) advice() string {
	switch x.reason {
	case pipeline.DropRogueDHCP:
		return "set dhcpServer: true in its Endpoint if it serves DHCP"
	case pipeline.DropRogueRouter:
		return "set forwards: true in its Endpoint if it is a router"
	}
	return "add the address to allowedAddresses, or the MAC address to macs, of its Endpoint if it belongs there"
}

// spoofWarnings tell of the endpoints of the bridge that send under addresses that are not theirs.
func (w *firewall) spoofWarnings(now time.Time) []policy.Warning {
	last := w.spoofs.recent(now)
	if len(last) == 0 {
		return nil
	}
	var out []policy.Warning
	for _, x := range w.e.inventory.Workloads {
		if x.Bridge != w.cfg.Name || x.Remote || x.Guard == nil {
			continue
		}
		base := pipeline.EndpointBase(lookUp(w.numbers.endpoints, x.Key).ID)
		for _, r := range pipeline.GuardReasons() {
			s := spoof{base, r}
			f, is := last[s]
			if !is {
				continue
			}
			code, becomes := WarnSpoofed, "they are dropped as "+r.String()
			if f.tells {
				code, becomes = WarnSpoofWouldDrop, fmt.Sprintf("they will be dropped as %s %s", r, w.graceEnds())
			}
			out = append(out, policy.Warning{Code: code, Endpoint: x.Key,
				Message: fmt.Sprintf("port %s of bridge %s sends %s, which is not what its "+
					"endpoint declares; %s; %s", x.Port, x.Bridge, f.as, becomes, s.advice())})
		}
	}
	return out
}

// guardPoll is how often the switch is asked how many copies of refused frames, and of those that speak of addresses, its meters have
// withheld, while there are any.
const guardPoll = 5 * time.Second

// watchGuards reports the copies that these meters withheld, until ctx ends.
func (e *Engine) watchGuards(ctx context.Context, l *link) {
	var seen uint64
	var account, claims meterAccount
	quiet := false // nothing had come at the last look, which so has seen all that was withheld before
	for pause(ctx, guardPoll) {
		copies := l.guardCopies.Load() + l.spoken.received.Load()
		if copies == seen && quiet {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		metered, err := l.metered(ctx)
		cancel()
		if err != nil {
			continue
		}
		quiet, seen = copies == seen, copies
		account.begin(l.sw.MeterSets(pipeline.MeterGuard) > 0)
		claims.begin(l.sw.MeterSets(pipeline.MeterLearn) > 0)
		l.book.claims.metered.Add(claims.add(metered[pipeline.MeterLearn]))
		e.opt.Recorder.AddHostLoss(e.Name(), event.StagePacketInMeter, event.P0, "rate", int64(account.add(metered[pipeline.MeterGuard])))
	}
}

// guardsSince is what is kept of a bridge about guards.
type guardsSince struct {
	// Since is when a version that has guards first ran there.
	Since time.Time `json:"since"`
	// Fresh: none without them had run before.
	Fresh bool `json:"fresh,omitempty"`
}

// graceUntil is when the time of grace ends: for a while after an upgrade, guards that nobody demanded only tell.
func (w *firewall) graceUntil() time.Time {
	g := w.ledger.guards
	if g == nil || g.Fresh {
		return time.Time{}
	}
	return g.Since.Add(w.e.opt.SpoofGrace)
}

// graceEnds says when it does, in words.
func (w *firewall) graceEnds() string { return "from " + w.graceUntil().Format(time.DateTime) + " on" }

// inGrace reports whether the time of grace goes on, as of the last look at the clock.
func (w *firewall) inGrace() bool { return w.grace }

// tendGrace looks at the clock.
func (w *firewall) tendGrace(now time.Time) {
	was := w.grace
	if w.grace = now.Before(w.graceUntil()); w.grace != was {
		w.e.log.Info("anti-spoofing that was not demanded by antiSpoof: on is new here, or is no longer", "bridge", w.cfg.Name, "only tells",
			w.grace,
			"until", w.graceUntil())
	}
	w.fw.SetGrace(w.grace)
}

// spoofedPackets counts what guards refused of a workload, and so would have in the time of grace.
func (v *view) spoofedPackets(x *policy.Workload) uint64 {
	b := v.wallOf(x.Bridge)
	if b == nil {
		return 0
	}
	return b.book.total(guardRef(pipeline.EndpointBase(lookUp(b.numbers.endpoints, x.Key).ID))).packets
}

// guardRef is whom the guard's flow of an endpoint counts for.
func guardRef(base uint32) policy.RuleRef {
	return policy.RuleRef{Direction: policy.Egress, Rule: fmt.Sprintf("%#x", base)}
}

// eachGuarded calls f for the guarded workloads of owned bridges, in order.
func (v *view) eachGuarded(f func(*policy.Workload)) {
	for _, x := range slices.SortedFunc(slices.Values(v.inventory.Workloads), func(a, b *policy.Workload) int {
		return cmp.Or(strings.Compare(a.Bridge, b.Bridge), strings.Compare(a.Key, b.Key))
	}) {
		if !x.Remote && x.Guard != nil && v.wallOf(x.Bridge) != nil {
			f(x)
		}
	}
}
