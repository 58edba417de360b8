package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/event"
)

// observer is one invocation of observe.
type observer struct {
	output
	filter                  event.Filter
	filters                 filterFlags
	last, first             int
	all, follow, failOnLoss bool
	numeric, node, rule     bool
	noFold, folds           bool // folds: denials that say the same are one line
	since, until, color     string
	timeFormat, input       string
	mask                    []string
	printer                 *eventPrinter
	agg                     aggregation
	window                  time.Duration // of agg
	everything              bool          // page after page
	started                 time.Time
	lost                    map[string]int64 // by id of the event that tells
	oldest, newest          time.Time        // of what was printed
}

func newObserve(g *global) *cobra.Command {
	var x observer
	c := &cobra.Command{
		Use:   "observe",
		Short: "Print the record: which rule let what pass, and what was dropped",
		Long: `Print events of the record: the newest 20, or all since --since, and follow it with -f. They come in the order in which they
were told; the end of a connection has the time at which it ended, and is told some seconds later.

Filters may be repeated and take several values separated by commas, which are alternatives; different filters must all hold, and --not
is about the next one. They take the words that are printed, and the names of an endpoint that you know: its port, VM, uuid, address.`,
		Example: `  tapwall observe -f --verdict DENIED
  tapwall observe --since 5m --to vm2 --to-port 443,8000-8099
  tapwall observe -f --from-label app=web --not --to-label app=db
  tapwall observe --type end --endpoint vm2              # how long connections lasted
  tapwall observe --type change --user root --since 1d   # who changed what
  tapwall observe --last 1000 --policy web -o json
  tapwall observe --since 1h --verdict DENIED -o csv --field-mask @timestamp,source.ip,destination.ip,destination.port,rule.id
  tapwall observe --aggregate src,dst,dport,verdict --since 1h`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := x.prepare(c); err != nil {
				return err
			}
			if x.input != "" {
				return x.replay(c)
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			if len(x.agg.by) > 0 {
				return x.aggregate(c, cl)
			}
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
	fl.BoolVar(&x.rule, "print-rule", false, "print policy/direction/rule and the cookie of the flow")
	fl.StringVar(&x.timeFormat, "time-format", "stampmilli", "of compact and table: "+strings.Join(timeFormats(), ", "))
	fl.StringSliceVar(&x.mask, "field-mask", nil, "only these fields, of json, dict and csv: source,rule.id")
	fl.StringVar(&x.input, "input-file", "",
		"filter and print events that were saved with -o json (- = standard input), instead of a server's")
	fl.BoolVar(&x.noFold, "no-fold", false, "on a terminal, too: a line for each denied packet, also where one is sent again and again")
	x.agg.flags(c)
	x.flag(c, observeFormats...)
	completeFlag(c, "time-format", fixed(timeFormats()...))
	completeFlag(c, "field-mask", fixed(event.Fields()...))
	completeFlag(c, "color", fixed("auto", "always", "never"))
	completeFlag(c, "since", fixed("1m", "5m", "1h", "1d"))
	completeFlag(c, "until", fixed("now", "1m", "5m", "1h"))
	free(c, "last", "first")
}

// prepare reads the flags.
func (x *observer) prepare(c *cobra.Command) (err error) {
	if x.format == "pcapng" {
		return usage("-o pcapng: the record says what packets were, and does not keep them. tapwall capture MIRROR -w FILE has those of a mirror")
	}
	if err := x.allow(observeFormats...); err != nil {
		return err
	}
	if !slices.Contains([]string{"auto", "always", "never"}, x.color) {
		return usage("--color %s: want auto, always or never", x.color)
	}
	if err := x.filters.complete(); err != nil {
		return err
	}
	x.folds = x.format == "compact" && !x.noFold && terminal(c.OutOrStdout())
	if x.printer, err = x.newPrinter(c.OutOrStdout()); err != nil {
		return err
	}
	if len(x.agg.by) == 0 && c.Flags().Changed("top") {
		return usage("--top is for --aggregate; --last %d prints so many events", x.agg.top)
	}
	if x.window, err = x.agg.check("aggregate"); err != nil {
		return err
	}
	f := &x.filter
	x.started, x.lost = time.Now(), map[string]int64{}
	if f.Since, err = timeOf("since", &x.since, x.started); err != nil {
		return err
	}
	if f.Until, err = timeOf("until", &x.until, x.started); err != nil {
		return err
	}
	if len(x.agg.by) > 0 {
		switch {
		case x.follow:
			return usage("--aggregate and -f: tapwall top follows")
		case !slices.Contains([]string{"compact", "table", "json"}, x.format) || x.mask != nil:
			return usage("--aggregate prints a table, or with -o json a document")
		case c.Flags().Changed("first") || c.Flags().Changed("last"):
			return usage("--aggregate is of a time: --since, --until or --all, not --first or --last")
		}
	}
	first, last := c.Flags().Changed("first"), c.Flags().Changed("last")
	switch {
	case first && last || x.all && (first || last):
		return usage("give only one of --all, --first and --last")
	case x.follow && first:
		return usage("--first and -f: new events do not follow the first ones; --since or --all does")
	case x.follow && x.until != "" && !f.Until.After(x.started):
		return usage("--until and -f: no new event is older than %s; give a time to come", x.until)
	case x.follow && x.input != "":
		return usage("--input-file and -f: nothing follows what was saved")
	}
	f.Limit = x.last
	switch {
	case first:
		f.Limit, f.First = x.first, true
	case x.all, !last && (x.since != "" || x.input != ""):
		x.everything, f.Limit, f.First = true, event.MaxLimit, true
	}
	if f.Limit > event.MaxLimit || f.Limit < 0 || f.Limit == 0 && !x.follow {
		return usage("--last and --first: want 1 to %d (0 only with -f); --all prints everything", event.MaxLimit)
	}
	if _, err := f.Compile(); err != nil {
		return badFilter(err)
	}
	return nil
}

// newPrinter makes what prints events as the flags say.
func (x *observer) newPrinter(w io.Writer) (*eventPrinter, error) {
	layout, ok := event.TimeFormats()[strings.ToLower(x.timeFormat)]
	if !ok {
		return nil, usage("--time-format %s: want one of %s", event.Escape(x.timeFormat), strings.Join(timeFormats(), ", "))
	}
	p := &eventPrinter{w: w, format: x.format, po: event.PrintOptions{Numeric: x.numeric, Node: x.node, Rule: x.rule,
		Color: useColor(x.color, w), TimeFormat: layout}}
	if len(x.mask) > 0 && !slices.Contains([]string{"json", "dict", "csv"}, x.format) {
		return nil, usage("--field-mask is for -o json, dict and csv")
	}
	for _, place := range x.mask {
		fields, ok := event.Expand(strings.TrimSpace(place))
		if !ok {
			return nil, usage("--field-mask %s: there is no such field; there are %s", event.Escape(place), strings.Join(event.Fields(), ", "))
		}
		p.mask = append(p.mask, fields...)
	}
	return p, nil
}

func timeFormats() []string { return slices.Sorted(maps.Keys(event.TimeFormats())) }

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
	return terminal(w) && !strings.Contains(os.Getenv("TERM"), "dumb") && os.Getenv("NO_COLOR") == ""
}
