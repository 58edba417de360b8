package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

func quarantineKind() *kind {
	return resourceKind(policy.KindQuarantine, "qua", "NAME MATCH MODE PASS UNTIL PORTS DROPPED PHASE")
}

func newQuarantine(g *global) *cobra.Command {
	c := &cobra.Command{Use: "quarantine", Short: "Take machines off the network, and let them back",
		Args: noArgs("; it is quarantine add SELECTOR, quarantine release NAME or quarantine list"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(newQuarantineAdd(g), newQuarantineRelease(g), newQuarantineList(g))
	return c
}

func newQuarantineAdd(g *global) *cobra.Command {
	var w waitFlags
	var name, host, reason string
	var lasts time.Duration
	var dns bool
	var pass []string
	c := &cobra.Command{
		Use:   "add NAME | port=PORT | vm=VM | neutronPort=ID | mac=MAC",
		Short: "Take all ports of a machine, or one port, off the network",
		Long: `From the moment on that this is installed no frame leaves or reaches the port, of whatever protocol, and connections that were
open stand still. Whom --pass names can still be talked with, in both directions, as far as policies allow it.

A machine goes by any name: that or the UUID of the VM, its Endpoint, port, iface-id, MAC or address. All ports of the VM are
held, where it is known which VM it is; else the port. A name that nobody has yet is taken for that of a VM to come.

It holds until it is released, or for as long as --for says, over restarts of tapwall and of the switch. Adding a
quarantine that is there already changes it to what is said now; its reason stays if none is given.`,
		Example: `  tapwall quarantine add vm7 --for 2h --reason "ticket 4711" --wait
  tapwall quarantine add port=tap123 --dns --pass 10.0.0.1 --pass 10.0.0.9:tcp/22`,
		Args: between(1, 1, "a machine or port, like: vm7 or port=tap123"),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return offer(g.completePorts(c)), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := w.check(); err != nil {
				return err
			}
			q, err := quarantineOf(args[0], host, pass)
			if err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if !strings.Contains(args[0], "=") {
				if err := knownAs(c.Context(), cl, args[0], &q.Spec.Match); err != nil {
					return err
				}
			}
			if q.Spec.Reason = reason; dns {
				q.Spec.Mode = policy.QuarantineDNS
			}
			if c.Flags().Changed("for") {
				if lasts <= 0 {
					return usage("--for %v: want more than 0", lasts)
				}
				until := time.Now().Add(lasts).UTC().Truncate(time.Second)
				q.Spec.Until = &until
			}
			if name != "" {
				q.Name = name
			}
			if q.Name == "" {
				return usage("%q makes no name: give one with --name", args[0])
			}
			verb := "added"
			switch before, err := cl.Get(c.Context(), policy.KindQuarantine, q.Name); {
			case err == nil:
				if verb = "changed"; !c.Flags().Changed("reason") {
					q.Spec.Reason = reasonOf(before)
				}
			case !errors.Is(err, client.ErrNotFound):
				return named(err, quarantineKind(), q.Name)
			}
			body, err := json.Marshal(map[string]any{"kind": policy.KindQuarantine, "name": q.Name, "spec": q.Spec})
			if err != nil {
				return err
			}
			d, err := cl.Put(c.Context(), policy.KindQuarantine, q.Name, body, w.options())
			err = named(err, quarantineKind(), q.Name)
			if d == nil {
				return err
			}
			state := w.state(d.Status)
			if state == "" && q.Spec.Until != nil {
				state = ", until " + untilText(&q.Spec)
			}
			printf(c.OutOrStdout(), "quarantine/%s %s%s\n", q.Name, verb, state)
			if !w.waits() { // who waits is told by the state
				printWarnings(c.OutOrStdout(), d.Status.Warnings)
			}
			return w.outcome(err, waited{"quarantine/" + q.Name, &d.Status})
		},
	}
	c.Flags().StringVar(&name, "name", "", "of the quarantine; default: made of what it matches")
	c.Flags().StringVar(&host, "host", "", "only on this host")
	durationFlag(c, &lasts, "for", "how long it lasts, such as 2h or 7d; default: until it is released", "2h", "1d", "7d")
	c.Flags().BoolVar(&dns, "dns", false, "let the machine ask everybody by DNS, and be answered")
	c.Flags().StringArrayVar(&pass, "pass", nil, "whom it may still talk with: an address or range, perhaps with one of its services, as "+
		"in 10.0.0.9:tcp/22 or [2001:db8::9]:udp/53 (repeatable)")
	c.Flags().StringVar(&reason, "reason", "", "why, for people")
	free(c, "name", "host", "pass", "reason")
	w.flags(c)
	return c
}

// quarantineOf makes the resource of what is written on the command line.
func quarantineOf(text, host string, pass []string) (*policy.Quarantine, error) {
	q := &policy.Quarantine{}
	field, value, ok := strings.Cut(text, "=")
	if !ok {
		field, value = "vm", text
	}
	switch m := &q.Spec.Match; field {
	case "vm":
		m.VM = value
	case "port":
		m.Port = value
	case "neutronPort":
		m.NeutronPort = value
	case "mac":
		m.MAC = value
	default:
		return nil, usage("%q: want the name or UUID of a machine, or port=, vm=, neutronPort= or mac= with a value", text)
	}
	q.Spec.Match.Host = host
	q.Name = labelOf(value)
	for _, p := range pass {
		x, err := passageOf(p)
		if err != nil {
			return nil, err
		}
		q.Spec.Pass = append(q.Spec.Pass, x)
	}
	return q, nil
}

// knownAs makes m, which takes the name for that of a VM, select the workloads that go by it: by their VM, where it is known.
func knownAs(ctx context.Context, cl *client.Client, name string, m *policy.Selector) error {
	found, err := workloadKind().byName(ctx, cl, name)
	switch {
	case errors.Is(err, client.ErrNotFound):
		return nil // to come
	case err != nil:
		return err
	}
	host := m.Host
	var keys []string
	for n, i := range found {
		w := i.doc.(*client.Workload)
		keys = append(keys, w.Key)
		at := policy.Selector{Host: host, VM: vmOf(w, name)}
		if at.VM == "" {
			if at.NeutronPort = w.Labels[policy.LabelNeutronPort].Value; at.NeutronPort == "" {
				at.Host, at.Port = cmp.Or(host, w.Host), w.Port
			}
		}
		if n > 0 && (at.VM != m.VM || at.NeutronPort != m.NeutronPort || at.Port != m.Port || at.Host != m.Host) {
			return usage("%q: several workloads go by that name (%s): say which by port=, vm=, neutronPort= or mac=", name, strings.Join(keys, ", "))
		}
		*m = at
	}
	return nil
}

// vmOf is the VM of a workload: as name, if it goes by it; "" = not known.
func vmOf(w *client.Workload, name string) (vm string) {
	for _, key := range policy.VMLabels {
		if w.Labels[key].Value == name {
			return name
		}
		vm = cmp.Or(vm, w.Labels[key].Value)
	}
	if vm == "" && w.Port == "" {
		vm = w.Endpoint // a peer elsewhere, which may come
	}
	return vm
}

// labelOf makes a DNS label of a text, as far as there is something in it that one may have.
func labelOf(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	return strings.Trim(s[:min(len(s), policy.MaxNameLength)], "-")
}

// passageOf reads ADDRESS, RANGE or one of the two with :PROTOCOL[/PORTS], an IPv6 one then in brackets.
func passageOf(s string) (policy.Passage, error) {
	at, service := s, ""
	if rest, ok := strings.CutPrefix(s, "["); ok {
		if at, service, ok = strings.Cut(rest, "]"); !ok {
			return policy.Passage{}, usage("--pass %q: a ] is missing", s)
		}
		service = strings.TrimPrefix(service, ":")
	} else if strings.Count(s, ":") == 1 {
		at, service, _ = strings.Cut(s, ":")
	}
	p := policy.Passage{CIDR: at}
	if _, err := netip.ParseAddr(at); err != nil {
		switch r, err := netip.ParsePrefix(at); {
		case err != nil:
			return p, usage("--pass %q: want an address or range, as in 10.0.0.9, 10.0.0.0/24, 10.0.0.9:tcp/22 or [2001:db8::9]:udp/53", s)
		case r != r.Masked():
			return p, usage("--pass %q: %s has bits behind its length: write %s for the range or %s for the address", s, at, r.Masked(), r.Addr())
		}
	}
	if service != "" {
		proto, port, ok := strings.Cut(service, "/")
		if !slices.Contains([]string{"tcp", "udp", "icmp", "icmpv6"}, proto) {
			return p, usage("--pass %q: want tcp, udp, icmp or icmpv6 behind the colon, as in 10.0.0.9:tcp/22", s)
		}
		x := policy.PassedService{Protocol: proto}
		if ok {
			x.Ports = []string{port}
		}
		p.Services = []policy.PassedService{x}
	}
	return p, nil
}

func newQuarantineRelease(g *global) *cobra.Command {
	var w waitFlags
	k := quarantineKind()
	return eachNamed(g, &w, k, &cobra.Command{Use: "release NAME...", Short: "End quarantines",
		Long:    "End quarantines, by the names that tapwall quarantine list prints first.",
		Example: "  tapwall quarantine list\n  tapwall quarantine release vm7 --wait"},
		func(c *cobra.Command, cl *client.Client, name string) error {
			err := named(cl.Delete(c.Context(), policy.KindQuarantine, name, w.options()), k, name)
			if errors.As(err, new(*missingError)) {
				err = heldBy(c.Context(), cl, name, err)
			}
			if err := w.outcome(err); err != nil {
				return err
			}
			printf(c.OutOrStdout(), "quarantine/%s released\n", name)
			return nil
		})
}

// heldBy adds to the error that no quarantine has a name which of them hold the machine that has it.
func heldBy(ctx context.Context, cl *client.Client, name string, missing error) error {
	workloads, err := workloadKind().byName(ctx, cl, name)
	if err != nil {
		return missing
	}
	ports := map[string]bool{}
	for _, i := range workloads {
		w := i.doc.(*client.Workload)
		ports[w.Bridge+"/"+w.Port] = true
	}
	k := quarantineKind()
	all, err := k.list(ctx, cl, nil)
	if err != nil {
		return missing
	}
	var by []string
	for _, q := range all {
		for _, h := range q.doc.(*client.Document).Status.Hosts {
			if slices.ContainsFunc(h.Endpoints, func(p string) bool { return ports[p] }) && !slices.Contains(by, q.name) {
				by = append(by, q.name)
			}
		}
	}
	if len(by) == 0 {
		return missing
	}
	return fmt.Errorf("%w; %s is held by %s: tapwall quarantine release %s", missing, event.Escape(name), strings.Join(by, ", "),
		strings.Join(by, " "))
}

// reasonOf is why a quarantine was made.
func reasonOf(d *client.Document) string {
	var spec policy.QuarantineSpec
	_ = json.Unmarshal(d.Spec, &spec) // what the server sends
	return spec.Reason
}

func newQuarantineList(g *global) *cobra.Command {
	var x getter
	c := &cobra.Command{
		Use: "list", Short: "Print quarantines: whom they hold, until when, and what they dropped", Args: noArgs(""),
		Example: "  tapwall quarantine list\n  tapwall quarantine list -o wide",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := x.check(); err != nil {
				return err
			}
			x.targets = []target{{kinds: []*kind{quarantineKind()}}}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			items, err := x.fetch(c.Context(), cl)
			if perr := x.show(c.OutOrStdout(), items, err); perr != nil {
				return perr
			}
			return err
		},
	}
	x.flags(c)
	return c
}

// passText says how wide a pass list is.
func passText(s *policy.QuarantineSpec) string {
	var out []string
	for _, p := range s.Pass {
		text := p.CIDR
		var services []string
		for _, x := range p.Services {
			services = append(services, strings.TrimSuffix(x.Protocol+"/"+strings.Join(x.Ports, "+"), "/"))
		}
		if services != nil && strings.Contains(text, ":") {
			text = "[" + text + "]"
		}
		if services != nil {
			text += ":" + strings.Join(services, "+")
		}
		out = append(out, text)
	}
	return some(out)
}

func untilText(s *policy.QuarantineSpec) string {
	if s.Until == nil {
		return "-"
	}
	return s.Until.Local().Format(time.RFC3339)
}

func droppedText(counters map[string]int64) string {
	return fmt.Sprint(counters["droppedFromPackets"] + counters["droppedToPackets"])
}
