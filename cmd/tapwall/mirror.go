package main

import (
	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

func newMirror(g *global) *cobra.Command {
	c := &cobra.Command{Use: "mirror", Short: "Start and stop mirrors", Args: noArgs("; it is mirror start NAME or mirror stop NAME"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	k := kinds()[3]
	var started, stopped waitFlags
	told := func(c *cobra.Command, w *waitFlags, name, done string, d *client.Document, err error) error {
		err = named(err, k, name)
		if d != nil {
			printf(c.OutOrStdout(), "mirror/%s %s%s\n", name, done, w.state(d.Status))
			err = w.outcome(err, waited{"mirror/" + name, &d.Status})
		}
		return err
	}
	c.AddCommand(eachNamed(g, &started, k, &cobra.Command{
		Use:     "start NAME...",
		Example: "  tapwall mirror start web-tap --wait",
		Short:   "Start mirrors: those that are not enabled, have ended by themselves or wait for their time",
	}, func(c *cobra.Command, cl *client.Client, name string) error {
		d, err := cl.StartMirror(c.Context(), name, started.options())
		return told(c, &started, name, "started", d, err)
	}), eachNamed(g, &stopped, k, &cobra.Command{
		Use:     "stop NAME...",
		Example: "  tapwall mirror stop web-tap --wait",
		Short:   "Stop mirrors, that is, set spec.enabled to false",
	}, func(c *cobra.Command, cl *client.Client, name string) error {
		d, err := cl.Patch(c.Context(), policy.KindMirror, name, []byte(`{"spec":{"enabled":false}}`), stopped.options())
		return told(c, &stopped, name, "stopped", d, err)
	}))
	return c
}

// eachNamed completes a command that does something to resources of a kind, given by name: each is tried, and those that failed are
// named at the end.
func eachNamed(g *global, w *waitFlags, k *kind, c *cobra.Command, do func(*cobra.Command, *client.Client, string) error) *cobra.Command {
	c.Args = between(1, 1<<20, "the name of a "+k.singular)
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return offer(g.names([]*kind{k}, args)), cobra.ShellCompDirectiveNoFileComp
	}
	c.RunE = func(c *cobra.Command, args []string) error {
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
			failed.add(do(c, cl, name))
		}
		return failed.err()
	}
	w.flags(c)
	return c
}
