package event

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a summary.
const (
	DefaultTop = 50
	MaxTop     = 1000
	// MaxGroups is how many groups are counted at once. When there are more, the smaller half of them goes into Summary.Others.
	MaxGroups = 16_384
	// MaxBy is how many things events are grouped by at most.
	MaxBy = 16
	// DefaultSince is how far back a summary looks, unless told otherwise.
	DefaultSince = 10 * time.Minute
)

// Summary counts events by what they have in common.
type Summary struct {
	By    []string  `json:"by"`
	Since time.Time `json:"since,omitzero"` // of what was asked for
	Until time.Time `json:"until,omitzero"`
	Total Figures   `json:"total"`
	// Rows are the groups with the most events, of each window where there are windows.
	Rows []Group `json:"rows"`
	// Others is everything that is in no row: Total less the rows.
	Others   Figures    `json:"others"`
	Coverage []Coverage `json:"coverage,omitempty"`
}

// Group is the events that have the same values, in the order of Summary.By. A value that events do not have is "".
type Group struct {
	Values []string  `json:"values"`
	Window time.Time `json:"window,omitzero"` // its begin, where there are windows
	Figures
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Missed is how many events of the group may be among the others at most, as it was too small to be kept for a while.
	Missed int64 `json:"missed,omitempty"`
}

// Figures are counts of events.
type Figures struct {
	Events  int64 `json:"events"`
	Denied  int64 `json:"denied"`
	Packets int64 `json:"packets"` // that were seen or that a sample stands for; of a connection that is one, its first
	Bytes   int64 `json:"bytes"`   // of those that were seen
}

func (f *Figures) add(o Figures, sign int64) {
	f.Events += sign * o.Events
	f.Denied += sign * o.Denied
	f.Packets += sign * o.Packets
	f.Bytes += sign * o.Bytes
}

// groupings are what events are grouped by.
var groupings = []struct {
	name string
	of   func(*Event) string
}{
	{"src", func(e *Event) string { return sideName(e.Source, e.Tapwall.Source) }},
	{"dst", func(e *Event) string { return sideName(e.Destination, e.Tapwall.Destination) }},
	{"src-ip", func(e *Event) string { return sideName(e.Source, nil) }},
	{"dst-ip", func(e *Event) string { return sideName(e.Destination, nil) }},
	{"sport", func(e *Event) string { return portText(e.Source) }},
	{"dport", func(e *Event) string { return portText(e.Destination) }},
	{"protocol", func(e *Event) string { f := FactsOf(e); return f.Transport }},
	{"verdict", func(e *Event) string { return string(e.Tapwall.Verdict) }},
	{"action", func(e *Event) string { return e.Event.Action }},
	{"reason", func(e *Event) string { return e.Event.Reason }},
	{"rule", func(e *Event) string {
		if e.Rule == nil {
			return ""
		}
		return e.Rule.ID
	}},
	{"policy", func(e *Event) string {
		if e.Rule == nil {
			return ""
		}
		return e.Rule.Ruleset
	}},
	{"direction", func(e *Event) string { return direction(&Facts{Event: e}) }},
	{"bridge", func(e *Event) string { return e.Tapwall.Bridge }},
	{"mirror", func(e *Event) string { return e.Tapwall.Mirror }},
	{"node", func(e *Event) string {
		if e.Observer == nil {
			return ""
		}
		return e.Observer.Name
	}},
}

// Groupings lists what Aggregator groups by; src-label:KEY and dst-label:KEY come on top.
func Groupings() (out []string) {
	for _, g := range groupings {
		out = append(out, g.name)
	}
	return out
}

// sideName is who that is: the endpoint if it is known, else the address.
func sideName(s *Side, e *Endpoint) string {
	name := ""
	if e != nil {
		name = cmp.Or(e.Name, e.PortName)
	}
	if s == nil {
		return name
	}
	return cmp.Or(name, s.IP, s.MAC)
}

func portText(s *Side) string {
	if s == nil || s.Port == 0 {
		return ""
	}
	return strconv.Itoa(s.Port)
}

// grouping finds one by its name.
func grouping(name string) func(*Event) string {
	for _, g := range groupings {
		if g.name == name {
			return g.of
		}
	}
	label := func(of func(*Event) *Endpoint, key string) func(*Event) string {
		return func(e *Event) string {
			if end := of(e); end != nil {
				return end.Labels[key]
			}
			return ""
		}
	}
	if key, ok := strings.CutPrefix(name, "src-label:"); ok && key != "" {
		return label(func(e *Event) *Endpoint { return e.Tapwall.Source }, key)
	}
	if key, ok := strings.CutPrefix(name, "dst-label:"); ok && key != "" {
		return label(func(e *Event) *Endpoint { return e.Tapwall.Destination }, key)
	}
	return nil
}

// Aggregator counts events in groups, of which it keeps a bounded number: MaxGroups. It is for one goroutine.
type Aggregator struct {
	names  []string
	by     []func(*Event) string
	window time.Duration
	most   int
	groups map[string]*Group
	total  Figures
	missed int64 // events that a group which comes now may have had
}

// NewAggregator groups by these, and by windows of time if window is not 0. The error is a *ParamError of "by" or "window".
func NewAggregator(by []string, window time.Duration) (*Aggregator, error) {
	a := &Aggregator{names: by, window: window, most: MaxGroups, groups: map[string]*Group{}}
	if len(by) == 0 {
		return nil, &ParamError{"by", "", "empty: give some of " + strings.Join(Groupings(), ", ")}
	}
	if len(by) > MaxBy {
		return nil, &ParamError{"by", by[0] + ",…", fmt.Sprintf("the first of %d: give %d at most", len(by), MaxBy)}
	}
	for _, name := range by {
		of := grouping(name)
		if of == nil {
			return nil, &ParamError{"by", name, "not one of " + strings.Join(Groupings(), ", ") + ", src-label:KEY, dst-label:KEY"}
		}
		a.by = append(a.by, of)
	}
	if window < 0 || window > 0 && window < time.Second {
		return nil, &ParamError{"window", window.String(), "not a second at least"}
	}
	return a, nil
}

// Add counts an event. Losses are no events of anybody, and ends are of connections that were counted: neither is counted.
func (a *Aggregator) Add(e *Event) {
	if e.Tapwall.Loss != nil || e.Tapwall.Ended != nil {
		return
	}
	f := Figures{Events: 1, Packets: max(e.Tapwall.Weight, 1)}
	if e.Network != nil {
		f.Bytes = e.Network.Bytes
	}
	if slices.Contains(e.Event.Type, "denied") {
		f.Denied = 1
	}
	values := make([]string, len(a.by))
	for i, of := range a.by {
		values[i] = of(e)
	}
	g := Group{Values: values, Figures: f, First: e.Timestamp, Last: e.Timestamp}
	if a.window > 0 {
		g.Window = e.Timestamp.Truncate(a.window)
	}
	a.total.add(f, 1)
	a.put(&g)
}

// Merge counts what another one has counted, with the same groups.
func (a *Aggregator) Merge(o *Aggregator) {
	for _, g := range o.groups {
		c := *g
		a.put(&c)
	}
	for key, g := range a.groups {
		if o.groups[key] == nil {
			g.Missed += o.missed
		}
	}
	a.total.add(o.total, 1)
	a.missed += o.missed
}

func (a *Aggregator) put(g *Group) {
	key := strings.Join(g.Values, "\x00") + "\x00" + strconv.FormatInt(g.Window.Unix(), 36)
	have := a.groups[key]
	if have == nil {
		if len(a.groups) >= a.most {
			a.prune()
		}
		g.Missed += a.missed
		a.groups[key] = g
		return
	}
	have.Figures.add(g.Figures, 1)
	have.Missed += g.Missed
	if g.First.Before(have.First) {
		have.First = g.First
	}
	if g.Last.After(have.Last) {
		have.Last = g.Last
	}
}

// prune drops the smaller half. What a group loses by that is never more than the largest that was dropped.
func (a *Aggregator) prune() {
	sizes := make([]int64, 0, len(a.groups))
	for _, g := range a.groups {
		sizes = append(sizes, g.Events)
	}
	slices.Sort(sizes)
	limit, drop := sizes[len(sizes)/2], len(sizes)/2
	largest := int64(0)
	for key, g := range a.groups {
		if g.Events <= limit && drop > 0 {
			largest = max(largest, g.Events)
			delete(a.groups, key)
			drop--
		}
	}
	a.missed += largest
}

// Summary is the groups with the most events, at most top, or top of each window, in the order of windows and then of size.
func (a *Aggregator) Summary(top int) Summary {
	s := Summary{By: a.names, Total: a.total, Others: a.total, Rows: []Group{}}
	all := make([]*Group, 0, len(a.groups))
	for _, g := range a.groups {
		all = append(all, g)
	}
	slices.SortFunc(all, func(x, y *Group) int {
		return cmp.Or(x.Window.Compare(y.Window), cmp.Compare(y.Events, x.Events), slices.Compare(x.Values, y.Values))
	})
	n := 0
	for i, g := range all {
		if i > 0 && !g.Window.Equal(all[i-1].Window) {
			n = 0
		}
		if n++; n <= top {
			s.Rows = append(s.Rows, *g)
			s.Others.add(g.Figures, -1)
		}
	}
	return s
}
