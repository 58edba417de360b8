package spool

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"sync"
)

// Query chooses records. Zero fields choose all.
type Query struct {
	Since, Until int64 // ns of Record.Time, both inclusive
	After        int64 // Record.Sequence, exclusive
	Before       int64 // likewise
	// Texts are groups of which each has a text that the document contains. They are for speed: what is chosen may still not be what was
	// looked for.
	Texts [][][]byte
	// Newest begins with the newest record.
	Newest bool
}

func (q *Query) segment(g *segment) bool {
	return g.count > 0 && (q.Since == 0 || g.newest >= q.Since) && (q.Until == 0 || g.oldest <= q.Until) && g.lastSeq > q.After &&
		(q.Before == 0 || g.firstSeq < q.Before)
}

// chooses says whether a record is chosen; groups are q.Texts.
func (q *Query) chooses(r *Record, groups [][]needle) bool {
	if r.Sequence <= q.After || q.Before != 0 && r.Sequence >= q.Before || q.Since != 0 && r.Time < q.Since ||
		q.Until != 0 && r.Time > q.Until {
		return false
	}
	for _, group := range groups {
		if !slices.ContainsFunc(group, func(n needle) bool { return n.in(r.JSON) }) {
			return false
		}
	}
	return true
}

// needle is a text that is looked for in documents by that of its bytes of which they have the fewest. The documents are alike: with
// bytes.Contains, which goes by the first byte, most of a scan would be the quotation marks.
type needle struct {
	text []byte
	at   int // where that byte is in it
}

// sampled is how much of the documents says which bytes are rare.
const sampled = 64 << 10

// needles are q.Texts, to be looked for in data.
func (q *Query) needles(data []byte) (groups [][]needle) {
	if len(q.Texts) == 0 {
		return nil
	}
	var often [256]int
	for _, c := range data[:min(len(data), sampled)] {
		often[c]++
	}
	for _, texts := range q.Texts {
		group := make([]needle, len(texts))
		for i, text := range texts {
			group[i].text = text
			for at, c := range text {
				if often[c] < often[text[group[i].at]] {
					group[i].at = at
				}
			}
		}
		groups = append(groups, group)
	}
	return groups
}

// in reports whether the text stands in doc.
func (n *needle) in(doc []byte) bool {
	if len(n.text) == 0 {
		return true
	}
	for from := n.at; from < len(doc); from++ {
		i := bytes.IndexByte(doc[from:], n.text[n.at])
		if i < 0 {
			return false
		}
		from += i
		if bytes.HasPrefix(doc[from-n.at:], n.text) {
			return true
		}
	}
	return false
}

// readAhead is how many segments a scan has in memory at once: while one is looked through, the next is read, so that two cores work.
const readAhead = 2

// part is what a scan looks through of a segment, and what it finds there.
type part struct {
	g     *segment
	size  int64
	n     int64 // records that are to be there
	buf   []byte
	found []Record
	// readable is how many can be read.
	readable int64
	err      error
	done     chan struct{}
}

// look reads the segment and chooses of its records.
func (p *part) look(ctx context.Context, q *Query) {
	defer close(p.done)
	if p.buf, p.err = read(p.g.path, p.buf, 0, p.size); p.err != nil {
		return
	}
	p.found, p.readable, p.err = q.choose(ctx, p.buf, p.g.first)
	if q.Newest {
		slices.Reverse(p.found)
	}
}

// Scan calls f with the records that q chooses, in the order in which they were appended or the other way round, until it returns false.
// Two scans run at once; more wait. What was written before the call is found, if it is not deleted meanwhile. The error is that of
// ctx, or of the disk.
func (s *Spool) Scan(ctx context.Context, q Query, f func(Record) (more bool)) error {
	select {
	case s.scans <- struct{}{}:
		defer func() { <-s.scans }()
	case <-ctx.Done():
		return ctx.Err()
	}
	parts := s.parts(&q)
	under, stop := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait() // they use memory
	defer stop()
	var free [][]byte // buffers of those that are done with
	next := 0         // to be looked through
	for i, p := range parts {
		// The first segment has all that is wanted often, so that the second is not read before.
		for ; next < len(parts) && next < i+readAhead && (next == 0 || i > 0); next++ {
			ahead := parts[next]
			if n := len(free); n > 0 {
				ahead.buf, free = free[n-1], free[:n-1]
			}
			looking.Go(func() { ahead.look(under, &q) })
		}
		<-p.done
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case errors.Is(p.err, os.ErrNotExist): // it fell to the bounds
			continue
		case p.err != nil:
			return p.err
		}
		if p.readable < p.n {
			s.tellSpoilt(p.g, p.n-p.readable)
		}
		for _, r := range p.found {
			if !f(r) {
				return nil
			}
		}
		free = append(free, p.buf)
		*p = part{}
	}
	return nil
}

// parts are the segments that q may choose of, in the order of the scan.
func (s *Spool) parts(q *Query) []*part {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*part, 0, len(s.segments))
	for _, g := range s.segments {
		if q.segment(g) {
			out = append(out, &part{g: g, size: g.size, n: g.count, done: make(chan struct{})})
		}
	}
	if q.Newest {
		slices.Reverse(out)
	}
	return out
}

// choose finds the records of a segment that are chosen, and counts those that can be read. The error is that of ctx.
func (q *Query) choose(ctx context.Context, data []byte, first uint64) (found []Record, readable int64, err error) {
	groups := q.needles(data)
	rest, ok := body(data, first)
	for ok && len(rest) > 0 {
		var b []byte
		if b, rest, ok = cut(rest); !ok {
			break
		}
		r, footer := parse(b)
		if footer {
			break
		}
		if readable++; readable%1024 == 0 && ctx.Err() != nil {
			return nil, readable, ctx.Err()
		}
		if q.chooses(&r, groups) {
			found = append(found, r)
		}
	}
	return found, readable, nil
}

// tellSpoilt counts, once for a segment, records that cannot be read any more.
func (s *Spool) tellSpoilt(g *segment, n int64) {
	s.mu.Lock()
	told := g.spoilt
	g.spoilt = true
	if !told {
		g.count -= n
		s.status.Spoilt += n
	}
	s.mu.Unlock()
	if told {
		return
	}
	s.log.Error("records of a segment are spoilt", "file", g.path, "records", n)
	s.spoilt(n, "checksum")
}
