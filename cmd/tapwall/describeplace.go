package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// describeWorkload prints a workload with where each label came from and what applies to it, as observed.
func describeWorkload(ctx context.Context, w io.Writer, cl *client.Client, x *client.Workload) error {
	printf(w, "Workload %s\n", x.Key)
	if x.Host != "" {
		printf(w, "  host %s\n", x.Host)
	}
	printf(w, "  port %s, OpenFlow port %d, MAC %s, VLAN %d\n", place(x), x.OFPort, dash(x.MAC), x.VLAN)
	printf(w, "  addresses %s\n", dash(strings.Join(x.Addresses, ", ")))
	for _, a := range x.Learned {
		printf(w, "  learned   %s by %s, seen %s\n", a.Address, a.Source, a.Seen.Local().Format(time.DateTime))
	}
	var rows [][]string
	for _, k := range slices.Sorted(maps.Keys(x.Labels)) {
		rows = append(rows, []string{k, x.Labels[k].Value, x.Labels[k].From})
	}
	if len(rows) > 0 {
		if err := indentedTable(w, "  ", "LABEL VALUE FROM", rows); err != nil {
			return err
		}
	}
	at := place(x)
	if x.Remote {
		at = x.Key
	} else if err := describeClass(ctx, w, cl, x); err != nil {
		return err
	}
	return printApplying(ctx, w, cl, func(h policy.HostStatus) bool {
		return (x.Host == "" || h.Host == x.Host) && slices.Contains(h.Endpoints, at)
	})
}

// describeHost prints a host with its bridges, ports and mirrors, and what applies to endpoints on it.
func describeHost(ctx context.Context, w io.Writer, cl *client.Client, x *client.Host) error {
	printf(w, "Host %s\n", x.ID)
	printf(w, "  Open vSwitch %s, database %s\n", dash(x.OVSVersion), connected(x.Connected, x.Message))
	if x.Capabilities != nil && !slices.Contains(x.Capabilities, client.CapControlSocket) {
		printf(w, "  managed over the network: neither its switch's control socket nor its devices can be reached\n")
	}
	if x.Capabilities != nil && !slices.Contains(x.Capabilities, client.CapFirstFragments) {
		printf(w, "  a connection that begins with a fragmented packet matches no rule with ports there\n")
	}
	for _, b := range x.Bridges {
		mode := b.Mode
		if mode == "" {
			mode = "left alone"
		}
		printf(w, "  bridge %s (%s): datapath %s, fail mode %s\n", b.Name, mode, b.DatapathType, dash(b.FailMode))
		if b.Mode != "" {
			printf(w, "    OpenFlow %s\n", connected(b.Connected, b.Message))
		}
		var rows [][]string
		for _, p := range b.Ports {
			vlan := "-"
			if p.VLAN != nil {
				vlan = fmt.Sprint(*p.VLAN)
			}
			rows = append(rows, []string{p.Name, fmt.Sprint(p.OFPort), dash(p.Type), vlan, dash(p.MAC), dash(p.Endpoint), dash(p.Error)})
		}
		if len(rows) > 0 {
			if err := indentedTable(w, "    ", "PORT OFPORT TYPE VLAN MAC WORKLOAD ERROR", rows); err != nil {
				return err
			}
		}
		if len(b.Dropped) > 0 {
			rows = nil
			for _, reason := range slices.Sorted(maps.Keys(b.Dropped)) {
				rows = append(rows, []string{reason, fmt.Sprint(b.Dropped[reason])})
			}
			if err := indentedTable(w, "    ", "DROPPED-AS PACKETS", rows); err != nil {
				return err
			}
		}
		for _, m := range b.Mirrors {
			owner := "foreign"
			if m.Owner != "" {
				owner = "of mirror/" + m.Owner
			}
			printf(w, "    mirror row %s (%s), output %s\n", m.Name, owner, dash(m.Output))
		}
	}
	return printApplying(ctx, w, cl, func(h policy.HostStatus) bool { return h.Host == x.ID && len(h.Endpoints) > 0 })
}

func connected(is bool, message string) string {
	switch {
	case is:
		return "connected"
	case message != "":
		return "NOT connected: " + message
	}
	return "NOT connected"
}

// printApplying lists the resources that have a part on a host that counts.
func printApplying(ctx context.Context, w io.Writer, cl *client.Client, counts func(policy.HostStatus) bool) error {
	var rows [][]string
	for _, k := range []policy.Kind{policy.KindPolicy, policy.KindMirror, policy.KindGroup, policy.KindEndpoint,
		policy.KindQuarantine} {
		docs, err := cl.List(ctx, k, nil)
		if err != nil {
			return err
		}
		for _, d := range docs {
			if i := slices.IndexFunc(d.Status.Hosts, counts); i >= 0 {
				rows = append(rows, []string{strings.ToLower(string(k)) + "/" + d.Name, string(d.Status.Hosts[i].Phase),
					dash(d.Status.Hosts[i].Message)})
			}
		}
	}
	if len(rows) == 0 {
		return printf(w, "  no policy, mirror, group or Endpoint applies\n")
	}
	return indentedTable(w, "  ", "APPLIES PHASE MESSAGE", rows)
}
