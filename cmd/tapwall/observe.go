package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
)

// observer is one invocation of observe.
type observer struct {
	output
	filter                  event.Filter
	filters                 filterFlags
	last, first             int
	all, follow, failOnLoss bool
	numeric, node           bool
	since, until, color     string
	everything              bool // page after page
	started                 time.Time
	lost                    map[string]int64 // by id of the event that tells
	oldest, newest          time.Time        // of what was printed
	w                       io.Writer
	po                      event.PrintOptions
}

func newObserve(g *global) *cobra.Command {
	var x observer
	c := &cobra.Command{
		Use:   "observe",
		Short: "Print the record: which rule let what pass, and what was dropped",
		Long: `Print events of the record, the newest 20 unless told otherwise, and follow it with -f.

Filters may be repeated and take several values separated by commas, which are alternatives; different filters must all hold, and --not
is about the next one. They take the words that are printed, and the names of an endpoint that you know: its port, VM, uuid, address.`,
		Example: `  tapwall observe -f --verdict DENIED
  tapwall observe --since 5m --to vm2 --to-port 443,8000-8099
  tapwall observe -f --from-label app=web --not --to-label app=db
  tapwall observe --last 1000 --policy web -o json`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := x.prepare(c); err != nil {
				return err
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			return x.run(c, cl)
		},
	}
	x.flags(c, g)
	return c
}

func (x *observer) flags(c *cobra.Command, g *global) {
	fl := c.Flags()
	fl.IntVar(&x.last, "last", 20, "the newest N events, at most 10000")
	fl.IntVar(&x.first, "first", 0, "the oldest N events instead, at most 10000")
	fl.BoolVar(&x.all, "all", false, "everything that is kept")
	fl.BoolVarP(&x.follow, "follow", "f", false, "go on with new events")
	fl.StringVar(&x.since, "since", "", "not older than this: 5m, or a time")
	fl.StringVar(&x.until, "until", "", "older than this: 5m, or a time")
	x.filters = filterFlags{filter: &x.filter}
	x.filters.define(c, g)
	fl.BoolVar(&x.numeric, "numeric", false, "addresses without names")
	fl.BoolVar(&x.node, "print-node", false, "print the host")
	fl.StringVar(&x.color, "color", "auto", "auto, always or never")
	fl.BoolVar(&x.failOnLoss, "fail-on-loss", false,
		"exit with code 3 if events of the time that is printed are missing from the record, whatever the filter")
	x.flag(c, "compact", "json")
	completeFlag(c, "color", fixed("auto", "always", "never"))
	completeFlag(c, "since", fixed("1m", "5m", "1h", "1d"))
	completeFlag(c, "until", fixed("now", "1m", "5m", "1h"))
	free(c, "last", "first")
}

// prepare reads the flags.
func (x *observer) prepare(c *cobra.Command) (err error) {
	if err := x.allow("compact", "json"); err != nil {
		return err
	}
	if !slices.Contains([]string{"auto", "always", "never"}, x.color) {
		return usage("--color %s: want auto, always or never", x.color)
	}
	if err := x.filters.complete(); err != nil {
		return err
	}
	f := &x.filter
	x.started, x.w, x.lost = time.Now(), c.OutOrStdout(), map[string]int64{}
	if x.since != "" {
		if f.Since, err = event.ParseTime(x.since, x.started); err != nil {
			return usage("--since: %w", err)
		}
	}
	if x.until != "" {
		if f.Until, err = event.ParseTime(x.until, x.started); err != nil {
			return usage("--until: %w", err)
		}
	}
	if first, last := c.Flags().Changed("first"), c.Flags().Changed("last"); first && last || x.all && (first || last) {
		return usage("give only one of --all, --first and --last")
	}
	f.Limit = x.last
	switch {
	case c.Flags().Changed("first"):
		f.Limit, f.First = x.first, true
	case x.all, x.since != "" && !c.Flags().Changed("last"):
		x.everything, f.Limit, f.First = true, event.MaxLimit, true
	}
	if f.Limit > event.MaxLimit || f.Limit < 0 || f.Limit == 0 && !x.follow {
		return usage("--last and --first: want 1 to %d (0 only with -f); --all prints everything", event.MaxLimit)
	}
	if _, err := f.Compile(); err != nil {
		return badFilter(err)
	}
	x.po = event.PrintOptions{Numeric: x.numeric, Node: x.node, Color: useColor(x.color, c.OutOrStdout())}
	return nil
}

func (x *observer) run(c *cobra.Command, cl *client.Client) error {
	f, after := x.filter, ""
	for pages := 0; f.Limit > 0 && (pages == 0 || x.everything && f.After != ""); pages++ {
		page, raws, err := cl.Events(c.Context(), f)
		if err != nil {
			return err
		}
		if pages == 0 {
			printCoverage(c.ErrOrStderr(), page)
		}
		for i, e := range page.Items {
			if x.oldest.IsZero() {
				x.oldest = e.Timestamp
			}
			x.newest = e.Timestamp
			if err := x.print(e, raws[i]); err != nil {
				return err
			}
			after = e.Event.ID
		}
		f.After = page.Next
	}
	if f.Limit > 0 && x.newest.IsZero() {
		tellUnknown(c.Context(), cl, &x.filter)
	}
	if x.failOnLoss && f.Limit > 0 {
		if err := x.countLosses(c.Context(), cl); err != nil {
			return err
		}
	}
	if x.follow {
		if err := x.tail(c.Context(), cl, after); err != nil {
			return err
		}
	}
	total := int64(0)
	for _, n := range x.lost {
		total += n
	}
	if x.failOnLoss && len(x.lost) > 0 {
		return &exitError{exitEventsLost, fmt.Errorf("%s are missing from the record", missingEvents(total))}
	}
	return nil
}

// printCoverage says where the events are from, and how far back those places go.
func printCoverage(w io.Writer, p *event.Page) {
	if p.Coverage == nil && !p.Oldest.IsZero() { // of an older server
		p.Coverage = []event.Coverage{{Source: event.SourceMemory, Since: p.Oldest}}
	}
	var places []string
	for _, c := range p.Coverage {
		places = append(places, c.Source+" since "+c.Since.Local().Format(time.DateTime)+troubleText(c.Error))
	}
	if places != nil {
		printf(w, "coverage: %s\n", event.Escape(strings.Join(places, ", ")))
	}
}

func missingEvents(n int64) string {
	if n == 0 {
		return "an unknown number of events"
	}
	return fmt.Sprintf("%d events", n)
}

// print prints an event and takes note of what it tells of losses.
func (x *observer) print(e *event.Event, raw []byte) error {
	x.note(e)
	if x.format != "json" {
		return printEscaped(x.w, event.Compact(e, x.po))
	}
	var line bytes.Buffer // one event is one line, whatever a proxy has made of it
	if err := json.Compact(&line, raw); err != nil {
		return err
	}
	return printf(x.w, "%s\n", string(safeJSON(line.Bytes())))
}

func (x *observer) note(e *event.Event) {
	if l := e.Tapwall.Loss; l != nil {
		x.lost[e.Event.ID] = l.Count
	}
}

// countLosses asks for the losses of the time that was printed: a filter for verdicts, names or addresses selects none, since nobody
// knows whether what was lost would have been selected.
func (x *observer) countLosses(ctx context.Context, cl *client.Client) error {
	f := event.Filter{Action: []string{event.ActionLost}, Since: x.filter.Since, Until: x.filter.Until, Limit: event.MaxLimit, First: true}
	if f.Since.IsZero() && !x.everything {
		f.Since = x.oldest
	}
	for page := 0; page == 0 || f.After != ""; page++ {
		p, _, err := cl.Events(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range p.Items {
			if l := e.Tapwall.Loss; l == nil || x.filter.First && !x.everything && l.First.After(x.newest) {
				continue
			}
			x.note(e)
		}
		f.After = p.Next
	}
	return nil
}

// tail follows the record. Losses are asked for too where they count, and printed where they were asked for.
func (x *observer) tail(ctx context.Context, cl *client.Client, after string) error {
	f := x.filter
	silent := x.failOnLoss && len(f.Action) > 0 && !slices.Contains(f.Action, event.ActionLost)
	if silent {
		f.Action = append(slices.Clone(f.Action), event.ActionLost)
	}
	return cl.Follow(ctx, f, after, func(e *event.Event, raw []byte) error {
		if silent && e.Tapwall.Loss != nil {
			x.note(e)
			return nil
		}
		return x.print(e, raw)
	})
}

// badFilter names the flags of the values that make no sense.
func badFilter(err error) error {
	var all []string
	for _, e := range event.ParamErrors(err) {
		flag := "--" + e.Param
		if of, not := strings.CutPrefix(e.Param, "not."); not {
			flag = "--not --" + of
		}
		all = append(all, event.Escape(fmt.Sprintf("%s %s: %s", flag, e.Value, e.Reason)))
	}
	if all == nil {
		return err
	}
	return usage("the filter has %s\n  %s", count(len(all), "fault"), strings.Join(all, "\n  "))
}

func useColor(when string, w io.Writer) bool {
	if when != "auto" {
		return when == "always"
	}
	f, ok := unscreened(w).(*os.File)
	if !ok || strings.Contains(os.Getenv("TERM"), "dumb") || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
