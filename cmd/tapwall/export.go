package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
)

func newExport(g *global) *cobra.Command {
	c := &cobra.Command{Use: "export", Short: "The export of events to a file and to OpenSearch: how it goes, and whether it works",
		Example: "  tapwall export test\n  tapwall export status",
		Args:    noArgs("; it is export status, export test or export replay-dlq"),
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(newExportStatus(g), newExportTest(g), newExportReplay(g))
	return c
}

func newExportStatus(g *global) *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what became of the events that were to be exported",
		Long: `Say what became of all events that each sink, the file and OpenSearch, was to have since it was first configured: each is
delivered, or a dead letter (the server refused it for good), or expired or corrupt (it was lost before it could be delivered), or waits
in the spool.

It exits with 5 if one takes nothing now.`,
		Example: "  tapwall export status\n  tapwall export status -o json",
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
			all, err := cl.Exports(c.Context())
			if err != nil {
				return err
			}
			if o.format != "table" {
				err = o.print(c.OutOrStdout(), map[string]any{"items": all})
			} else {
				err = exportTexts(c.OutOrStdout(), all)
			}
			for _, x := range all {
				if err == nil && x.Error != "" {
					return &exitError{Code: exitUnhealthy}
				}
			}
			return err
		},
	}
	o.flag(c, "table", "json", "yaml")
	return c
}

func exportTexts(w io.Writer, all []client.Sink) error {
	if len(all) == 0 {
		return printf(w, "Events are exported nowhere: the configuration of the server names no sink.\n")
	}
	for _, x := range all {
		if err := printExport(w, "", x); err != nil {
			return err
		}
	}
	return nil
}

// printExport prints how an export goes: a line behind the title, and one for each thing that is to be done or known.
func printExport(w io.Writer, title string, s client.Sink) error {
	x := &s.Export
	text := fmt.Sprintf("%s to %s: delivered %d", s.Name, s.Target, s.Written)
	if x.Duplicates > 0 {
		text += fmt.Sprintf(" (%d of them sent twice, kept once)", x.Duplicates)
	}
	text += fmt.Sprintf(", waiting %d, dead letters %d, expired %d, corrupt %d", s.Pending, x.DeadLetters, x.Expired, x.Corrupt)
	err := printf(w, "%s%s\n", title, text)
	if err == nil && x.Lag >= 1 {
		err = printf(w, "  %s behind\n", (time.Duration(x.Lag) * time.Second).String())
	}
	if err == nil && s.Error != "" {
		again := ""
		if x.Retries > 0 {
			again = fmt.Sprintf(", %d requests sent again", x.Retries)
		}
		err = printf(w, "  takes nothing since %s%s: %s\n", x.FailingSince.Local().Format(time.DateTime), again, s.Error)
	}
	if err == nil && x.LettersKept > 0 {
		err = printf(w, "  %d dead letters are kept, %s: tapwall export replay-dlq sends them again\n",
			x.LettersKept, byteText(x.LetterBytes))
	}
	return err
}

func newExportTest(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "test",
		Short: "Try whether an event arrives at the server",
		Long: `Ask the server of sinks.opensearch what it is, put the templates, send an event and find it again. It fails with what the server
says.

The event (event.action export-tested) stays in the record.`,
		Example: "  tapwall export test",
		Args:    noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			x, err := cl.TestExport(c.Context())
			if err != nil {
				return err
			}
			text := fmt.Sprintf("%s is %s %s", x.Target, dash(x.Distribution), x.Version)
			if x.Cluster != "" {
				text += ", cluster " + x.Cluster
			}
			if x.Health != "" {
				text += " (" + x.Health + ")"
			}
			return printf(c.OutOrStdout(), "%s.\nThe templates stand. An event arrived after %v.\n", text,
				time.Duration(x.Took*float64(time.Second)).Round(time.Millisecond))
		},
	}
}

func newExportReplay(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "replay-dlq",
		Short: "Send dead letters again, as after the reason of their refusal was mended",
		Long: `Send the documents again that the server refused for good, as after the reason was mended. Those that it takes now are no dead
letters any more; those that it refuses again stay. DATA-DIR/export/dead-letters.ndjson has each with the reason.`,
		Example: "  tapwall export replay-dlq",
		Args:    noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			x, err := cl.ReplayDeadLetters(c.Context())
			if err != nil {
				return err
			}
			return printf(c.OutOrStdout(), "%d taken, %d refused again.\n", x.Taken, x.Refused)
		},
	}
}
