package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// parseKind understands singular, plural and any case; hosts and workloads are read-only lists beside the kinds.
func parseKind(s string) (policy.Kind, error) {
	for _, k := range policy.Kinds() {
		if l := strings.ToLower(s); l == strings.ToLower(string(k)) || l == k.Plural() {
			return k, nil
		}
	}
	return "", usage("unknown kind %q: want mirrors, policies, groups or endpoints (for get also hosts and workloads)", s)
}

// target splits "policy web", "policy/web".
func target(args []string) (policy.Kind, string, error) {
	if len(args) == 1 {
		kind, name, ok := strings.Cut(args[0], "/")
		if !ok || name == "" {
			return "", "", usage("want KIND NAME, like: policy web")
		}
		args = []string{kind, name}
	}
	kind, err := parseKind(args[0])
	return kind, args[1], err
}

func newGet(g *global) *cobra.Command {
	var o output
	var labels []string
	c := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "Print resources: mirrors, policies, groups, endpoints; also hosts and workloads (discovered endpoints)",
		Example: `  tapwall get policies
  tapwall get mirror web-tap -o yaml
  tapwall get workloads -l app=web`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usage("get needs a kind and at most one name, like: get policies, get policy web")
			}
			return nil
		},
		ValidArgsFunction: g.completeResources,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check("table", "wide", "json", "yaml"); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			switch strings.ToLower(args[0]) {
			case "host", "hosts":
				return getHosts(c, cl, o, args[1:])
			case "workload", "workloads":
				return getWorkloads(c, cl, o, labels, args[1:])
			}
			if len(args) == 2 || strings.Contains(args[0], "/") {
				kind, name, err := target(args)
				if err != nil {
					return err
				}
				d, err := cl.Get(c.Context(), kind, name)
				if err != nil {
					return named(err, kind, name)
				}
				if o.format == "json" || o.format == "yaml" {
					return o.print(c.OutOrStdout(), d)
				}
				return printDocuments(c.OutOrStdout(), kind, []client.Document{*d}, o.format == "wide")
			}
			kind, err := parseKind(args[0])
			if err != nil {
				return err
			}
			docs, err := cl.List(c.Context(), kind, labels)
			if err != nil {
				return err
			}
			if o.format == "json" || o.format == "yaml" {
				return o.print(c.OutOrStdout(), map[string]any{"items": docs})
			}
			return printDocuments(c.OutOrStdout(), kind, docs, o.format == "wide")
		},
	}
	o.flag(c, "table", "table, wide, json or yaml")
	c.Flags().StringArrayVarP(&labels, "label", "l", nil, "only with this label, key=value or key (repeatable)")
	return c
}

func named(err error, kind policy.Kind, name string) error {
	if errors.Is(err, client.ErrNotFound) {
		return fmt.Errorf("there is no %s %q", strings.ToLower(string(kind)), name)
	}
	return err
}

func newDescribe(g *global) *cobra.Command {
	return &cobra.Command{
		Use:               "describe KIND NAME",
		Short:             "Print one resource with everything that was observed of it",
		Example:           "  tapwall describe policy web",
		Args:              between(1, 2, "a kind and a name, like: policy web"),
		ValidArgsFunction: g.completeResources,
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, err := target(args)
			if err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			d, err := cl.Get(c.Context(), kind, name)
			if err != nil {
				return named(err, kind, name)
			}
			return describe(c.OutOrStdout(), d)
		},
	}
}

func newDelete(g *global) *cobra.Command {
	var w waitFlags
	c := &cobra.Command{
		Use:               "delete KIND NAME...",
		Short:             "Delete resources; the connections that only they allowed end",
		Example:           "  tapwall delete policy web --wait",
		Args:              between(1, 1<<20, "a kind and names, like: policy web"),
		ValidArgsFunction: g.completeResources,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				kind, name, err := target(args)
				if err != nil {
					return err
				}
				args = []string{string(kind), name}
			}
			kind, err := parseKind(args[0])
			if err != nil {
				return err
			}
			if err := w.check(); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			for _, name := range args[1:] {
				if err := cl.Delete(c.Context(), kind, name, w.options()); err != nil {
					return w.exit(named(err, kind, name))
				}
				printf(c.OutOrStdout(), "%s/%s deleted\n", strings.ToLower(string(kind)), name)
			}
			return nil
		},
	}
	w.flags(c)
	return c
}

func newMirror(g *global) *cobra.Command {
	c := &cobra.Command{Use: "mirror", Short: "Start and stop mirrors", Args: noArgs("; it is mirror start NAME or mirror stop NAME"),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	for _, verb := range []string{"start", "stop"} {
		var w waitFlags
		enabled := verb == "start"
		sub := &cobra.Command{
			Use:   verb + " NAME",
			Short: strings.ToUpper(verb[:1]) + verb[1:] + " a mirror, that is, set spec.enabled",
			Args:  between(1, 1, "the name of a mirror"),
			ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				return g.completeNames(c, policy.KindMirror, args)
			},
			RunE: func(c *cobra.Command, args []string) error {
				if err := w.check(); err != nil {
					return err
				}
				cl, err := g.client()
				if err != nil {
					return err
				}
				defer cl.Close()
				d, err := cl.Patch(c.Context(), policy.KindMirror, args[0], fmt.Appendf(nil, `{"spec":{"enabled":%t}}`, enabled), w.options())
				if err != nil {
					return w.exit(named(err, policy.KindMirror, args[0]))
				}
				printf(c.OutOrStdout(), "mirror/%s %s (%s)\n", args[0], map[bool]string{true: "started", false: "stopped"}[enabled], phase(d.Status))
				return failed(w, d.Status)
			},
		}
		w.flags(sub)
		c.AddCommand(sub)
	}
	return c
}

// waitFlags are --wait and --timeout.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (w *waitFlags) flags(c *cobra.Command) {
	c.Flags().BoolVar(&w.wait, "wait", false, "return when the change is in force on the switch, as read back")
	c.Flags().DurationVar(&w.timeout, "timeout", 10*time.Second, "how long --wait waits, at most "+maxWait.String())
}

// maxWait is the longest wait that the server accepts.
const maxWait = time.Minute

func (w *waitFlags) check() error {
	if w.timeout <= 0 || w.timeout > maxWait {
		return usage("--timeout %v: want more than 0 and at most %v", w.timeout, maxWait)
	}
	return nil
}

func (w *waitFlags) options() client.WriteOptions {
	if !w.wait {
		return client.WriteOptions{}
	}
	return client.WriteOptions{Wait: w.timeout}
}

// exit gives a wait that ran out its exit code.
func (w *waitFlags) exit(err error) error {
	if errors.Is(err, client.ErrNotInstalled) {
		return &exitError{exitNotInstalled, err}
	}
	return err
}

// failed is the error of a change that was waited for and that the switch, or the host, refused.
func failed(w waitFlags, statuses ...policy.Status) error {
	for _, s := range statuses {
		if w.wait && s.Phase == policy.PhaseFailed {
			return &exitError{exitNotInstalled, fmt.Errorf("written, but not in force: %s: %s", s.Reason, s.Message)}
		}
	}
	return nil
}

func phase(s policy.Status) string {
	out := string(s.Phase)
	if s.Reason != "" {
		out += ": " + s.Reason
	}
	if s.Message != "" {
		out += ", " + s.Message
	}
	return out
}

// labelsText prints labels in order.
func labelsText(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// output is the -o flag.
type output struct{ format string }

func (o *output) flag(c *cobra.Command, def, help string) {
	c.Flags().StringVarP(&o.format, "output", "o", def, help)
	completeFlag(c, "output", strings.Split(strings.ReplaceAll(help, " or ", ", "), ", ")...)
}

func (o *output) check(allowed ...string) error {
	if slices.Contains(allowed, o.format) {
		return nil
	}
	return usage("-o %s: want one of %s", o.format, strings.Join(allowed, ", "))
}
