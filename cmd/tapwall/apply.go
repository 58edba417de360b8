package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// documentFlags are what apply and diff have in common: where the documents are, and how the result is printed.
type documentFlags struct {
	fileFlags
	prune string
	output
}

func (d *documentFlags) flags(c *cobra.Command, g *global) {
	d.fileFlags.flags(c, c.Name())
	c.Flags().StringVar(&d.prune, "prune", "", "delete resources with this label (key=value) that are not among the documents")
	d.flag(c, "text", "json", "yaml")
	completeFlag(c, "prune", g.completeLabels)
}

// apply sends the documents and prints the result, as text by the given function. The result is nil unless the server took the
// documents, which it may have done although err matches client.ErrNotInstalled.
func (d *documentFlags) apply(c *cobra.Command, g *global, wo client.WriteOptions, text func(io.Writer,
	*client.ApplyResult)) (*client.ApplyResult, error) {
	if err := d.allow("text", "json", "yaml"); err != nil {
		return nil, err
	}
	docs, err := d.read(c.InOrStdin())
	if err != nil {
		return nil, err
	}
	cl, err := g.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	wo.Prune = d.prune
	r, err := cl.Apply(c.Context(), docs.stream, wo)
	if err != nil && !errors.Is(err, client.ErrNotInstalled) {
		return nil, atFile(err, docs.where)
	}
	if d.format == "text" {
		text(c.OutOrStdout(), r)
	} else if perr := d.print(c.OutOrStdout(), r); perr != nil {
		return nil, perr
	}
	return r, err
}

func newApply(g *global) *cobra.Command {
	var d documentFlags
	var dryRun bool
	var within time.Duration
	var w waitFlags
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Write documents, all or none; other resources stay as they are",
		Example: `  tapwall apply -f examples/
  tapwall apply --wait -f policy.yaml -f groups.yaml
  tapwall apply -R -f policies/
  tapwall apply -f policies/ --confirm-within 60s && tapwall confirm
  generate-policies | tapwall apply --prune set=generated -f -`,
		Args: noArgs("; files are named with -f"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := w.check(); err != nil {
				return errors.Join(d.allow("text", "json", "yaml"), err)
			}
			wo := w.options()
			wo.DryRun, wo.ConfirmWithin = dryRun, within
			r, err := d.apply(c, g, wo, printApply)
			if r == nil {
				return err // nothing was written
			}
			if d.format == "text" {
				g.tellOutstanding(c, r.Unchanged)
			}
			var written []waited
			for _, item := range slices.Concat(r.Created, r.Updated, r.Unchanged) {
				written = append(written, waited{strings.ToLower(string(item.Kind)) + "/" + item.Name, item.Status})
			}
			return w.outcome(err, written...)
		},
	}
	d.flags(c, g)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything and print what would change, but write nothing")
	durationFlag(c, &within, "confirm-within", "undo everything after so long, unless tapwall confirm comes before", "60s", "5m", "1h")
	w.flags(c)
	return c
}

func printApply(w io.Writer, r *client.ApplyResult) {
	would := ""
	if r.DryRun {
		would = "would be "
	}
	for _, l := range []struct {
		verb  string
		items []client.ApplyItem
	}{{would + "created", r.Created}, {would + "updated", r.Updated}, {"unchanged", r.Unchanged}, {would + "deleted", r.Deleted}} {
		for _, i := range l.items {
			state := ""
			if i.Status != nil {
				state = " (" + phase(*i.Status) + ")"
			}
			printf(w, "%s/%s %s%s\n", strings.ToLower(string(i.Kind)), i.Name, l.verb, state)
		}
	}
	printEffects(w, r.Effects)
	printWarnings(w, r.Warnings)
	if x := r.Confirmation; x != nil {
		printf(w, "undone at %s, unless you run: tapwall confirm %s\n", x.Until.Local().Format(time.DateTime), x.ID)
	}
}

// printEffects says what the change does to endpoints as a whole.
func printEffects(w io.Writer, effects []policy.Consequence) {
	for _, e := range effects {
		printf(w, "%s\n", e.Message)
	}
}

// printWarnings prints each line once: what two endpoints have in common is a warning about either.
func printWarnings(w io.Writer, warnings []policy.Warning) {
	told := map[string]bool{}
	for _, x := range warnings {
		at := ""
		if x.Policy != "" {
			at = " policy/" + x.Policy
		}
		if x.Rule != "" {
			at += " " + x.Rule
		}
		if line := string(x.Code) + at + x.Message; !told[line] {
			told[line] = true
			printf(w, "warning: %s%s: %s\n", x.Code, at, x.Message)
		}
	}
}

func newDiff(g *global) *cobra.Command {
	var d documentFlags
	var flows bool
	c := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Print what apply would change: fields, who becomes isolated, live connections, and with --flows the flows",
		Example: `  tapwall diff -f examples/
  tapwall diff --flows -f policy.yaml
  tapwall diff --prune set=generated -f policies/ || echo "something would change"`,
		Args: noArgs("; files are named with -f"),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := d.apply(c, g, client.WriteOptions{DryRun: true}, func(w io.Writer, r *client.ApplyResult) {
				printDiff(w, r, flows)
			})
			if err == nil && len(r.Created)+len(r.Updated)+len(r.Deleted) > 0 {
				return &exitError{Code: exitDifferent}
			}
			return err
		},
	}
	d.flags(c, g)
	c.Flags().BoolVar(&flows, "flows", false, "also print the flows that would come and go")
	return c
}

// printDiff says what would change in words and, if asked to, in flows.
func printDiff(w io.Writer, r *client.ApplyResult, flows bool) {
	for _, i := range r.Created {
		printf(w, "+ %s/%s\n", strings.ToLower(string(i.Kind)), i.Name)
	}
	for _, i := range r.Updated {
		printf(w, "~ %s/%s\n", strings.ToLower(string(i.Kind)), i.Name)
		for _, f := range i.Changes {
			printf(w, "    %s: %v -> %v\n", f.Pointer, changedText(f.Pointer, f.Old), changedText(f.Pointer, f.New))
		}
	}
	for _, i := range r.Deleted {
		printf(w, "- %s/%s\n", strings.ToLower(string(i.Kind)), i.Name)
	}
	printEffects(w, r.Effects)
	printWarnings(w, r.Warnings)
	if r.Plan == nil {
		return
	}
	printConnectionPlan(w, r.Plan.Connections)
	for _, b := range r.Plan.Bridges {
		if len(b.AddFlows)+len(b.RemoveFlows)+len(b.AddMirrors)+len(b.RemoveMirrors) == 0 {
			continue
		}
		printf(w, "bridge %s on %s:\n", b.Bridge, b.Host)
		if len(b.RejudgedRules) > 0 {
			printf(w, "  live connections of these are judged again: %s\n", strings.Join(b.RejudgedRules, ", "))
		}
		type signed struct {
			sign  string
			lines []string
		}
		lists := []signed{{"-", b.RemoveMirrors}, {"+", b.AddMirrors}}
		if flows {
			lists = append(lists, signed{"-", b.RemoveFlows}, signed{"+", b.AddFlows})
		} else if n, m := len(b.AddFlows), len(b.RemoveFlows); n+m > 0 {
			printf(w, "  %s would come and %d go (diff --flows prints them)\n", count(n, "flow"), m)
		}
		for _, l := range lists {
			for _, line := range l.lines {
				printf(w, "  %s %s\n", l.sign, line)
			}
		}
	}
}

// printConnectionPlan says what would become of live connections.
func printConnectionPlan(w io.Writer, p *client.ConnectionPlan) {
	if p == nil {
		return
	}
	printf(w, "live connections: %d would be cut, %d go on", p.Cut, p.Kept)
	if p.Moved > 0 {
		printf(w, " (%d of them by another rule)", p.Moved)
	}
	printf(w, "; of those denied in the last ten minutes %d would be allowed\n", p.Allowed)
	for _, l := range []struct {
		verb, because string
		count         int
		list          []client.PlannedConnection
	}{{"cut", "denied", p.Cut, p.Cuts}, {"allowed", "allowed", p.Allowed, p.Allows}} {
		for _, c := range l.list {
			printf(w, "  %s: %s %s -> %s (%s %s by %s)\n", l.verb, c.Protocol, endText(&c.Source), endText(&c.Destination), c.Side, l.because,
				c.Rule)
		}
		if n := l.count - len(l.list); n > 0 {
			printf(w, "  %s: %d more\n", l.verb, n)
		}
	}
	if p.Untold > 0 {
		printf(w, "  of %s nothing can be said\n", count(p.Untold, "connection"))
	}
	for _, problem := range p.Problems {
		printf(w, "  %s\n", problem)
	}
}

func orAbsent(v any) any {
	if v == nil {
		return "(absent)"
	}
	return v
}
