package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// documentRow is the row of a resource in the table of its kind.
func documentRow(kind policy.Kind, d *client.Document) ([]string, error) {
	state := string(d.Status.Phase)
	if d.Status.Reason != "" && d.Status.Phase != policy.PhaseActive {
		state += "(" + string(d.Status.Reason) + ")"
	}
	var mode struct{ Mode string }
	if err := json.Unmarshal(d.Spec, &mode); err == nil && mode.Mode == policy.ModeAudit {
		state += ", audit" // it looks like one that denies, and does not
	}
	if n := len(d.Status.Warnings); n > 0 {
		state += ", " + count(n, "warning")
	}
	var endpoints []string
	var copied int64
	dropped := map[string]int64{}
	for _, h := range d.Status.Hosts {
		endpoints = append(endpoints, h.Endpoints...)
		copied += h.Counters["acceptedPackets"]
		for k, n := range h.Counters {
			dropped[k] += n
		}
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
		members := fmt.Sprint(len(s.Members))
		if source := d.Status.Source; source != nil {
			members += fmt.Sprintf("+%d", source.Entries)
		}
		return []string{d.Name, members, some(endpoints), state}, err
	case policy.KindEndpoint:
		var s policy.EndpointSpec
		err := json.Unmarshal(d.Spec, &s)
		return []string{d.Name, some(endpoints), dash(labelsText(s.Labels)), some(s.Addresses), state}, err
	case policy.KindQuarantine:
		var s policy.QuarantineSpec
		err := json.Unmarshal(d.Spec, &s)
		return []string{d.Name, strings.ReplaceAll(s.Match.String(), " ", "="), s.Mode, passText(&s), untilText(&s), some(endpoints),
			droppedText(dropped), state}, err
	}
	return nil, fmt.Errorf("unknown kind")
}

// hitsText says how much met the rules of a policy, when the last of it did, and how many were never hit.
func hitsText(hits []policy.RuleHits, now time.Time) []string {
	var packets uint64
	var last time.Time
	never := 0
	for i := range hits {
		h := &hits[i]
		packets += h.Packets
		if h.Last.After(last) {
			last = h.Last
		}
		if h.Unused(0, now) {
			never++
		}
	}
	when := "-"
	if !last.IsZero() {
		when = now.Sub(last).Round(time.Second).String() + " ago"
	}
	return []string{fmt.Sprint(packets), when, fmt.Sprintf("%d of %d", never, len(hits))}
}

func mirrorTarget(s policy.MirrorSpec, status policy.Status) string {
	var out []string
	for i, t := range s.Targets {
		switch {
		case t.Port != nil:
			out = append(out, "port "+t.Port.Name)
		case t.VM != "":
			out = append(out, "vm "+t.VM)
		case t.Pcap != nil:
			out = append(out, "pcap "+t.Pcap.BaseName())
		case t.Events != nil:
			out = append(out, "events")
		case t.RSPAN != nil:
			out = append(out, fmt.Sprintf("rspan vlan %d", t.RSPAN.VLAN))
		case t.Buffer != nil:
			out = append(out, "buffer")
		default:
			if x, ok := t.Tunnel(); ok {
				id := ""
				if x.ID != nil {
					id = fmt.Sprint(*x.ID)
				} else { // derived where it is made
					for _, h := range status.Hosts {
						if id = h.Target[x.IDName]; i < len(h.Targets) {
							id = h.Targets[i][x.IDName]
						}
					}
				}
				out = append(out, x.Protocol+" "+x.Remote+" "+x.IDName+" "+dash(id))
			}
		}
	}
	return dash(strings.Join(out, ", "))
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

// labelsText prints labels in order.
func labelsText(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
