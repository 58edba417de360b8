package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/probe"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
	"github.com/tapwall/tapwall/policy/inventory"
)

// The MAC addresses of stations of which none is known: administered locally, and used by nobody else.
var (
	strangerSrc = net.HardwareAddr{0x02, 0x7a, 0x9a, 0x11, 0x00, 0x01}
	strangerDst = net.HardwareAddr{0x02, 0x7a, 0x9a, 0x11, 0x00, 0x02}
)

// way is how a packet comes in, and what the installed flows do with it.
type way struct {
	port    uint32
	first   packet.First
	result  tables.Result
	known   bool // result is
	enters  bool // port and first are
	judged  bool // the policy tables have a say
	invalid bool // conntrack takes the packet for the first of nothing
}

// walk takes the packet through the installed flows, as far as they can be evaluated here, and notes the steps.
func (x *crossing) walk() *way {
	w := &way{first: packet.First{SrcMAC: strangerSrc, DstMAC: strangerDst, Src: x.SrcIP, Dst: x.DstIP, Proto: x.Proto, SrcPort: x.SrcPort,
		DstPort: x.DstPort, Type: x.Type, Code: x.Code}, invalid: opensNothing(x.Proto, x.Type)}
	if err := x.enter(w); err != nil {
		x.note("the way through the tables is not known: %v", err)
		return w
	}
	w.enters = true
	flows, owners, missing := x.b.standing()
	if missing > 0 {
		x.note("the way through the tables is that by the flows that stand; %d are not as they should be", missing)
	}
	t := tables.Tuple{Src: x.SrcIP, Dst: x.DstIP, Proto: x.Proto, SrcPort: x.SrcPort, DstPort: x.DstPort, Type: x.Type, Code: x.Code}
	p := tables.IP(w.port, number(w.first.SrcMAC), number(w.first.DstMAC), t, packet.SYN).With(flow.IPTTL, flow.U64(64))
	if w.first.VLAN != 0 {
		p.Tag(w.first.VLAN)
	}
	if w.invalid {
		p.ErrorAbout(false)
		x.note("conntrack takes %s for the first packet of nothing, and what is not about a connection is dropped", x.service())
	}
	var err error
	if w.result, err = tables.With(flows).Try(p); err != nil {
		x.note("the way through the tables is not known: %v", err)
		return w
	}
	w.known, w.judged = true, w.result.Visited(pipeline.TableEgress)
	x.steps(w, flows, owners)
	if !w.judged {
		x.unjudged(w)
	}
	return w
}

// opensNothing reports whether conntrack takes a message of ICMP for the first of a connection: requests alone are (icmp4_valid_new and
// icmp6_valid_new in conntrack-icmp.c of Open vSwitch).
func opensNothing(proto, kind uint8) bool {
	switch proto {
	case policy.ProtoICMP:
		return kind != 8 && kind != 13 && kind != 15
	case policy.ProtoICMPv6:
		return kind != 128 && kind != 133 && kind != 134 && kind != 135 && kind != 136 && kind != 130 && kind != 131 && kind != 132 && kind != 143
	}
	return false
}

// enter finds the port by which the packet comes in, its tag and the MAC addresses.
func (x *crossing) enter(w *way) error {
	ports := x.v.inventory.On(x.v.host, x.b.cfg.Name)
	var err error
	if src := x.packet.Src; src != nil {
		if src.OFPort == 0 {
			return fmt.Errorf("port %s has no OpenFlow port", src.Port)
		}
		w.port = src.OFPort
		if p := portNamed(ports, src.Port); p != nil && p.Tagged && x.VLAN != p.VLAN {
			w.first.VLAN = uint16(x.VLAN)
		}
		if src.MAC != "" {
			if w.first.SrcMAC, err = net.ParseMAC(src.MAC); err != nil {
				return err
			}
		}
	} else {
		found := false
		for _, p := range wall.PlainPorts(ports) {
			untagged := p.VLAN == x.VLAN
			if p.OFPort == 0 || !untagged && (!p.Tagged || x.VLAN == 0) {
				continue
			}
			if w.port, found = p.OFPort, true; !untagged {
				w.first.VLAN = uint16(x.VLAN)
			}
			if p.Name != x.b.cfg.Name { // rather from outside than from the host itself
				break
			}
		}
		if !found {
			return errors.New("no port that is not an endpoint's carries this VLAN, so nobody else could send it")
		}
	}
	if w.port == localPort {
		w.port = flow.PortLocal
	}
	if dst := x.packet.Dst; dst != nil && dst.MAC != "" {
		w.first.DstMAC, err = net.ParseMAC(dst.MAC)
	}
	return err
}

// localPort is LOCAL as OVSDB numbers it.
const localPort = 65534

func portNamed(ports []inventory.Port, name string) *inventory.Port {
	for i := range ports {
		if ports[i].Name == name {
			return &ports[i]
		}
	}
	return nil
}

// number is a MAC address as flows have it.
func number(mac net.HardwareAddr) (v uint64) {
	for _, b := range mac {
		v = v<<8 | uint64(b)
	}
	return v
}

// standing returns the flows that are on the switch as desired, with their owners, and how many are not.
func (l *link) standing() (flows []flow.Flow, owners []string, missing int) {
	gone := map[string]bool{}
	l.sw.Missing(func(owner string, f *flow.Flow) {
		if missing++; owner != "" {
			gone[string(f.AppendKey(nil))] = true
		}
	})
	for _, o := range l.sw.Owners() {
		for _, f := range l.sw.Desired(o) {
			if len(gone) == 0 || !gone[string(f.AppendKey(nil))] {
				flows, owners = append(flows, f), append(owners, o)
			}
		}
	}
	return flows, owners, missing
}

// steps notes the way through the tables.
func (x *crossing) steps(w *way, flows []flow.Flow, owners []string) {
	key := &legend{workloads: x.v.inventory.Workloads, b: x.b}
	ownerOf := map[*flow.Flow]string{}
	for _, f := range w.result.Flows {
		if f != nil {
			ownerOf[f] = ""
		}
	}
	for i := range flows {
		f := &flows[i]
		if f.Table == pipeline.TableAddressSource || f.Table == pipeline.TableAddressDestination {
			key.addressed = append(key.addressed, f)
		}
		if _, met := ownerOf[f]; met {
			ownerOf[f] = owners[i]
		}
	}
	names := pipeline.TableNames()
	for i, t := range w.result.Tables {
		step := wire.TraceStep{Table: int(t), TableName: names[t]}
		if f := w.result.Flows[i]; f != nil {
			step.Cookie, step.Owner, step.Rule, step.Text = fmt.Sprintf("%#x", uint64(f.Cookie)), ownerOf[f], key.rule(f), f.String()
			step.Names = key.names(f, step.Rule)
		}
		x.out.Path = append(x.out.Path, step)
	}
}

// unjudged says what becomes of a packet that never comes to the policies.
func (x *crossing) unjudged(w *way) {
	x.out.Change = nil
	if w.result.Normal {
		x.out.Verdict, x.out.Unjudged = string(policy.Allow), "it passes without being judged"
		for _, c := range w.result.Cookies {
			if kind, id, ours := pipeline.ParseCookie(c); ours && kind == pipeline.CookieSystem && id&0xff != 0 &&
				id>>8 >= uint32(pipeline.TablePre) {
				x.out.Unjudged = fmt.Sprintf("it passes without being judged (%s)", pipeline.Item(id&0xff))
			}
		}
		return
	}
	x.out.Verdict, x.out.Unjudged = string(policy.Deny), "it is dropped before it is judged"
	if n := len(w.result.Cookies); n > 0 {
		switch kind, id, ours := pipeline.ParseCookie(w.result.Cookies[n-1]); {
		case ours && kind == pipeline.CookieDrop:
			x.out.Unjudged += fmt.Sprintf(" (%s)", pipeline.DropReason(id))
		case ours && kind == pipeline.CookieQuarantine:
			x.out.Unjudged += " (" + orElse(x.out.Path[n-1].Owner, "quarantine") + ")"
		}
	}
}

// How long a switch may take to tell of a probe, one attempt after the other: it drops what comes while it changes how it looks after its
// caches, and may have much else to do.
var probePatience = []time.Duration{300 * time.Millisecond, time.Second, 2 * time.Second}

// probe asks the switch itself.
func (x *crossing) probe(ctx context.Context, w *way) {
	x.out.Probe = nil
	switch {
	case !w.enters:
		return
	case x.packet.Src != nil && x.packet.Src.MAC == "":
		x.note("the switch is not asked: the MAC address of %s is not known, and another would be taken for one of its own",
			x.out.Source.Endpoint)
		return
	}
	frame, err := w.first.Frame()
	if err != nil {
		x.note("the switch is not asked: %v", err)
		return
	}
	silent := w.known && !w.judged && !w.result.Normal
	patience := probePatience
	if silent {
		patience = patience[:1]
	}
	var a probe.Answer
	for _, p := range patience {
		if a, err = x.b.prober.Ask(ctx, w.port, frame, p); !errors.Is(err, probe.ErrSilent) {
			break
		}
	}
	if w.known && (err == nil || silent) {
		met := w.result.Cookies
		if i := slices.Index(w.result.Tables, pipeline.TableVerdict); i >= 0 {
			met = met[:i] // where it ends
		}
		x.b.book.probed(met, uint64(len(frame)))
	}
	x.out.Probe = x.answer(w, &a, err, silent)
}

// answer compares what the switch says with what the policies say.
func (x *crossing) answer(w *way, a *probe.Answer, err error, silent bool) *wire.TraceProbe {
	switch {
	case errors.Is(err, probe.ErrSilent) && silent:
		return &wire.TraceProbe{Verdict: string(policy.Deny), Agrees: true, Message: "it drops the packet without telling"}
	case errors.Is(err, probe.ErrSilent):
		return &wire.TraceProbe{Verdict: "unknown", Message: err.Error() + ": it may be too busy, or drop it before it is judged"}
	case err != nil:
		x.note("the switch is not asked: %v", err)
		return nil
	case a.Reason != pipeline.CopyProbe:
		out := &wire.TraceProbe{Verdict: string(policy.Deny), Agrees: silent, Message: fmt.Sprintf("it drops the packet (%s)", a.Reason)}
		return out
	case !a.Judged():
		return &wire.TraceProbe{Verdict: string(policy.Allow), Agrees: w.known && !w.judged && w.result.Normal,
			Message: "it lets the packet pass without judging it"}
	}
	out := &wire.TraceProbe{Verdict: string(policy.Allow), Agrees: !w.known || w.judged}
	if !out.Agrees {
		out.Message = "it judges the packet, and by its flows it should not"
	}
	for _, side := range []struct {
		ingress  bool
		expected policy.SideDecision
		rule     *string
	}{{false, x.expected.Egress, &out.Egress}, {true, x.expected.Ingress, &out.Ingress}} {
		got := a.Side(side.ingress)
		passes := got.Verdict == pipeline.VerdictAllow
		switch {
		case !passes && out.Verdict != string(policy.Deny):
			out.Verdict = string(policy.Deny)
			if got.Verdict == pipeline.VerdictReject {
				out.Verdict = string(policy.Reject)
			}
		case got.Audited != 0 && out.Verdict == string(policy.Allow):
			out.Verdict = string(policy.Audit)
		}
		want := ""
		if side.expected.Judged {
			*side.rule = x.idName(got.Rule)
			want = strings.TrimLeft(ruleName(side.expected.Ref).ID, "/")
		} else if got.Rule != pipeline.IDNoEndpoint {
			*side.rule = x.idName(got.Rule)
		}
		if passes != side.expected.Effect.Passes() || *side.rule != want {
			out.Agrees = false
			dir := policy.Egress
			if side.ingress {
				dir = policy.Ingress
			}
			out.Message = strings.TrimPrefix(fmt.Sprintf("%s; %s: the switch says %s by %s, the policies %s by %s", out.Message, dir, got.Verdict,
				orElse(*side.rule, "nothing"), side.expected.Effect, orElse(want, "nothing")), "; ")
		}
	}
	return out
}

// idName names the rule or default with an id.
func (x *crossing) idName(id uint32) string {
	if r := x.b.directory.Names().Rule(id); r != nil {
		return strings.TrimLeft(r.ID, "/")
	}
	return fmt.Sprintf("%#x", id)
}

// doubt tells of a switch that says something else than the policies although the same is installed as before.
func (x *crossing) doubt(before *inForce) {
	p := x.out.Probe
	if p == nil || p.Agrees || len(x.excuses) > 0 || before != x.b.inForce {
		return
	}
	x.b.disagreements.Add(1)
	what := fmt.Sprintf("a traced packet (%s, %s to %s) is not judged by the switch as by the policies: %s", x.service(),
		x.named(x.packet.Src, x.SrcIP.String()), x.named(x.packet.Dst, x.DstIP.String()), p.Message)
	x.e.tell(x.b.link, event.ActionTraceDisagrees, event.Notice{Message: what, Count: 1})
	x.note("this is a fault of tapwall or of the switch, and told as event %s", event.ActionTraceDisagrees)
}
