package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// victim is one resource to delete.
type victim struct {
	kind *kind
	name string
}

func newDelete(g *global) *cobra.Command {
	var w waitFlags
	var d fileFlags
	var labels []string
	var ignoreMissing bool
	c := &cobra.Command{
		Use:   "delete KIND NAME... | KIND/NAME... | KIND -l LABEL | -f FILE|DIR|-",
		Short: "Delete resources; the connections that only they allowed end",
		Long: `Delete resources by name, by label, or those that files describe. One that cannot be deleted is named, and the others are ` +
			`deleted all the same.
What refers to others goes before them, so that the files of an apply can be deleted as they are.`,
		Example: `  tapwall delete policy web --wait
  tapwall delete policy/web group/lbs
  tapwall delete all -l set=generated
  tapwall delete -f examples/ --ignore-not-found`,
		ValidArgsFunction: g.completeResources(writable()),
		RunE: func(c *cobra.Command, args []string) error {
			if err := w.check(); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			victims, err := d.victims(c, cl, args, labels)
			if err != nil {
				return err
			}
			var failed failures
			for _, v := range victims {
				err := cl.Delete(c.Context(), v.kind.resource, v.name, w.options())
				if ignoreMissing && errors.Is(err, client.ErrNotFound) {
					continue
				}
				if err := w.outcome(named(err, v.kind, v.name)); err != nil {
					failed.add(err)
					if c.Context().Err() != nil || errors.As(err, new(*client.ConnectError)) {
						break // and so would all others
					}
					continue
				}
				printf(c.OutOrStdout(), "%s/%s deleted\n", v.kind.singular, v.name)
			}
			return failed.err()
		},
	}
	d.flags(c, "delete")
	c.Flags().StringSliceVarP(&labels, "label", "l", nil, "those with this label, key=value or key (repeatable)")
	c.Flags().BoolVar(&ignoreMissing, "ignore-not-found", false, "what is not there is as good as deleted")
	completeFlag(c, "label", g.completeLabels)
	w.flags(c)
	return c
}

// writable are the kinds of resources.
func writable() []*kind {
	return slices.DeleteFunc(kinds(), func(k *kind) bool { return k.resource == "" })
}

// victims lists what the arguments and flags of delete mean, those that refer to others first.
func (d *fileFlags) victims(c *cobra.Command, cl *client.Client, args, labels []string) ([]victim, error) {
	if len(d.files) > 0 {
		if len(args)+len(labels) > 0 {
			return nil, usage("-f goes without names and labels")
		}
		docs, err := d.read(c.InOrStdin())
		if err != nil {
			return nil, err
		}
		var out []victim
		for _, doc := range docs.resources {
			k, err := parseKind(string(doc.Kind()))
			if err != nil {
				return nil, err
			}
			out = append(out, victim{k, doc.GetMeta().Name})
		}
		return dependentsFirst(out), nil
	}
	targets, err := parseTargets(args, parseResourceKind)
	if err != nil {
		return nil, err
	}
	var out []victim
	for _, t := range targets {
		switch {
		case len(t.names) > 0 && len(labels) > 0:
			return nil, usage("-l goes without names")
		case len(t.names) == 0 && len(labels) == 0:
			return nil, usage("delete needs names, -l or -f, like: delete policy web (see tapwall delete --help)")
		}
		for _, name := range t.names {
			out = append(out, victim{t.kinds[0], name})
		}
		if len(labels) == 0 {
			continue
		}
		found, err := labelled(c.Context(), cl, t.kinds, labels)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return dependentsFirst(out), nil
}

func labelled(ctx context.Context, cl *client.Client, ks []*kind, labels []string) (out []victim, err error) {
	for _, k := range ks {
		docs, err := cl.List(ctx, k.resource, labels)
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			out = append(out, victim{k, doc.Name})
		}
	}
	return out, nil
}

func dependentsFirst(vs []victim) []victim {
	slices.SortStableFunc(vs, func(a, b victim) int {
		return slices.Index(policy.Kinds(), b.kind.resource) - slices.Index(policy.Kinds(), a.kind.resource)
	})
	return vs
}
