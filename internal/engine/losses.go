package engine

import (
	"context"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// watchLosses reports the copies of packets that never became packet-ins: what the log meter withheld, and what the switch's queue towards us could not
// hold. No message tells of either; the switch's counters do. It looks once a second while copies are coming, and every ten seconds otherwise.
func (e *Engine) watchLosses(ctx context.Context, b *bridge) {
	var account lossAccount
	var epoch, seen uint64
	idle := 0
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st := b.sw.State()
		b.datapathID.Store(st.DatapathID)
		if !st.Ready || b.cfg.Mode != Owned {
			continue
		}
		// After the last copy a few more looks, until the flow counters have caught up.
		if copies := b.copies.Load(); copies != seen || epoch != st.Epoch {
			idle, seen, epoch = 0, copies, st.Epoch
		} else if idle++; idle > len(account.open) && idle%10 != 0 {
			continue
		}
		made := b.meterMade.Swap(false)
		c, err := b.readLosses(ctx)
		if err != nil {
			b.meterMade.Store(made)
			continue // the connection went; the next one is read anew
		}
		meter, queue := account.add(c, made, b.copiesBefore.Load())
		if meter > 0 {
			e.opt.Recorder.AddLoss(event.StagePacketInMeter, event.NoClass, "rate", meter)
		}
		if queue > 0 {
			e.opt.Recorder.AddLoss(event.StageSwitchQueue, event.NoClass, "overflow", queue)
		}
	}
}

// copyCounters are three views of the same copies: made of packets by the flows of VERDICT, withheld by the meter, received by us.
type copyCounters struct{ copied, metered, received uint64 }

// readLosses reads the flows first and what was received last: a packet that comes in between is then not taken for lost.
func (b *bridge) readLosses(ctx context.Context) (c copyCounters, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = b.sw.EachFlow(ctx, ofp.FlowFilter{Table: pipeline.TableVerdict, Cookie: uint64(pipeline.CookieMagic), CookieMask: uint64(pipeline.CookieMagicMask)}, func(f *ofp.FlowStats) {
		if slices.ContainsFunc(f.Actions, func(a flow.Action) bool { _, ok := a.(flow.Controller); return ok }) {
			c.copied += f.Stats.Packets
		}
	})
	if err != nil {
		return c, err
	}
	stats, err := b.sw.MeterStats(ctx)
	if err != nil {
		return c, err
	}
	for _, m := range stats {
		if m.ID == pipeline.MeterLog && len(m.Bands) > 0 {
			c.metered = m.Bands[0].Packets
		}
	}
	c.received = b.copies.Load()
	return c, nil
}

// lossAccount turns readings of the counters into losses.
type lossAccount struct {
	started    bool
	base, last copyCounters // base: what is not ours to report, an earlier process's
	reported   int64        // lost in the queue, as told
	// open holds the last deficits. A packet is counted by its flow up to half a second late and may be on its way to us, so a single deficit says
	// little; the least of several in a row is lost for good.
	open [3]int64
}

// add takes a reading and returns what was lost since the last one. made says that this process has made the meter, and so the pipeline, since then; received is what
// it had received before.
func (a *lossAccount) add(c copyCounters, made bool, received uint64) (meter, queue int64) {
	switch {
	case made:
		*a = lossAccount{started: true, base: copyCounters{received: received}, last: copyCounters{received: received}}
	case !a.started || c.metered < a.last.metered || c.copied < a.last.copied:
		// The first look at the pipeline of an earlier process, or somebody wiped the flows: what was before cannot be told apart.
		*a = lossAccount{started: true, base: c, last: c}
	}
	meter = int64(c.metered - a.last.metered)
	a.last = c
	deficit := int64(c.copied-a.base.copied) - int64(c.metered-a.base.metered) - int64(c.received-a.base.received)
	copy(a.open[1:], a.open[:])
	a.open[0] = deficit
	if least := slices.Min(a.open[:]); least > a.reported {
		queue = least - a.reported
		a.reported = least
	}
	return meter, queue
}
