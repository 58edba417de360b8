package host

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever waits gets a round that began after his call; many who come at a time share it.
func TestCacheRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r cacheRounds
		var rounds atomic.Int64
		round := func(context.Context) error { rounds.Add(1); time.Sleep(time.Second); return nil }
		start := time.Now()
		var wg sync.WaitGroup
		wait := func(want time.Duration) {
			wg.Go(func() {
				if err := r.after(t.Context(), round); err != nil || time.Since(start) != want {
					t.Errorf("%v after %v, want %v", err, time.Since(start), want)
				}
			})
		}
		wait(time.Second)
		synctest.Wait()
		time.Sleep(time.Second / 2)
		for range 50 {
			wait(2 * time.Second) // not by the end of the round under way
		}
		wg.Wait()
		if n := rounds.Load(); n != 2 {
			t.Errorf("51 waits took %d rounds", n)
		}
	})
}

// A round that fails, or whose runner loses patience, is nobody else's answer; who waits for it only has patience of his own.
func TestCacheRoundsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r cacheRounds
		never := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		bad := errors.New("bad")
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		shorter, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.after(short, never); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who ran the round: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if err := r.after(shorter, never); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who waited: %v", err)
			}
		})
		wg.Go(func() {
			if err := r.after(t.Context(), func(context.Context) error { return bad }); err != bad {
				t.Errorf("whose own round failed: %v", err)
			}
		})
		wg.Wait()
		if err := r.after(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
