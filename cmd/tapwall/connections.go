package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
)

const maxConnections = 100_000 // of what the server lists

func newConnections(g *global) *cobra.Command {
	var q client.ConnectionQuery
	var o output
	c := &cobra.Command{
		Use:   "connections",
		Short: "List live connections with the endpoints and rules that they belong to, kill and explain them",
		Long: `List what the switches track of managed bridges: who opened a connection to whom, its state, and which rule or default
allowed it on either side. (stale) marks what is no longer in force: the next packet is judged anew. Several values of
one flag are alternatives; different flags must all hold.

While Open vSwitch writes connections out it does nothing else. So what would take it more than 20 ms is refused, with
the figures: ask for an endpoint, a VLAN or a bridge, or use --force. Counting and listing are described in
docs/policies.md.`,
		Example: `  tapwall connections --endpoint vm7
  tapwall connections --from vm1 --to-port 443 --state ESTABLISHED -o wide
  tapwall connections --rule web/ingress/from-lb`,
		Args: noArgs("; it is connections, connections kill or connections explain"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.allow("table", "wide", "json", "yaml"); err != nil {
				return err
			}
			if err := checkConnections(&q); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			found, err := cl.Connections(c.Context(), q)
			if err != nil {
				return err
			}
			tell(found.Problems)
			switch {
			case o.format == "json" || o.format == "yaml":
				return o.print(c.OutOrStdout(), found)
			case found.Matched == 0:
				tellUnknown(c.Context(), cl, &q.Filter)
				return printf(c.OutOrStdout(), "no connections\n")
			}
			if err := printConnections(c, found.Items, o.format == "wide"); err != nil {
				return err
			}
			if n := len(found.Items); n < found.Matched {
				return printf(os.Stderr, "tapwall: %d of %d connections are listed: narrow it down, or raise --limit\n", n, found.Matched)
			}
			return nil
		},
	}
	connectionFlags(c, g, &q)
	c.Flags().IntVar(&q.Limit, "limit", maxConnections/100, "list at most this many, up to 100000")
	free(c, "limit")
	o.flag(c, "table", "wide", "json", "yaml")
	c.AddCommand(newConnectionsKill(g), newConnectionsExplain(g))
	return c
}

// tell prints what an answer lacks.
func tell(problems []string) {
	for _, p := range problems {
		_ = printf(os.Stderr, "tapwall: %s\n", p)
	}
}

// tellUnknown says which names of a filter that found nothing nobody has.
func tellUnknown(ctx context.Context, cl *client.Client, f *event.Filter) {
	for plural, names := range map[string][]string{"workloads": slices.Concat(f.Endpoint, f.FromName, f.ToName), "policies": f.Policy,
		"mirrors": f.Mirror} {
		if len(names) == 0 {
			continue
		}
		k, err := parseKind(plural)
		if err != nil {
			continue
		}
		all, err := k.list(ctx, cl, nil)
		if err != nil {
			return // it is a hint
		}
		for _, name := range names {
			switch known := slices.ContainsFunc(all, func(i item) bool { return i.name == name || k.is != nil && k.is(&i, name) }); {
			case known:
			case plural == "workloads":
				_ = printf(os.Stderr, "tapwall: nobody goes by the name %q\n", name)
			default:
				_ = printf(os.Stderr, "tapwall: there is no %s %q\n", k.singular, name)
			}
		}
	}
}

// chosen reports whether flags say which connections are meant.
func chosen(c *cobra.Command) (yes bool) {
	c.Flags().Visit(func(f *pflag.Flag) {
		yes = yes || c.LocalNonPersistentFlags().Lookup(f.Name) != nil && !slices.Contains([]string{"dry-run", "force", "output"}, f.Name)
	})
	return yes
}

func connectionFlags(c *cobra.Command, g *global, q *client.ConnectionQuery) {
	fl := c.Flags()
	ff := &filterFlags{filter: &q.Filter}
	ff.define(c, g, "endpoint", "from", "to", "policy", "rule", "bridge", "protocol", "ip", "from-ip", "to-ip", "port", "from-port", "to-port")
	fl.Lookup("policy").Usage = "policy that allowed it on either side"
	fl.Lookup("rule").Usage = "rule or default that allowed it on either side: its name, or policy/direction/rule"
	fl.IntSliceVar(&q.VLAN, "vlan", nil, "VLAN; 0 = untagged")
	fl.StringSliceVar(&q.State, "state", nil, "state of the protocol: ESTABLISHED, SYN_SENT, …")
	fl.StringVar(&q.Host, "host", "", "only of the host with this id")
	fl.BoolVar(&q.Force, "force", false, "also where forwarding stands still for more than 20 ms")
	completeFlag(c, "state", fixed("SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT_1", "CLOSE_WAIT", "FIN_WAIT_2", "LAST_ACK", "CLOSING",
		"TIME_WAIT"))
	completeFlag(c, "host", g.completeHosts)
	free(c, "vlan")
}

// completeHosts offers the ids of hosts.
func (g *global) completeHosts(*cobra.Command) (out []string) {
	g.ask(func(ctx context.Context, cl *client.Client) {
		hosts, err := cl.Hosts(ctx)
		if err != nil {
			return
		}
		for _, h := range hosts {
			out = append(out, h.ID)
		}
	})
	return out
}

// checkConnections finds what makes no sense before anybody is asked.
func checkConnections(q *client.ConnectionQuery) error {
	if q.Limit < 1 || q.Limit > maxConnections {
		return usage("--limit %d: want 1 to %d", q.Limit, maxConnections)
	}
	for _, vlan := range q.VLAN {
		if vlan < 0 || vlan > 4094 {
			return usage("--vlan %d: want 0 to 4094", vlan)
		}
	}
	if _, err := q.Filter.Compile(); err != nil {
		return badFilter(err)
	}
	return nil
}

func printConnections(c *cobra.Command, all []client.Connection, wide bool) error {
	header := "FROM TO PROTOCOL STATE EGRESS INGRESS"
	several := slices.ContainsFunc(all, func(x client.Connection) bool { return x.Host != all[0].Host })
	if several {
		header = "HOST " + header
	}
	if wide {
		header += " BRIDGE VLAN ZONE TIMEOUT FLAGS LABEL"
	}
	var rows [][]string
	for i := range all {
		x := &all[i]
		row := []string{endText(&x.Source), endText(&x.Destination), x.Protocol, dash(stateText(x)), ruleText(x.Ours, x.Egress),
			ruleText(x.Ours, x.Ingress)}
		if several {
			row = slices.Insert(row, 0, x.Host)
		}
		if wide {
			row = append(row, x.Bridge, vlanText(x), fmt.Sprint(x.Zone), fmt.Sprintf("%ds", x.Timeout), dash(flagText(x)), x.Label)
		}
		rows = append(rows, row)
	}
	return table(c.OutOrStdout(), header, rows)
}

// endText is "vm1 10.0.0.1:4711", or less where less is known.
func endText(e *client.ConnectionEnd) string {
	at := e.IP
	if e.Port != 0 {
		at = net.JoinHostPort(e.IP, strconv.Itoa(e.Port))
	}
	name := e.Endpoint
	switch {
	case name == "" && e.PortName != "":
		name = "(formerly at " + e.PortName + ")"
	case name != "" && !e.InForce:
		name += " (stale)"
	}
	return strings.TrimSpace(name + " " + at)
}

func stateText(x *client.Connection) string {
	if x.ICMP != nil {
		return fmt.Sprintf("type %d id %d", x.ICMP.Type, x.ICMP.ID)
	}
	return x.State
}

func ruleText(ours bool, r client.ConnectionRule) string {
	name := r.Rule
	switch {
	case !ours:
		return "-"
	case name == "":
		name = fmt.Sprintf("%#x", r.ID)
	}
	if !r.InForce {
		name += " (stale)"
	}
	return name
}

func vlanText(x *client.Connection) string {
	switch {
	case x.VLAN == nil:
		return "-"
	case *x.VLAN == 0:
		return "untagged"
	}
	return strconv.Itoa(*x.VLAN)
}

func flagText(x *client.Connection) string {
	var flags []string
	if x.Logged {
		flags = append(flags, "logged")
	}
	if x.PickedUp {
		flags = append(flags, "picked-up")
	}
	if !x.Ours {
		flags = append(flags, "not-ours")
	}
	return strings.Join(flags, ",")
}

// lineOf spells a connection for a person.
func lineOf(x *client.Connection) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s -> %s %s", x.Protocol, endText(&x.Source), endText(&x.Destination), stateText(x)))
}

func newConnectionsKill(g *global) *cobra.Command {
	var q client.ConnectionQuery
	var o output
	var all, dryRun bool
	c := &cobra.Command{
		Use:   "kill",
		Short: "Kill live connections",
		Long: `Have the switches forget the connections that the flags choose; at least one flag has to say which, or --all.

A TCP connection then is dead: what is sent on it begins with no SYN and is dropped. Other protocols have no beginning
that could be told, so what policy still allows begins anew with its next packet: take the permission first, then
nothing needs to be killed. Connections of ICMPv6, and of some types of ICMP, cannot be killed: Open vSwitch 3.1 would
end itself. They are listed, and end by themselves after a minute without packets.`,
		Example: `  tapwall connections kill --endpoint vm7 --dry-run
  tapwall connections kill --from-ip 10.0.0.7 --from-port 51234 --to-port 5432
  tapwall connections kill --rule web/ingress/from-lb`,
		Args: noArgs("; say by flags which connections"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.allow("table", "json", "yaml"); err != nil {
				return err
			}
			if !all && !chosen(c) {
				return usage("say by flags which connections, or --all (see %s --help)", c.CommandPath())
			}
			q.Limit = maxConnections // all that is killed is listed
			if err := checkConnections(&q); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			killed, err := cl.KillConnections(c.Context(), q, all, dryRun)
			if err != nil {
				return err
			}
			tell(killed.Problems)
			if killed.Matched == 0 {
				tellUnknown(c.Context(), cl, &q.Filter)
			}
			return reportKilled(c, &o, killed)
		},
	}
	connectionFlags(c, g, &q)
	c.Flags().BoolVar(&all, "all", false, "all connections of all managed bridges")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "list what would be killed")
	o.flag(c, "table", "json", "yaml")
	return c
}

// reportKilled prints what was killed. What could not be, or was not looked at, is an error.
func reportKilled(c *cobra.Command, o *output, k *client.Killed) error {
	if o.format == "json" || o.format == "yaml" {
		if err := o.print(c.OutOrStdout(), k); err != nil {
			return err
		}
	} else {
		verb := "killed"
		if k.DryRun {
			verb = "would be killed"
		}
		for i := range k.Items {
			x := &k.Items[i]
			if x.NotKilled != "" {
				_ = printf(os.Stderr, "tapwall: not killed: %s: %s\n", lineOf(x), x.NotKilled)
			} else if err := printf(c.OutOrStdout(), "%s\n", lineOf(x)); err != nil {
				return err
			}
		}
		if err := printf(c.OutOrStdout(), "%s %s\n", count(k.Killed, "connection"), verb); err != nil {
			return err
		}
		for _, note := range k.Notes {
			if err := printf(c.OutOrStdout(), "%s\n", note); err != nil {
				return err
			}
		}
	}
	switch left := k.Matched - k.Killed; {
	case left > 0:
		return &exitError{exitFailed, fmt.Errorf("%s could not be killed", count(left, "connection"))}
	case len(k.Problems) > 0:
		return &exitError{exitFailed, errors.New("not everywhere was looked for connections")}
	}
	return nil
}

func newConnectionsExplain(g *global) *cobra.Command {
	var host, bridge string
	var o output
	c := &cobra.Command{
		Use:   "explain ENTRY|LABEL|-",
		Short: "Say what the numbers in a conntrack entry or ct_label stand for",
		Long: `Say which endpoints and rules the numbers stand for in a line of ovs-appctl dpctl/dump-conntrack, or in a ct_label alone,
whether they are in force, and what policies would say of such a connection now. With - lines are read from standard
input.`,
		Example: `  ovs-appctl dpctl/dump-conntrack | grep 10.0.0.7 | tapwall connections explain -
  tapwall connections explain 0x1000000020000000400000004000000`,
		Args: between(1, 1, "one line of conntrack, a label, or -"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.allow("text", "json", "yaml"); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			all := []client.Explanation{}
			explain := func(line string) error {
				entry, label := line, ""
				if bare := strings.TrimPrefix(line, "labels="); strings.HasPrefix(bare, "0x") {
					entry, label = "", bare
				}
				found, err := cl.ExplainConnection(c.Context(), entry, label, host, bridge)
				all = append(all, found...)
				if err != nil || o.format != "text" {
					return err
				}
				if len(found) == 0 {
					return printf(c.OutOrStdout(), "%s\n  no managed bridge has this zone, or knows these numbers\n", line)
				}
				for i := range found {
					if err := printExplanation(c, &found[i]); err != nil {
						return err
					}
				}
				return nil
			}
			if args[0] == "-" {
				err = eachLine(c.InOrStdin(), explain)
			} else {
				err = explain(args[0])
			}
			if err != nil || o.format == "text" {
				return err
			}
			return o.print(c.OutOrStdout(), map[string]any{"items": all})
		},
	}
	c.Flags().StringVar(&host, "host", "", "only on the host with this id")
	c.Flags().StringVar(&bridge, "bridge", "", "only on this bridge")
	o.flag(c, "text", "json", "yaml")
	completeFlag(c, "host", g.completeHosts)
	completeFlag(c, "bridge", g.completeBridges)
	return c
}

// eachLine calls f with each line that is not blank.
func eachLine(r io.Reader, f func(line string) error) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			if err := f(line); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

func printExplanation(c *cobra.Command, x *client.Explanation) error {
	w, head := c.OutOrStdout(), "label "+x.Label
	if x.Source.IP != "" {
		head = lineOf(&x.Connection) + ", VLAN " + vlanText(&x.Connection)
	}
	if err := printf(w, "bridge %s of %s: %s\n", x.Bridge, x.Host, head); err != nil {
		return err
	}
	for _, why := range x.Why {
		if err := printf(w, "  %s\n", why); err != nil {
			return err
		}
	}
	if x.Now == nil {
		return nil
	}
	var by []string
	for _, side := range [][2]string{{"egress", x.Now.Egress}, {"ingress", x.Now.Ingress}} {
		if side[1] != "" {
			by = append(by, side[0]+" "+side[1])
		}
	}
	if len(by) == 0 {
		by = []string{"no side is judged"}
	}
	return printf(w, "  a new one like it now: %s (%s)\n", x.Now.Effect, strings.Join(by, ", "))
}
