package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

func newFlows(g *global) *cobra.Command {
	q := client.FlowQuery{}
	var table string
	var o output
	c := &cobra.Command{
		Use:   "flows",
		Short: "Print flows as read back from the switches, with the rule that each was compiled from and what its numbers stand for",
		Example: `  tapwall flows --owner policy/web
  tapwall flows --table STATE -o wide
  tapwall flows --match tp_dst=80`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := o.allow("table", "wide", "json", "yaml"); err != nil {
				return err
			}
			if q.Table, err = tableNumber(table); err != nil {
				return err
			}
			var problems []string
			cl, err := g.clientThat(func(what string) {
				if !slices.Contains(problems, what) { // --owner asks for workloads first
					problems = append(problems, what)
					_ = printf(os.Stderr, "tapwall: %s\n", what)
				}
			})
			if err != nil {
				return err
			}
			defer cl.Close()
			if q.Owner, err = flowOwner(c.Context(), cl, q.Owner); err != nil {
				return err
			}
			flows, err := cl.Flows(c.Context(), q)
			if err != nil {
				return err
			}
			if o.format == "json" || o.format == "yaml" {
				all := map[string]any{"items": flows}
				if len(problems) > 0 {
					all["problems"] = problems
				}
				return o.print(c.OutOrStdout(), all)
			}
			if len(flows) == 0 {
				return printf(c.OutOrStdout(), "no flows\n")
			}
			return printFlows(c, flows, o.format == "wide")
		},
	}
	c.Flags().StringVar(&q.Bridge, "bridge", "", "only of this bridge")
	c.Flags().StringVar(&q.Owner, "owner", "", "only of this owner: policy/NAME, endpoint/NAME (any name of the workload), system")
	c.Flags().StringVar(&q.Match, "match", "", "only flows whose text contains this")
	c.Flags().StringVar(&table, "table", "", "only of this table: its name, or 0 to 254")
	o.flag(c, "table", "wide", "json", "yaml")
	completeFlag(c, "bridge", g.completeBridges)
	completeFlag(c, "owner", func(c *cobra.Command) []string {
		return append(append(g.completeNamesOf("policies", "policy/")(c), g.completeNamesOf("workloads", "endpoint/")(c)...), "system")
	})
	var names []string
	for _, t := range pipeline.Tables() {
		names = append(names, t.Name)
	}
	completeFlag(c, "table", fixed(names...))
	free(c, "match")
	return c
}

func printFlows(c *cobra.Command, flows []client.Flow, wide bool) error {
	var rows [][]string
	header, several := "", slices.ContainsFunc(flows, func(f client.Flow) bool { return f.Host != flows[0].Host })
	if several {
		header = "HOST "
	}
	for _, f := range flows {
		in := f.TableName
		if in == "" {
			in = fmt.Sprint(f.Table)
		}
		row := []string{dash(f.Owner), dash(f.Rule), in, f.State, fmt.Sprint(f.Packets)}
		if several {
			row = slices.Insert(row, 0, f.Host)
		}
		if wide {
			row = append(row, fmt.Sprint(f.Bytes), f.Bridge)
		}
		rows = append(rows, append(row, f.Text+names(f.Names)))
	}
	if wide {
		header += "OWNER RULE TABLE STATE PACKETS BYTES BRIDGE FLOW"
	} else {
		header += "OWNER RULE TABLE STATE PACKETS FLOW"
	}
	if err := table(c.OutOrStdout(), header, rows); err != nil || !wide {
		return err
	}
	return printTables(c, flows)
}

// printTables says what the flows of each table that was printed look at and do.
func printTables(c *cobra.Command, flows []client.Flow) error {
	there := map[int]bool{}
	for _, f := range flows {
		there[f.Table] = f.TableName != ""
	}
	for _, t := range pipeline.Tables() {
		if !there[int(t.ID)] {
			continue
		}
		if err := printf(c.OutOrStdout(), "# %s (%d) looks at %s: %s\n", t.Name, t.ID, t.Matches, t.Does); err != nil {
			return err
		}
	}
	return nil
}

// names tells, behind a flow, what its numbers stand for.
func names(all []client.FlowName) string {
	var texts []string
	for _, x := range all {
		texts = append(texts, fmt.Sprintf("%s %s: %s", x.Field, x.Number, x.Name))
	}
	if len(texts) == 0 {
		return ""
	}
	return "  # " + strings.Join(texts, "; ")
}

// flowOwner reads --owner. An endpoint, which owns its flows by the key of the workload, goes by every name that a workload goes by.
func flowOwner(ctx context.Context, cl *client.Client, owner string) (string, error) {
	kindName, name, _ := strings.Cut(owner, "/")
	switch {
	case owner == "", owner == "system", name != "" && (kindName == "policy" || kindName == "mirror"):
		return owner, nil
	case name == "" || kindName != "endpoint":
		return "", usage("--owner %s: want policy/NAME, endpoint/NAME or system", event.Escape(owner))
	}
	found, err := workloadKind().byName(ctx, cl, name)
	if err != nil {
		return "", err
	}
	if len(found) > 1 {
		return "", usage("--owner %s: several workloads go by that name: say which by bridge/port or host/bridge/port", event.Escape(owner))
	}
	return "endpoint/" + found[0].name, nil
}

// tableNumber reads --table; -1 = all.
func tableNumber(s string) (int, error) {
	if s == "" {
		return -1, nil
	}
	for _, t := range pipeline.Tables() {
		if strings.EqualFold(t.Name, s) {
			return int(t.ID), nil
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < -1 || n > 254 {
		return 0, usage("--table %s: want the name of a table, such as STATE, or 0 to 254", s)
	}
	return n, nil
}
