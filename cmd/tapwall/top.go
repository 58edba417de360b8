package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
)

// topSeconds is how long top looks back. What it holds is bounded by that many times event.MaxGroups.
const topSeconds = 10

// talkers counts what is followed, second by second.
type talkers struct {
	every   bool // of the events; else those of connections and denials alone
	mu      sync.Mutex
	by      []string
	seconds [topSeconds]*event.Aggregator // a circle; nil = nothing
	at      int
	began   time.Time
	lost    int64
	unknown bool // losses without a number
	broke   error
}

func (t *talkers) add(e *event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := e.Tapwall.Loss; l != nil {
		t.lost += l.Count
		t.unknown = t.unknown || l.Count == 0
		return
	}
	if !t.every && e.Event.Action != event.ActionVerdict {
		return // what is said in a connection, its end, and what people did
	}
	if t.seconds[t.at] == nil {
		t.seconds[t.at], _ = event.NewAggregator(t.by, 0) // the flags were checked
	}
	t.seconds[t.at].Add(e)
}

// next begins the next second.
func (t *talkers) next() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = (t.at + 1) % topSeconds
	t.seconds[t.at] = nil
}

// talking is one answer of top: figures are of the last Seconds.
type talking struct {
	Seconds float64 `json:"seconds"`
	event.Summary
	Lost    int64  `json:"lost"`              // events since top began
	Unknown bool   `json:"unknown,omitempty"` // and more, of which nobody knows how many
	Broken  string `json:"broken,omitempty"`  // why nothing comes now
}

func (t *talkers) summary(top int) talking {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, _ := event.NewAggregator(t.by, 0)
	for _, s := range t.seconds {
		if s != nil {
			all.Merge(s)
		}
	}
	out := talking{Seconds: min(time.Since(t.began).Seconds(), topSeconds), Summary: all.Summary(top), Lost: t.lost, Unknown: t.unknown}
	if t.broke != nil {
		out.Broken = t.broke.Error()
	}
	return out
}

func newTop(g *global) *cobra.Command {
	var o output
	var once bool
	var n int
	var filter event.Filter
	filters := filterFlags{filter: &filter}
	t := &talkers{}
	c := &cobra.Command{
		Use:   "top",
		Short: "Show who talks to whom now, and what is denied",
		Long: `Follow the record and show every second, of the last 10, who talks to whom: connections a second, and how many of them are denied
(there, each packet counts). It takes the filters of observe; with one that is about other events, such as --type, --mirror or
--dns-query, events are counted.`,
		Example: `  tapwall top
  tapwall top --verdict DENIED --by src,dport
  tapwall top --once -o json`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.allow("table", "json"); err != nil {
				return err
			}
			if err := filters.complete(); err != nil {
				return err
			}
			t.every = aboutOthers(&filter) || slices.Contains(t.by, "action") || slices.Contains(t.by, "mirror")
			a := aggregation{by: t.by, top: n}
			if _, err := a.check("by"); err != nil {
				return err
			}
			if len(t.by) == 0 {
				return usage("--by: want some of %s", strings.Join(event.Groupings(), ", "))
			}
			if _, err := filter.Compile(); err != nil {
				return badFilter(err)
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return t.run(c, cl, filter, &o, n, once)
		},
	}
	filters.define(c, g)
	fl := c.Flags()
	fl.StringSliceVar(&t.by, "by", []string{"src", "dst", "protocol", "dport"}, "what to group by: "+strings.Join(event.Groupings(), ", ")+
		", src-label:KEY, dst-label:KEY")
	fl.IntVar(&n, "top", 20, "the largest groups, at most 1000")
	fl.BoolVar(&once, "once", false, "print once, after a second, and end")
	o.flag(c, "table", "json")
	completeFlag(c, "by", fixed(event.Groupings()...))
	free(c, "top")
	return c
}

// aboutOthers reports whether a filter asks for events that are not verdicts, or may do.
func aboutOthers(f *event.Filter) bool {
	for _, list := range [][]string{f.Type, f.Action, f.Mirror, f.User, f.Resource, f.EventID, f.DNSQuery, f.DNSRcode, f.SNI, f.HTTPMethod,
		f.HTTPHost, f.HTTPPath, f.HTTPStatus} {
		if len(list) > 0 {
			return true
		}
	}
	return false
}

// counted is what is counted, in a word.
func (t *talkers) counted() string {
	if t.every {
		return "events"
	}
	return "connections"
}

func (t *talkers) run(c *cobra.Command, cl *client.Client, f event.Filter, o *output, top int, once bool) error {
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	t.began = time.Now()
	ended := make(chan error, 1)
	go func() {
		ended <- cl.Follow(ctx, f, "", func(e *event.Event, _ []byte) error { t.add(e); return nil }, func(err error) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.broke = err
		})
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = context.Cause(ctx)
			}
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-tick.C:
		}
		if err := t.print(c, o, t.summary(top), !once); err != nil || once {
			return err
		}
		t.next()
	}
}

// print writes one answer, in the place of the last one where it is a terminal.
func (t *talkers) print(c *cobra.Command, o *output, s talking, clear bool) error {
	w := c.OutOrStdout()
	if o.format == "json" {
		return printJSON(w, s)
	}
	if clear && useColor("auto", w) {
		if err := printEscaped(w, "\x1b[H\x1b[2J"); err != nil {
			return err
		}
	}
	rate := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/max(s.Seconds, 1)) }
	state := ""
	if s.Lost > 0 || s.Unknown {
		state = fmt.Sprintf(", %d EVENTS LOST since the start", s.Lost)
	}
	if s.Broken != "" {
		state += ", nothing comes: " + s.Broken
	}
	err := printf(w, "last %.0f s: %s %s/s, %s denied/s%s\n", s.Seconds, rate(s.Total.Events), t.counted(), rate(s.Total.Denied), state)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, g := range s.Rows {
		rows = append(rows, append(groupCells(s.By, g.Values), rate(g.Events), rate(g.Denied), fmt.Sprint(g.Events)))
	}
	if s.Others.Events > 0 {
		others := make([]string, len(s.By))
		others[0] = "(others)"
		rows = append(rows, append(others, rate(s.Others.Events), rate(s.Others.Denied), fmt.Sprint(s.Others.Events)))
	}
	what := strings.ToUpper(t.counted())
	return table(w, groupHeader(s.By)+" "+what+"/S DENIED/S "+what, rows)
}
