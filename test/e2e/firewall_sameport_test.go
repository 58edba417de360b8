package e2e

import (
	"bytes"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// chat is two machines that send to each other all the time; a has begun.
type chat struct {
	name string
	a, b *lab.VM
	ends map[*lab.VM]*lab.Capture
	mark map[*lab.VM][]byte // of what the machine sends
}

// chat begins one. src and dst are the addresses of a and b; upper builds what a sends, or b.
func (s *stage) chat(name string, a, b *lab.VM, src, dst string, upper func(back bool, payload string) (layers.IPProtocol,
	[]gopacket.SerializableLayer)) *chat {
	s.t.Helper()
	c := &chat{name: name, a: a, b: b, ends: map[*lab.VM]*lab.Capture{}, mark: map[*lab.VM][]byte{a: []byte(name + " there;"), b: []byte(name +
		" back;")}}
	frames := map[*lab.VM][]byte{}
	for i, vm := range []*lab.VM{a, b} {
		capture, err := s.Capture(vm.NS, "eth0")
		must(s.t, err)
		c.ends[vm] = capture
		x := crossing{from: vm, dstMAC: b.MAC, src: src, dst: dst, ttl: 64}
		if i == 1 {
			x.dstMAC, x.src, x.dst = a.MAC, dst, src
		}
		x.upper = func(string) (layers.IPProtocol, []gopacket.SerializableLayer) {
			return upper(i == 1, string(c.mark[vm]))
		}
		frames[vm] = s.frame(x, "")
	}
	must(s.t, a.Send(frames[a]))
	lab.Eventually(s.t, 2*time.Second, name+": the first packet arrives", func() bool { return c.heard(b, time.Time{}) > 0 })
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for vm, frame := range frames {
				if err := vm.Send(frame); err != nil {
					s.t.Error(err)
					return
				}
			}
		}
	}()
	s.t.Cleanup(func() { close(stop); <-done })
	lab.Eventually(s.t, 2*time.Second, name+": both are heard", func() bool { return c.runs(time.Time{}) })
	return c
}

// runs reports whether both got more than a few packets since then.
func (c *chat) runs(since time.Time) bool {
	return c.heard(c.a, since) > 10 && c.heard(c.b, since) > 10
}

// heard counts what a machine got of the other's since then.
func (c *chat) heard(vm *lab.VM, since time.Time) int {
	other := c.a
	if vm == c.a {
		other = c.b
	}
	return len(c.ends[vm].Frames(func(f lab.Frame) bool { return f.At.After(since) && bytes.Contains(f.Data, c.mark[other]) }))
}

// initiator is whose connection conntrack has between the two.
func (s *stage) initiator(a, b, parts string) string {
	for _, src := range []string{a, b} {
		if len(s.conntrack("orig=(src="+src+",", parts)) > 0 {
			return src
		}
	}
	return "nobody"
}

const (
	sameIn  = `  - {name: in, action: allow, from: [{port: vm1}]}` + "\n"
	sameOut = `  - {name: out, action: allow, to: [{port: vm1}]}` + "\n"
)

func samePorts(ingress, egress string) string {
	doc := "kind: Policy\nname: same\nspec:\n  appliesTo: [{port: vm2}]\n  defaultDeny: {ingress: true, egress: true}\n"
	if ingress != "" {
		doc += "  ingress:\n" + ingress
	}
	if egress != "" {
		doc += "  egress:\n" + egress
	}
	return doc
}

// Two machines send from and to the same port, or without ports. When the direction that opened first is withdrawn, what the other sends
// flows on: a rule allows it to open. What else is an answer stays one and is cut, and so is everything when no rule is left.
func TestFirewallSamePortBothSides(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(samePorts(sameIn, sameOut))
	a, b := s.vm[1], s.vm[2]
	udp := func(here, there layers.UDPPort) func(bool, string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return func(back bool, payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
			h := &layers.UDP{SrcPort: here, DstPort: there}
			if back {
				h.SrcPort, h.DstPort = there, here
			}
			return layers.IPProtocolUDP, []gopacket.SerializableLayer{h, gopacket.Payload(payload)}
		}
	}
	gre := func(_ bool, payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolGRE, []gopacket.SerializableLayer{&layers.GRE{Protocol: 0x6558}, gopacket.Payload(payload)}
	}
	sctp := func(_ bool, payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolSCTP, []gopacket.SerializableLayer{&layers.SCTP{SrcPort: 9, DstPort: 9}, gopacket.Payload(payload)}
	}
	type talk struct {
		*chat
		src, dst, parts string
	}
	both := []talk{
		{s.chat("wireguard v4", a, b, a.IPv4, b.IPv4, udp(51820, 51820)), a.IPv4, b.IPv4, "sport=51820,dport=51820"},
		{s.chat("wireguard v6", a, b, a.IPv6, b.IPv6, udp(51820, 51820)), a.IPv6, b.IPv6, "sport=51820,dport=51820"},
		{s.chat("gre v4", a, b, a.IPv4, b.IPv4, gre), a.IPv4, b.IPv4, "47,orig"},
		{s.chat("gre v6", a, b, a.IPv6, b.IPv6, gre), a.IPv6, b.IPv6, "47,orig"},
	}
	answers := []talk{
		{s.chat("one bit less v4", a, b, a.IPv4, b.IPv4, udp(51821, 51820)), a.IPv4, b.IPv4, "sport=51821"},
		{s.chat("high bit more v6", a, b, a.IPv6, b.IPv6, udp(51820, 51820^0x8000)), a.IPv6, b.IPv6, "sport=51820,dport=19052"},
		{s.chat("sctp v4", a, b, a.IPv4, b.IPv4, sctp), a.IPv4, b.IPv4, "sctp,orig"},
	}
	flows := func(what string, all []talk, since time.Time) {
		t.Helper()
		for _, c := range all {
			lab.Eventually(t, time.Second+lab.Late(since), what+": "+c.name, func() bool { return c.runs(since) })
		}
	}
	whose := func(what string, all []talk, opener func(talk) string) {
		t.Helper()
		for _, c := range all {
			if got := s.initiator(c.src, c.dst, c.parts); got != opener(c) {
				t.Errorf("%s: the connection of %s is that of %s", what, c.name, got)
				s.explain(c.parts)
			}
		}
	}
	silent := func(what string, all []talk, since time.Time) {
		t.Helper()
		since = since.Add(lab.Late(since) + passage)
		time.Sleep(time.Until(since.Add(time.Second)))
		for _, c := range all {
			if x, y := c.heard(a, since), c.heard(b, since); x+y > 0 {
				t.Errorf("%s: %s: %d and %d packets", what, c.name, x, y)
			}
		}
	}
	opened, turned := func(c talk) string { return c.src }, func(c talk) string { return c.dst }
	all := append(both[:len(both):len(both)], answers...)
	flows("both allowed", all, time.Now())
	whose("both allowed", all, opened)

	at := s.apply(samePorts("", sameOut))
	flows("what opened first is withdrawn", both, at)
	whose("what opened first is withdrawn", both, turned)
	silent("what opened first is withdrawn", answers, at)

	at = s.apply(samePorts(sameIn, sameOut))
	flows("both allowed again", all, at)
	whose("both allowed again", both, turned)
	whose("both allowed again", answers, opened)

	at = s.apply(samePorts(sameIn, ""))
	flows("the other is withdrawn", all, at)
	whose("the other is withdrawn", all, opened)

	silent("nothing is allowed", all, s.apply(samePorts("", "")))
}

// What only defaults allow does not make the answerer an initiator: it would give back what was revoked.
func TestFirewallSamePortBothSidesByDefault(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	doc := "kind: Policy\nname: same\nspec:\n  appliesTo: [{port: vm2}]\n  defaultDeny: {ingress: true}\n"
	s.apply(doc + "  ingress:\n" + sameIn)
	a, b := s.vm[1], s.vm[2]
	c := s.chat("ntp", a, b, a.IPv4, b.IPv4, func(_ bool, payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolUDP, []gopacket.SerializableLayer{&layers.UDP{SrcPort: 123, DstPort: 123}, gopacket.Payload(payload)}
	})
	at := s.apply(doc)
	at = at.Add(lab.Late(at) + passage)
	time.Sleep(time.Until(at.Add(time.Second)))
	if x, y := c.heard(a, at), c.heard(b, at); x+y > 0 {
		t.Errorf("%d and %d packets after the rule went", x, y)
	}
	at = s.apply(doc + "  ingress:\n" + sameIn)
	lab.Eventually(t, time.Second+lab.Late(at), "the control: with the rule they are heard", func() bool { return c.runs(at) })
}
