package capture

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Intervals of a capture.
const (
	tickEvery  = time.Second            // a keeper looks after what it keeps
	lookAgain  = 100 * time.Millisecond // for a device that is not there or not up
	drainAfter = blockTimeout + 20*time.Millisecond
)

// Options of New. Device and Keeper are mandatory.
type Options struct {
	Device string
	Origin Origin
	Keeper Keeper
	// Changed is called when a capture begins or ceases to do what it should, from its own goroutine; nil = nobody is told.
	Changed func()
	Logger  *slog.Logger // nil discards
}

// Keeper does something with what is captured. It is told by one goroutine.
type Keeper interface {
	// keep takes packets, whose blocks are good until it returns. lost is how many of them, the last ones, could not be kept.
	keep(b *batch) (lost int)
	// tick is called first and then about every second, and tries again what did not work.
	tick(e *encoder)
	// end is called last.
	end(e *encoder)
	// report adds to what is said of the capture.
	report(s *Stats)
}

// batch is packets that were captured one after another, as blocks, with the interfaces that they and those before them belong to.
type batch struct {
	*encoder
	blocks  []byte
	packets int
	bytes   uint64 // on the wire
	drops   uint64 // that the first one tells of
}

// Stats is what became of a capture so far.
type Stats struct {
	Reading bool // the device is there and is being read
	// Waiting is why it is not read, "" = it is: the device is not there, or not up. Failing is why packets cannot be read or kept, "" = they
	// can. Both come and go.
	Waiting, Failing string
	// Packets and Bytes (on the wire) were read. Dropped is how many packets the kernel had no room for in the ring, Lost how many of those
	// that were read could not be kept.
	Packets, Bytes, Dropped, Lost uint64
	Failures                      uint64 // of writes
	Newest                        time.Time

	// Of files.
	File string // that is being written
	// Of a buffer.
	Oldest         time.Time
	Held, HeldSize uint64 // packets, and bytes of memory
	Evicted        uint64 // packets that went because of the bounds
}

// Capture reads a device. Its methods are safe for concurrent use.
type Capture struct {
	o      Options
	origin atomic.Pointer[Origin]
	stats  atomic.Pointer[Stats]

	// Of the goroutine of Run.
	batch   batch
	looker  looker // the Keeper, if it is one
	waiting string // see Stats
	failing string
	now     Stats
}

// New makes a capture, which begins with Run.
func New(o Options) *Capture {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	c := &Capture{o: o, batch: batch{encoder: newEncoder(&o.Origin)}}
	c.looker, _ = o.Keeper.(looker)
	c.origin.Store(&o.Origin)
	c.stats.Store(&Stats{})
	return c
}

// Stats says what became of it so far.
func (c *Capture) Stats() Stats { return *c.stats.Load() }

// SetOrigin says anew what is captured; it is for packets that come from now on.
func (c *Capture) SetOrigin(o Origin) { c.origin.Store(&o) }

// Run captures until ctx ends. A device that is not there, or goes and comes again, is waited for.
func (c *Capture) Run(ctx context.Context) {
	defer func() {
		c.now.Reading = false
		c.o.Keeper.end(c.batch.encoder)
		c.publish()
	}()
	for ctx.Err() == nil {
		r, err := openRing(c.o.Device)
		if err == nil {
			err = errors.Join(c.read(ctx, r), r.close())
		}
		if ctx.Err() == nil {
			c.tick(err)
			pause(ctx, lookAgain)
		}
	}
}

// read captures until ctx ends or the device is gone.
func (c *Capture) read(ctx context.Context, r *ring) error {
	stop := context.AfterFunc(ctx, r.interrupt)
	defer stop()
	defer func() {
		time.Sleep(drainAfter) // the kernel hands over the last block when its time has come
		for c.take(r) {
		}
	}()
	c.tick(nil)
	for next := time.Now().Add(tickEvery); ; {
		err := r.wait(ctx, next)
		for ctx.Err() == nil && c.take(r) && time.Now().Before(next) {
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errDown):
			for up := false; !up; {
				c.tick(err)
				pause(ctx, lookAgain)
				if up, err = r.up(); err != nil || ctx.Err() != nil {
					return err
				}
				err = errDown
			}
			next = time.Now()
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
		if now := time.Now(); !now.Before(next) {
			c.tick(nil)
			next = now.Add(tickEvery)
		}
	}
}

// take hands over the packets of the next block, if it is there.
func (c *Capture) take(r *ring) bool {
	b := &c.batch
	add, l := b.add, c.looker
	if l != nil {
		add = func(f frame) {
			b.count(f)
			l.look(b.encoder, f)
		}
	}
	// What the kernel dropped is told of with the next packet that is read, which is one that came before if the ring was full.
	if n, err := r.drops(); err == nil && n > 0 {
		c.now.Dropped += n
		if l != nil {
			l.lost(n)
		} else {
			b.missing += n
		}
	}
	if o := c.origin.Load(); o != b.origin {
		b.setOrigin(o)
	}
	b.blocks, b.packets, b.bytes, b.drops = b.blocks[:0], 0, 0, b.missing
	if !r.take(add) {
		return false
	}
	if b.packets == 0 {
		return true
	}
	lost := c.o.Keeper.keep(b)
	b.missing += uint64(lost)
	if lost == b.packets {
		b.missing += b.drops
	}
	c.now.Packets += uint64(b.packets)
	c.now.Bytes += b.bytes
	c.now.Lost += uint64(lost)
	c.now.Newest = time.Unix(0, b.newest)
	c.publish()
	return true
}

// tick looks after what is kept; err is why nothing is read.
func (c *Capture) tick(err error) {
	c.now.Reading, c.waiting, c.failing = err == nil, "", ""
	switch {
	case errors.Is(err, errDown):
		c.waiting = err.Error()
	case err != nil:
		c.failing = err.Error()
	}
	c.o.Keeper.tick(c.batch.encoder)
	c.publish()
}

// publish lets others see the state.
func (c *Capture) publish() {
	s := c.now
	s.Waiting, s.Failing = c.waiting, c.failing
	c.o.Keeper.report(&s)
	before := c.stats.Swap(&s)
	if before.Reading == s.Reading && before.Failing == s.Failing {
		return
	}
	if s.Failing != "" && before.Failing == "" {
		c.o.Logger.Warn("packets are not captured as they should be, trying again", "device", c.o.Device, "mirror", c.batch.origin.Mirror,
			"err", s.Failing)
	}
	c.o.Changed()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// add appends a frame.
func (b *batch) add(f frame) {
	b.blocks = b.append(b.blocks, f)
	b.count(f)
}

func (b *batch) count(f frame) {
	b.packets++
	b.bytes += uint64(f.length)
}
