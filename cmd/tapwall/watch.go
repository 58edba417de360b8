package main

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// follow prints what there is, and from then on each item that changes, until it is interrupted. The API has no watch; it is asked again
// and again, and what differs in more than its counters has changed. A server that goes away is waited for.
func (x *getter) follow(c *cobra.Command, cl *client.Client) error {
	known := map[string]string{}
	x.addRates()
	first, away := true, false
	for tick := time.NewTicker(x.interval); ; {
		items, err := x.fetch(c.Context(), cl)
		var gone *client.ConnectError
		switch {
		case c.Context().Err() != nil:
			return nil
		case errors.As(err, &gone) && !first:
			if !away {
				printf(c.ErrOrStderr(), "tapwall: %s; waiting for it\n", gone)
			}
			away = true
		case err != nil && (first || !errors.Is(err, client.ErrNotFound)):
			return err
		default:
			away = false
			if x.rates != nil {
				x.rates.add(items, time.Now())
			}
			if err := x.printChanges(c, items, known, first); err != nil {
				return err
			}
			first = false
		}
		select {
		case <-c.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

// addRates makes columns for the rates of mirrors, where tables are printed.
func (x *getter) addRates() {
	if x.format != "table" && x.format != "wide" {
		return
	}
	for _, t := range x.targets {
		for _, k := range t.kinds {
			if k.resource == policy.KindMirror {
				x.rates = &rates{}
				k.header += rateHeader
			}
		}
	}
}

// printChanges prints the items that known does not know as they are, and brings it up to date.
func (x *getter) printChanges(c *cobra.Command, items []item, known map[string]string, first bool) error {
	here := map[string]bool{}
	var changed []item
	for _, i := range items {
		face, err := i.face()
		if err != nil {
			return err
		}
		if x.rates != nil && i.kind.resource == policy.KindMirror {
			face += strings.Join(i.rows[0][len(i.rows[0])-2:], " ")
		}
		here[i.String()] = true
		if known[i.String()] != face {
			known[i.String()] = face
			changed = append(changed, i)
		}
	}
	table := x.format == "table" || x.format == "wide"
	switch {
	case first && table:
		if err := x.show(c.OutOrStdout(), changed, nil); err != nil {
			return err
		}
		x.noHeaders = x.noHeaders || len(changed) > 0
	case table && len(changed) > 0:
		if err := x.show(c.OutOrStdout(), changed, nil); err != nil {
			return err
		}
		x.noHeaders = true
	case !table:
		for _, i := range changed {
			if err := x.printItems(c.OutOrStdout(), []item{i}, true); err != nil {
				return err
			}
		}
	}
	for name := range known {
		if here[name] {
			continue
		}
		delete(known, name)
		w := c.OutOrStdout()
		if !table && x.format != "name" {
			w = c.ErrOrStderr() // what is printed stays a stream of documents
		}
		if err := printf(w, "%s deleted\n", name); err != nil {
			return err
		}
	}
	return nil
}

// face is the document without what changes all the time.
func (i *item) face() (string, error) {
	v, err := i.tree()
	if err != nil {
		return "", err
	}
	j, err := json.Marshal(withoutCounters(v))
	return string(j), err
}

func withoutCounters(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range []string{"counters", "packets", "bytes"} {
			if _, isList := v[k].([]any); !isList {
				delete(v, k)
			}
		}
		for k, x := range v {
			v[k] = withoutCounters(x)
		}
	case []any:
		for k, x := range v {
			v[k] = withoutCounters(x)
		}
	}
	return v
}
