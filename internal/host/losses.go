package host

import (
	"context"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// watchLosses reports the copies of packets that never became packet-ins: what the log meter withheld, and what the switch's queue
// towards us could not hold. No message tells of either; the switch's counters do. It looks once a second while copies are coming, and
// every ten seconds otherwise; and as soon as the caches have followed a change, because nobody knows of what is missing then whether it
// was lost.
func (e *Engine) watchLosses(ctx context.Context, l *link) {
	var account lossAccount
	var unanswered, unsampled meterAccount
	var epoch, seen uint64
	idle := 0
	var early time.Time // not before then, unless it is time: looks are work for the switch, which many changes must not add up to
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-l.book.settled:
			if time.Now().Before(early) {
				continue
			}
		}
		st := l.sw.State()
		l.datapathID.Store(st.DatapathID)
		if !st.Ready {
			continue
		}
		// After the last copy a few more looks, until the flow counters have caught up.
		before := l.book.progress()
		if copies := l.copies.Load() + l.book.answers.asked.Load(); copies != seen || epoch != st.Epoch || !account.knows(before) {
			idle, seen, epoch = 0, copies, st.Epoch
		} else if idle++; idle > len(account.open) && idle%10 != 0 {
			continue
		}
		made, again := l.meterMade.Swap(false), l.meterAgain.Swap(false)
		start := time.Now()
		c, metered, err := l.readLosses(ctx)
		early = time.Now().Add(10 * time.Since(start))
		if err != nil {
			l.meterMade.Store(made)
			l.meterAgain.Store(again)
			continue // the connection went; the next one is read anew
		}
		account.started = account.started && !again
		l.book.answers.metered.Add(unanswered.add(metered[pipeline.MeterReject]))
		at := l.book.progress()
		at.doubt = at.doubt || at.turn != before.turn
		meter, queue, unknown := account.add(c, made, l.copiesBefore.Load(), at)
		l.book.lostCopies.Add(uint64(unknown))
		unsampled.begin(made)
		if samples := min(meter, int64(unsampled.add(metered[pipeline.MeterSample]))); samples > 0 {
			e.opt.Recorder.AddHostLoss(e.Name(), event.StagePacketInMeter, event.P2, "rate", samples)
			meter -= samples
		}
		if meter > 0 {
			e.opt.Recorder.AddHostLoss(e.Name(), event.StagePacketInMeter, event.NoClass, "rate", meter)
		}
		if queue > 0 {
			e.opt.Recorder.AddHostLoss(e.Name(), event.StageSwitchQueue, event.NoClass, "overflow", queue)
		}
	}
}

// logMeters are those under which copies are made that become events, and of which flows and packet-ins tell what the queue lost.
var logMeters = [...]uint32{pipeline.MeterLog, pipeline.MeterDeny, pipeline.MeterMessage, pipeline.MeterSample,
	pipeline.MeterData}

// metersSet is how often each of logMeters was made or set anew.
type metersSet [len(logMeters)]uint64

// since says which were since then: whether any was, and whether all were that are there.
func (now metersSet) since(then metersSet) (some, all bool) {
	all = true
	for i := range now {
		some = some || now[i] != then[i]
		all = all && (now[i] != then[i] || now[i] == 0)
	}
	return some, some && all
}

// copyCounters are three views of the same copies: made of packets by flows, withheld by their meters, received by us.
type copyCounters struct{ copied, metered, received uint64 }

// readLosses reads the flows first and what was received last: a packet that comes in between is then not taken for lost. metered is what
// each meter has withheld.
func (l *link) readLosses(ctx context.Context) (c copyCounters, metered map[uint32]uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, table := range []uint8{pipeline.TableVerdict, pipeline.TableCommit, pipeline.TableExit} {
		err = l.sw.EachFlow(ctx, ofp.FlowFilter{Table: table, Cookie: uint64(pipeline.CookieMagic),
			CookieMask: uint64(pipeline.CookieMagicMask)}, func(f *ofp.FlowStats) {
			for _, a := range f.Actions { // a flow may copy for two reasons
				if x, ok := a.(flow.Controller); ok && slices.Contains(logMeters[:], x.MeterID) {
					c.copied += f.Stats.Packets
				}
			}
		})
		if err != nil {
			return c, nil, err
		}
	}
	if metered, err = l.metered(ctx); err != nil {
		return c, nil, err
	}
	c.metered, c.received = withheld(metered), l.copies.Load()
	return c, metered, nil
}

// withheld is how many copies that would have become events meters have withheld.
func withheld(metered map[uint32]uint64) (n uint64) {
	for _, id := range logMeters {
		n += metered[id]
	}
	return n
}

// metered is how many copies each meter has withheld.
func (l *link) metered(ctx context.Context) (map[uint32]uint64, error) {
	stats, err := l.sw.MeterStats(ctx)
	out := map[uint32]uint64{}
	for _, m := range stats {
		if len(m.Bands) > 0 {
			out[m.ID] = m.Bands[0].Packets
		}
	}
	return out, err
}

// meterAccount turns readings of a meter into what it withheld since the last one. What it had withheld before the first is not known to be
// ours to report; a meter that counts less was made anew.
type meterAccount struct {
	started bool
	last    uint64
}

// begin says ahead of a reading whether this process has made the meter: then all that it counts is ours to report.
func (a *meterAccount) begin(made bool) { a.started = a.started || made }

func (a *meterAccount) add(now uint64) (more uint64) {
	switch {
	case !a.started:
	case now < a.last:
		more = now
	default:
		more = now - a.last
	}
	a.started, a.last = true, now
	return more
}

// progress says how far the caches of the switch have followed its changes.
type progress struct {
	turn  uint64 // number of the last change
	doubt bool   // the caches have not followed it
	done  uint64 // how many copies had been received or withheld when that began to be waited for: they are counted by now
}

func (k *book) progress() progress {
	k.mu.Lock()
	defer k.mu.Unlock()
	return progress{k.account.turn, k.account.turn != k.followed, k.done}
}

// lossAccount turns readings of the counters into losses.
type lossAccount struct {
	started    bool
	base, last copyCounters // base: what is not ours to report, an earlier process's
	reported   int64        // lost in the queue, as told
	// open holds the last deficits. A packet is counted by its flow up to half a second late and may be on its way to us, so a single
	// deficit says little; the least of several in a row is lost for good.
	open [3]int64

	// Behind a change, flows count copies that were never made: packets that cached flows passed before it, see account. Until the caches have
	// followed, a deficit says nothing; what there is of it then is set aside, with what may still hide some of it. That falls to what it was
	// as later readings show it, and all of it is told of as unknown: a loss among it is in no other figure.
	turn        uint64 // the last change that was followed
	aside, told int64
}

// knows reports whether everything that flows counted behind changes has been set aside.
func (a *lossAccount) knows(p progress) bool { return !p.doubt && a.turn == p.turn }

// add takes a reading and returns what was lost since the last one, and how much more may or may not have been. made says that this
// process has made the meter, and so the pipeline, since then; received is what it had received before.
func (a *lossAccount) add(c copyCounters, made bool, received uint64, at progress) (meter, queue, unknown int64) {
	switch {
	case made:
		*a = lossAccount{started: true, base: copyCounters{received: received}, last: copyCounters{received: received}}
	case !a.started || c.metered < a.last.metered || c.copied < a.last.copied:
		// The first look at the pipeline of an earlier process, or somebody wiped the flows: what was before cannot be told apart.
		*a = lossAccount{started: true, base: c, last: c}
	}
	meter = int64(c.metered - a.last.metered)
	since := int64(c.received+c.metered) - int64(a.last.received+a.last.metered) // what came since the last reading may not be counted yet
	a.last = c
	if at.doubt {
		return meter, 0, 0
	}
	deficit := int64(c.copied-a.base.copied) - int64(c.metered-a.base.metered) - int64(c.received-a.base.received) - a.aside
	if !a.knows(at) {
		a.turn = at.turn
		unknown = max(0, deficit-a.reported)
		a.told += unknown
		// What came lately may not be counted yet, and so hides as much of the deficit.
		late := max(0, int64(c.received+c.metered)-int64(at.done))
		a.aside += max(0, deficit+late-a.reported)
		a.open = [3]int64{a.reported, a.reported, a.reported}
		return meter, 0, unknown
	}
	if over := a.reported - deficit - since; over > 0 && a.aside > a.told {
		over = min(over, a.aside-a.told)
		a.aside -= over
		deficit += over
	}
	if since == 0 && a.aside > a.told {
		unknown = a.aside - a.told
		a.told = a.aside
	}
	copy(a.open[1:], a.open[:])
	a.open[0] = deficit
	if least := slices.Min(a.open[:]); least > a.reported {
		queue = least - a.reported
		a.reported = least
	}
	return meter, queue, unknown
}
