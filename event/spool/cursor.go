package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/wholefile"
)

// patience is for how long a segment that the disk does not read is tried again.
const patience = 10 * time.Minute

// Checkpoint is how far one reader of the spool has come, and what became of all records up to there. Total is the sum of the others.
//
//	Next - Origin = Total
//
// holds at any time, also in the file, so that what Next and the figures say survives any crash together. Records behind Next are read
// again after a restart.
type Checkpoint struct {
	Next   uint64 `json:"next"`   // number of the first record that is not done with
	Origin int64  `json:"origin"` // of the first one that this reader was to have; below 0 once records that were done with got lost
	Done
	Replays int64 `json:"replays,omitempty"` // how often dead ones were sent again
}

// Done is what became of records. Each is one of these.
type Done struct {
	Created    int64 `json:"created"`    // now at the reader's place
	Duplicates int64 `json:"duplicates"` // there already, from a delivery whose answer was lost
	Dead       int64 `json:"dead"`       // the place does not take it, now or ever
	Expired    int64 `json:"expired"`    // it fell to the bounds before it was delivered
	Corrupt    int64 `json:"corrupt"`    // it could not be read back
}

// Total is the sum.
func (d Done) Total() int64 { return d.Created + d.Duplicates + d.Dead + d.Expired + d.Corrupt }

func (d *Done) add(o Done) {
	d.Created += o.Created
	d.Duplicates += o.Duplicates
	d.Dead += o.Dead
	d.Expired += o.Expired
	d.Corrupt += o.Corrupt
}

// Cursor reads the spool for one reader, in the order in which records were appended, beginning where its last checkpoint says. Read is for
// one goroutine; all else is safe for concurrent use.
type Cursor struct {
	s    *Spool
	path string
	wake chan struct{}
	want uint64 // guarded by Spool.mu: wake it when there are records up to here

	// Of Read.
	next    uint64
	at      *segment // that off belongs to; nil = to be looked for
	off     int64
	failing time.Time // since when the disk does not read; zero = it does

	mu    sync.Mutex
	cp    Checkpoint
	open  []*Chunk // that were read, the oldest first; the first one is not done with
	saved Checkpoint
	told  int64  // of cp.Expired
	spare []byte // memory of a chunk that is done with
}

// Chunk is some records that follow each other. It is good until Done.
type Chunk struct {
	Records []Record
	end     uint64 // number of the record behind it
	buf     []byte
	gone    Done // records in it that there are no more
	done    bool
}

// Cursor opens the reader of a name. Its checkpoint is a file beside the segments; without one it begins with the oldest record.
func (s *Spool) Cursor(name string) (*Cursor, error) {
	c := &Cursor{s: s, path: filepath.Join(s.o.Dir, name+".checkpoint"), wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.w.next
	if len(s.segments) > 0 {
		first = s.segments[0].first
	}
	b, err := os.ReadFile(c.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.cp = Checkpoint{Next: first, Origin: int64(first)}
	case err != nil:
		return nil, fmt.Errorf("spool: %w", err)
	default:
		if err := json.Unmarshal(b, &c.cp); err != nil || int64(c.cp.Next)-c.cp.Origin != c.cp.Total() {
			s.log.Warn("a checkpoint is spoilt: its reader begins again with the oldest record", "file", c.path)
			c.cp = Checkpoint{Next: first, Origin: int64(first)}
		}
	}
	if c.cp.Next > s.w.next {
		// A power failure took records that were done with; their numbers are given again.
		c.cp.Origin -= int64(c.cp.Next - s.w.next)
		c.cp.Next = s.w.next
	}
	c.next, c.saved = c.cp.Next, c.cp
	c.told = c.cp.Expired // in earlier runs
	s.cursors = append(s.cursors, c)
	return c, nil
}

// Read waits until there are records, then at most linger for more, and returns at most records of them of about bytes together, one at
// least. Where records are missing, a chunk may have none. Each chunk must be given to Done. The error is that of ctx, or of the disk.
func (c *Cursor) Read(ctx context.Context, records, bytes int, linger time.Duration) (*Chunk, error) {
	if err := c.wait(ctx, records, linger); err != nil {
		return nil, err
	}
	ch := new(Chunk)
	if err := c.read(ch, records, bytes); err != nil {
		return nil, err
	}
	ch.end = c.next
	c.mu.Lock()
	c.open = append(c.open, ch)
	c.mu.Unlock()
	return ch, nil
}

func (c *Cursor) wait(ctx context.Context, records int, linger time.Duration) error {
	var timer <-chan time.Time
	for late := false; ; {
		c.s.mu.Lock()
		n := c.s.w.next - c.next
		if c.want = c.next + 1; n > 0 {
			c.want = c.next + uint64(records)
		}
		c.s.mu.Unlock()
		if n >= uint64(records) || n > 0 && (late || linger <= 0) {
			return ctx.Err()
		}
		if n > 0 && timer == nil {
			timer = time.After(linger)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.wake:
		case <-timer:
			late = true
		}
	}
}

// place is where the next record lies, up to where its segment can be read, and the number of the record behind it. A nil segment means
// that the records up to end are gone.
func (c *Cursor) place() (g *segment, size int64, end uint64) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	all := c.s.segments
	i := len(all) - 1
	for i >= 0 && all[i].first > c.next {
		i--
	}
	if i < 0 {
		if len(all) > 0 {
			return nil, 0, all[0].first
		}
		return nil, 0, c.s.w.next
	}
	end = c.s.w.next
	if i+1 < len(all) {
		end = all[i+1].first
	}
	return all[i], all[i].size, end
}

// read takes records of one segment.
func (c *Cursor) read(ch *Chunk, records, bytes int) error {
	g, size, end := c.place()
	if g == nil {
		ch.gone.Expired = int64(end - c.next)
		c.next = end
		return nil
	}
	skip := uint64(0)
	if c.at != g {
		c.at, c.off, skip = g, 0, c.next-g.first
	}
	window := min(size-c.off, int64(max(bytes, headerLen+recordLen+maxRecord)))
	if skip > 0 {
		window = size
	}
	var err error
	ch.buf, err = read(g.path, c.takeSpare(), c.off, window)
	if errors.Is(err, os.ErrNotExist) {
		ch.gone.Expired = int64(end - c.next)
		c.next = end
		return nil
	}
	if err != nil {
		c.at = nil
		if !c.givesUp() {
			return err
		}
		c.at, c.off = g, size
		c.lose(ch, g, end)
		return nil
	}
	c.failing = time.Time{}
	whole := c.off+window == size // what is cut short is so on the disk, not by the window
	rest := ch.buf
	if c.off == 0 {
		body, ok := body(rest, g.first)
		if !ok {
			body = nil
		}
		c.off += int64(len(rest) - len(body))
		rest = body
	}
	used := 0
	for c.next < end && len(ch.Records) < records && used < bytes {
		b, after, ok := cut(rest)
		if !ok && !whole && used > 0 {
			return nil // the next window has it
		}
		var r Record
		footer := true
		if ok {
			r, footer = parse(b)
		}
		if footer {
			c.off = size
			c.lose(ch, g, end)
			return nil
		}
		c.off += int64(len(b))
		rest = after
		if skip > 0 {
			skip--
			continue
		}
		used += len(b)
		ch.Records = append(ch.Records, r)
		c.next++
	}
	return nil
}

// maxSpare is how much memory a reader keeps for its next chunk.
const maxSpare = 4 << 20

func (c *Cursor) takeSpare() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.spare
	c.spare = nil
	return b
}

// lose takes the records of g up to end for ones that cannot be read back.
func (c *Cursor) lose(ch *Chunk, g *segment, end uint64) {
	c.s.tellSpoilt(g, int64(end-c.next))
	ch.gone.Corrupt = int64(end - c.next)
	c.next = end
}

// givesUp reports whether the disk, which has just failed to read, has not read this segment for long enough, though it takes what is
// written: one bad sector must not keep a sink from all that comes behind it.
func (c *Cursor) givesUp() bool {
	now := c.s.o.Now()
	if c.failing.IsZero() {
		c.failing = now
	}
	if now.Sub(c.failing) < patience || c.s.Status().Error != "" {
		return false
	}
	c.failing = time.Time{} // the next one is tried for as long
	return true
}

// Done says what became of the records of a chunk; d must count each. It may be called in any order.
func (c *Cursor) Done(ch *Chunk, d Done) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch.gone.add(d)
	ch.done = true
	if n := cap(ch.buf); n > cap(c.spare) && n <= maxSpare {
		c.spare = ch.buf
	}
	ch.Records, ch.buf = nil, nil
	n := 0
	for ; n < len(c.open) && c.open[n].done; n++ {
		c.cp.Next = c.open[n].end
		c.cp.add(c.open[n].gone)
	}
	c.open = slices.Delete(c.open, 0, n)
}

// Replayed corrects the figures after dead records were sent again: d.Dead is below 0, and the sum is 0.
func (c *Cursor) Replayed(d Done) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.Dead = max(d.Dead, -c.cp.Dead)
	if over := d.Total(); over > 0 { // a crash left letters of records that were not counted
		d.Duplicates -= min(over, d.Duplicates)
		d.Created -= d.Total()
	}
	c.cp.add(d)
	c.cp.Replays++
}

// Status is how far the reader is, how many records are not done with, and the time of the oldest of those that were read and are not done
// with, in ns; 0 = there is none.
func (c *Cursor) Status() (cp Checkpoint, pending, oldest int64) {
	c.s.mu.Lock()
	next := c.s.w.next
	c.s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) > 0 && len(c.open[0].Records) > 0 {
		oldest = c.open[0].Records[0].Time
	}
	return c.cp, int64(max(next, c.cp.Next) - c.cp.Next), oldest
}

// SinkStatus is Status as the part of a sink's status that the cursor knows of.
func (c *Cursor) SinkStatus(now time.Time) event.SinkStatus {
	cp, pending, oldest := c.Status()
	x := event.ExportStatus{Created: cp.Created, Duplicates: cp.Duplicates, DeadLetters: cp.Dead, Expired: cp.Expired, Corrupt: cp.Corrupt}
	if oldest != 0 {
		x.Lag = max(now.Sub(time.Unix(0, oldest)).Seconds(), 0)
	}
	return event.SinkStatus{
		Appended: cp.Total() + pending, Written: cp.Created + cp.Duplicates, LostIO: cp.Dead + cp.Expired + cp.Corrupt,
		Pending: pending, Export: x,
	}
}

// TellExpired has f told of what expired since the last time.
func (c *Cursor) TellExpired(f event.LossFunc) {
	c.mu.Lock()
	n := c.cp.Expired - c.told
	c.told = c.cp.Expired
	c.mu.Unlock()
	if n > 0 {
		f(event.StageExpired, event.NoClass, "not_delivered_in_time", n)
	}
}

// Save writes the checkpoint, if it is another than the last.
func (c *Cursor) Save() error {
	c.mu.Lock()
	cp := c.cp
	same := cp == c.saved
	c.mu.Unlock()
	if same {
		return nil
	}
	b, err := json.Marshal(cp)
	if err != nil {
		return err
	}
	if err := wholefile.Write(c.path, b, 0o640); err != nil {
		return fmt.Errorf("spool: checkpoint: %w", err)
	}
	c.mu.Lock()
	c.saved = cp
	c.mu.Unlock()
	return nil
}
