package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
)

func newConfirm(g *global) *cobra.Command {
	var o output
	var undo, list bool
	c := &cobra.Command{
		Use:   "confirm [ID]",
		Short: "Keep what apply --confirm-within wrote, or undo it now",
		Long: `What apply --confirm-within wrote is undone when the time is up, also if tapwall ends meanwhile: each resource is again
what it was before, but for those that somebody has changed since. confirm keeps it. Without an ID it means the only
one that is outstanding.`,
		Example: `  tapwall apply -f policies/ --confirm-within 60s
  tapwall confirm
  tapwall confirm --undo k2jd7wqe`,
		Args: between(0, 1, "an id, as apply --confirm-within prints it"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return offer(g.confirmationIDs()), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.allow("text", "json", "yaml"); err != nil {
				return err
			}
			if list && (undo || len(args) > 0) {
				return usage("--list stands alone")
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if list {
				all, err := cl.Confirmations(c.Context())
				if err != nil {
					return err
				}
				list := map[string]any{"items": all}
				return shown(c, &o, list, func(w io.Writer) { printConfirmations(w, all) })
			}
			id := ""
			if len(args) > 0 {
				id = args[0]
			} else if id, err = onlyConfirmation(c, cl); err != nil {
				return err
			}
			if undo {
				u, err := cl.Undo(c.Context(), id)
				if err != nil {
					return err
				}
				return shown(c, &o, u, func(w io.Writer) { printUndone(w, u) })
			}
			x, err := cl.Confirm(c.Context(), id)
			if err != nil {
				return err
			}
			return shown(c, &o, x, func(w io.Writer) {
				printf(w, "confirmed: %s stays as applied at %s\n", count(len(x.Changes), "resource"), x.Since.Local().Format(time.DateTime))
			})
		},
	}
	o.flag(c, "text", "json", "yaml")
	c.Flags().BoolVar(&undo, "undo", false, "undo it now instead")
	c.Flags().BoolVar(&list, "list", false, "print what is outstanding")
	return c
}

// shown prints an answer in the format that was asked for.
func shown(c *cobra.Command, o *output, answer any, text func(io.Writer)) error {
	if o.format != "text" {
		return o.print(c.OutOrStdout(), answer)
	}
	text(c.OutOrStdout())
	return nil
}

func (g *global) confirmationIDs() (out []string) {
	g.ask(func(ctx context.Context, cl *client.Client) {
		all, _ := cl.Confirmations(ctx)
		for _, x := range all {
			out = append(out, x.ID)
		}
	})
	return out
}

func printUndone(w io.Writer, u *client.Undone) {
	for _, x := range u.Restored {
		printf(w, "%s/%s is as before\n", strings.ToLower(string(x.Kind)), x.Name)
	}
	for _, x := range u.Left {
		printf(w, "%s/%s stays: it was changed since, or others refer to it\n", strings.ToLower(string(x.Kind)), x.Name)
	}
}

// onlyConfirmation returns the id of the one that is outstanding.
func onlyConfirmation(c *cobra.Command, cl *client.Client) (string, error) {
	all, err := cl.Confirmations(c.Context())
	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return "", fmt.Errorf("nothing is to be confirmed: it was confirmed, its time was up, or nothing was applied with --confirm-within")
	case len(all) > 1:
		var ids []string
		for _, x := range all {
			ids = append(ids, x.ID)
		}
		return "", usage("%d are outstanding: say which, %s (tapwall confirm --list)", len(all), strings.Join(ids, ", "))
	}
	return all[0].ID, nil
}

// tellOutstanding says which of the resources, that an apply found as they should be, will not stay so unless they are confirmed.
func (g *global) tellOutstanding(c *cobra.Command, unchanged []client.ApplyItem) {
	if len(unchanged) == 0 {
		return
	}
	cl, err := g.client()
	if err != nil {
		return
	}
	defer cl.Close()
	all, err := cl.Confirmations(c.Context())
	if err != nil {
		return // of what was asked for, nothing is lost
	}
	for _, x := range all {
		if slices.ContainsFunc(x.Changes, func(one client.ConfirmationChange) bool {
			return slices.ContainsFunc(unchanged, func(i client.ApplyItem) bool { return i.Kind == one.Kind && i.Name == one.Name })
		}) {
			printf(c.OutOrStdout(), "still undone at %s, unless you run: tapwall confirm %s\n", x.Until.Local().Format(time.DateTime), x.ID)
		}
	}
}

func until(x client.Confirmation) string {
	return fmt.Sprintf("%s, undone at %s", count(len(x.Changes), "resource"), x.Until.Local().Format(time.DateTime))
}

func printConfirmations(w io.Writer, all []client.Confirmation) {
	if len(all) == 0 {
		printf(w, "nothing is to be confirmed\n")
	}
	for _, x := range all {
		printf(w, "%s  %s unless it is confirmed\n", x.ID, until(x))
		for _, r := range x.Changes[:min(len(x.Changes), 10)] {
			printf(w, "  %s/%s %s\n", strings.ToLower(string(r.Kind)), r.Name, r.Change)
		}
		if n := len(x.Changes) - 10; n > 0 {
			printf(w, "  and %d more\n", n)
		}
		if x.Problem != "" {
			printf(w, "  its time is up, and it could not be undone: %s\n", x.Problem)
		}
	}
}
