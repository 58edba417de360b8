package spool

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
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

func (q *Query) record(r *Record) bool {
	if r.Sequence <= q.After || q.Before != 0 && r.Sequence >= q.Before || q.Since != 0 && r.Time < q.Since ||
		q.Until != 0 && r.Time > q.Until {
		return false
	}
	for _, group := range q.Texts {
		if !slices.ContainsFunc(group, func(text []byte) bool { return bytes.Contains(r.JSON, text) }) {
			return false
		}
	}
	return true
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
	type part struct {
		g    *segment
		size int64
		n    int64
	}
	s.mu.Lock()
	parts := make([]part, 0, len(s.segments))
	for _, g := range s.segments {
		if q.segment(g) {
			parts = append(parts, part{g, g.size, g.count})
		}
	}
	s.mu.Unlock()
	if q.Newest {
		slices.Reverse(parts)
	}
	var buf []byte
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if buf, err = read(p.g.path, buf, 0, p.size); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // it fell to the bounds
			}
			return err
		}
		found, readable := q.choose(buf, p.g.first)
		if readable < p.n {
			s.tellSpoilt(p.g, p.n-readable)
		}
		if q.Newest {
			slices.Reverse(found)
		}
		for _, r := range found {
			if !f(r) {
				return nil
			}
		}
	}
	return nil
}

// choose finds the records of a segment that are chosen, and counts those that can be read.
func (q *Query) choose(data []byte, first uint64) (found []Record, readable int64) {
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
		readable++
		if q.record(&r) {
			found = append(found, r)
		}
	}
	return found, readable
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
