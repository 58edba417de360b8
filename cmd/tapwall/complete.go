package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// values gives what a flag may be completed to; c is the command being typed.
type values func(c *cobra.Command) []string

// completeFlag offers values for a flag, one after another where it takes several separated by commas.
func completeFlag(c *cobra.Command, flag string, of values) {
	list := strings.HasSuffix(c.Flag(flag).Value.Type(), "Slice")
	err := c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		out := of(c)
		if done := strings.LastIndexByte(typed, ','); list && done >= 0 {
			out = slices.Clone(out)
			for i := range out {
				out[i] = typed[:done+1] + out[i]
			}
		}
		return offer(out), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is not defined, or completed already: a mistake in this program
	}
}

func fixed(of ...string) values { return func(*cobra.Command) []string { return of } }

// free is for flags whose values nobody can guess: no file names instead.
func free(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		completeFlag(c, f, fixed())
	}
}

// offer leaves out what cannot be typed as it is: an escaped name would be another name.
func offer(of []string) []string {
	return slices.DeleteFunc(slices.Clone(of), func(s string) bool { return s == "" || unsafeText(s) })
}

// ask calls f with a client. A server that is away or slow offers nothing: a completion must not hang a shell.
func (g *global) ask(f func(ctx context.Context, cl *client.Client)) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if cl, err := g.clientThat(nil); err == nil {
		defer cl.Close()
		f(ctx, cl)
	}
}

// names lists the names of kinds, without those that are present.
func (g *global) names(of []*kind, present []string) (out []string) {
	g.ask(func(ctx context.Context, cl *client.Client) {
		for _, k := range of {
			items, err := k.list(ctx, cl, nil)
			if err != nil {
				return
			}
			for i := range items {
				if !slices.Contains(present, items[i].name) {
					out = append(out, items[i].name)
				}
			}
		}
	})
	return out
}

// completeResources offers kinds, also behind a comma or before a slash, and then the names that the server knows.
func (g *global) completeResources(of []*kind) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		find := func(name string) []*kind {
			for _, k := range of {
				if known, err := parseKind(name); err == nil && known.plural == k.plural {
					return []*kind{k}
				}
			}
			return nil
		}
		if kindName, _, ok := strings.Cut(typed, "/"); ok && (len(args) == 0 || strings.Contains(args[0], "/")) {
			out := g.names(find(kindName), nil)
			for i := range out {
				out[i] = kindName + "/" + out[i]
			}
			return offer(out), cobra.ShellCompDirectiveNoFileComp
		}
		if len(args) > 0 {
			return offer(g.names(find(args[0]), args[1:])), cobra.ShellCompDirectiveNoFileComp
		}
		done := typed[:strings.LastIndexByte(typed, ',')+1]
		var out []string
		for _, k := range of {
			out = append(out, done+k.plural)
		}
		if done == "" && c.Name() != "describe" && c.Name() != "edit" { // which want names
			out = append(out, "all")
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeLabels offers the labels that resources, or workloads, carry.
func (g *global) completeLabels(c *cobra.Command) (out []string) {
	found := map[string]bool{}
	of, err := parseKinds(strings.Join(c.Flags().Args()[:min(1, c.Flags().NArg())], ""), parseKind)
	if err != nil {
		of = writable()
	}
	g.ask(func(ctx context.Context, cl *client.Client) {
		for _, k := range of {
			items, err := k.list(ctx, cl, nil)
			if err != nil {
				return
			}
			for _, i := range items {
				if w, ok := i.doc.(*client.Workload); ok {
					for key, l := range w.Labels {
						found[key+"="+l.Value] = true
					}
				} else if i.document != nil {
					for key, v := range i.document.Labels {
						found[key+"="+v] = true
					}
				}
			}
		}
	})
	return slices.Sorted(maps.Keys(found))
}

// completeBridges offers the bridges of all hosts.
func (g *global) completeBridges(*cobra.Command) (out []string) {
	g.ask(func(ctx context.Context, cl *client.Client) {
		hosts, err := cl.Hosts(ctx)
		if err != nil {
			return
		}
		for _, h := range hosts {
			for _, b := range h.Bridges {
				out = append(out, b.Name)
			}
		}
	})
	return out
}

// completeMirror offers mirrors for the first argument.
func (g *global) completeMirror(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return offer(g.completeNamesOf("mirrors", "")(c)), cobra.ShellCompDirectiveNoFileComp
}

// completeWorkloads offers texts of workloads, each once.
func (g *global) completeWorkloads(of func(*client.Workload) []string) values {
	return func(*cobra.Command) (out []string) {
		g.ask(func(ctx context.Context, cl *client.Client) {
			ws, err := cl.Workloads(ctx, nil)
			if err != nil {
				return
			}
			for i := range ws {
				out = append(out, of(&ws[i])...)
			}
		})
		slices.Sort(out)
		return slices.Compact(out)
	}
}

// completePorts offers the names that events give to endpoints: that of the Endpoint resource, and the port.
func (g *global) completePorts(c *cobra.Command) []string {
	return g.completeWorkloads(func(w *client.Workload) []string { return []string{w.Endpoint, w.Port} })(c)
}

// completeNamesOf offers the names of a kind, each behind prefix.
func (g *global) completeNamesOf(plural, prefix string) values {
	return func(*cobra.Command) []string {
		k, err := parseKind(plural)
		if err != nil {
			return nil
		}
		out := g.names([]*kind{k}, nil)
		for i := range out {
			out[i] = prefix + out[i]
		}
		return out
	}
}

// completeRules offers the rules of all policies, policy/direction/rule.
func (g *global) completeRules(*cobra.Command) (out []string) {
	g.ask(func(ctx context.Context, cl *client.Client) {
		docs, err := cl.List(ctx, policy.KindPolicy, nil)
		if err != nil {
			return
		}
		for _, d := range docs {
			var s policy.PolicySpec
			if json.Unmarshal(d.Spec, &s) != nil {
				continue
			}
			for _, r := range s.Ingress {
				out = append(out, d.Name+"/"+string(policy.Ingress)+"/"+r.Name)
			}
			for _, r := range s.Egress {
				out = append(out, d.Name+"/"+string(policy.Egress)+"/"+r.Name)
			}
		}
	})
	return out
}

// completeAddresses offers the addresses of workloads.
func (g *global) completeAddresses(c *cobra.Command) []string {
	return g.completeWorkloads(addressesOf)(c)
}
