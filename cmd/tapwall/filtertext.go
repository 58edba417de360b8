package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// filterText says in words what a filter lets through, behind "what vm1 sends"; "" = everything.
func filterText(f *policy.MirrorFilter) string {
	if f == nil {
		return ""
	}
	var parts []string
	for i := range f.Rules {
		parts = append(parts, filterRuleText(&f.Rules[i]))
	}
	if len(parts) == 0 {
		return ": " + f.Default + " everything"
	}
	return ": " + strings.Join(parts, "; ")
}

// filterRuleText is a rule of a filter in one line.
func filterRuleText(r *policy.FilterRule) string {
	var out []string
	add := func(given bool, format string, args ...any) {
		if given {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(r.Action == policy.FilterReject, "not")
	add(r.Direction != "" && r.Direction != policy.MirrorBoth, "%s", r.Direction)
	add(r.EtherType != "", "%s", r.EtherType)
	add(r.Protocol != "", "%s", r.Protocol)
	add(len(r.Src) > 0, "from %s", strings.Join(r.Src, ","))
	add(len(r.SrcPorts) > 0, "from port %s", strings.Join(r.SrcPorts, ","))
	add(len(r.Dst) > 0, "to %s", strings.Join(r.Dst, ","))
	add(len(r.DstPorts) > 0, "to port %s", strings.Join(r.DstPorts, ","))
	add(r.TCPFlags != "", "flags %s", r.TCPFlags)
	if r.Type != nil {
		add(true, "type %d", *r.Type)
	}
	if r.Code != nil {
		add(true, "code %d", *r.Code)
	}
	if r.VLAN != nil {
		add(true, "VLAN %d", *r.VLAN)
	}
	if len(out) == 0 || len(out) == 1 && r.Action == policy.FilterReject {
		out = append(out, "everything")
	}
	add(r.Symmetric, "and back")
	return strings.Join(out, " ")
}

var ofFilter = regexp.MustCompile(`^/spec/filter(/rules/\d+)?$`)

// changedText is what diff prints of a value that comes or goes: filters and their rules in words, everything else as it is; nil = absent.
func changedText(pointer string, v any) any {
	at := ofFilter.FindStringSubmatch(pointer)
	if at == nil || v == nil {
		return orAbsent(v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return orAbsent(v)
	}
	whole := func(r *policy.FilterRule) string {
		like := *r
		like.Action = policy.FilterAccept
		return fmt.Sprintf("%d %s %s", r.Priority, r.Action, filterRuleText(&like))
	}
	if at[1] != "" {
		var r policy.FilterRule
		if json.Unmarshal(text, &r) != nil {
			return orAbsent(v)
		}
		return "[" + whole(&r) + "]"
	}
	var f policy.MirrorFilter
	if json.Unmarshal(text, &f) != nil {
		return orAbsent(v)
	}
	var parts []string
	for i := range f.Rules {
		parts = append(parts, whole(&f.Rules[i]))
	}
	return "[" + strings.Join(append(parts, cmp.Or(f.Default, policy.FilterReject)+" the rest"), "; ") + "]"
}
