package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
)

func newLint(g *global) *cobra.Command {
	var unused time.Duration
	var files fileFlags
	c := &cobra.Command{
		Use:   "lint [-f FILE|DIR|-]",
		Short: "List rules that can never match, contradict others, are wider than others, or were never hit",
		Long: "Lists rules that can never match, contradict others, are wider than others that allow the same or, with --unused-for, were not " +
			"hit for so long. With -f what is said is about documents that are not applied yet. The exit code is 1 if there is any.",
		Example: `  tapwall lint --unused-for 30d
  tapwall lint -f policies/`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			used := c.Flags().Changed("unused-for")
			if used && len(files.files) > 0 {
				return usage("--unused-for is about what is applied, and -f about what is not: give one of them")
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			var found []string
			if len(files.files) > 0 {
				docs, err := files.read(c.InOrStdin())
				if err != nil {
					return err
				}
				r, err := cl.Apply(c.Context(), docs.stream, client.WriteOptions{DryRun: true})
				if err != nil {
					return atFile(err, docs.where)
				}
				for _, w := range r.Warnings {
					if text := fmt.Sprintf("%s: %s", w.Code, w.Message); w.Code.OfWording() && !slices.Contains(found, text) {
						found = append(found, text)
					}
				}
			} else {
				var long *time.Duration
				if used {
					long = &unused
				}
				all, err := cl.Lint(c.Context(), long)
				if err != nil {
					return err
				}
				for _, f := range all {
					found = append(found, fmt.Sprintf("%s: %s", f.Code, f.Message))
				}
			}
			for _, text := range found {
				printf(c.OutOrStdout(), "%s\n", text)
			}
			if len(found) > 0 {
				return fmt.Errorf("%s", count(len(found), "finding"))
			}
			return nil
		},
	}
	files.flags(c, "lint")
	durationFlag(c, &unused, "unused-for", "also rules that no packet has met for so long, and that were counted for so long; 0 = never",
		"1d", "7d", "30d")
	return c
}
