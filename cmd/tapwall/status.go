package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
)

func newStatus(g *global) *cobra.Command {
	var o output
	var ready bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "Print the health of tapwall and its connections; exit code 5 if something is wrong",
		Example: "  tapwall status\n  tapwall status -o json\n  tapwall status --ready && echo everything is in force",
		Args:    noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.allow("table", "json", "yaml"); err != nil {
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
	o.flag(c, "table", "json", "yaml")
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
		switch h.Installed {
		case h.Desired:
		case 0:
			force = fmt.Sprintf("revision %d NOT in force", h.Desired)
		default:
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
			printf(w, "bridge:  %s (%s), OpenFlow %s, flows %d of %d installed, %d flow-mods sent%s\n", b.Bridge, b.Mode, b.OpenFlow,
				b.InstalledFlows, b.DesiredFlows, b.FlowMods, pickup)
			if text := outOfState(b.Dropped); text != "" {
				printf(w, "  dropped as no part of a connection: %s\n", text)
			}
			for _, x := range b.Pickups {
				printf(w, "  pickup window of %s from %s to %s: %s\n", cmp.Or(x.Workload, "the bridge"), x.Since.Format(time.TimeOnly),
					x.Until.Format(time.TimeOnly), x.Reason)
			}
		}
		printWarnings(w, h.Warnings)
	}
	for _, x := range s.Confirmations {
		printf(w, "confirm: %s, %s unless it is confirmed\n", x.ID, until(x))
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
	err := printf(w, "events:  %d observed, %d accepted, ring %d of %d, lost: %s\n", e.Observed, e.Accepted, e.RingEntries, e.RingCapacity,
		strings.Join(lost, ", "))
	if sp := e.Spool; err == nil && sp != nil {
		err = printf(w, "spool:   %s of %s on disk, %d events%s, %d lost%s\n", byteText(sp.Bytes), byteText(sp.MaxBytes), sp.Events,
			sinceText(sp.Oldest), sp.Lost+sp.Spoilt, troubleText(sp.Error))
	}
	for _, sink := range e.Sinks {
		if err == nil {
			err = printExport(w, "export:  ", sink)
		}
	}
	return err
}

func troubleText(err string) string {
	if err == "" {
		return ""
	}
	return ": " + err
}

func sinceText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + t.Local().Format(time.DateTime)
}

// byteText is a number of bytes in the largest unit of which there is one.
func byteText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// outOfState says what of the dropped packets had no place in a connection, by reason.
func outOfState(dropped map[string]uint64) string {
	var out []string
	for _, reason := range slices.Sorted(maps.Keys(dropped)) {
		if reason == "invalid" || strings.HasPrefix(reason, "out-of-state") {
			out = append(out, fmt.Sprintf("%s %d", reason, dropped[reason]))
		}
	}
	return strings.Join(out, ", ")
}
