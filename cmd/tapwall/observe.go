package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/event"
)

func newObserve(g *global) *cobra.Command {
	var f event.Filter
	var last, first int
	var all, follow, failOnLoss, numeric, node bool
	var since, until, color string
	var o output
	c := &cobra.Command{
		Use:   "observe",
		Short: "Print the record: which rule let what pass, and what was dropped",
		Long: `Print events of the record, the newest 20 unless told otherwise, and follow it with -f. Several values of one flag are alternatives; different
flags must all hold.`,
		Example: `  tapwall observe -f --verdict DROPPED
  tapwall observe --since 5m --to vm2 --to-port 443
  tapwall observe --last 1000 --policy web -o json`,
		Args: noArgs(""),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check("compact", "json"); err != nil {
				return err
			}
			if !slices.Contains([]string{"auto", "always", "never"}, color) {
				return usage("--color %s: want auto, always or never", color)
			}
			now := time.Now()
			var err error
			if since != "" {
				if f.Since, err = event.ParseTime(since, now); err != nil {
					return usage("--since: %w", err)
				}
			}
			if until != "" {
				if f.Until, err = event.ParseTime(until, now); err != nil {
					return usage("--until: %w", err)
				}
			}
			f.Limit = last
			everything := false
			switch {
			case c.Flags().Changed("first"):
				f.Limit, f.First = first, true
			case all, since != "" && !c.Flags().Changed("last"):
				everything, f.Limit, f.First = true, event.MaxLimit, true
			}
			if f.Limit > event.MaxLimit || f.Limit < 0 || f.Limit == 0 && !follow {
				return usage("--last and --first: want 1 to %d (0 only with -f); --all prints everything", event.MaxLimit)
			}
			if _, err := f.Compile(); err != nil {
				return badFilter(err)
			}
			cl, err := g.client()
			if err != nil {
				return err
			}
			defer cl.Close()
			po := event.PrintOptions{Numeric: numeric, Node: node, Color: useColor(color, c.OutOrStdout())}
			lost := int64(0)
			show := func(e *event.Event, raw []byte) error {
				if l := e.Tapwall.Loss; l != nil {
					lost += l.Count
				}
				var err error
				if o.format == "json" {
					var line bytes.Buffer // one event is one line, whatever a proxy has made of it
					if err = json.Compact(&line, raw); err == nil {
						err = printf(c.OutOrStdout(), "%s\n", string(safeJSON(line.Bytes())))
					}
				} else {
					err = printEscaped(c.OutOrStdout(), event.Compact(e, po))
				}
				return err
			}
			after := ""
			for pages := 0; f.Limit > 0 && (pages == 0 || everything && f.After != ""); pages++ {
				page, raws, err := cl.Events(c.Context(), f)
				if err != nil {
					return err
				}
				if pages == 0 && !page.Oldest.IsZero() {
					printf(c.ErrOrStderr(), "coverage: memory since %s\n", page.Oldest.Local().Format("2006-01-02 15:04:05"))
				}
				for i, e := range page.Items {
					if err := show(e, raws[i]); err != nil {
						return err
					}
					after = e.Event.ID
				}
				f.After = page.Next
			}
			f.After = ""
			if follow {
				if err := cl.Follow(c.Context(), f, after, show); err != nil {
					return err
				}
			}
			if failOnLoss && lost > 0 {
				return &exitError{exitEventsLost, fmt.Errorf("%d events are missing from the record", lost)}
			}
			return nil
		},
	}
	fl := c.Flags()
	fl.IntVar(&last, "last", 20, "the newest N events, at most 10000")
	fl.IntVar(&first, "first", 20, "the oldest N events, at most 10000")
	fl.BoolVar(&all, "all", false, "everything that is kept in memory")
	fl.BoolVarP(&follow, "follow", "f", false, "go on with new events")
	fl.StringVar(&since, "since", "", "not older than this: 5m, or a time")
	fl.StringVar(&until, "until", "", "older than this: 5m, or a time")
	fl.StringSliceVar(&f.Verdict, "verdict", nil, "FORWARDED, DROPPED, …; repeatable or separated by commas, as all filters")
	fl.StringSliceVar(&f.Action, "action", nil, "policy-verdict, events-lost, foreign-flows-removed, flows-restored, meters-restored, bridge-taken-over")
	fl.StringSliceVar(&f.Bridge, "bridge", nil, "name of the bridge")
	fl.StringSliceVar(&f.Policy, "policy", nil, "name of the deciding policy")
	fl.StringSliceVar(&f.Rule, "rule", nil, "name of the deciding rule, or policy/direction/rule")
	fl.StringSliceVar(&f.Protocol, "protocol", nil, "tcp, udp, icmp, ipv6-icmp, …")
	fl.StringSliceVar(&f.IP, "ip", nil, "address or CIDR of either side")
	fl.StringSliceVar(&f.FromIP, "from-ip", nil, "address or CIDR of the initiator")
	fl.StringSliceVar(&f.ToIP, "to-ip", nil, "address or CIDR of the other side")
	fl.IntSliceVar(&f.Port, "port", nil, "port of either side")
	fl.IntSliceVar(&f.FromPort, "from-port", nil, "port of the initiator")
	fl.IntSliceVar(&f.ToPort, "to-port", nil, "port of the other side")
	fl.StringSliceVar(&f.Endpoint, "endpoint", nil, "name or port of the endpoint on either side")
	fl.StringSliceVar(&f.FromName, "from", nil, "name or port of the initiator")
	fl.StringSliceVar(&f.ToName, "to", nil, "name or port of the other side")
	fl.BoolVar(&numeric, "numeric", false, "addresses without names")
	fl.BoolVar(&node, "print-node", false, "print the host")
	fl.StringVar(&color, "color", "auto", "auto, always or never")
	fl.BoolVar(&failOnLoss, "fail-on-loss", false, "exit with code 3 if the printed events tell of missing ones")
	o.flag(c, "compact", "compact or json")
	completeFlag(c, "verdict", "FORWARDED", "DROPPED")
	completeFlag(c, "color", "auto", "always", "never")
	return c
}

// badFilter names the flags of the values that make no sense.
func badFilter(err error) error {
	var all []string
	for _, e := range event.ParamErrors(err) {
		all = append(all, fmt.Sprintf("--%s %s: %s", e.Param, e.Value, e.Reason))
	}
	if all == nil {
		return err
	}
	return usage("the filter has %d fault(s)\n  %s", len(all), strings.Join(all, "\n  "))
}

func useColor(when string, w io.Writer) bool {
	if when != "auto" {
		return when == "always"
	}
	if s, ok := w.(*screen); ok {
		w = s.w
	}
	f, ok := w.(*os.File)
	if !ok || strings.Contains(os.Getenv("TERM"), "dumb") || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
