package main

import (
	"fmt"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// rates says how much mirrors copy between two looks at them.
type rates struct {
	last map[string]copied // by mirror
}

// copied is what a mirror had copied at a time.
type copied struct {
	at             time.Time
	packets, bytes int64
	sent           int64
	tellsSent      bool
}

// rateHeader is that of the cells that add appends.
const rateHeader = " RATE SENT"

// add appends to the rows of mirrors how much they took, and where it is counted sent, in a second since the last time.
func (r *rates) add(items []item, now time.Time) {
	next := map[string]copied{}
	for i := range items {
		d := items[i].document
		if items[i].kind.resource != policy.KindMirror || d == nil {
			continue
		}
		c := copiedBy(d, now)
		next[d.Name] = c
		taken, sent := "-", "-"
		if before, known := r.last[d.Name]; known {
			taken, sent = c.since(before)
		}
		items[i].rows[0] = append(items[i].rows[0], taken, sent)
	}
	r.last = next
}

func copiedBy(d *client.Document, now time.Time) copied {
	out := copied{at: now}
	for _, h := range d.Status.Hosts {
		packets, bytes := "selectedPackets", "selectedBytes"
		if _, filtered := h.Counters["acceptedPackets"]; filtered {
			packets, bytes = "acceptedPackets", "acceptedBytes"
		}
		out.packets += h.Counters[packets]
		out.bytes += h.Counters[bytes]
		n, told := h.Counters["sentPackets"]
		out.sent += n
		out.tellsSent = out.tellsSent || told
	}
	return out
}

// since is the rate from an earlier time on, in words.
func (c copied) since(before copied) (taken, sent string) {
	seconds := c.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return "-", "-"
	}
	per := func(now, then int64) float64 { return float64(max(0, now-then)) / seconds }
	taken = fmt.Sprintf("%s p/s, %sB/s", threeDigits(per(c.packets, before.packets)), threeDigits(per(c.bytes, before.bytes)))
	if sent = "-"; c.tellsSent {
		sent = threeDigits(per(c.sent, before.sent)) + " p/s"
	}
	return taken, sent
}

// threeDigits writes a number with three digits and k, M or G.
func threeDigits(n float64) string {
	for _, unit := range []string{"", "k", "M", "G"} {
		switch {
		case n < 10 && unit != "":
			return fmt.Sprintf("%.2f%s", n, unit)
		case n < 100 && unit != "":
			return fmt.Sprintf("%.1f%s", n, unit)
		case n < 1000 || unit == "G":
			return fmt.Sprintf("%.0f%s", n, unit)
		}
		n /= 1000
	}
	return ""
}

// copiedText says in words what a mirror has counted on a host.
func copiedText(c map[string]int64) string {
	text := fmt.Sprintf("%s selected (%sB): %d accepted, %d rejected", count(int(c["selectedPackets"]), "packet"),
		threeDigits(float64(c["selectedBytes"])), c["acceptedPackets"], c["rejectedPackets"])
	for _, x := range []struct{ counter, words string }{
		{"sampledOutPackets", "of sessions that are not taken"}, {"rateDroppedPackets", "over the limit"},
	} {
		if n := c[x.counter]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, x.words)
		}
	}
	copies := "copies"
	if c["sentPackets"] == 1 {
		copies = "copy"
	}
	text += fmt.Sprintf("; %d %s sent", c["sentPackets"], copies)
	if n := c["cutPackets"]; n > 0 {
		text += fmt.Sprintf(", %d cut", n)
	}
	if n := c["sinkDroppedPackets"]; n > 0 {
		text += fmt.Sprintf(", %d lost at the targets", n)
	}
	return text
}
