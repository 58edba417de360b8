package host

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// A legend says what numbers in the flows of a bridge stand for, as of one view. What it needs of that it gathers when it is first asked,
// so that a question costs what it asks for. It is for one goroutine.
type legend struct {
	b         *wallView
	workloads []*policy.Workload
	addressed []*flow.Flow // those that give numbers to addresses

	clauses   map[uint32]string               // rules by the numbers of their conjunctions
	classes   map[uint16][]string             // endpoints by class
	endpoints map[uint32]string               // endpoints by the first of their ids
	prefixes  map[uint16]map[netip.Prefix]any // by address number
	spelled   map[numbered]string             // names given before
}

// numbered is a number of a field, or as many as mask leaves open.
type numbered struct {
	kind        legendKind
	value, mask uint32
}

type legendKind uint8

const (
	legendClass legendKind = iota
	legendAddress
	legendService
	legendEndpoint
	legendRule
)

// legendFields are the fields that hold numbers which say nothing by themselves.
var legendFields = []struct {
	pipeline.Field
	kind legendKind
}{
	{pipeline.SourceClass, legendClass}, {pipeline.DestinationClass, legendClass},
	{pipeline.SourceAddress, legendAddress}, {pipeline.DestinationAddress, legendAddress}, {pipeline.Service, legendService},
	{pipeline.SourceEndpoint, legendEndpoint}, {pipeline.DestinationEndpoint, legendEndpoint},
	{pipeline.LabelInitiator, legendEndpoint}, {pipeline.LabelResponder, legendEndpoint},
	{pipeline.LabelEgress, legendRule}, {pipeline.LabelIngress, legendRule},
}

// rule names the rule or default that a flow was compiled from, POLICY/DIRECTION/RULE as events do; "" where there is none.
func (g *legend) rule(f *flow.Flow) string {
	kind, id, ours := pipeline.ParseCookie(f.Cookie)
	switch {
	case !ours || g.b == nil:
	case kind == pipeline.CookieRule || kind == pipeline.CookieDefault:
		return g.ruleOf(id)
	case kind == pipeline.CookieClause:
		return g.clause(id)
	}
	return ""
}

// clause names the rule whose conjunction has a number.
func (g *legend) clause(id uint32) string {
	if g.clauses == nil {
		g.clauses = map[uint32]string{}
		for name, p := range each(g.b.numbers.policies) {
			for rule, a := range p {
				g.clauses[a.Conjunction] = name + "/" + rule
			}
		}
	}
	return g.clauses[id]
}

func (g *legend) ruleOf(id uint32) string {
	if r := g.b.directory.Names().Rule(id); r != nil {
		return strings.TrimLeft(r.ID, "/") // some defaults have no policy, or no direction either
	}
	return ""
}

// names says what the numbers stand for that the flow, which is of this rule, matches or writes, save for what goes without saying: the
// rule itself, and the fixed flows, which match what is not a number.
func (g *legend) names(f *flow.Flow, rule string) []wire.FlowName {
	kind, id, ours := pipeline.ParseCookie(f.Cookie)
	fixed := kind == pipeline.CookieSystem || kind == pipeline.CookieDrop || kind == pipeline.CookieDefault && id == pipeline.IDNoEndpoint
	if !ours || g.b == nil || fixed {
		return nil
	}
	var out []wire.FlowName
	for _, x := range legendFields {
		if x.kind == legendService && f.Table != pipeline.TableEgress && f.Table != pipeline.TableIngress && f.Table != pipeline.TableService {
			continue // there it is the reply zone
		}
		value, mask, ok := looksAt(f, x.SubField)
		if !ok {
			continue
		}
		n := numbered{x.kind, value, mask}
		name := g.name(n)
		if x.kind == legendAddress && (f.Table == pipeline.TableAddressSource || f.Table == pipeline.TableAddressDestination) {
			name = strings.Join(g.sets(uint16(value)), ", ") // the flow says which address
		}
		entry := wire.FlowName{Field: x.Name, Number: n.String(), Name: name}
		said := slices.ContainsFunc(out, func(o wire.FlowName) bool { return o.Number == entry.Number && o.Name == name })
		if name == "" || name == rule || said {
			continue
		}
		out = append(out, entry)
	}
	for _, a := range f.Actions { // a clause that several rules share
		if c, is := a.(flow.Conjunction); is && g.clause(c.ID) != rule {
			out = append(out, wire.FlowName{Field: "conjunction", Number: strconv.FormatUint(uint64(c.ID), 10), Name: g.clause(c.ID)})
		}
	}
	return out
}

// looksAt returns the bits of a field that a flow matches, else what it writes there; ok is false where it does neither.
func looksAt(f *flow.Flow, s flow.SubField) (value, mask uint32, ok bool) {
	ones := flow.Ones(int(s.Bits))
	if t, there := f.Match.Get(s.Field); there {
		if m := t.Mask.Shr(int(s.Ofs)).And(ones); !m.IsZero() {
			return uint32(t.Value.Shr(int(s.Ofs)).And(ones).Lo), uint32(m.Lo), true
		}
	}
	for _, a := range f.Actions {
		if l, is := a.(flow.Load); is && l.Dst == s && l.Value != 0 {
			return uint32(l.Value), uint32(ones.Lo), true
		}
	}
	return 0, 0, false
}

// String is "16", or "16-31" for a block.
func (n numbered) String() string {
	width := 16
	if n.kind >= legendEndpoint {
		width = 32
	}
	open := ^n.mask & uint32(flow.Ones(width).Lo)
	format := "%d"
	if width == 32 {
		format = "%#x"
	}
	text := fmt.Sprintf(format, n.value)
	if open != 0 {
		text += "-" + fmt.Sprintf(format, n.value|open)
	}
	return text
}

func (g *legend) name(n numbered) string {
	if name, known := g.spelled[n]; known {
		return name
	}
	var name string
	switch n.kind {
	case legendClass:
		name = g.className(uint16(n.value), uint16(n.mask))
	case legendAddress:
		if name = g.addressName(uint16(n.value)); n.mask == uint32(pipeline.KnownAddress) && n.value == 0 {
			name = "of no known endpoint"
		}
	case legendService:
		name = g.b.services[uint16(n.value)]
	case legendEndpoint:
		name = g.endpointName(n.value)
	case legendRule:
		name = g.ruleOf(n.value)
	}
	if g.spelled == nil {
		g.spelled = map[numbered]string{}
	}
	g.spelled[n] = name
	return name
}

// className names the endpoints of a class, or of all of a block.
func (g *legend) className(value, mask uint16) string {
	switch {
	case value == 0:
		return "no endpoint"
	case value == pipeline.ClassHost:
		return "the host"
	}
	if g.classes == nil {
		g.classes = map[uint16][]string{}
		for key, a := range each(g.b.numbers.endpoints) {
			g.classes[a.Class] = append(g.classes[a.Class], nameOf(g.workloads, key))
		}
	}
	var in []string
	for class := range each(g.b.numbers.classes) {
		if class&mask == value {
			in = append(in, g.classes[class]...)
		}
	}
	return fewOf(in)
}

// addressName names the addresses that have a number, and what chooses them.
func (g *legend) addressName(n uint16) string {
	if g.prefixes == nil {
		g.prefixes = map[uint16]map[netip.Prefix]any{}
		for _, f := range g.addressed {
			_, number, _ := pipeline.ParseCookie(f.Cookie)
			at := uint16(number)
			if g.prefixes[at] == nil {
				g.prefixes[at] = map[netip.Prefix]any{}
			}
			g.prefixes[at][prefixOf(f)] = nil
		}
	}
	var all []netip.Prefix
	for p := range g.prefixes[n] {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = p.String()
	}
	name := fewOf(texts)
	if sets := g.sets(n); len(sets) > 0 && len(all) > 1 {
		name += " (" + strings.Join(sets, ", ") + ")"
	}
	return name
}

// sets are the groups and selectors that choose the addresses of a number.
func (g *legend) sets(n uint16) []string {
	sets, _ := g.b.sets.Get(n)
	return sets
}

// prefixOf is the prefix of an address table's flow.
func prefixOf(f *flow.Flow) netip.Prefix {
	for _, field := range []flow.FieldID{flow.CtNwSrc, flow.CtNwDst, flow.CtIPv6Src, flow.CtIPv6Dst} {
		t, there := f.Match.Get(field)
		if !there {
			continue
		}
		addr := t.Value.Addr6()
		if field == flow.CtNwSrc || field == flow.CtNwDst {
			addr = t.Value.Addr4()
		}
		return netip.PrefixFrom(addr, bits.OnesCount64(t.Mask.Hi)+bits.OnesCount64(t.Mask.Lo))
	}
	if t, _ := f.Match.Get(flow.EthType); t.Value.Lo == pipeline.EthIPv6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// endpointName names the endpoint that has an id, or had it.
func (g *legend) endpointName(id uint32) string {
	if id == 0 || id == pipeline.IDNoEndpoint {
		return "no endpoint"
	}
	if g.endpoints == nil {
		g.endpoints = map[uint32]string{}
		for old, s := range g.b.numbers.retired {
			g.endpoints[pipeline.EndpointBase(old)] = "formerly at port " + s.Port
		}
		for key, a := range each(g.b.numbers.endpoints) {
			g.endpoints[pipeline.EndpointBase(a.ID)] = nameOf(g.workloads, key)
		}
	}
	return g.endpoints[pipeline.EndpointBase(id)]
}

// nameOf spells an endpoint as events do.
func nameOf(workloads []*policy.Workload, key string) string {
	if w := workload(workloads, key); w != nil {
		return orElse(w.Endpoint, w.Port)
	}
	return key
}

// fewOf spells the first of many.
func fewOf(names []string) string {
	const few = 2
	slices.Sort(names)
	if n := len(names) - few; n > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), n)
	}
	return strings.Join(names, ", ")
}
