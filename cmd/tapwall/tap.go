package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// tapLabel marks the mirrors that this command makes: tapwall get mirrors -l by=tap.
const tapLabel, tapLabelValue = "by", "tap"

// tapping is one invocation of tap.
type tapping struct {
	to              []string
	ports, protos   []string
	peers           []string
	name, direction string
	lasts           time.Duration
	packets         int64
	snaplen, rate   int
	dryRun          bool
	wait            waitFlags
	write           packetOutput
}

func newTap(g *global) *cobra.Command {
	var x tapping
	c := &cobra.Command{
		Use:   "tap NAME... --to TARGET | -w FILE",
		Short: "Copy what machines send and receive, for a while",
		Long: `Make a mirror of some machines, for a while and of a part of their traffic if you like. When its time is over it is deleted, and
nothing of it is left.

A machine goes by any name: that or the UUID of the VM, its Endpoint, port, iface-id, MAC or address, also by a range of addresses, or by
port=, vm=, neutronPort=, mac=, bridge=, group= or labels.KEY= with a value, which follow machines that come.

Copies go to a port, which is made if there is none of that name, or into a tunnel: vxlan://COLLECTOR?vni=7, geneve://COLLECTOR?vni=7,
gre://COLLECTOR?key=7, erspan://COLLECTOR?version=2&session=7; behind the collector's address may be a UDP port, and local= is the
address to send from. A name that ends in .pcap or .pcapng is that of files in the data directory of the server; events
makes an event of the record of each packet.

With -w they come here instead: as pcapng into a file of this machine, or with -w - to standard output. Then this command runs until
the time is over, Ctrl-C, or nobody reads what it writes, and deletes the mirror. If it is killed the mirror ends when its time is over.`,
		Example: `  tapwall tap vm1 vm2 --port 443 --port 53 --for 10m --to ids0
  tapwall tap 10.0.0.5 --peer 198.51.100.0/24 --to 'vxlan://192.0.2.9?vni=7' --wait
  tapwall tap vm1 --port 443 -w - | wireshark -k -i -
  tapwall tap labels.app=web --proto icmp --rate 100 --to ids0 --dry-run`,
		Args: between(1, 1<<20, "the name of a machine, like: tap vm1 --to ids0"),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return offer(slices.DeleteFunc(g.completePorts(c), func(s string) bool { return slices.Contains(args, s) })),
				cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := x.wait.check(); err != nil {
				return err
			}
			if x.write.path != "" {
				x.write.out = unscreened(c.OutOrStdout())
				if err := x.write.check(); err != nil {
					return err
				}
			}
			m, err := x.mirror(c.Flags().Changed("for"))
			if err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return x.run(c, cl, m, args)
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&x.to, "to", nil,
		"where copies go: a port, a tunnel, a file of the server (web.pcapng) or the record (events); repeatable: each gets all")
	durationFlag(c, &x.lasts, "for", "for how long, from when it begins to copy; 0 = until it is deleted (default 10m)", "1m", "10m", "1h")
	fl.Int64Var(&x.packets, "packets", 0, "end after so many packets, if that is sooner; 0 = do not")
	fl.StringArrayVarP(&x.ports, "port", "p", nil, "only to and from this port of TCP, UDP (or SCTP with --proto sctp): 443, 8000-8099, dns "+
		"(repeatable)")
	fl.StringArrayVar(&x.protos, "proto", nil, "only this protocol, by name or number (repeatable)")
	fl.StringArrayVar(&x.peers, "peer", nil, "only to and from this address or range (repeatable)")
	fl.StringArrayVar(&x.peers, "cidr", nil, "the same as --peer")
	fl.StringVar(&x.direction, "direction", "", "only what machines send (fromSource) or receive (toSource); default both")
	fl.IntVar(&x.snaplen, "snaplen", 0, "copy only so many bytes of each packet; 0 = all")
	fl.IntVar(&x.rate, "rate", 0, "copy at most so many packets a second; 0 = all")
	fl.StringVar(&x.name, "name", "", "of the mirror; default: made of the first machine's")
	fl.StringVarP(&x.write.path, "write", "w", "", "write packets into this file here; - = to standard output")
	fl.BoolVar(&x.write.force, "force", false, "with -w: replace a file that is there")
	fl.BoolVar(&x.dryRun, "dry-run", false, "print the document of the mirror, and make nothing")
	completeFlag(c, "to", fixed("events", "vxlan://", "geneve://", "gre://", "erspan://"))
	completeFlag(c, "direction", fixed(policy.MirrorBoth, policy.MirrorFromSource, policy.MirrorToSource))
	completeFlag(c, "proto", fixed("tcp", "udp", "sctp", "icmp", "icmpv6"))
	completeFlag(c, "port", fixed("http", "https", "dns", "ssh"))
	free(c, "packets", "peer", "cidr", "snaplen", "rate", "name")
	x.wait.flags(c)
	return c
}

// mirror makes what the flags say: all but the sources.
func (x *tapping) mirror(limited bool) (*policy.Mirror, error) {
	m := &policy.Mirror{Meta: policy.Meta{Name: x.name, Labels: map[string]string{tapLabel: tapLabelValue}}}
	s := &m.Spec
	s.Direction, s.Snaplen = x.direction, x.snaplen
	if x.rate != 0 {
		s.Sample = &policy.MirrorSample{MaxPacketsPerSecond: x.rate}
	}
	lasts := x.lasts
	if !limited {
		lasts = 10 * time.Minute
	}
	if lasts > 0 || x.packets != 0 {
		s.StopAfter = &policy.StopAfter{Packets: x.packets}
	}
	if lasts > 0 {
		s.StopAfter.Duration = shortDuration(lasts)
		// It is deleted a little later than it ends: it may not have begun at once.
		s.TTL = shortDuration(lasts + max(5*time.Second, (lasts/10).Truncate(time.Second)))
	}
	if x.write.path != "" {
		if lasts <= 0 {
			return nil, usage("-w goes with --for of some time, which ends the mirror if this command is killed")
		}
		s.Targets = append(s.Targets, tapped())
	}
	if len(x.to) == 0 && x.write.path == "" {
		return nil, usage("say where the copies go, as in --to ids0 or --to 'vxlan://192.0.2.9?vni=7'")
	}
	for _, to := range x.to {
		t, err := targetOf(to)
		if err != nil {
			return nil, err
		}
		s.Targets = append(s.Targets, t)
	}
	rules, err := x.rules()
	if rules != nil {
		s.Filter = &policy.MirrorFilter{Rules: rules}
	}
	return m, err
}

// rules are those of the filter; nil = everything is copied.
func (x *tapping) rules() (rules []policy.FilterRule, err error) {
	protos := slices.Clone(x.protos)
	if protos == nil && x.ports != nil {
		protos = []string{"tcp", "udp"}
	}
	var peers []string
	for _, p := range x.peers {
		if a, err := netip.ParseAddr(p); err == nil && a.Zone() == "" {
			p = netip.PrefixFrom(a, a.BitLen()).String()
		} else if _, err := policy.ParseCIDR(p); err != nil {
			return nil, usage("--peer %q: %w", p, err)
		}
		peers = append(peers, p)
	}
	for i, p := range protos {
		protos[i] = strings.ToLower(p)
		if x.ports != nil && !slices.Contains([]string{"tcp", "udp", "sctp"}, protos[i]) {
			return nil, usage("--port goes with tcp, udp and sctp, and --proto is %q", p)
		}
	}
	if protos == nil && peers == nil {
		return nil, nil
	}
	if protos == nil {
		protos = []string{""}
	}
	for _, p := range protos {
		r := policy.FilterRule{Action: policy.FilterAccept, Protocol: policy.Protocol(p), Dst: peers, DstPorts: x.ports, Symmetric: true}
		rules = append(rules, r)
		if peers != nil && x.ports != nil { // the peer may be who calls
			r.Src, r.Dst = peers, nil
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// run finds the sources and makes the mirror.
func (x *tapping) run(c *cobra.Command, cl *client.Client, m *policy.Mirror, args []string) error {
	for _, arg := range args {
		found, err := sourcesOf(c.Context(), cl, arg)
		if err != nil {
			return err
		}
		for _, s := range found {
			if !slices.ContainsFunc(m.Spec.Sources, func(o policy.Selector) bool { return reflect.DeepEqual(s, o) }) {
				m.Spec.Sources = append(m.Spec.Sources, s)
			}
		}
	}
	if err := existing(c.Context(), cl, m.Spec.Targets); err != nil {
		return err
	}
	if m.Name == "" {
		text := labelOf(strings.TrimPrefix(args[0], "labels."))
		text = text[:min(len(text), 48)]
		m.Name = strings.Trim("tap-"+strings.Trim(text, "-"), "-") + "-" + strings.ToLower(rand.Text()[:4])
	}
	if faults := m.Validate(); len(faults) > 0 {
		return usage("%s", event.Escape(faults.Error()))
	}
	doc := struct {
		Kind   policy.Kind       `json:"kind"`
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
		Spec   policy.MirrorSpec `json:"spec"`
	}{policy.KindMirror, m.Name, m.Labels, m.Spec}
	if x.dryRun {
		return printYAML(c.OutOrStdout(), doc)
	}
	if x.name != "" {
		if _, err := cl.Get(c.Context(), policy.KindMirror, m.Name); err == nil {
			return fmt.Errorf("mirror/%s is there already: tapwall mirror start %[1]s, or give another --name", m.Name)
		} else if !errors.Is(err, client.ErrNotFound) {
			return err
		}
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if x.write.path != "" {
		return x.record(c, cl, m.Name, body)
	}
	k := kinds()[3]
	options, wait := x.wait.options(), x.wait
	if wait.until == "" { // a look at what becomes of it at once
		options.Wait = atOnce
	}
	d, err := cl.Put(c.Context(), policy.KindMirror, m.Name, body, options)
	err = named(err, k, m.Name)
	if d == nil {
		return err
	}
	w := c.OutOrStdout()
	switch failed := d.Status.Phase == policy.PhaseFailed; {
	case wait.until == "" && failed:
		wait.until = waitInstalled // so that it ends like one that was waited for
		printf(w, "mirror/%s was stored and copies nothing (%s)\n", m.Name, phase(d.Status))
	case wait.until == "" && errors.Is(err, client.ErrNotInstalled): // it may come yet
		err = nil
		fallthrough
	default:
		printf(w, "mirror/%s created%s\n", m.Name, wait.state(d.Status))
	}
	x.explain(w, m, args)
	if !x.wait.waits() { // who waits is told by the state
		printWarnings(w, d.Status.Warnings)
	}
	return wait.outcome(err, waited{"mirror/" + m.Name, &d.Status})
}

// atOnce is for how long a tap that is not waited for is watched, so that one which fails at once is not told to be there.
const atOnce = time.Second

// explain says what a mirror copies, where to, for how long and how to end it.
func (x *tapping) explain(w io.Writer, m *policy.Mirror, from []string) {
	what := map[string]string{"": "send and receive", policy.MirrorBoth: "send and receive", policy.MirrorFromSource: "send",
		policy.MirrorToSource: "receive"}[x.direction]
	if len(from) == 1 {
		what = strings.ReplaceAll(strings.ReplaceAll(what, "send", "sends"), "receive", "receives")
	}
	printf(w, "  copies  what %s %s%s\n", strings.Join(from, ", "), what, filterText(m.Spec.Filter))
	printf(w, "  to      %s\n", mirrorTarget(m.Spec, policy.Status{}))
	var end []string
	if s := m.Spec.StopAfter; s != nil && s.Duration != "" {
		end = append(end, s.Duration)
	}
	if x.packets > 0 {
		end = append(end, count(int(x.packets), "packet"))
	}
	if len(end) == 0 {
		end = []string{"until it is deleted"}
	}
	printf(w, "  for     %s\n", strings.Join(end, ", or "))
	printf(w, "  end it  tapwall delete mirror %s\n", m.Name)
	printf(w, "  watch   tapwall get mirror %s -w\n", m.Name)
}

// shortDuration spells a duration without the zeros of time.Duration.String: 10m.
func shortDuration(d time.Duration) string {
	out := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if rest, ok := strings.CutSuffix(out, zero[1:]); ok && strings.HasSuffix(out, zero) {
			out = rest
		}
	}
	return out
}

// sourcesOf finds what somebody calls by a name.
func sourcesOf(ctx context.Context, cl *client.Client, name string) ([]policy.Selector, error) {
	at, _, slash := strings.Cut(name, "/")
	if _, err := netip.ParseAddr(at); strings.Contains(name, "=") || slash && err == nil {
		s, err := parseMember(name)
		if err != nil {
			return nil, usage("%w", err)
		}
		return []policy.Selector{s}, nil
	}
	var s policy.Selector
	if err := knownAs(ctx, cl, name, &s); err != nil {
		return nil, err
	}
	if reflect.DeepEqual(s, policy.Selector{}) {
		all, err := cl.Workloads(ctx, nil)
		if err != nil {
			return nil, err
		}
		hint := "tapwall get workloads lists who is there"
		if near := closest(name, all); near != "" {
			hint = "did you mean " + near + "?"
		}
		return nil, fmt.Errorf("nobody goes by the name %s: %s", event.Escape(fmt.Sprintf("%.80q", name)), event.Escape(hint))
	}
	return []policy.Selector{s}, nil
}

// closest is the name of a workload that was perhaps meant. cobra's measure of likeness is that of misspelt commands.
func closest(name string, all []client.Workload) string {
	words := &cobra.Command{SuggestionsMinimumDistance: 2}
	seen := map[string]bool{"": true}
	for i := range all {
		w := &all[i]
		for _, s := range []string{w.Endpoint, w.Port, vmOf(w, ""), w.Labels[policy.LabelNeutronPort].Value} {
			if !seen[s] && !strings.Contains(s, " ") {
				seen[s] = true
				words.AddCommand(&cobra.Command{Use: s, Run: func(*cobra.Command, []string) {}})
			}
		}
	}
	return cmp.Or(append(words.SuggestionsFor(name), "")...)
}

// existing leaves a port as it is that is there already, unless a mirror made it: that one both make, whoever goes first.
func existing(ctx context.Context, cl *client.Client, targets []policy.MirrorTarget) error {
	hosts, err := cl.Hosts(ctx)
	if err != nil {
		return err
	}
	mirrors, err := cl.List(ctx, policy.KindMirror, nil)
	if err != nil {
		return err
	}
	made := map[string]bool{}
	for _, d := range mirrors {
		var s policy.MirrorSpec
		if err := json.Unmarshal(d.Spec, &s); err != nil {
			return err
		}
		for _, t := range s.Targets {
			if t.Port != nil && t.Port.Create {
				made[t.Port.Name] = true
			}
		}
	}
	for _, t := range targets {
		for _, h := range hosts {
			for _, b := range h.Bridges {
				for _, p := range b.Ports {
					if t.Port != nil && p.Name == t.Port.Name && !made[p.Name] && !strings.HasPrefix(b.Name, "tw-") {
						t.Port.Create = false
					}
				}
			}
		}
	}
	return nil
}
