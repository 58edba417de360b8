package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// hostKind are the Open vSwitch instances.
func hostKind() *kind {
	k := &kind{singular: "host", plural: "hosts", header: "HOST OVS BRIDGE MODE DATAPATH FAIL-MODE PORTS MIRRORS",
		none: "no hosts: tapwall has not reached the Open vSwitch database yet (see tapwall status)",
		is:   func(i *item, name string) bool { return i.name == name }}
	k.list = func(ctx context.Context, cl *client.Client, _ []string) ([]item, error) {
		hosts, err := cl.Hosts(ctx)
		if err != nil {
			return nil, err
		}
		items := make([]item, len(hosts))
		for i := range hosts {
			h := &hosts[i]
			items[i] = item{kind: k, name: h.ID, doc: h}
			if len(h.Bridges) == 0 {
				items[i].rows = [][]string{{h.ID, dash(h.OVSVersion), "-", "-", "-", "-", "-", "-"}}
			}
			for _, b := range h.Bridges {
				items[i].rows = append(items[i].rows, []string{h.ID, dash(h.OVSVersion), b.Name, dash(b.Mode), b.DatapathType, dash(b.FailMode),
					fmt.Sprint(len(b.Ports)), fmt.Sprint(len(b.Mirrors))})
			}
		}
		return items, nil
	}
	return k
}

// workloadKind are what was found on ports.
func workloadKind() *kind {
	k := &kind{singular: "workload", plural: "workloads", header: "KEY PORT MAC ADDRESSES LABELS", wide: "HOST ALL-LABELS",
		none: "no workloads",
		is:   func(i *item, name string) bool { return goesBy(i.doc.(*client.Workload), name) }}
	k.list = func(ctx context.Context, cl *client.Client, labels []string) ([]item, error) {
		ws, err := cl.Workloads(ctx, labels)
		if err != nil {
			return nil, err
		}
		items := make([]item, len(ws))
		for i := range ws {
			w := &ws[i]
			var ls []string
			for key, l := range w.Labels {
				ls = append(ls, key+"="+l.Value)
			}
			slices.Sort(ls)
			items[i] = item{kind: k, name: w.Key, doc: w, rows: [][]string{{w.Key, place(w), dash(w.MAC), some(addressesOf(w)), some(ls)}},
				wide: []string{dash(w.Host), dash(strings.Join(ls, ","))}}
		}
		return items, nil
	}
	return k
}

// addressesOf are those that are declared, and those that were learned.
func addressesOf(w *client.Workload) []string {
	out := slices.Clone(w.Addresses)
	for _, a := range w.Learned {
		out = append(out, a.Address)
	}
	return out
}

// place is where a workload is plugged in.
func place(w *client.Workload) string {
	if w.Remote {
		return "elsewhere"
	}
	return w.Bridge + "/" + w.Port
}

// goesBy reports whether a person may mean w by name: what selectors would find it by, and its key, place and addresses.
func goesBy(w *client.Workload, name string) bool {
	switch {
	case name == "":
		return false
	case name == w.Key, name == w.Endpoint, !w.Remote && (name == place(w) || name == w.Host+"/"+place(w)):
		return true
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return slices.ContainsFunc(addressesOf(w), func(s string) bool {
			b, err := netip.ParseAddr(s)
			return err == nil && a.Unmap() == b.Unmap()
		})
	}
	labels := map[string]string{}
	for k, l := range w.Labels {
		labels[k] = l.Value
	}
	known := &policy.Workload{Port: w.Port, MAC: w.MAC, Endpoint: w.Endpoint, Labels: labels}
	return slices.ContainsFunc([]policy.Selector{{Port: name}, {VM: name}, {NeutronPort: name}, {MAC: name}},
		func(s policy.Selector) bool { return s.MatchesWorkload(known) })
}
