package record

import (
	"sort"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
)

type entry struct {
	ev  *event.Event
	seq int64
	event.Facts
}

const chunkLen = 256

type chunk [chunkLen]entry

// ring keeps the newest capacity entries. It is written by one goroutine. Entries lie in chunks that are appended to, never
// changed, and dropped whole, so that readers scan them without holding the lock. A position counts all entries ever added.
type ring struct {
	capacity int64

	mu     sync.Mutex
	chunks []*chunk
	base   int64 // position of the first entry of chunks[0]; a multiple of chunkLen
	end    int64 // position of the next entry
}

func (r *ring) add(batch []entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range batch {
		at := r.end % chunkLen
		if at == 0 {
			r.chunks = append(r.chunks, new(chunk))
		}
		r.chunks[len(r.chunks)-1][at] = batch[i]
		r.end++
	}
	for r.base+chunkLen <= r.end-r.capacity {
		r.chunks[0] = nil
		r.chunks = r.chunks[1:]
		r.base += chunkLen
	}
}

// len returns the number of entries kept.
func (r *ring) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(min(r.end-r.base, r.capacity))
}

// oldest is when the first entry kept was made; zero = there is none.
func (r *ring) oldest() time.Time {
	if s := r.from(0); s.start < s.end {
		return s.at(s.start).ev.Event.Created
	}
	return time.Time{}
}

// from returns the entries kept from position pos on.
func (r *ring) from(pos int64) span {
	r.mu.Lock()
	defer r.mu.Unlock()
	start := max(pos, r.base, r.end-r.capacity)
	if start >= r.end {
		return span{start: r.end, end: r.end}
	}
	skip := (start - r.base) / chunkLen
	return span{
		chunks: append([]*chunk(nil), r.chunks[skip:]...),
		base:   r.base + skip*chunkLen,
		start:  start,
		end:    r.end,
	}
}

// span is a part of the ring that stays as it is. Positions start ≤ p < end are valid.
type span struct {
	chunks     []*chunk
	base       int64
	start, end int64
}

func (s *span) at(pos int64) *entry {
	i := pos - s.base
	return &s.chunks[i/chunkLen][i%chunkLen]
}

// after returns the position of the first entry with a sequence number above seq.
func (s *span) after(seq int64) int64 {
	n := sort.Search(int(s.end-s.start), func(i int) bool { return s.at(s.start+int64(i)).seq > seq })
	return s.start + int64(n)
}

// resume returns the position after the event id, and how many events between it and that position are not kept any more; -1
// when that is not known because id belongs to another run or installation. began is the first id of this run.
func (s *span) resume(id, began event.ID) (pos, missed int64) {
	if id.Install != began.Install {
		return s.start, -1
	}
	if s.start == s.end {
		if id.Epoch < began.Epoch {
			return s.end, -1
		}
		return s.end, 0
	}
	oldest, err := event.ParseID(s.at(s.start).ev.Event.ID)
	switch {
	case err != nil:
		return s.start, -1
	case id.Sequence >= oldest.Sequence-1:
		return s.after(id.Sequence), 0
	case id.Epoch != oldest.Epoch:
		return s.start, -1
	}
	return s.start, oldest.Sequence - 1 - id.Sequence
}
