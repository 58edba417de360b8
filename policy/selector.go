package policy

import (
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// SelectorKind is the field of a Selector that is set.
type SelectorKind string

// The kinds of selectors, spelled as in documents.
const (
	SelectPort        SelectorKind = "port"
	SelectLabels      SelectorKind = "labels"
	SelectVM          SelectorKind = "vm"
	SelectNeutronPort SelectorKind = "neutronPort"
	SelectMAC         SelectorKind = "mac"
	SelectVLAN        SelectorKind = "vlan"
	SelectBridge      SelectorKind = "bridge"
	SelectGroup       SelectorKind = "group"
	SelectEntity      SelectorKind = "entity"
	SelectCIDR        SelectorKind = "cidr"
	SelectFQDN        SelectorKind = "fqdn"
)

// String returns the kind as documents spell it.
func (k SelectorKind) String() string { return string(k) }

// kinds returns one of the fields that are set and how many are; a valid selector has exactly one. Empty labels count as set: they are
// refused by Validate rather than taken for "everything".
func (s *Selector) kinds() (kind SelectorKind, n int) {
	set := func(is bool, k SelectorKind) {
		if is {
			kind = k
			n++
		}
	}
	set(s.Port != "", SelectPort)
	set(s.Labels != nil, SelectLabels)
	set(s.VM != "", SelectVM)
	set(s.NeutronPort != "", SelectNeutronPort)
	set(s.MAC != "", SelectMAC)
	set(s.VLAN != nil, SelectVLAN)
	set(s.Bridge != "", SelectBridge)
	set(s.Group != "", SelectGroup)
	set(s.Entity != "", SelectEntity)
	set(s.CIDR != "", SelectCIDR)
	set(s.FQDN != "", SelectFQDN)
	return kind, n
}

// Kind returns what the selector selects by; "" if it is not valid.
func (s Selector) Kind() SelectorKind {
	if k, n := s.kinds(); n == 1 {
		return k
	}
	return ""
}

// String is the selector in one line, e.g. labels app=web,tier=x or cidr 10.0.0.0/8 except 10.1.0.0/16.
func (s Selector) String() string {
	if s.Host != "" {
		host := s.Host
		s.Host = ""
		return s.String() + " on host " + host
	}
	switch k := s.Kind(); k {
	case SelectLabels:
		var b strings.Builder
		for i, key := range sortedKeys(s.Labels) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(key + "=" + s.Labels[key])
		}
		return "labels " + b.String()
	case SelectVLAN:
		return "vlan " + strconv.Itoa(*s.VLAN)
	case SelectCIDR:
		if len(s.Except) > 0 {
			return "cidr " + s.CIDR + " except " + strings.Join(s.Except, ",")
		}
		return "cidr " + s.CIDR
	case "":
		return "invalid selector"
	default:
		return string(k) + " " + s.Port + s.VM + s.NeutronPort + strings.ToLower(s.MAC) + s.Bridge + s.Group + s.Entity + s.FQDN
	}
}

// Keys of labels by which machines and their ports go.
const (
	LabelVMUUID      = "vm-uuid"
	LabelVMID        = "vm-id"
	LabelVMName      = "vm-name"
	LabelNeutronPort = "iface-id"
)

// VMLabels are the labels that name the machine of a workload. It is not changed.
var VMLabels = [...]string{LabelVMUUID, LabelVMID, LabelVMName}

// MatchesWorkload reports whether the selector selects the workload by what it is: its labels (all pairs equal), machine, Neutron
// port, MAC, port, VLAN or bridge. Groups, entities, address ranges and names never match here; who needs them resolves them first.
func (s *Selector) MatchesWorkload(w *Workload) bool {
	if s.Host != "" && s.Host != w.Host {
		return false
	}
	switch s.Kind() {
	case SelectLabels:
		if len(s.Labels) == 0 {
			return false
		}
		for k, v := range s.Labels {
			if have, ok := w.Labels[k]; !ok || have != v {
				return false
			}
		}
		return true
	case SelectVM:
		for _, k := range VMLabels {
			if w.Labels[k] == s.VM {
				return true
			}
		}
		return w.Endpoint == s.VM
	case SelectNeutronPort:
		return w.Labels[LabelNeutronPort] == s.NeutronPort
	case SelectMAC:
		return strings.EqualFold(w.MAC, s.MAC) || slices.ContainsFunc(w.MACs, func(m string) bool { return strings.EqualFold(m, s.MAC) })
	case SelectPort:
		return w.Port == s.Port
	case SelectVLAN:
		return w.VLAN == *s.VLAN && *s.VLAN != 0
	case SelectBridge:
		return w.Bridge == s.Bridge
	}
	return false
}

// MatchesAddress reports whether the selector is an address range in which the workload has an address, be it declared or learned.
func (s *Selector) MatchesAddress(w *Workload) bool {
	in, err := ParseCIDR(s.CIDR)
	if err != nil {
		return false
	}
	var except []netip.Prefix
	for _, text := range s.Except {
		if p, err := ParseCIDR(text); err == nil {
			except = append(except, p)
		}
	}
	is := false
	w.EachAddress(func(a netip.Addr) {
		is = is || in.Contains(a) && !slices.ContainsFunc(except, func(p netip.Prefix) bool { return p.Contains(a) })
	})
	return is
}

// AnyMatches reports whether one of the selectors selects the workload; groups among them are looked up, and an unknown group selects
// nothing.
func AnyMatches(selectors []Selector, groups map[string]*Group, w *Workload) bool {
	for i := range selectors {
		s := &selectors[i]
		if s.MatchesWorkload(w) {
			return true
		}
		if s.Group == "" {
			continue
		}
		for m := range eachMember(groups, s.Group) {
			if m.CIDR == "" && m.MatchesWorkload(w) {
				return true
			}
		}
	}
	return false
}

// eachMember yields the members of a group and of the groups in it, but for these groups themselves. An unknown group has none.
func eachMember(groups map[string]*Group, name string) iter.Seq[*Selector] {
	return func(yield func(*Selector) bool) {
		names := []string{name}
		for i := 0; i < len(names); i++ {
			g := groups[names[i]]
			if g == nil {
				continue
			}
			for j := range g.Spec.Members {
				m := &g.Spec.Members[j]
				if m.Group != "" {
					if !slices.Contains(names, m.Group) {
						names = append(names, m.Group)
					}
				} else if !yield(m) {
					return
				}
			}
		}
	}
}

// WithoutCIDRs returns those of the selectors that are no address ranges.
func WithoutCIDRs(ss []Selector) (out []Selector) {
	for i := range ss {
		if ss[i].CIDR == "" {
			out = append(out, ss[i])
		}
	}
	return out
}
