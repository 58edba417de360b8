package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
)

func newStatus(g *global) *cobra.Command {
	var o output
	var ready bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Print the health of tapwall and its connections; exit code 5 if something is wrong",
		Args:  noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check("table", "json", "yaml"); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if ready {
				return cl.Ready(c.Context())
			}
			s, err := cl.Status(c.Context())
			if err != nil {
				return err
			}
			if o.format != "table" {
				err = o.print(c.OutOrStdout(), s)
			} else {
				err = printStatus(c.OutOrStdout(), s)
			}
			if err == nil && !s.Healthy {
				return &exitError{Code: exitUnhealthy}
			}
			return err
		},
	}
	o.flag(c, "table", "table, json or yaml")
	c.Flags().BoolVar(&ready, "ready", false, "print nothing; succeed if everything desired is in force on every managed bridge")
	return c
}

func printStatus(w io.Writer, s *client.System) error {
	health := "healthy"
	if !s.Healthy {
		health = "NOT healthy"
	}
	printf(w, "tapwall %s: %s\n", s.Version, health)
	for _, p := range s.Problems {
		printf(w, "  problem: %s\n", p)
	}
	store := s.Store.Kind
	if !s.Store.Connected {
		store += ", NOT connected"
	}
	printf(w, "store:   %s\n", store) // its revision also grows with what no switch ever sees
	for _, h := range s.Hosts {
		force := fmt.Sprintf("revision %d in force", h.Installed)
		if h.Installed != h.Desired {
			force = fmt.Sprintf("revision %d NOT in force, %d is", h.Desired, h.Installed)
		}
		printf(w, "host:    %s, OVSDB %s, %s\n", dash(h.Host), h.OVSDB, force)
		for _, b := range h.Bridges {
			pickup := ""
			if b.Pickup {
				pickup = ", taking up older connections"
			}
			if b.NotTakenUp > 0 {
				pickup += fmt.Sprintf(", %d packets of older connections not taken up", b.NotTakenUp)
			}
			printf(w, "bridge:  %s (%s), OpenFlow %s, flows %d of %d installed, %d flow-mods sent%s\n", b.Bridge, b.Mode, b.OpenFlow, b.InstalledFlows, b.DesiredFlows, b.FlowMods, pickup)
		}
		printWarnings(w, h.Warnings)
	}
	e := s.Events
	var lost []string
	for stage, n := range e.Lost {
		if n > 0 {
			lost = append(lost, fmt.Sprintf("%s %d", stage, n))
		}
	}
	slices.Sort(lost)
	if lost == nil {
		lost = []string{"none"}
	}
	err := printf(w, "events:  %d observed, %d accepted, ring %d of %d, lost: %s\n", e.Observed, e.Accepted, e.RingEntries, e.RingCapacity, strings.Join(lost, ", "))
	if err == nil && e.File != "" {
		err = printf(w, "file:    %s, %d bytes\n", e.File, e.FileBytes)
	}
	return err
}

func newFlows(g *global) *cobra.Command {
	q := client.FlowQuery{}
	var o output
	c := &cobra.Command{
		Use:   "flows",
		Short: "Print flows as read back from the switches, with the resource that each was compiled from",
		Example: `  tapwall flows --owner policy/web
  tapwall flows --table 208 -o wide
  tapwall flows --match tp_dst=80`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check("table", "wide", "json", "yaml"); err != nil {
				return err
			}
			if q.Table < -1 || q.Table > 254 {
				return usage("--table %d: want 0 to 254", q.Table)
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			flows, err := cl.Flows(c.Context(), q)
			if err != nil {
				return err
			}
			if o.format == "json" || o.format == "yaml" {
				return o.print(c.OutOrStdout(), map[string]any{"items": flows})
			}
			if len(flows) == 0 {
				return printf(c.OutOrStdout(), "no flows\n")
			}
			var rows [][]string
			for _, f := range flows {
				row := []string{dash(f.Owner), f.State, fmt.Sprint(f.Packets)}
				if o.format == "wide" {
					row = append(row, fmt.Sprint(f.Bytes), f.Bridge)
				}
				rows = append(rows, append(row, f.Text))
			}
			header := "OWNER STATE PACKETS FLOW"
			if o.format == "wide" {
				header = "OWNER STATE PACKETS BYTES BRIDGE FLOW"
			}
			return table(c.OutOrStdout(), header, rows)
		},
	}
	c.Flags().StringVar(&q.Bridge, "bridge", "", "only of this bridge")
	c.Flags().StringVar(&q.Owner, "owner", "", "only of this owner: policy/NAME, endpoint/KEY, system")
	c.Flags().StringVar(&q.Match, "match", "", "only flows whose text contains this")
	c.Flags().IntVar(&q.Table, "table", -1, "only of this table, 0 to 254; -1 = all")
	o.flag(c, "table", "table, wide, json or yaml")
	return c
}
