package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// linted are the warnings that are about the wording of rules, and not about whom they meet.
var linted = []policy.Code{policy.WarnShadowed, policy.WarnNeverMatches, policy.WarnWider, policy.WarnContradicts, policy.WarnOneFamily}

func newLint(g *global) *cobra.Command {
	var unused time.Duration
	var files fileFlags
	c := &cobra.Command{
		Use:   "lint [-f FILE|DIR|-]",
		Short: "List rules that can never match, contradict others, are wider than others, or were never hit",
		Long: "Lists rules that can never match, contradict others, are wider than others that allow the same or, with --unused-for, were not " +
			"hit for so long. With -f what is said is about documents that are not applied yet. The exit code is 1 if there is any.",
		Example: `  tapwall lint --unused-for 720h
  tapwall lint -f policies/`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			var found []string
			note := func(warnings []policy.Warning) {
				for _, w := range warnings {
					if text := fmt.Sprintf("%s: %s", w.Code, w.Message); slices.Contains(linted, w.Code) && !slices.Contains(found, text) {
						found = append(found, text)
					}
				}
			}
			if len(files.files) > 0 {
				docs, err := files.read(c.InOrStdin())
				if err != nil {
					return err
				}
				r, err := cl.Apply(c.Context(), docs.stream, client.WriteOptions{DryRun: true})
				if err != nil {
					return atFile(err, docs.where)
				}
				note(r.Warnings)
			} else {
				all, err := cl.List(c.Context(), policy.KindPolicy, nil)
				if err != nil {
					return err
				}
				for i := range all {
					note(all[i].Status.Warnings)
					if c.Flags().Changed("unused-for") {
						found = append(found, unusedRules(&all[i], unused, time.Now())...)
					}
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
	c.Flags().DurationVar(&unused, "unused-for", 0, "rules that no packet has met for so long, and that were counted for so long")
	completeFlag(c, "unused-for", fixed("24h", "168h", "720h"))
	return c
}

// unusedRules names the rules of a policy that no host has seen hit for so long, as far as all have counted for so long.
func unusedRules(d *client.Document, unused time.Duration, now time.Time) (out []string) {
	type seen struct{ since, last time.Time }
	rules := map[string]seen{}
	var order []string
	for _, h := range d.Status.Hosts {
		for i := range h.Rules {
			r := &h.Rules[i]
			name := string(r.Direction) + "/" + r.Name
			s, known := rules[name]
			if !known {
				order = append(order, name)
			}
			if r.CountedSince == nil {
				s.since = now // nobody knows
			} else if r.CountedSince.After(s.since) {
				s.since = *r.CountedSince
			}
			if r.LastHit != nil && r.LastHit.After(s.last) {
				s.last = *r.LastHit
			}
			rules[name] = s
		}
	}
	for _, name := range order {
		s, text := rules[name], "was never hit"
		if !s.last.IsZero() {
			text = "was hit last " + s.last.Local().Format("2006-01-02 15:04:05")
		}
		if now.Sub(s.since) >= unused && now.Sub(s.last) >= unused {
			out = append(out, fmt.Sprintf("UNUSED: rule %s of policy %s %s (counted since %s)", name, d.Name, text,
				s.since.Local().Format("2006-01-02 15:04:05")))
		}
	}
	return out
}
