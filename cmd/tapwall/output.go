package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/event"
)

// output is the -o flag of commands with one document.
type output struct {
	format string
	formats
}

// formats are what -o of get takes besides.
type formats struct {
	noHeaders bool
	sortBy    string
	template  *template // of -o jsonpath
	sortPath  *template
}

// flag defines -o; values are what it takes, the first one being the default.
func (o *output) flag(c *cobra.Command, values ...string) {
	c.Flags().StringVarP(&o.format, "output", "o", values[0], orList(values))
	completeFlag(c, "output", fixed(values...))
}

// orList is "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func (o *output) allow(allowed ...string) error {
	if slices.Contains(allowed, o.format) {
		return nil
	}
	return usage("-o %s: want one of %s", o.format, strings.Join(allowed, ", "))
}

// print writes v as JSON or YAML.
func (o *output) print(w io.Writer, v any) error {
	if o.format == "yaml" {
		return printYAML(w, v)
	}
	return printJSON(w, v)
}

const jsonPath = "jsonpath="

func (x *getter) flags(c *cobra.Command) {
	c.Flags().StringVarP(&x.format, "output", "o", "table", "table, wide, json, yaml, name or jsonpath=TEMPLATE")
	c.Flags().BoolVar(&x.noHeaders, "no-headers", false, "tables without their first line")
	c.Flags().StringVar(&x.sortBy, "sort-by", "", "order by a field: name, spec.priority, '{.status.phase}'")
	c.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"table", "wide", "json", "yaml", "name", jsonPath}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
	completeFlag(c, "sort-by", fixed("name", "revision", "createdAt", "status.phase", "spec.priority", "spec.tier", "port", "bridge", "key",
		"mac"))
}

// check reads the flags of get.
func (x *getter) check() (err error) {
	if text, ok := strings.CutPrefix(x.format, jsonPath); ok {
		if x.template, err = parseTemplate(text); err != nil {
			return usage("-o jsonpath: %w", err)
		}
	} else if err := x.allow("table", "wide", "json", "yaml", "name"); err != nil {
		if x.format == "jsonpath" {
			return usage("-o jsonpath=TEMPLATE, such as -o jsonpath='{.spec.tier}'")
		}
		return usage("-o %s: want one of table, wide, json, yaml, name, jsonpath=TEMPLATE", x.format)
	}
	if x.sortBy != "" {
		if x.sortPath, err = parseField(x.sortBy); err != nil {
			return usage("--sort-by %s: %w", x.sortBy, err)
		}
	}
	return nil
}

// tree is the document as encoding/json reads it.
func (i *item) tree() (any, error) { return treeOf(i.doc) }

func treeOf(doc any) (any, error) {
	j, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var v any
	err = json.Unmarshal(j, &v)
	return v, err
}

// sort orders items of one kind by the field of --sort-by; those without it come last. Numbers are compared as such.
func (x *getter) sort(items []item) error {
	if x.sortPath == nil {
		return nil
	}
	keys := map[any]any{}
	for i := range items {
		v, err := items[i].tree()
		if err != nil {
			return err
		}
		if found := x.sortPath.values(v); len(found) > 0 {
			keys[items[i].doc] = found[0]
		}
	}
	slices.SortStableFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.kind.plural, b.kind.plural), compareAny(keys[a.doc], keys[b.doc]))
	})
	return nil
}

func compareAny(a, b any) int {
	if x, ok := a.(float64); ok {
		if y, ok := b.(float64); ok {
			return cmp.Compare(x, y)
		}
	}
	if a == nil || b == nil {
		return cmp.Compare(bit(a == nil), bit(b == nil))
	}
	return cmp.Compare(valueText(a), valueText(b))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// printItems prints items in a form for programs; single is one that was asked for by its name, which is printed without a list around it.
func (x *getter) printItems(w io.Writer, items []item, single bool) error {
	if x.format == "name" {
		for i := range items {
			if err := printf(w, "%s\n", items[i].String()); err != nil {
				return err
			}
		}
		return nil
	}
	docs := make([]any, len(items))
	for i := range items {
		docs[i] = items[i].doc
	}
	var doc any = map[string]any{"items": docs}
	if single {
		doc = docs[0]
	}
	if x.template == nil {
		return x.print(w, doc)
	}
	v, err := treeOf(doc)
	if err != nil {
		return err
	}
	text := x.template.text(v)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n" // a prompt does not stand behind it
	}
	_, err = io.WriteString(w, text)
	return err
}

// printTable prints items of one kind. prefix writes the kind before the name, for tables of several kinds.
func (x *getter) printTable(w io.Writer, items []item, prefix bool) error {
	k := items[0].kind
	header := k.header
	var rows [][]string
	for i := range items {
		for _, row := range items[i].rows {
			row = slices.Clone(row)
			if prefix {
				row[0] = k.singular + "/" + row[0]
			}
			if x.format == "wide" {
				row = append(row, items[i].wide...)
			}
			rows = append(rows, row)
		}
	}
	if x.format == "wide" && k.wide != "" {
		header += " " + k.wide
	}
	if x.noHeaders {
		header = ""
	}
	return table(w, header, rows)
}

// valueText is a value of a document as text: texts without quotes, everything else as JSON.
func valueText(v any) string {
	if s, ok := v.(string); ok {
		return event.Escape(s)
	}
	j, err := json.Marshal(v)
	if err != nil {
		return event.Escape(fmt.Sprint(v)) // of what json.Unmarshal made, everything can be marshalled
	}
	return string(safeJSON(j))
}
