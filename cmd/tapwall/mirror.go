package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/policy"
)

func newMirror(g *global) *cobra.Command {
	c := &cobra.Command{Use: "mirror", Short: "Start and stop mirrors", Args: noArgs("; it is mirror start NAME or mirror stop NAME"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	mirrors := []*kind{kinds()[3]}
	for _, verb := range []string{"start", "stop"} {
		var w waitFlags
		enabled := verb == "start"
		done := map[bool]string{true: "started", false: "stopped"}[enabled]
		sub := &cobra.Command{
			Use:   verb + " NAME...",
			Short: fmt.Sprintf("%s mirrors, that is, set spec.enabled to %t", strings.ToUpper(verb[:1])+verb[1:], enabled),
			Args:  between(1, 1<<20, "the name of a mirror"),
			ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				return offer(g.names(mirrors, args)), cobra.ShellCompDirectiveNoFileComp
			},
			RunE: func(c *cobra.Command, args []string) error {
				if err := w.check(); err != nil {
					return err
				}
				cl, err := g.client()
				if err != nil {
					return err
				}
				defer cl.Close()
				var failed failures
				for _, name := range args {
					d, err := cl.Patch(c.Context(), policy.KindMirror, name, fmt.Appendf(nil, `{"spec":{"enabled":%t}}`, enabled), w.options())
					err = named(err, mirrors[0], name)
					if d != nil {
						printf(c.OutOrStdout(), "mirror/%s %s%s\n", name, done, w.state(d.Status))
						err = w.outcome(err, waited{"mirror/" + name, &d.Status})
					}
					failed.add(err)
				}
				return failed.err()
			},
		}
		w.flags(sub)
		c.AddCommand(sub)
	}
	return c
}
