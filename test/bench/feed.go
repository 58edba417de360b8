package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	feedSize    = 100_000
	feedChanges = 100
)

// feedPrefix is prefix i of a threat feed: of twenty 12 are hosts, 5 are /24, one is a /16, 2 are IPv6. No two are the
// same or next to each other, so that they are not put together.
func feedPrefix(i int) map[string]any {
	var text string
	k := i % 20
	i *= 2
	switch {
	case k < 12:
		text = fmt.Sprintf("%d.%d.%d.%d/32", 20+i>>24, i>>16&255, i>>8&255, i&255)
	case k < 17:
		text = fmt.Sprintf("%d.%d.%d.0/24", 40+i>>16, i>>8&255, i&255)
	case k == 17:
		text = fmt.Sprintf("%d.%d.0.0/16", 60+i/40*2>>8, i/40*2&255)
	default:
		text = fmt.Sprintf("2001:db8:%x:%x::/64", i>>16, i&0xffff)
	}
	return map[string]any{"cidr": text}
}

// benchFeed gives rules a group of 100,000 prefixes and exchanges some of them.
func benchFeed() (out []line, err error) {
	for _, rules := range []int{1, 100} {
		lines, err := feed(rules)
		if out = append(out, lines...); err != nil {
			return out, fmt.Errorf("%d rules: %w", rules, err)
		}
	}
	l, err := ovnSetLine(ovnHosts(scale(feedSize)), 1, feedChanges)
	if err == nil {
		out = append(out, l)
	}
	return out, err
}

func feed(rules int) (out []line, err error) {
	r, err := newRig(1, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var prefixes []any
	for i := range scale(feedSize) {
		prefixes = append(prefixes, feedPrefix(i))
	}
	var rs []map[string]any
	for i := range rules {
		rs = append(rs, allow(fmt.Sprintf("r%d", i), []any{map[string]any{"group": "feed"}}, tcp(1000+i)))
	}
	took, err := r.apply([]any{groupDoc("feed", prefixes), policyDoc("p", []any{map[string]any{"port": "vm1"}}, rs...)})
	if err != nil {
		return nil, err
	}
	flows, rss, peak, err := r.weigh()
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("feed of %d prefixes, %d rules", len(prefixes), rules)
	out = append(out, atMost(what+": installed", fmt.Sprintf("%v (%d flows, RSS of tapwall %d, peak %d MiB)",
		took.Round(10*time.Millisecond), flows,
		rss>>20, peak>>20), "by hand 2.4 s", took, 4*time.Second))

	next := len(prefixes)
	exchange := func() (gone, come []any) { // others in their place, of the same sorts
		for i := range feedChanges {
			at := (next/feedChanges*7919 + i*len(prefixes)/feedChanges) % len(prefixes) // all over the list
			gone = append(gone, prefixes[at])
			prefixes[at] = feedPrefix(next + i)
			come = append(come, prefixes[at])
		}
		next += feedChanges
		return gone, come
	}
	l, err := r.repeat(20, fmt.Sprintf("%d of them changed, p50", feedChanges), 50*time.Millisecond, func() (time.Duration, error) {
		gone, come := exchange()
		return r.write("POST", "/v1/groups/feed/members?wait=installed&timeout=55s", map[string]any{"remove": gone, "add": come})
	})
	if out = append(out, l); err != nil {
		return out, err
	}
	l, err = r.repeat(5, fmt.Sprintf("the same by a PUT of all %.1f MB, p50", float64(size(groupDoc("feed", prefixes)))/1e6), 0,
		func() (time.Duration, error) {
			exchange()
			return r.put("groups/feed", groupDoc("feed", prefixes))
		})
	if out = append(out, l); err != nil {
		return out, err
	}
	if rules == 1 {
		return out, nil
	}
	if err := r.quiet(); err != nil { // killed before its numbers are saved, it judges the connections of the changed rules again
		return out, err
	}
	back, sent, err := r.restart()
	if err != nil {
		return out, err
	}
	out = append(out, atMost("restart to ready among them", fmt.Sprintf("%v, %.0f flow-mods", back.Round(10*time.Millisecond),
		sent), "", back, 0).
		and(sent == 0))
	if l, err = r.resync(); err == nil {
		out = append(out, l)
	}
	return out, err
}

// repeat makes a change of one sort n times and judges the median of how long it takes; a limit of 0 is none.
func (r *rig) repeat(n int, what string, within time.Duration, change func() (time.Duration, error)) (line, error) {
	before, err := r.mods()
	if err != nil {
		return line{}, err
	}
	var took []time.Duration
	ours, err := threadTime(r.tw.Pid())
	if err != nil {
		return line{}, err
	}
	for range n {
		d, err := change()
		if err != nil {
			return line{}, err
		}
		took = append(took, d)
	}
	if err := r.settle(before); err != nil {
		return line{}, err
	}
	then, err := threadTime(r.tw.Pid())
	if err != nil {
		return line{}, err
	}
	now, err := r.mods()
	return atMost(what, fmt.Sprintf("%v, max %v, CPU of tapwall %v each, %.0f flow-mods", median(took).Round(100*time.Microsecond),
		slices.Max(took).Round(100*time.Microsecond), ((then-ours)/time.Duration(n)).Round(100*time.Microsecond),
		(now-before)/float64(n)), "", median(took), within), err
}

// resync wipes the flow tables and waits until all flows are back.
func (r *rig) resync() (line, error) {
	want, err := flowCount(r.Lab, "br0")
	if err != nil {
		return line{}, err
	}
	if _, err := r.Ofctl("del-flows", "br0"); err != nil {
		return line{}, err
	}
	start := time.Now()
	for end := start.Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n, err := flowCount(r.Lab, "br0")
		if err != nil {
			return line{}, err
		}
		if n >= want {
			return atMost("all flows wiped by somebody -> all back", fmt.Sprintf("%v (%d flows)",
				time.Since(start).Round(10*time.Millisecond), n), "",
				time.Since(start), 0), nil
		}
		if time.Now().After(end) {
			return line{}, fmt.Errorf("%d of %d flows are back after 30 s", n, want)
		}
	}
}
