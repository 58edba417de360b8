package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// readDocuments joins files, the .yaml, .yml and .json files of directories (not below), and standard input ("-") into one stream. where tells for a document's
// number in the stream which file it came from.
func readDocuments(stdin io.Reader, paths []string) (stream []byte, where func(document int) string, err error) {
	if len(paths) == 0 {
		return nil, nil, usage("-f says what to apply: a file, a directory, or - for standard input")
	}
	var files []string
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case p == "-":
			files = append(files, p)
		case err != nil:
			return nil, nil, err
		case !info.IsDir():
			files = append(files, p)
		default:
			entries, err := os.ReadDir(p)
			if err != nil {
				return nil, nil, err
			}
			n := len(files)
			for _, e := range entries {
				if ext := filepath.Ext(e.Name()); e.Type()&fs.ModeDir == 0 && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
					files = append(files, filepath.Join(p, e.Name()))
				}
			}
			if len(files) == n {
				return nil, nil, fmt.Errorf("%s holds no .yaml, .yml or .json file", p)
			}
		}
	}
	var out bytes.Buffer
	first := map[string]int{}
	count := 0
	for _, f := range files {
		var b []byte
		if f == "-" {
			b, err = io.ReadAll(stdin)
		} else {
			b, err = os.ReadFile(f)
		}
		if err != nil {
			return nil, nil, err
		}
		first[f] = count + 1
		docs, err := policy.Load(bytes.NewReader(b))
		var faults policy.Faults
		if errors.As(err, &faults) {
			// Every fault of the file, with its name, before anything is sent.
			return nil, nil, inFile(f, faults)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, d := range docs {
			y, err := policy.EncodeYAML(d.Resource)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", f, err)
			}
			if count > 0 {
				out.WriteString("---\n")
			}
			out.Write(y)
			count++
		}
	}
	if count == 0 {
		return nil, nil, fmt.Errorf("there is no document in %s", strings.Join(files, ", "))
	}
	return out.Bytes(), func(document int) string {
		name := files[0]
		for _, f := range files {
			if first[f] <= document {
				name = f
			}
		}
		return name
	}, nil
}

func inFile(file string, faults policy.Faults) error {
	var b strings.Builder
	b.WriteString(event.Escape(file) + fmt.Sprintf(" has %d fault(s), nothing was written", len(faults)))
	for _, f := range faults {
		b.WriteString("\n  " + event.Escape(f.String()))
	}
	return errors.New(b.String())
}

// atFile adds the file to faults that the server found.
func atFile(err error, where func(int) string) error {
	var p *client.Problem
	if !errors.As(err, &p) || len(p.Errors) == 0 {
		return err
	}
	for i := range p.Errors {
		if p.Errors[i].Parameter != "" {
			continue // of the request, not of a document
		}
		p.Errors[i].Detail += " (" + where(max(p.Errors[i].Document, 1)) + ")"
		p.Errors[i].Line = 0 // of the joined stream, which nobody has seen
	}
	return err
}

// documentFlags are what apply and diff have in common: where the documents are, and how the result is printed.
type documentFlags struct {
	files []string
	prune string
	output
}

func (d *documentFlags) flags(c *cobra.Command) {
	c.Flags().StringArrayVarP(&d.files, "filename", "f", nil, "file, directory, or - for standard input (repeatable)")
	c.Flags().StringVar(&d.prune, "prune", "", "delete resources with this label (key=value) that are not among the documents")
	d.flag(c, "text", "text, json or yaml")
}

// apply sends the documents and prints the result, as text by the given function. The result is nil unless the server took the documents, which it may have done
// although err matches client.ErrNotInstalled.
func (d *documentFlags) apply(c *cobra.Command, g *global, wo client.WriteOptions, text func(io.Writer, *client.ApplyResult)) (*client.ApplyResult, error) {
	if err := d.check("text", "json", "yaml"); err != nil {
		return nil, err
	}
	stream, where, err := readDocuments(c.InOrStdin(), d.files)
	if err != nil {
		return nil, err
	}
	cl, err := g.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	wo.Prune = d.prune
	r, err := cl.Apply(c.Context(), stream, wo)
	if err != nil && !errors.Is(err, client.ErrNotInstalled) {
		return nil, atFile(err, where)
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
	var w waitFlags
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Write documents, all or none; other resources stay as they are",
		Example: `  tapwall apply -f examples/
  tapwall apply --wait -f policy.yaml -f groups.yaml
  generate-policies | tapwall apply --prune set=generated -f -`,
		Args: noArgs("; files are named with -f"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := w.check(); err != nil {
				return errors.Join(d.check("text", "json", "yaml"), err)
			}
			wo := w.options()
			wo.DryRun = dryRun
			r, err := d.apply(c, g, wo, printApply)
			if r == nil {
				return err
			}
			if err != nil {
				return w.exit(err)
			}
			for _, item := range slices.Concat(r.Created, r.Updated, r.Unchanged) {
				if item.Status != nil {
					if err := failed(w, *item.Status); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	d.flags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything and print what would change, but write nothing")
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
}

// printEffects says what the change does to endpoints as a whole.
func printEffects(w io.Writer, effects []policy.Effect) {
	for _, e := range effects {
		printf(w, "%s\n", e.Message)
	}
}

func printWarnings(w io.Writer, warnings []policy.Warning) {
	for _, x := range warnings {
		at := ""
		if x.Policy != "" {
			at = " policy/" + x.Policy
		}
		if x.Rule != "" {
			at += " " + x.Rule
		}
		printf(w, "warning: %s%s: %s\n", x.Code, at, x.Message)
	}
}

func newDiff(g *global) *cobra.Command {
	var d documentFlags
	c := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Print what apply would change: fields, flows, mirrors, and whose live connections would be judged again",
		Example: `  tapwall diff -f examples/
  tapwall diff --prune set=generated -f policies/ || echo "something would change"`,
		Args: noArgs("; files are named with -f"),
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := d.apply(c, g, client.WriteOptions{DryRun: true}, printDiff)
			if err == nil && len(r.Created)+len(r.Updated)+len(r.Deleted) > 0 {
				return &exitError{Code: exitDifferent}
			}
			return err
		},
	}
	d.flags(c)
	return c
}

func printDiff(w io.Writer, r *client.ApplyResult) {
	for _, i := range r.Created {
		printf(w, "+ %s/%s\n", strings.ToLower(string(i.Kind)), i.Name)
	}
	for _, i := range r.Updated {
		printf(w, "~ %s/%s\n", strings.ToLower(string(i.Kind)), i.Name)
		for _, f := range i.Changes {
			printf(w, "    %s: %v -> %v\n", f.Pointer, orAbsent(f.Old), orAbsent(f.New))
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
	for _, b := range r.Plan.Bridges {
		if len(b.AddFlows)+len(b.RemoveFlows)+len(b.AddMirrors)+len(b.RemoveMirrors) == 0 {
			continue
		}
		printf(w, "bridge %s on %s:\n", b.Bridge, b.Host)
		for _, l := range []struct {
			sign  string
			lines []string
		}{{"-", b.RemoveMirrors}, {"+", b.AddMirrors}, {"-", b.RemoveFlows}, {"+", b.AddFlows}} {
			for _, line := range l.lines {
				printf(w, "  %s %s\n", l.sign, line)
			}
		}
		if len(b.RejudgedRules) > 0 {
			printf(w, "  live connections of these are judged again: %s\n", strings.Join(b.RejudgedRules, ", "))
		}
	}
}

func orAbsent(v any) any {
	if v == nil {
		return "(absent)"
	}
	return v
}
