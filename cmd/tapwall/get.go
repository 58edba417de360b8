package main

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// getter is one invocation of get.
type getter struct {
	output
	labels   []string
	watch    bool
	interval time.Duration
	targets  []target
	rates    *rates // of mirrors, between two looks; nil = they are not shown
	// unused, if it is not nil, leaves policies alone that have rules which nothing has used for so long, 0 = ever.
	unused *time.Duration
}

func newGet(g *global) *cobra.Command {
	var x getter
	var unused time.Duration
	c := &cobra.Command{
		Use: "get KIND[,KIND...] [NAME...] | KIND/NAME...",
		Short: "Print resources: mirrors, policies, groups, endpoints, quarantines, or all; also hosts and workloads " +
			"(what was found on ports)",
		Long: `Print resources (mirrors, policies, groups, endpoints, quarantines, or all of them) and what was found on the switches (hosts,
workloads).

A workload goes by any of its names: port, bridge/port, host/bridge/port, external_ids:iface-id, name or UUID of the VM, Endpoint ` +
			`resource, MAC or address.`,
		Example: `  tapwall get policies,groups
  tapwall get pol web db -o jsonpath='{.items[*].spec.tier}'
  tapwall get workloads -l app=web --sort-by port
  tapwall get policies --never-hit=30d -o wide
  tapwall get all -w`,
		Args:              between(1, 1<<20, "a kind, and perhaps names, like: get policies, get policy web"),
		ValidArgsFunction: g.completeResources(kinds()),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if err := x.check(); err != nil {
				return err
			}
			if x.targets, err = parseTargets(args, parseKind); err != nil {
				return err
			}
			if c.Flags().Changed("never-hit") {
				x.unused = &unused
				if err := x.onlyPolicies(); err != nil {
					return err
				}
			}
			if x.interval < 100*time.Millisecond {
				return usage("--interval %v: want at least 100ms", x.interval)
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if x.watch {
				return x.follow(c, cl)
			}
			items, err := x.fetch(c.Context(), cl)
			if perr := x.show(c.OutOrStdout(), items, err); perr != nil {
				return perr
			}
			return err
		},
	}
	x.flags(c)
	c.Flags().StringSliceVarP(&x.labels, "label", "l", nil, "only with this label, key=value or key (repeatable)")
	c.Flags().BoolVarP(&x.watch, "watch", "w", false, "go on, and print what changes, and how much mirrors copy; other counters are no change")
	c.Flags().DurationVar(&x.interval, "interval", 2*time.Second, "how often --watch looks")
	completeFlag(c, "label", g.completeLabels)
	durationFlag(c, &unused, "never-hit",
		"policies with rules that no packet has met since they are counted or, as in --never-hit=30d, for so long",
		"7d", "30d")
	c.Flag("never-hit").NoOptDefVal = "0s"
	return c
}

// onlyPolicies makes a column for the rules that nothing has used.
func (x *getter) onlyPolicies() error {
	for _, t := range x.targets {
		for _, k := range t.kinds {
			if k.resource != policy.KindPolicy {
				return usage("--never-hit is about the rules of policies: get policies --never-hit")
			}
			k.header += " NEVER-HIT"
		}
	}
	return nil
}

// keepUnused leaves the policies alone that have rules which nothing has used, and names these.
func (x *getter) keepUnused(items []item, now time.Time) []item {
	var out []item
	for _, i := range items {
		var names []string
		for _, h := range i.document.Status.Hits() {
			if h.Unused(*x.unused, now) {
				names = append(names, string(h.Direction)+"/"+h.Name)
			}
		}
		if len(names) > 0 {
			i.rows[0] = append(i.rows[0], some(names))
			out = append(out, i)
		}
	}
	return out
}

// fetch reads what was asked for. What was found is returned beside the errors of what was not.
func (x *getter) fetch(ctx context.Context, cl *client.Client) ([]item, error) {
	var out []item
	var failed failures
	for _, t := range x.targets {
		for _, k := range t.kinds {
			var err error
			var items []item
			if len(t.names) == 0 {
				items, err = k.list(ctx, cl, x.labels)
				failed.add(err)
				out = append(out, items...)
			}
			for _, name := range t.names {
				items, err = k.byName(ctx, cl, name)
				failed.add(err)
				out = append(out, items...)
			}
		}
	}
	if x.unused != nil {
		out = x.keepUnused(out, time.Now())
	}
	err := x.sort(out)
	failed.add(err)
	return out, failed.err()
}

// show prints items, and what there is to say of kinds without any; err is that of fetching them.
func (x *getter) show(w io.Writer, items []item, err error) error {
	if len(items) == 0 && err != nil {
		return nil // the error says it
	}
	if x.format != "table" && x.format != "wide" {
		single := len(items) == 1 && len(x.targets) == 1 && len(x.targets[0].names) == 1
		return x.printItems(w, items, single)
	}
	several := len(x.targets) > 1 || len(x.targets[0].kinds) > 1
	printed := false
	for _, t := range x.targets {
		for _, k := range t.kinds {
			of := slices.Clone(items)
			of = slices.DeleteFunc(of, func(i item) bool { return i.kind.plural != k.plural })
			items = slices.DeleteFunc(items, func(i item) bool { return i.kind.plural == k.plural })
			if len(of) == 0 {
				continue
			}
			if printed && !x.noHeaders {
				if err := printf(w, "\n"); err != nil {
					return err
				}
			}
			printed = true
			if err := x.printTable(w, of, several); err != nil {
				return err
			}
		}
	}
	if printed || x.noHeaders {
		return nil
	}
	if several {
		return printf(w, "no resources\n")
	}
	return printf(w, "%s\n", x.targets[0].kinds[0].none)
}
