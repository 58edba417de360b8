package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
)

// filterFlags are the flags that choose events. --not is about the next of them.
type filterFlags struct {
	filter *event.Filter
	not    bool // --not was the last flag
}

// define makes flags of the parameters with these names; none = of all, and --not.
func (ff *filterFlags) define(c *cobra.Command, g *global, names ...string) {
	fl, offers := c.Flags(), g.filterValues()
	params := event.Params()
	for i := range params {
		p := &params[i]
		if len(names) > 0 && !slices.Contains(names, p.Name) {
			continue
		}
		fl.Var(&filterFlag{ff, p, ""}, p.Name, p.Doc)
		switch of := offers[p.Name]; {
		case of != nil:
			completeFlag(c, p.Name, of)
		default:
			completeFlag(c, p.Name, fixed(p.Like...))
		}
		if p.Name == "ip-version" {
			for _, v := range p.Like {
				fl.VarPF(&filterFlag{ff, p, v}, "ipv"+v, v, "the same as --ip-version "+v).NoOptDefVal = "true"
			}
		}
	}
	if len(names) == 0 {
		fl.Var(notFlag{ff}, "not", "what does not match the next filter")
		fl.Lookup("not").NoOptDefVal = "true"
	}
}

// complete says what is wrong with the flags as a whole.
func (ff *filterFlags) complete() error {
	if ff.not {
		return usage("--not: no filter follows it, such as --verdict DENIED")
	}
	return nil
}

// filterFlag is the flag of one parameter. It implements pflag.Value.
type filterFlag struct {
	ff    *filterFlags
	param *event.Param
	fixed string // the value that the flag stands for; "" = it has one
}

func (v *filterFlag) String() string { return "" }

// Type names what completeFlag completes after each comma.
func (v *filterFlag) Type() string {
	if v.fixed != "" {
		return "bool"
	}
	return "stringSlice"
}

// Set adds alternatives, separated by commas.
func (v *filterFlag) Set(s string) error {
	if v.fixed != "" {
		s = v.fixed
	}
	f := v.ff.filter
	if v.ff.not {
		if f.Not == nil {
			f.Not = &event.Filter{}
		}
		f, v.ff.not = f.Not, false
	}
	list := v.param.List(f)
	for one := range strings.SplitSeq(s, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if v.param.Name == "resource" {
			var err error
			if one, err = resourceName(one); err != nil {
				return err
			}
		}
		*list = append(*list, one)
	}
	return nil
}

// resourceName is KIND/NAME as changes name it; the kind may be in any form that the other commands take.
func resourceName(s string) (string, error) {
	kindName, name, ok := strings.Cut(s, "/")
	if !ok || name == "" {
		return "", fmt.Errorf("want kind/name, such as policy/web")
	}
	k, err := parseResourceKind(kindName)
	if err != nil {
		return "", err
	}
	return k.singular + "/" + name, nil
}

// notFlag is --not.
type notFlag struct{ ff *filterFlags }

func (n notFlag) String() string { return "" }
func (n notFlag) Type() string   { return "bool" }

func (n notFlag) Set(string) error {
	n.ff.not = true
	return nil
}

// filterValues offers the names that there are on the server, by parameter.
func (g *global) filterValues() map[string]values {
	of := map[string]values{
		"policy": g.completeNamesOf("policies", ""), "rule": g.completeRules, "mirror": g.completeNamesOf("mirrors", ""),
		"bridge": g.completeBridges, "node": g.completeHosts, "interface": g.completeWorkloads(func(w *client.Workload) []string {
			return []string{w.Port}
		}),
		"resource": func(c *cobra.Command) (out []string) {
			for _, k := range writable() {
				out = append(out, g.completeNamesOf(k.plural, k.singular+"/")(c)...)
			}
			return out
		},
	}
	for name, f := range map[string]func(w *client.Workload) []string{"ip": addressesOf, "label": labelsOf,
		"mac": func(w *client.Workload) []string { return []string{w.MAC} }} {
		for _, side := range []string{"", "from-", "to-"} {
			of[side+name] = g.completeWorkloads(f)
		}
	}
	for _, side := range []string{"endpoint", "from", "to"} {
		of[side] = g.completeWorkloads(namesOf)
	}
	return of
}

func labelsOf(w *client.Workload) (out []string) {
	for key, l := range w.Labels {
		out = append(out, key+"="+l.Value)
	}
	return out
}

// namesOf are the names that events know an endpoint by.
func namesOf(w *client.Workload) []string {
	out := []string{w.Endpoint, w.Port}
	for _, key := range event.NameLabels() {
		out = append(out, w.Labels[key].Value)
	}
	return out
}
