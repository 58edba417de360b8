package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
)

func (x *observer) run(c *cobra.Command, cl *client.Client) error {
	f, after := x.filter, ""
	for pages := 0; pages == 0 || x.everything && f.After != ""; pages++ {
		if f.Limit == 0 { // only to know where to follow from
			f.Limit = 1
		}
		page, raws, err := cl.Events(c.Context(), f)
		if err != nil {
			return err
		}
		lines := x.lines(page.Items, raws)
		if !x.everything && len(lines) < len(page.Items) && len(page.Items) == f.Limit && f.Limit < event.MaxLimit {
			f.Limit = min(foldMore*f.Limit, event.MaxLimit)
			if page, raws, err = cl.Events(c.Context(), f); err != nil {
				return err
			}
			lines = x.lines(page.Items, raws)
		}
		if n := x.filter.Limit; !x.everything && f.First {
			lines = lines[:min(n, len(lines))]
		} else if !x.everything {
			lines = lines[max(0, len(lines)-n):]
		}
		if pages == 0 && x.filter.Limit > 0 {
			printCoverage(c.ErrOrStderr(), page)
		}
		after = page.At
		for _, l := range lines {
			if err := x.take(l); err != nil {
				return err
			}
			if page.At == "" { // of an older server
				after = l.e.Event.ID
			}
		}
		if err := x.printer.flush(); err != nil {
			return err
		}
		f.After = page.Next
	}
	if x.filter.Limit > 0 && x.newest.IsZero() {
		tellUnknown(c.Context(), cl, &x.filter)
	}
	if x.failOnLoss && x.filter.Limit > 0 {
		if err := x.countLosses(c.Context(), cl); err != nil {
			return err
		}
	}
	if x.follow {
		if err := x.tail(c, cl, after); err != nil {
			return err
		}
	}
	return x.end(c)
}

// end says what there is to say in the end.
func (x *observer) end(c *cobra.Command) error {
	if n := x.printer.noEK; n > 0 {
		_ = printf(c.ErrOrStderr(), "tapwall: left out of -o ek, since it is about no packet: %s\n", count(n, "event"))
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
		places = append(places, c.Source+sinceText(c.Since)+troubleText(c.Error))
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

// take prints a line and takes note of it.
func (x *observer) take(l line) error {
	if x.oldest.IsZero() {
		x.oldest = l.e.Timestamp
	}
	x.newest = l.last
	x.note(l.e)
	return x.printer.print(l)
}

// note takes note of what an event tells of losses.
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

// tail follows the record, until --until if that is given. The stream tells of losses whatever the filter; they are printed unless it asks
// for other sorts of events.
func (x *observer) tail(c *cobra.Command, cl *client.Client, after string) error {
	ctx := c.Context()
	if !x.filter.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, x.filter.Until)
		defer cancel()
	}
	m, err := x.filter.Compile()
	if err != nil {
		return err
	}
	return cl.Follow(ctx, x.filter, after, func(e *event.Event, raw []byte) error {
		if e.Tapwall.Loss != nil && !m.MatchKind(e) {
			x.note(e)
			return nil
		}
		if err := x.take(line{e, raw, 1, e.Timestamp}); err != nil {
			return err
		}
		return x.printer.flush()
	}, func(broke error) {
		if broke == nil {
			_ = printf(c.ErrOrStderr(), "tapwall: the stream goes on where it broke\n")
			return
		}
		_ = printf(c.ErrOrStderr(), "tapwall: the stream broke, trying again: %s\n", broke)
	})
}

// maxEventLine bounds a line of --input-file.
const maxEventLine = 1 << 20

// replay filters and prints events that were saved as JSON lines. Lines that are none are passed over, and make an error in the end: a file
// that is still written to has one.
func (x *observer) replay(c *cobra.Command) error {
	in, name := c.InOrStdin(), "standard input"
	if x.input != "-" {
		file, err := os.Open(x.input)
		if err != nil {
			return err
		}
		defer file.Close()
		in, name = file, x.input
	}
	m, err := x.filter.Compile()
	if err != nil {
		return err
	}
	r := replaying{observer: x, match: m}
	if len(x.agg.by) > 0 {
		if r.counts, err = event.NewAggregator(x.agg.by, x.window); err != nil {
			return err
		}
	}
	damage, err := r.read(in)
	if err != nil {
		return err
	}
	if r.counts != nil {
		s := r.counts.Summary(x.agg.top)
		err = x.printSummary(c, &s)
	} else {
		err = r.flush()
	}
	if err != nil {
		return err
	}
	if damage != nil {
		return fmt.Errorf("%s: %w", event.Escape(name), damage)
	}
	return x.end(c)
}

// replaying is what was read of events that were saved.
type replaying struct {
	*observer
	match  *event.Matcher
	counts *event.Aggregator // with --aggregate
	kept   []line            // the newest, with --last
	taken  int
}

// read takes all events. damage says what was no event, err why printing ended.
func (r *replaying) read(in io.Reader) (damage, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxEventLine)
	others := 0
	for n := 1; lines.Scan(); n++ {
		raw := bytes.TrimSpace(lines.Bytes())
		if len(raw) == 0 {
			continue
		}
		e := new(event.Event)
		if err := json.Unmarshal(raw, e); err != nil || e.Event.Action == "" {
			if damage == nil {
				damage = fmt.Errorf("line %d is no event of the record: %w", n, orNoAction(err))
			} else {
				others++
			}
			continue
		}
		if err := r.add(e, raw); err != nil {
			return nil, err
		}
	}
	if others > 0 {
		damage = fmt.Errorf("%w; nor are %d others", damage, others)
	}
	return errors.Join(damage, lines.Err()), nil
}

func (r *replaying) add(e *event.Event, raw []byte) error {
	r.note(e)
	switch limit := r.filter.Limit; {
	case !r.match.Match(e):
	case r.counts != nil:
		r.counts.Add(e)
	case r.filter.First || r.everything:
		if r.taken++; !r.everything && r.taken > limit {
			return nil
		}
		if err := r.take(line{e, raw, 1, e.Timestamp}); err != nil {
			return err
		}
		if r.taken%event.MaxLimit == 0 {
			return r.printer.flush()
		}
	default:
		if r.kept = append(r.kept, line{e, bytes.Clone(raw), 1, e.Timestamp}); len(r.kept) > 2*limit {
			r.kept = append(r.kept[:0], r.kept[len(r.kept)-limit:]...)
		}
	}
	return nil
}

// flush prints what is still to be printed.
func (r *replaying) flush() error {
	for _, l := range r.kept[max(0, len(r.kept)-r.filter.Limit):] {
		if err := r.take(l); err != nil {
			return err
		}
	}
	return r.printer.flush()
}

// orNoAction is why a line is no event.
func orNoAction(err error) error {
	if err == nil {
		return errors.New("it has no event.action")
	}
	return err
}
