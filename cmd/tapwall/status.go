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
	"github.com/tapwall/tapwall/event"
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
		force := fmt.Sprintf("all changes are in force (up to revision %d)", h.Installed)
		switch h.Installed {
		case h.Desired:
		case 0:
			force = fmt.Sprintf("changes are NOT in force (up to revision %d)", h.Desired)
		default:
			force = fmt.Sprintf("changes up to revision %d are in force, NOT those up to %d", h.Installed, h.Desired)
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
			if b.ConnectionEnds != "" {
				printf(w, "  %s\n", b.ConnectionEnds)
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
	err := printRecord(w, s, time.Now())
	for _, sink := range s.Events.Sinks {
		if err == nil {
			err = printExport(w, "export:  ", sink)
		}
	}
	return err
}

// printRecord says how the record does: how much comes, what of it is held and where, and what was lost.
func printRecord(w io.Writer, s *client.System, now time.Time) error {
	e := &s.Events
	var lost []string
	for _, stage := range slices.Sorted(maps.Keys(e.Lost)) {
		if n := e.Lost[stage]; n > 0 {
			lost = append(lost, fmt.Sprintf("%s %d", stage, n))
		}
	}
	if lost == nil {
		lost = []string{"none"}
	}
	printf(w, "events:  %.1f/s in the last 10 s; %d observed, %d accepted, lost: %s\n", e.Rate, e.Observed, e.Accepted,
		strings.Join(lost, ", "))
	limit := uint32(0) // of all owned bridges
	for _, h := range s.Hosts {
		for _, b := range h.Bridges {
			limit = max(limit, b.CopyLimit)
		}
	}
	if limit > 0 {
		printf(w, "copies:  at most %d connections and %[1]d denied packets a second from each bridge; %d withheld beyond what is copied\n",
			limit, e.Lost[string(event.StagePacketInMeter)])
	}
	err := printf(w, "memory:  %d of %d events%s\n", e.RingEntries, e.RingCapacity, ageText(e.RingOldest, now))
	if sp := e.Spool; err == nil && sp != nil {
		err = printf(w, "spool:   %s of %s on disk, %d events%s, %d lost%s\n", byteText(sp.Bytes), byteText(sp.MaxBytes), sp.Events,
			ageText(sp.Oldest, now), sp.Lost+sp.Spoilt, troubleText(sp.Error))
	}
	return err
}

// ageText says since when there are events, and how long that is.
func ageText(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	age := max(0, now.Sub(t)).Truncate(time.Second)
	text := shortDuration(age)
	if hours := int(age.Hours()); hours >= 48 {
		text = fmt.Sprintf("%dd%dh", hours/24, hours%24)
	}
	return sinceText(t) + " (" + text + " ago)"
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
