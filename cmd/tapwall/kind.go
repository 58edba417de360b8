package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// kind is something that can be asked for by name: a kind of resource, or one of the lists of what was found, which can only be read.
type kind struct {
	singular, plural, short string
	resource                policy.Kind // "" = read-only
	header, wide            string      // of tables; wide is added by -o wide
	list                    func(ctx context.Context, cl *client.Client, labels []string) ([]item, error)
	// is reports whether a read-only item goes by a name.
	is func(i *item, name string) bool
	// none is what to print instead of an empty table.
	none string
}

// item is one thing of a kind.
type item struct {
	kind *kind
	name string
	// doc is what -o json prints. Of resource documents, document is the same.
	doc      any
	document *client.Document
	// rows are the cells of tables: one row, but for a host one per bridge.
	rows [][]string
	// wide are the cells that -o wide adds to each row.
	wide []string
}

// String is the item as apply and -o name spell it: policy/web.
func (i *item) String() string { return i.kind.singular + "/" + i.name }

// kinds lists the kinds of resources in the order in which they depend on each other, and what can only be read.
func kinds() []*kind {
	out := []*kind{
		resourceKind(policy.KindEndpoint, "ep", "NAME PORT LABELS ADDRESSES PHASE"),
		resourceKind(policy.KindGroup, "grp", "NAME MEMBERS MATCHES PHASE"),
		resourceKind(policy.KindPolicy, "pol", "NAME TIER PRIORITY RULES ENDPOINTS PHASE"),
		resourceKind(policy.KindMirror, "mir", "NAME PHASE SOURCES TARGET PACKETS"),
		quarantineKind(),
	}
	return append(out, hostKind(), workloadKind())
}

func resourceKind(k policy.Kind, short, header string) *kind {
	out := &kind{singular: strings.ToLower(string(k)), plural: k.Plural(), short: short, resource: k, header: header,
		wide: "REVISION OBSERVED MESSAGE", none: "no " + k.Plural()}
	if k == policy.KindPolicy {
		out.wide = "REVISION OBSERVED PACKETS LAST-HIT NEVER-HIT MESSAGE"
	}
	out.list = func(ctx context.Context, cl *client.Client, labels []string) ([]item, error) {
		docs, err := cl.List(ctx, k, labels)
		if err != nil {
			return nil, err
		}
		items := make([]item, len(docs))
		for i := range docs {
			if items[i], err = out.item(&docs[i]); err != nil {
				return nil, err
			}
		}
		return items, nil
	}
	return out
}

// item makes an item of a resource's document.
func (k *kind) item(d *client.Document) (item, error) {
	row, err := documentRow(k.resource, d)
	if err != nil {
		return item{}, fmt.Errorf("%s %q: %w", k.singular, d.Name, err)
	}
	wide := []string{fmt.Sprint(d.Revision), fmt.Sprint(d.Status.ObservedRevision)}
	if k.resource == policy.KindPolicy {
		wide = append(wide, hitsText(d.Status.Hits(), time.Now())...)
	}
	return item{kind: k, name: d.Name, doc: d, document: d, rows: [][]string{row}, wide: append(wide, dash(d.Status.Message))}, nil
}

// parseKind understands singular, plural and short names in any case.
func parseKind(s string) (*kind, error) {
	l := strings.ToLower(s)
	for _, k := range kinds() {
		if l == k.singular || l == k.plural || l == k.short && l != "" {
			return k, nil
		}
	}
	hint := "want mirrors, policies, groups, endpoints or quarantines (to read also hosts and workloads)"
	if near := nearest(l); l != "" && near != "" {
		hint = "did you mean " + near + "?"
	}
	return nil, usage("unknown kind %q: %s", s, hint)
}

// parseResourceKind is parseKind for what can be written.
func parseResourceKind(s string) (*kind, error) {
	k, err := parseKind(s)
	if err == nil && k.resource == "" {
		return nil, usage("%s can only be read: they are what was found on the switches", k.plural)
	}
	return k, err
}

// parseKinds understands "all" and several kinds separated by commas.
func parseKinds(s string, parse func(string) (*kind, error)) (out []*kind, err error) {
	if strings.EqualFold(s, "all") {
		return slices.DeleteFunc(kinds(), func(k *kind) bool { return k.resource == "" }), nil
	}
	for name := range strings.SplitSeq(s, ",") {
		k, err := parse(name)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(x *kind) bool { return x.plural == k.plural }) {
			out = append(out, k)
		}
	}
	return out, nil
}

// nearest is the kind that was perhaps meant. cobra's measure of likeness is that of misspelt commands.
func nearest(s string) string {
	words := &cobra.Command{}
	for _, k := range kinds() {
		for _, name := range []string{k.singular, k.plural} {
			words.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
		}
	}
	for words.SuggestionsMinimumDistance = 1; words.SuggestionsMinimumDistance <= 2; words.SuggestionsMinimumDistance++ {
		if found := words.SuggestionsFor(s); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// target is what the arguments of a command name: one kind with names, or several kinds without.
type target struct {
	kinds []*kind
	names []string
}

// parseTargets reads KIND[,KIND…] [NAME…] or KIND/NAME…
func parseTargets(args []string, parse func(string) (*kind, error)) ([]target, error) {
	if len(args) == 0 {
		return nil, usage("want a kind and names, like: policy web")
	}
	if !strings.Contains(args[0], "/") {
		ks, err := parseKinds(args[0], parse)
		if err != nil {
			return nil, err
		}
		if len(ks) > 1 && len(args) > 1 {
			return nil, usage("names go with one kind, like: policy %s, or policy/%s", args[1], args[1])
		}
		return []target{{ks, args[1:]}}, nil
	}
	var out []target
	for _, arg := range args {
		kindName, name, ok := strings.Cut(arg, "/")
		if !ok || name == "" {
			return nil, usage("%q: want KIND/NAME, like policy/web, or one kind and then names", arg)
		}
		k, err := parse(kindName)
		if err != nil {
			return nil, err
		}
		out = append(out, target{[]*kind{k}, []string{name}})
	}
	return out, nil
}

// named says which resource it was that was not found, or that the server refuses; a server that is not there is about none.
func named(err error, k *kind, name string) error {
	switch {
	case errors.Is(err, client.ErrNotFound):
		return &missingError{k.singular, name}
	case errors.As(err, new(*client.Problem)):
		return fmt.Errorf("%s/%s: %w", k.singular, event.Escape(name), err)
	}
	return err
}

// byName returns what goes by a name: one resource, or all workloads that do.
func (k *kind) byName(ctx context.Context, cl *client.Client, name string) ([]item, error) {
	if k.resource != "" {
		d, err := cl.Get(ctx, k.resource, name)
		if err != nil {
			return nil, named(err, k, name)
		}
		i, err := k.item(d)
		return []item{i}, err
	}
	all, err := k.list(ctx, cl, nil)
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(all, func(i item) bool { return !k.is(&i, name) })
	if len(found) == 0 {
		return nil, &missingError{k.singular, name}
	}
	return found, nil
}
