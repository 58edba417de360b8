package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/policy"
)

// completeFlag offers values for a flag.
func completeFlag(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not defined: a mistake in this program
	}
}

// completeResources offers kinds, then the names that the server knows.
func (g *global) completeResources(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		out := []string{}
		for _, k := range policy.Kinds() {
			out = append(out, k.Plural())
		}
		if c.Name() == "get" {
			out = append(out, "hosts", "workloads")
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
	kind, err := parseKind(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return g.completeNames(c, kind, args[1:])
}

// completeNames asks the server for the names of a kind. A server that is away or slow offers nothing: a completion must not hang a shell.
func (g *global) completeNames(c *cobra.Command, kind policy.Kind, present []string) ([]string, cobra.ShellCompDirective) {
	if len(present) > 0 && c.Name() != "delete" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	cl, err := g.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer cl.Close()
	docs, err := cl.List(ctx, kind, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, d := range docs {
		if !slices.Contains(present, d.Name) {
			out = append(out, d.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
