package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

func newDescribe(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "describe KIND NAME... | KIND/NAME...",
		Short: "Print resources, hosts or workloads with everything that was observed of them",
		Example: `  tapwall describe policy web
  tapwall describe workload vm1     # with the policies and mirrors that apply to it`,
		Args:              between(1, 1<<20, "a kind and a name, like: policy web"),
		ValidArgsFunction: g.completeResources(kinds()),
		RunE: func(c *cobra.Command, args []string) error {
			targets, err := parseTargets(args, parseKind)
			if err != nil {
				return err
			}
			if len(targets[0].names) == 0 || len(targets[0].kinds) > 1 {
				return usage("want KIND NAME, like: policy web")
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			var failed failures
			printed := false
			for _, t := range targets {
				for _, name := range t.names {
					items, err := t.kinds[0].byName(c.Context(), cl, name)
					failed.add(err)
					for i := range items {
						if printed {
							printf(c.OutOrStdout(), "\n")
						}
						printed = true
						failed.add(describe(c.Context(), c.OutOrStdout(), cl, &items[i]))
					}
				}
			}
			return failed.err()
		},
	}
}

func describe(ctx context.Context, w io.Writer, cl *client.Client, i *item) error {
	switch d := i.doc.(type) {
	case *client.Workload:
		return describeWorkload(ctx, w, cl, d)
	case *client.Host:
		return describeHost(ctx, w, cl, d)
	}
	if err := describeDocument(w, i.document); err != nil {
		return err
	}
	switch i.document.Kind {
	case policy.KindPolicy:
		return describePolicyClasses(ctx, w, cl, i.document.Name)
	case policy.KindEndpoint:
		return describeEndpointClasses(ctx, w, cl, i.document.Name)
	}
	return nil
}

// hitText says when a rule was hit last.
func hitText(r *policy.RuleStatus, now time.Time) string {
	switch {
	case r.LastHit != nil:
		return now.Sub(*r.LastHit).Round(time.Second).String() + " ago"
	case r.CountedSince != nil:
		return "never since " + r.CountedSince.Local().Format("2006-01-02 15:04")
	}
	return "-"
}

// sourceText says what became of a list that a group takes members from.
func sourceText(s *policy.SourceStatus, now time.Time) string {
	text := "not read yet"
	if s.FetchedAt != nil {
		text = fmt.Sprintf("%d entries, read %s ago", s.Entries, now.Sub(*s.FetchedAt).Round(time.Second))
	}
	if s.Skipped > 0 && len(s.SkippedLines) > 0 {
		text += fmt.Sprintf("; %s skipped (from line %d on)", count(s.Skipped, "line"), s.SkippedLines[0])
	}
	if s.Error != "" {
		text += "; last try: " + s.Error
	}
	return text
}

// lifeText says when a mirror began, when it ends and what is left.
func lifeText(l *policy.LifeStatus) string {
	out := []string{"has not begun"}
	at := func(what string, t *time.Time) {
		if t != nil {
			out = append(out, what+" "+t.Local().Format(time.DateTime))
		}
	}
	if l.BeganAt != nil {
		out = nil
	}
	at("began", l.BeganAt)
	at("ends", l.EndsAt)
	at("ended", l.EndedAt)
	at("is deleted", l.DeletedAt)
	if l.LeftPackets > 0 {
		out = append(out, count(int(l.LeftPackets), "packet")+" left")
	}
	if l.LeftBytes > 0 {
		out = append(out, count(int(l.LeftBytes), "byte")+" left")
	}
	return strings.Join(out, ", ")
}

// describeDocument prints a resource for reading.
func describeDocument(w io.Writer, d *client.Document) error {
	printf(w, "%s %s\n", d.Kind, d.Name)
	printf(w, "  uid %s, revision %d, created %s\n", d.UID, d.Revision, d.CreatedAt.Local().Format("2006-01-02 15:04:05"))
	if len(d.Labels) > 0 {
		printf(w, "  labels %s\n", labelsText(d.Labels))
	}
	spec, err := asYAML(d.Spec)
	if err != nil {
		return err
	}
	printf(w, "spec:\n")
	for line := range strings.Lines(spec) {
		printf(w, "  %s\n", strings.TrimSuffix(line, "\n"))
	}
	printf(w, "status: %s (%s)\n", phase(d.Status), seenRevision(d))
	for _, x := range d.Status.Warnings {
		rule := ""
		if x.Rule != "" {
			rule = " " + x.Rule
		}
		printf(w, "  warning %s%s: %s\n", x.Code, rule, x.Message)
	}
	if s := d.Status.Source; s != nil {
		printf(w, "  from %s: %s\n", s.From, sourceText(s, time.Now()))
	}
	if l := d.Status.Life; l != nil {
		printf(w, "  life: %s\n", lifeText(l))
	}
	for _, h := range d.Status.Hosts {
		printf(w, "  host %s: %s\n", h.Host, phase(policy.Status{Phase: h.Phase, Reason: h.Reason, Message: h.Message}))
		if len(h.Endpoints) > 0 {
			printf(w, "    endpoints: %s\n", strings.Join(h.Endpoints, ", "))
		}
		for _, a := range h.Learned {
			printf(w, "    learned: %s by %s, seen %s\n", a.Address, a.Source, a.Seen.Local().Format(time.DateTime))
		}
		if h.RealisedAs != "" {
			printf(w, "    realised: %s: %s\n", h.RealisedAs, h.Form)
		}
		if h.ExactOnce != nil {
			printf(w, "    exactOnce: %t\n", *h.ExactOnce)
		}
		if len(h.Target) > 0 {
			printf(w, "    target: %s\n", labelsText(h.Target))
		}
		for _, t := range h.Targets {
			printf(w, "    target: %s\n", labelsText(t))
		}
		if d.Kind == policy.KindMirror && len(h.Counters) > 0 {
			printf(w, "    copied: %s\n", copiedText(h.Counters))
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(h.Counters)) {
			printf(w, "    %s: %d\n", k, h.Counters[k])
		}
		if len(h.Rules) > 0 {
			rows := [][]string{}
			for _, r := range h.Rules {
				rows = append(rows, []string{string(r.Direction) + "/" + r.Name, string(r.Action), fmt.Sprintf("%#x", r.ID), fmt.Sprint(r.Packets),
					fmt.Sprint(r.New), fmt.Sprint(r.Bytes), fmt.Sprint(r.Flows), hitText(&r, time.Now())})
			}
			if err := indentedTable(w, "    ", "RULE ACTION ID PACKETS NEW BYTES FLOWS LAST-HIT", rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// seenRevision says in words whether the status is about what was written last.
func seenRevision(d *client.Document) string {
	switch seen := d.Status.ObservedRevision; seen {
	case d.Revision:
		return "of the newest revision"
	case 0:
		return "the newest revision was not looked at yet"
	default:
		return fmt.Sprintf("of revision %d, not yet of the newest", seen)
	}
}
