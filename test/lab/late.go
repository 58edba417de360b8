package lab

import (
	"sync"
	"testing"
	"time"
)

// The metronome measures how busy the machine is: a goroutine asks to be woken every 10 ms and notes how late it is.
var metronome struct {
	start sync.Once
	mu    sync.Mutex
	last  time.Time // when it woke last
	late  []tardiness
}

type tardiness struct {
	at time.Time
	by time.Duration
}

const beat = 10 * time.Millisecond

func startMetronome() {
	m := &metronome
	m.start.Do(func() {
		m.last = time.Now()
		go func() {
			for {
				time.Sleep(beat)
				now := time.Now()
				m.mu.Lock()
				if by := now.Sub(m.last) - beat; by > beat/10 {
					m.late = append(m.late, tardiness{now, by})
				}
				m.last = now
				m.mu.Unlock()
			}
		}()
	})
}

// Late is how much longer than a moment a busy machine has taken since t for what takes a moment: ten times the longest that this
// process was kept from running, because what a test waits for runs through several processes in turn. It is some milliseconds on a
// quiet machine. What has to happen within a time is allowed so much longer; a fault of the programs under test does not lengthen it.
func Late(t time.Time) time.Duration {
	m := &metronome
	startMetronome()
	m.mu.Lock()
	defer m.mu.Unlock()
	longest := time.Since(m.last) - beat // it may be late just now
	for i := len(m.late) - 1; i >= 0 && m.late[i].at.After(t); i-- {
		longest = max(longest, m.late[i].by)
	}
	return 10 * max(longest, 0)
}

// Eventually calls ok every 5 ms until it holds or the time is up, which is longer on a busy machine (see [Late]), and returns how long
// it took.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if took := time.Since(start); took > within && took > within+Late(start) {
			t.Fatalf("not within %v: %s", took.Round(time.Millisecond), what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}
