package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/internal/learn"
)

const (
	// maxKeptAddresses bounds the file of learned addresses: more than they take.
	maxKeptAddresses = 64 << 20
	// keepAgesEvery is how old what the file says of ages may be.
	keepAgesEvery = time.Minute
)

// keptAddresses is what is to be kept, over a restart of this process, of the addresses that were learned. Without it labels would reach
// nobody after a restart until everybody has spoken again, and flows would change twice.
type keptAddresses struct {
	entries   atomic.Pointer[[]learn.Entry]
	published time.Time // the loop's
}

// addressFile is the file.
type addressFile struct {
	Written time.Time     `json:"written"`
	Entries []learn.Entry `json:"entries"`
}

// publish hands entries over to be written, which a new age alone is no reason for.
func (k *keptAddresses) publish(entries []learn.Entry, changed bool, now time.Time) {
	if changed || now.Sub(k.published) > keepAgesEvery {
		k.entries.Store(&entries)
		k.published = now
	}
}

// recallAddresses has the table go on from what an earlier process had learned, or forget it where nothing is learned any more.
func (e *Engine) recallAddresses(now time.Time) error {
	if e.opt.LearnedFile == "" {
		return nil
	}
	if !e.learning.on {
		if err := os.Remove(e.opt.LearnedFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var f addressFile
	if _, err := readJSON(e.opt.LearnedFile, maxKeptAddresses, &f); err != nil {
		return fmt.Errorf("addresses that an earlier process had learned: %w", err)
	}
	e.learning.table.Restore(f.Entries, f.Written, now)
	return nil
}

// watchAddresses writes down what was learned until ctx ends.
func (e *Engine) watchAddresses(ctx context.Context) {
	if !e.learning.on || e.opt.LearnedFile == "" {
		return
	}
	var last *[]learn.Entry
	var at time.Time
	keep := func(now time.Time) {
		entries := e.learning.kept.entries.Load()
		if entries == nil || entries == last && (len(*entries) == 0 || now.Sub(at) < keepAgesEvery) {
			return
		}
		if err := replaceJSON(e.opt.LearnedFile, addressFile{now, *entries}); err != nil {
			e.log.Warn("learned addresses are not kept for the next process", "err", err)
		}
		last, at = entries, now
	}
	for pause(ctx, keepEvery) {
		keep(time.Now())
	}
	keep(time.Now())
}
