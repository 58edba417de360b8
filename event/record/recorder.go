// Package record is where events are made and kept: packet-ins become events, which lie in a ring and in a spool on disk, go to sinks, and
// are read by queries and streams. Everything is bounded, nothing waits, and every loss is counted.
package record

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/internal/packet"
)

// Defaults of Options.
const (
	DefaultQueueLen  = 8192
	DefaultRingLen   = 65_536
	DefaultStreamLen = 4096

	batchLen = 256
)

// ErrStopped says that the recorder has ended; match with errors.Is.
var ErrStopped = errors.New("the event recorder has stopped")

// Options of a Recorder. The zero value records without names, a spool or an identity that outlives the process.
type Options struct {
	Host      string       // observer.name
	ManyHosts bool         // metrics of losses have the label host, "" where it is the process that lost them
	DataDir   string       // where the identity is kept; "" = a new one at each start
	QueueLen  int          // packet-ins waiting at most; 0 = DefaultQueueLen
	RingLen   int          // events kept; 0 = DefaultRingLen
	StreamLen int          // events waiting for one stream client; 0 = DefaultStreamLen
	Spool     *spool.Spool // keeps events over restarts; closed by Run; nil = they are kept in memory only
	Exports   []Export     // that read it; likewise
	Logger    *slog.Logger // nil = discard
	Registry  prometheus.Registerer
	Now       func() time.Time // nil = time.Now
	// LossEvery is the least time between two loss events of the same host, stage and reason; 0 = 1 s.
	LossEvery time.Duration
}

// Recorder is the record: packet-ins go in by HandlePacketIn and all else by Record, one goroutine (Run) makes events of them and keeps
// them in the ring, from where Query and Subscribe read. Nothing waits for anything: what does not fit is counted. All methods are safe for
// concurrent use.
type Recorder struct {
	opts    Options
	log     *slog.Logger
	now     func() time.Time
	builder *builder // Run's
	// verdicts is the builder's; a test puts a fault here.
	verdicts func(*PacketIn, time.Time, []entry) ([]entry, packet.Layer)
	began    event.ID // install and epoch at the start; never changes
	ring     ring
	losses   losses
	open     openTable // recorded connections that have not ended

	wake  chan struct{}
	ready chan struct{}
	done  chan struct{} // closed when Run has ended

	mu           sync.Mutex // lock order: mu, then losses.mu; no other lock is taken under it
	closed       bool
	gathering    bool
	queue        []*slot // a circle
	head, queued int
	free         []*slot
	given        []*event.Event // by Record
	packetIns    int64
	unknown      int64
	observed     int64
	pending      int64 // events of packet-ins queued or being worked on
	accepted     int64
	rate         rate
	byVerdict    map[verdictKey]int64
	decodeErrors [packet.LayerCount]int64

	streams streams
}

// verdictKey are the labels of tapwall_events_total.
type verdictKey struct {
	dataset, action string
	verdict         event.Verdict
}

// slot holds a packet-in while it waits.
type slot struct {
	pi       PacketIn
	data     []byte
	verdicts []VerdictSide
	events   int64
}

// NewRecorder makes a recorder; Run makes it work. Its metrics are registered on Options.Registry, whose error is returned.
func NewRecorder(o Options) (*Recorder, error) {
	if o.QueueLen <= 0 {
		o.QueueLen = DefaultQueueLen
	}
	if o.RingLen <= 0 {
		o.RingLen = DefaultRingLen
	}
	if o.StreamLen <= 0 {
		o.StreamLen = DefaultStreamLen
	}
	if o.LossEvery <= 0 {
		o.LossEvery = time.Second
	}
	r := &Recorder{
		opts: o, log: o.Logger, now: o.Now, ring: ring{capacity: int64(o.RingLen)},
		wake: make(chan struct{}, 1), ready: make(chan struct{}), done: make(chan struct{}),
		queue: make([]*slot, o.QueueLen), byVerdict: make(map[verdictKey]int64), open: newOpenTable(),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	ids, err := openIdentity(o.DataDir)
	if err != nil {
		r.log.Warn("event ids will not follow those of earlier runs", "err", err)
	}
	r.began = event.ID{Install: ids.install, Epoch: ids.epoch}
	r.builder = newBuilder(&r.opts, ids)
	r.builder.open = &r.open
	r.builder.lose = func(host string) { r.AddHostLoss(host, event.StageConnections, event.P1, "full", 1) }
	r.verdicts = r.builder.verdicts
	r.streams.open = make(map[*stream]struct{})
	for _, x := range o.Exports {
		x.ReportLoss(r.AddLoss)
	}
	if o.Spool != nil {
		o.Spool.Tell(r.spooled, func(n int64, reason string) { r.AddLoss(event.StageSpoilt, event.NoClass, reason, n) })
	}
	if o.Registry != nil {
		for _, m := range []prometheus.Collector{newMetrics(r), newExportMetrics(o.Exports)} {
			if err := o.Registry.Register(m); err != nil {
				return nil, fmt.Errorf("event metrics: %w", err)
			}
		}
	}
	return r, nil
}

// String names the task.
func (r *Recorder) String() string { return "event recorder" }

// Ready is closed once Run works.
func (r *Recorder) Ready() <-chan struct{} { return r.ready }

// HandlePacketIn takes one packet-in of a bridge, which overrides pi.Bridge. It is meant for the goroutine that reads OpenFlow:
// it never blocks, does not allocate once warm, and keeps nothing of pi but what it copied. When the queue is full or the
// recorder has stopped the events of the packet-in are counted as lost at StageOFQueue; samples fill it to a half only.
func (r *Recorder) HandlePacketIn(bridge string, pi PacketIn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packetIns++
	if pi.Passed {
		r.observed++
		if r.closed || r.queued == len(r.queue) {
			r.refuse(pi.Host, event.P1)
			return
		}
		pi.Copy, pi.Verdicts = nil, nil
		r.enqueue(bridge, pi, 1)
		return
	}
	if len(pi.Verdicts) == 0 {
		r.unknown++
		return
	}
	n := 0
	for i := range pi.Verdicts {
		n++
		if pi.Verdicts[i].Drop || pi.Verdicts[i].Reject {
			break
		}
	}
	r.observed += int64(n)
	room := len(r.queue)
	if pi.Verdicts[0].Sampled {
		room = (room + 1) / 2
	}
	if r.closed || r.queued >= room {
		for _, side := range pi.Verdicts[:n] {
			class := event.P1
			switch {
			case side.Drop || side.Reject:
				class = event.P0
			case side.Sampled:
				class = event.P2
			}
			r.refuse(pi.Host, class)
		}
		return
	}
	pi.Copy, pi.Verdicts = nil, pi.Verdicts[:n]
	r.enqueue(bridge, pi, int64(n))
}

// enqueue has n events made of pi; mu is held, and there is room.
func (r *Recorder) enqueue(bridge string, pi PacketIn, n int64) {
	r.pending += n
	var s *slot
	if last := len(r.free) - 1; last >= 0 {
		s, r.free = r.free[last], r.free[:last]
	} else {
		s = new(slot)
	}
	s.data = append(s.data[:0], pi.Data[:min(len(pi.Data), MaxPacketBytes)]...)
	s.verdicts = append(s.verdicts[:0], pi.Verdicts...)
	s.events = n
	if pi.TotalLen < len(pi.Data) {
		pi.TotalLen = len(pi.Data)
	}
	if pi.Time.IsZero() {
		pi.Time = r.now()
	}
	pi.Bridge, pi.Data, pi.Verdicts, pi.UserData = bridge, s.data, s.verdicts, nil
	pi.Time = pi.Time.UTC()
	s.pi = pi
	r.queue[(r.head+r.queued)%len(r.queue)] = s
	r.queued++
	if r.queued == 1 && !r.gathering || r.queued == batchLen {
		r.rouse()
	}
}

func (r *Recorder) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Record takes an event of any kind but the verdicts, which HandlePacketIn makes. The caller says what happened, event.action and
// event.dataset above all; the recorder gives it an id, a sequence number and the time of its making, the versions, and where the
// caller has none a timestamp (that of the call), the kind "event" and Options.Host as observer. What it points to is shared with
// readers: it must not be changed afterwards. Record never blocks; what finds no room is counted as lost at StageOFQueue. As many
// may wait as packet-ins, apart from those, so that a flood of packets pushes nothing else out.
func (r *Recorder) Record(e event.Event) {
	if e.Timestamp.IsZero() {
		e.Timestamp = r.now()
	}
	e.Timestamp = e.Timestamp.UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observed++
	if r.closed || len(r.given) >= len(r.queue) {
		host := ""
		if e.Observer != nil {
			host = e.Observer.Name
		}
		r.refuse(host, e.Class())
		return
	}
	r.pending++
	r.given = append(r.given, &e)
	r.rouse()
}

// refuse counts an event that found no room; mu is held.
func (r *Recorder) refuse(host string, class event.Class) {
	reason := "full"
	if r.closed {
		reason = "stopped"
	}
	r.losses.add(host, event.StageOFQueue, class, reason, 1, r.now().UTC(), false)
}

// AddLoss counts n events lost somewhere else, as in a meter of the switch, and has them told by a loss event, at most one per
// Options.LossEvery, host, stage and reason. n ≤ 0 does nothing.
func (r *Recorder) AddLoss(stage event.Stage, class event.Class, reason string, n int64) {
	r.AddHostLoss("", stage, class, reason, n)
}

// AddHostLoss is AddLoss for what was lost of one host: the loss event names it as its observer, and metrics tell it apart if there are
// several.
func (r *Recorder) AddHostLoss(host string, stage event.Stage, class event.Class, reason string, n int64) {
	if n <= 0 {
		return
	}
	now := r.now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	if stage.BeforeAcceptance() {
		r.observed += n
	}
	r.losses.add(host, stage, class, reason, n, now, false)
}

// look takes a reading for the rate.
func (r *Recorder) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate.note(r.now(), r.accepted)
}

// Counters returns the figures.
func (r *Recorder) Counters() event.Counters {
	r.mu.Lock()
	c := event.Counters{
		Observed: r.observed, Accepted: r.accepted, Pending: r.pending, PacketIns: r.packetIns, Unknown: r.unknown,
		Lost: r.losses.sums(), RingCapacity: r.opts.RingLen, Rate: r.rate.perSecond(r.now(), r.accepted),
	}
	for l, n := range r.decodeErrors {
		if n > 0 {
			if c.DecodeErrors == nil {
				c.DecodeErrors = make(map[string]int64)
			}
			c.DecodeErrors[packet.Layer(l).String()] = n
		}
	}
	r.mu.Unlock()
	c.RingEntries, c.RingOldest, c.Open = r.ring.len(), r.ring.oldest(), r.open.count()
	c.Clients, c.StreamGaps = r.streams.figures()
	for _, x := range r.opts.Exports {
		c.Sinks = append(c.Sinks, x.Status())
	}
	if r.opts.Spool != nil {
		st := r.opts.Spool.Status()
		c.Spool = &st
	}
	return c
}
