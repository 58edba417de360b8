package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// print writes v as JSON or YAML.
func (o *output) print(w io.Writer, v any) error {
	if o.format == "yaml" {
		return printYAML(w, v)
	}
	return printJSON(w, v)
}

// printDocuments prints a table that fits the kind.
func printDocuments(w io.Writer, kind policy.Kind, docs []client.Document, wide bool) error {
	if len(docs) == 0 {
		return printf(w, "no %s\n", kind.Plural())
	}
	header := map[policy.Kind]string{
		policy.KindMirror:   "NAME PHASE SOURCES TARGET PACKETS",
		policy.KindPolicy:   "NAME TIER PRIORITY RULES ENDPOINTS PHASE",
		policy.KindGroup:    "NAME MEMBERS MATCHES PHASE",
		policy.KindEndpoint: "NAME PORT LABELS ADDRESSES PHASE",
	}[kind]
	if wide {
		header += " REVISION OBSERVED MESSAGE"
	}
	var rows [][]string
	for _, d := range docs {
		row, err := documentRow(kind, &d)
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, d.Name, err)
		}
		if wide {
			row = append(row, fmt.Sprint(d.Revision), fmt.Sprint(d.Status.ObservedRevision), dash(d.Status.Message))
		}
		rows = append(rows, row)
	}
	return table(w, header, rows)
}

func documentRow(kind policy.Kind, d *client.Document) ([]string, error) {
	state := string(d.Status.Phase)
	if d.Status.Reason != "" && d.Status.Phase != policy.PhaseActive {
		state += "(" + d.Status.Reason + ")"
	}
	if n := len(d.Status.Warnings); n > 0 {
		state += fmt.Sprintf(" %d warning(s)", n)
	}
	var endpoints []string
	var copied int64
	for _, h := range d.Status.Hosts {
		endpoints = append(endpoints, h.Endpoints...)
		copied += h.Counters["selectedPackets"]
	}
	switch kind {
	case policy.KindMirror:
		var s policy.MirrorSpec
		err := json.Unmarshal(d.Spec, &s)
		return []string{d.Name, state, some(endpoints), mirrorTarget(s, d.Status), fmt.Sprint(copied)}, err
	case policy.KindPolicy:
		var s policy.PolicySpec
		err := json.Unmarshal(d.Spec, &s)
		priority := policy.DefaultPriority
		if s.Priority != nil {
			priority = *s.Priority
		}
		return []string{d.Name, string(s.Tier), fmt.Sprint(priority), fmt.Sprint(len(s.Ingress) + len(s.Egress)), some(endpoints), state}, err
	case policy.KindGroup:
		var s policy.GroupSpec
		err := json.Unmarshal(d.Spec, &s)
		return []string{d.Name, fmt.Sprint(len(s.Members)), some(endpoints), state}, err
	case policy.KindEndpoint:
		var s policy.EndpointSpec
		err := json.Unmarshal(d.Spec, &s)
		return []string{d.Name, some(endpoints), dash(labelsText(s.Labels)), some(s.Addresses), state}, err
	}
	return nil, fmt.Errorf("unknown kind")
}

func mirrorTarget(s policy.MirrorSpec, status policy.Status) string {
	for _, t := range s.Targets {
		switch {
		case t.Port != nil:
			return "port " + t.Port.Name
		case t.VXLAN != nil:
			vni := ""
			for _, h := range status.Hosts {
				vni = h.Target["vni"]
			}
			return "vxlan " + t.VXLAN.Remote + " vni " + dash(vni)
		}
	}
	return "-"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// some prints the first few of a list.
func some(list []string) string {
	const show = 3
	switch {
	case len(list) == 0:
		return "-"
	case len(list) > show:
		return strings.Join(list[:show], ",") + fmt.Sprintf(",+%d", len(list)-show)
	}
	return strings.Join(list, ",")
}

// describe prints a document for reading.
func describe(w io.Writer, d *client.Document) error {
	printf(w, "%s %s\n", d.Kind, d.Name)
	printf(w, "  uid %s, revision %d, created %s\n", d.UID, d.Revision, d.CreatedAt.Local().Format("2006-01-02 15:04:05"))
	if len(d.Labels) > 0 {
		printf(w, "  labels %s\n", labelsText(d.Labels))
	}
	spec, err := asYAML(d.Spec)
	if err != nil {
		return err
	}
	printf(w, "spec:\n")
	for line := range strings.Lines(spec) {
		printf(w, "  %s\n", strings.TrimSuffix(line, "\n"))
	}
	printf(w, "status: %s (observed revision %d)\n", phase(d.Status), d.Status.ObservedRevision)
	for _, x := range d.Status.Warnings {
		rule := ""
		if x.Rule != "" {
			rule = " " + x.Rule
		}
		printf(w, "  warning %s%s: %s\n", x.Code, rule, x.Message)
	}
	for _, h := range d.Status.Hosts {
		printf(w, "  host %s: %s\n", h.Host, h.Phase)
		if len(h.Endpoints) > 0 {
			printf(w, "    endpoints: %s\n", strings.Join(h.Endpoints, ", "))
		}
		if len(h.Target) > 0 {
			printf(w, "    target: %s\n", labelsText(h.Target))
		}
		for _, k := range slices.Sorted(keys(h.Counters)) {
			printf(w, "    %s: %d\n", k, h.Counters[k])
		}
		if len(h.Rules) > 0 {
			rows := [][]string{}
			for _, r := range h.Rules {
				rows = append(rows, []string{string(r.Direction) + "/" + r.Name, string(r.Action), fmt.Sprintf("%#x", r.ID), fmt.Sprint(r.Packets), fmt.Sprint(r.Bytes), fmt.Sprint(r.Flows)})
			}
			if err := indentedTable(w, "    ", "RULE ACTION ID PACKETS BYTES FLOWS", rows); err != nil {
				return err
			}
		}
	}
	return nil
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// getHosts prints the hosts, or those called names.
func getHosts(c *cobra.Command, cl *client.Client, o output, names []string) error {
	hosts, err := cl.Hosts(c.Context())
	if err != nil {
		return err
	}
	if hosts, err = only("host", hosts, names, func(h client.Host) string { return h.ID }); err != nil {
		return err
	}
	if o.format == "json" || o.format == "yaml" {
		return o.print(c.OutOrStdout(), map[string]any{"items": hosts})
	}
	var rows [][]string
	if len(hosts) == 0 {
		return printf(c.OutOrStdout(), "no hosts: tapwall has not reached the Open vSwitch database yet (see tapwall status)\n")
	}
	for _, h := range hosts {
		if len(h.Bridges) == 0 {
			rows = append(rows, []string{h.ID, dash(h.OVSVersion), "-", "-", "-", "-", "-", "-"})
		}
		for _, b := range h.Bridges {
			rows = append(rows, []string{h.ID, dash(h.OVSVersion), b.Name, dash(b.Mode), b.DatapathType, dash(b.FailMode), fmt.Sprint(len(b.Ports)), fmt.Sprint(len(b.Mirrors))})
		}
	}
	return table(c.OutOrStdout(), "HOST OVS BRIDGE MODE DATAPATH FAIL-MODE PORTS MIRRORS", rows)
}

// getWorkloads prints the discovered endpoints that carry the labels, or those with a key of names.
func getWorkloads(c *cobra.Command, cl *client.Client, o output, labels, names []string) error {
	ws, err := cl.Workloads(c.Context(), labels)
	if err != nil {
		return err
	}
	if ws, err = only("workload", ws, names, func(w client.Workload) string { return w.Key }); err != nil {
		return err
	}
	if o.format == "json" || o.format == "yaml" {
		return o.print(c.OutOrStdout(), map[string]any{"items": ws})
	}
	if len(ws) == 0 {
		return printf(c.OutOrStdout(), "no workloads\n")
	}
	var rows [][]string
	for _, w := range ws {
		var ls []string
		for k, l := range w.Labels {
			ls = append(ls, k+"="+l.Value)
		}
		slices.Sort(ls)
		at := w.Bridge + "/" + w.Port
		if w.Remote {
			at = "elsewhere"
		}
		text := some(ls)
		if o.format == "wide" {
			text = strings.Join(ls, ",")
		}
		rows = append(rows, []string{w.Key, at, dash(w.MAC), some(w.Addresses), text})
	}
	return table(c.OutOrStdout(), "KEY PORT MAC ADDRESSES LABELS", rows)
}

// only keeps what is called names; no names keep all.
func only[T any](kind string, items []T, names []string, nameOf func(T) string) ([]T, error) {
	if len(names) == 0 {
		return items, nil
	}
	var out []T
	for _, name := range names {
		i := slices.IndexFunc(items, func(x T) bool { return nameOf(x) == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no %s %q", kind, name)
		}
		out = append(out, items[i])
	}
	return out, nil
}
