package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

func newTrace(g *global) *cobra.Command {
	q := client.TraceQuery{}
	var o output
	c := &cobra.Command{
		Use:   "trace FROM TO [PROTOCOL [PORT]]",
		Short: "Say what would happen to a packet, which rule decides and what would have to change",
		Long: `Judge the first packet of a connection by the policies that are installed, and ask the switch itself. FROM and TO are any name
of an endpoint, port or VM, or an address. PROTOCOL is tcp, udp, icmp, icmpv6, sctp or another that services may have;
without it an echo request is meant. tcp, udp and sctp need a PORT, by number or by name.

The switch is asked by an injected packet that goes through its tables and ends there: it reaches nobody, makes no
connection and is not counted. If it judges otherwise than the policies say, that is a fault, and the exit code is 1.
ofproto/trace of Open vSwitch cannot tell this: in it conntrack's original tuple is empty, so rules with ports never
match.`,
		Example: `  tapwall trace vm7 vm9 tcp 5432
  tapwall trace 203.0.113.9 web tcp https -o wide
  tapwall trace vm7 vm9 icmpv6 --no-probe`,
		Args: between(2, 4, "who sends and who receives, and perhaps protocol and port, like: vm7 vm9 tcp 5432"),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			const directive = cobra.ShellCompDirectiveNoFileComp
			switch len(args) {
			case 0, 1:
				return offer(g.completePorts(c)), directive
			case 2:
				return offer([]string{"tcp", "udp", "icmp", "icmpv6", "sctp"}), directive
			}
			return nil, directive
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.allow("text", "wide", "json", "yaml"); err != nil {
				return err
			}
			q.From, q.To, q.Protocol = args[0], args[1], "icmp"
			if len(args) > 2 {
				q.Protocol = args[2]
			} else if q.Family == 6 || isIPv6(q.From, q.To, q.FromIP, q.ToIP) {
				q.Protocol = "icmpv6"
			}
			if len(args) > 3 {
				q.Port = args[3]
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			found, err := cl.Trace(c.Context(), q)
			if err != nil {
				return err
			}
			tell(found.Problems)
			if o.format == "json" || o.format == "yaml" {
				err = o.print(c.OutOrStdout(), found)
			} else {
				err = printTrace(c.OutOrStdout(), found, o.format == "wide")
			}
			if err == nil && slices.ContainsFunc(found.Crossings, func(x client.TraceCrossing) bool { return x.Probe != nil && !x.Probe.Agrees }) {
				return &exitError{exitFailed, errors.New("the switch does not judge the packet as the policies do")}
			}
			return err
		},
	}
	fl := c.Flags()
	fl.StringVar(&q.FromPort, "from-port", "", "port that it comes from; default: one that clients take")
	fl.IntVar(&q.Type, "type", -1, "type of an ICMP message; -1 = an echo request")
	fl.IntVar(&q.Code, "code", 0, "code of an ICMP message")
	fl.IntVar(&q.Family, "family", 0, "4 or 6; 0 = that of the addresses that are known")
	fl.StringVar(&q.FromIP, "from-ip", "", "address of the sender, where it has several or none is known")
	fl.StringVar(&q.ToIP, "to-ip", "", "address of the receiver, likewise")
	fl.IntVar(&q.VLAN, "vlan", -1, "VLAN between trunk ports; 0 = untagged; -1 = that of the endpoints")
	fl.StringVar(&q.Host, "host", "", "only endpoints of the host with this id")
	fl.StringVar(&q.Bridge, "bridge", "", "only endpoints of this bridge")
	fl.BoolVar(&q.NoProbe, "no-probe", false, "do not ask the switch")
	o.flag(c, "text", "wide", "json", "yaml")
	completeFlag(c, "from-ip", g.completeAddresses)
	completeFlag(c, "to-ip", g.completeAddresses)
	completeFlag(c, "family", fixed("4", "6"))
	completeFlag(c, "host", g.completeHosts)
	completeFlag(c, "bridge", g.completeBridges)
	for _, name := range []string{"from-port", "type", "code", "vlan"} {
		free(c, name)
	}
	return c
}

// isIPv6 reports whether one of the names is an address of IPv6.
func isIPv6(names ...string) bool {
	return slices.ContainsFunc(names, func(s string) bool { return net.ParseIP(s) != nil && strings.Contains(s, ":") })
}

func printTrace(w io.Writer, t *client.Trace, wide bool) error {
	p := &t.Packet
	what := p.Protocol
	if p.Type != nil {
		what += fmt.Sprintf(" type %d code %d", *p.Type, *p.Code)
	}
	var from, to string
	if n := len(t.Crossings); n > 0 {
		from, to = t.Crossings[0].Source.Endpoint, t.Crossings[n-1].Destination.Endpoint
	}
	if err := printf(w, "%s %s -> %s: %s\n", what, addressText(from, p.Source.IP, p.Source.Port),
		addressText(to, p.Destination.IP, p.Destination.Port), verdictText(t.Verdict)); err != nil {
		return err
	}
	for i := range t.Crossings {
		printCrossing(w, &t.Crossings[i], wide)
	}
	return nil
}

// addressText is "vm1 10.0.0.1:4711", or less where less is known.
func addressText(name, ip string, port int) string {
	at := ip
	if port != 0 {
		at = net.JoinHostPort(ip, strconv.Itoa(port))
	}
	return strings.TrimSpace(name + " " + at)
}

func verdictText(effect string) string {
	switch policy.Effect(effect) {
	case policy.Allow:
		return "allowed"
	case policy.Deny:
		return "denied"
	case policy.Reject:
		return "rejected"
	case policy.Audit:
		return "allowed by mode audit"
	}
	return effect
}

func printCrossing(w io.Writer, x *client.TraceCrossing, wide bool) {
	vlan := "untagged"
	if x.VLAN != 0 {
		vlan = fmt.Sprintf("VLAN %d", x.VLAN)
	}
	printf(w, "bridge %s of %s, %s, with all changes up to revision %d in force: %s\n", x.Bridge, x.Host, vlan, x.Revision,
		verdictText(x.Verdict))
	if x.Unjudged != "" {
		printf(w, "  %s\n", x.Unjudged)
	} else {
		printSide(w, "egress", x.Source.Endpoint, "the sender", &x.Egress)
		printSide(w, "ingress", x.Destination.Endpoint, "the receiver", &x.Ingress)
	}
	if len(x.Change) > 0 {
		printf(w, "  for it to pass:\n")
		for _, c := range x.Change {
			printf(w, "    - %s\n", c)
		}
	}
	if p := x.Probe; p != nil {
		text := p.Verdict
		if !p.Agrees {
			text += ", NOT as the policies say"
		} else if x.Unjudged == "" {
			text += ", as the policies say"
		} else {
			text += ", as its flows say"
		}
		if p.Message != "" {
			text += ": " + p.Message
		}
		printf(w, "  the switch: %s\n", text)
	}
	for _, n := range x.Notes {
		printf(w, "  note: %s\n", n)
	}
	if len(x.Path) > 0 {
		printf(w, "  tables:\n")
	}
	for _, s := range x.Path {
		by := s.Rule
		if by == "" {
			by = s.Owner
		}
		if s.Text == "" {
			by = "no flow matches"
		}
		printf(w, "    %-19s %s%s\n", s.TableName, by, names(s.Names))
		if wide && s.Text != "" {
			printf(w, "      %s\n", s.Text)
		}
	}
}

func printSide(w io.Writer, direction, endpoint, role string, s *client.TraceSide) {
	if !s.Judged {
		printf(w, "  %s: %s is no endpoint of the bridge, so it is not judged\n", direction, role)
		return
	}
	printf(w, "  %s of %s: %s by %s\n", direction, endpoint, s.Effect, s.Rule)
	if s.Audited != "" {
		printf(w, "    mode audit: %s would deny it\n", s.Audited)
	}
	if s.PolicyCount == 0 {
		printf(w, "    no policy applies\n")
		return
	}
	var policies []string
	for _, p := range s.Policies {
		text := fmt.Sprintf("%s (%s %d", p.Name, p.Tier, p.Priority)
		if p.Isolates {
			text += ", isolates"
		}
		if p.Audit {
			text += ", audit"
		}
		policies = append(policies, text+")")
	}
	if n := s.PolicyCount - len(s.Policies); n > 0 {
		policies = append(policies, fmt.Sprintf("%d more", n))
	}
	printf(w, "    policies: %s\n", strings.Join(policies, ", "))
	for _, r := range s.Matching {
		text := ""
		switch {
		case r.Decides:
			text = ", decides"
		case r.Audit:
			text = ", mode audit"
		}
		printf(w, "    matches: %s %s (%s %d%s)\n", r.Action, r.Rule, r.Tier, r.Priority, text)
	}
}
