package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/event"
)

// aggregation is what --aggregate of observe asks for.
type aggregation struct {
	by     []string
	window string
	top    int
}

func (a *aggregation) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.StringSliceVar(&a.by, "aggregate", nil, "count events, of the last 10 minutes unless told otherwise, by what they have in common: "+
		strings.Join(event.Groupings(), ", ")+", src-label:KEY, dst-label:KEY")
	fl.StringVar(&a.window, "window", "", "with --aggregate: also by windows of this length, 10s")
	fl.IntVar(&a.top, "top", event.DefaultTop, "with --aggregate: the largest groups, of each window, at most 1000")
	completeFlag(c, "aggregate", fixed(event.Groupings()...))
	completeFlag(c, "window", fixed("1s", "10s", "1m", "1h"))
	free(c, "top")
}

// check reads the flags; by is the name of the one that says what to group by.
func (a *aggregation) check(by string) (window time.Duration, err error) {
	if len(a.by) == 0 {
		if a.window != "" {
			return 0, usage("--window is for --aggregate")
		}
		return 0, nil
	}
	if a.window != "" {
		if window, err = duration.Parse(a.window); err != nil {
			return 0, usage("--window: %w", err)
		}
	}
	if a.top < 1 || a.top > event.MaxTop {
		return 0, usage("--top %d: want 1 to %d", a.top, event.MaxTop)
	}
	if _, err := event.NewAggregator(a.by, window); err != nil {
		for _, p := range event.ParamErrors(err) {
			return 0, usage("--%s %s: %s", map[string]string{"by": by, "window": "window"}[p.Param], event.Escape(p.Value), p.Reason)
		}
	}
	return window, nil
}

// aggregate asks the server for counts, and prints them.
func (x *observer) aggregate(c *cobra.Command, cl *client.Client) error {
	f := x.filter
	if x.all { // else the server takes the last ten minutes
		f.Since = time.Unix(1, 0)
	}
	s, err := cl.Aggregate(c.Context(), f, x.agg.by, x.window, x.agg.top)
	if err != nil {
		return err
	}
	printCoverage(c.ErrOrStderr(), &event.Page{Coverage: s.Coverage})
	if x.failOnLoss {
		x.filter.Since, x.everything = s.Since, true
		if err := x.countLosses(c.Context(), cl); err != nil {
			return err
		}
	}
	if err := x.printSummary(c, s); err != nil {
		return err
	}
	return x.end(c)
}

// groupHeader names the columns of the values of groups.
func groupHeader(by []string) string {
	var words []string
	for _, name := range by {
		words = append(words, strings.ToUpper(strings.NewReplacer("-", "_", " ", "_").Replace(event.Escape(name))))
	}
	return strings.Join(words, " ")
}

// groupCells are the values of a group as tables have them.
func groupCells(by, values []string) []string {
	cells := make([]string, len(values))
	for i, v := range values {
		if by[i] == "verdict" {
			v = event.Verdict(v).Word()
		}
		cells[i] = dash(v)
	}
	return cells
}

func (x *observer) printSummary(c *cobra.Command, s *event.Summary) error {
	if x.format == "json" {
		return printJSON(c.OutOrStdout(), s)
	}
	header := groupHeader(x.agg.by) + " EVENTS DENIED PACKETS BYTES LAST"
	if x.window > 0 {
		header = "WINDOW " + header
	}
	last := time.TimeOnly
	if time.Since(s.Since) > 24*time.Hour {
		last = time.DateTime
	}
	var rows [][]string
	row := func(window string, values []string, f event.Figures, events, last string) {
		cells := append(append([]string{}, values...), events, fmt.Sprint(f.Denied), fmt.Sprint(f.Packets), fmt.Sprint(f.Bytes), last)
		if x.window > 0 {
			cells = append([]string{window}, cells...)
		}
		rows = append(rows, cells)
	}
	for _, g := range s.Rows {
		values := groupCells(x.agg.by, g.Values)
		events := fmt.Sprint(g.Events)
		if g.Missed > 0 {
			events = fmt.Sprintf("%d to %d", g.Events, g.Events+g.Missed)
		}
		row(g.Window.Local().Format(time.DateTime), values, g.Figures, events, g.Last.Local().Format(last))
	}
	if s.Others.Events > 0 {
		others := make([]string, len(x.agg.by))
		others[0] = "(others)"
		row("", others, s.Others, fmt.Sprint(s.Others.Events), "")
	}
	if rows == nil {
		return printf(c.OutOrStdout(), "no events\n")
	}
	return table(c.OutOrStdout(), header, rows)
}
