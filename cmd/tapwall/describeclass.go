package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/api/client"
)

// fewRows is how many rows are printed of a list that may be as long as all policies.
const fewRows = 20

// describeClass prints which class a workload is in, with whom, and which rules name it.
func describeClass(ctx context.Context, w io.Writer, cl *client.Client, x *client.Workload) error {
	classes, err := cl.Classes(ctx, client.ClassQuery{Bridge: x.Bridge, Endpoint: x.Key})
	if err != nil {
		return err
	}
	for _, c := range classes {
		if x.Host != "" && c.Host != x.Host {
			continue
		}
		self := x.Port
		if x.Endpoint != "" {
			self = x.Endpoint
		}
		with := "alone"
		if others := slices.DeleteFunc(slices.Clone(c.Endpoints), func(name string) bool { return name == self }); len(others) > 0 {
			with = "with " + some(others)
		}
		chosen := "no policy names it"
		if len(c.ChosenBy) > 0 {
			chosen = "chosen by " + strings.Join(c.ChosenBy, "; ")
		}
		printf(w, "  class %d, %s; %s\n", c.Number, with, chosen)
		var rows [][]string
		for _, r := range c.Rules {
			rows = append(rows, []string{r.Rule, r.As})
		}
		if err := someRows(w, "  ", "NAMED-BY AS", rows); err != nil {
			return err
		}
	}
	return nil
}

// describePolicyClasses prints the classes that a policy applies to, and those that its rules name.
func describePolicyClasses(ctx context.Context, w io.Writer, cl *client.Client, name string) error {
	classes, err := cl.Classes(ctx, client.ClassQuery{Policy: name})
	if err != nil || len(classes) == 0 {
		return err
	}
	var rows [][]string
	for _, c := range classes {
		var peers []string
		for _, r := range c.Rules {
			if r.As == "peer" {
				peers = append(peers, strings.TrimPrefix(r.Rule, name+"/"))
			}
		}
		applies := "no"
		if len(c.Policies) > 0 {
			applies = "yes"
		}
		rows = append(rows, []string{c.Host, c.Bridge, fmt.Sprint(c.Number), applies, dash(some(peers)), some(c.Endpoints)})
	}
	printf(w, "classes of endpoints:\n")
	return someRows(w, "  ", "HOST BRIDGE CLASS APPLIES PEER-OF ENDPOINTS", rows)
}

// describeEndpointClasses prints the classes of the ports that an Endpoint resource matches.
func describeEndpointClasses(ctx context.Context, w io.Writer, cl *client.Client, name string) error {
	all, err := cl.Workloads(ctx, nil)
	if err != nil {
		return err
	}
	for i := range all {
		if x := &all[i]; x.Endpoint == name && !x.Remote {
			printf(w, "port %s\n", place(x))
			if err := describeClass(ctx, w, cl, x); err != nil {
				return err
			}
		}
	}
	return nil
}

// someRows prints a table, the first rows of a long one.
func someRows(w io.Writer, indent, header string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if err := indentedTable(w, indent, header, rows[:min(len(rows), fewRows)]); err != nil {
		return err
	}
	if n := len(rows) - fewRows; n > 0 {
		printf(w, "%s… and %d more\n", indent, n)
	}
	return nil
}
