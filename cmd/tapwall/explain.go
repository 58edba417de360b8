package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
)

func newExplain(g *global) *cobra.Command {
	var recursive bool
	c := &cobra.Command{
		Use:   "explain KIND[.FIELD...]",
		Short: "Print what the fields of a kind mean, as the server describes them",
		Example: `  tapwall explain policy.spec.ingress
  tapwall explain mirror.spec --recursive`,
		Args: between(1, 1, "a kind, and perhaps fields, like: policy.spec.ingress"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return offer(g.completeFields(typed)), directive
		},
		RunE: func(c *cobra.Command, args []string) error {
			kindName, path, _ := strings.Cut(args[0], ".")
			k, err := parseKind(kindName)
			if err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			all, err := schemas(c.Context(), cl)
			if err != nil {
				return err
			}
			root := strings.ToUpper(k.singular[:1]) + k.singular[1:]
			f, required, err := all.find(root, path)
			if err != nil {
				return usage("%w", err)
			}
			w := c.OutOrStdout()
			printf(w, "KIND:   %s\n", root)
			if path != "" {
				printf(w, "FIELD:  %s <%s>%s\n", path, all.typeOf(f), mark(required))
			}
			if text := all.about(f); text != "" {
				printf(w, "\n%s\n", text)
			}
			if len(all.inner(f).Properties) > 0 {
				printf(w, "\nFIELDS:\n")
				all.printFields(w, all.inner(f), "  ", recursive, nil)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&recursive, "recursive", false, "with the fields of the fields")
	return c
}

// completeFields offers kinds, and below them fields.
func (g *global) completeFields(typed string) (out []string) {
	kindName, path, deeper := strings.Cut(typed, ".")
	if !deeper {
		for _, k := range kinds() {
			out = append(out, k.singular)
		}
		return out
	}
	k, err := parseKind(kindName)
	if err != nil {
		return nil
	}
	g.ask(func(ctx context.Context, cl *client.Client) {
		all, err := schemas(ctx, cl)
		if err != nil {
			return
		}
		parent := path[:max(0, strings.LastIndexByte(path, '.'))]
		f, _, err := all.find(strings.ToUpper(k.singular[:1])+k.singular[1:], parent)
		if err != nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(all.inner(f).Properties)) {
			out = append(out, strings.TrimSuffix(kindName+"."+parent, ".")+"."+name)
		}
	})
	return out
}

// schema is what explain needs of JSON Schema as OpenAPI 3.1 has it.
type schema struct {
	Ref                  string             `json:"$ref"`
	AllOf                []*schema          `json:"allOf"`
	Type                 schemaType         `json:"type"`
	Description          string             `json:"description"`
	Enum                 []any              `json:"enum"`
	Properties           map[string]*schema `json:"properties"`
	Items                *schema            `json:"items"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	Required             []string           `json:"required"`
	Minimum              *float64           `json:"minimum"`
	Maximum              *float64           `json:"maximum"`
}

// schemaType is one type or several, of which null is left out.
type schemaType string

// UnmarshalJSON implements json.Unmarshaler.
func (t *schemaType) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = schemaType(one)
		return nil
	}
	var several []string
	if err := json.Unmarshal(b, &several); err != nil {
		return err
	}
	*t = schemaType(strings.Join(slices.DeleteFunc(several, func(s string) bool { return s == "null" }), "|"))
	return nil
}

// schemaSet are the named schemas of a server.
type schemaSet map[string]*schema

func schemas(ctx context.Context, cl *client.Client) (schemaSet, error) {
	text, err := cl.OpenAPI(ctx)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Components struct {
			Schemas schemaSet `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("the server's description of itself: %w", err)
	}
	return doc.Components.Schemas, nil
}

// name is the schema that s refers to; "" if it is none of its own.
func (s *schema) name() string {
	ref := s.Ref
	for _, a := range s.AllOf {
		ref += a.Ref
	}
	return ref[strings.LastIndexByte(ref, '/')+1:]
}

// target follows references.
func (all schemaSet) target(s *schema) *schema {
	for range len(all) { // a circle would end nowhere
		next := all[s.name()]
		if s.name() == "" || next == nil {
			return s
		}
		s = next
	}
	return s
}

// values is the schema of the values of a map, or nil.
func (s *schema) values() *schema {
	v := new(schema)
	if len(s.AdditionalProperties) == 0 || s.AdditionalProperties[0] != '{' || json.Unmarshal(s.AdditionalProperties, v) != nil {
		return nil
	}
	return v
}

// inner is the object whose fields a field has: its own, or those of what is in the list or map.
func (all schemaSet) inner(s *schema) *schema {
	s = all.target(s)
	for range 8 {
		next := s.Items
		if next == nil {
			next = s.values()
		}
		if next == nil || len(s.Properties) > 0 {
			break
		}
		s = all.target(next)
	}
	return s
}

func (all schemaSet) typeOf(s *schema) string {
	named, t := s.name(), all.target(s)
	switch {
	case t.Items != nil:
		return "[]" + all.typeOf(t.Items)
	case t.values() != nil && len(t.Properties) == 0:
		return "map of " + all.typeOf(t.values())
	case named != "":
		return named
	case t.Type == "":
		return "any"
	}
	return string(t.Type)
}

func mark(required bool) string {
	if required {
		return " required"
	}
	return ""
}

// about is the description with the values that are allowed.
func (all schemaSet) about(s *schema) string {
	t := all.target(s)
	parts := []string{s.Description}
	if s.Description == "" {
		parts[0] = t.Description
	}
	for _, x := range []*schema{s, t} {
		if len(x.Enum) > 0 {
			var words []string
			for _, v := range x.Enum {
				words = append(words, valueText(v))
			}
			parts = append(parts, "One of: "+strings.Join(words, ", "))
			break
		}
	}
	if s.Minimum != nil && s.Maximum != nil {
		parts = append(parts, fmt.Sprintf("From %.0f to %.0f", *s.Minimum, *s.Maximum))
	}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ". ")
}

// find returns the field at a path of names.
func (all schemaSet) find(root, path string) (f *schema, required bool, err error) {
	f = all[root]
	if f == nil {
		return nil, false, fmt.Errorf("the server describes no %s", root)
	}
	at := root
	for name := range strings.SplitSeq(path, ".") {
		if path == "" {
			break
		}
		in := all.inner(f)
		next := in.Properties[name]
		if next == nil {
			if len(in.Properties) == 0 {
				return nil, false, fmt.Errorf("%s has no fields", at)
			}
			return nil, false, fmt.Errorf("%s has no field %q: it has %s", at, name, strings.Join(slices.Sorted(maps.Keys(in.Properties)), ", "))
		}
		f, required, at = next, slices.Contains(in.Required, name), at+"."+name
	}
	return f, required, nil
}

// printFields prints the fields of an object; above are the schemas that it is in, which are not printed again.
func (all schemaSet) printFields(w io.Writer, s *schema, indent string, recursive bool, above []*schema) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		f := s.Properties[name]
		printf(w, indent+"%s <%s>%s\n", name, all.typeOf(f), mark(slices.Contains(s.Required, name)))
		if text := all.about(f); text != "" {
			printf(w, indent+"    %s\n", text)
		}
		if in := all.inner(f); recursive && len(in.Properties) > 0 && !slices.Contains(above, in) {
			all.printFields(w, in, indent+"  ", recursive, append(slices.Clone(above), s))
		}
	}
}
