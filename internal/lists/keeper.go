// Package lists keeps lists of addresses that groups take from files and URLs: it reads them again and again, bounded in every way, keeps
// the last good one over failures and restarts, and says how old it is. What a list holds is in no error, log or status.
package lists

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Options of a Keeper. The zero value reads https URLs of other machines, and keeps nothing over a restart.
type Options struct {
	Dir       string         // of files; "" = none are read
	StateDir  string         // where the last good lists are kept; "" = nowhere
	PlainHTTP bool           // http: URLs too
	Allow     []netip.Prefix // may be connected to although they are of this machine or its link
	CAFile    string         // who has to have signed the servers' certificates; "" = the system's
	Logger    *slog.Logger   // nil discards
}

// atOnce bounds how many lists are read at the same time.
const atOnce = 4

// Keeper follows the lists of groups. Its methods are safe for concurrent use; lists are read while Run runs.
type Keeper struct {
	o      Options
	client *http.Client
	turns  chan struct{} // holds one value for each list that is being read
	wake   chan struct{} // what is followed has changed

	mu      sync.Mutex
	lists   map[string]*list         // by group
	changed map[string]*policy.Group // not taken yet
	news    chan struct{}            // there is something in changed
}

// list is what is known of one. The Keeper's mutex guards it.
type list struct {
	from    policy.GroupSource
	key     string // of from
	cancel  context.CancelFunc
	members *policy.Group // in force; nil = none ever was
	content content       // which these are
	sum     [sha256.Size]byte
	known   validators
	ofKey   string // the key of the source that all this is from
	fetched time.Time
	status  policy.SourceStatus
}

// New checks the options.
func New(o Options) (*Keeper, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{o: o, turns: make(chan struct{}, atOnce), wake: make(chan struct{}, 1), lists: map[string]*list{},
		changed: map[string]*policy.Group{}, news: make(chan struct{}, 1)}
	var err error
	k.client, err = k.newClient()
	return k, err
}

// String names the task.
func (k *Keeper) String() string { return "lists" }

// keyOf names a source without giving it away.
func keyOf(from *policy.GroupSource) string {
	sum := sha256.Sum256([]byte(from.File + "\x00" + from.URL))
	return hex.EncodeToString(sum[:16])
}

// Follow says from where a group takes members from now on, nil = from nowhere, and returns those that are in force, nil = none. A group
// whose source is another now keeps what it has until the new one has been read.
func (k *Keeper) Follow(group string, from *policy.GroupSource) *policy.Group {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.lists[group]
	if from == nil {
		if l != nil {
			l.stop()
			delete(k.lists, group)
			delete(k.changed, group)
			k.forget(group)
		}
		return nil
	}
	if l == nil {
		l = k.recall(group)
		k.lists[group] = l
	}
	if l.from != *from {
		l.stop()
		l.from, l.key = *from, keyOf(from)
		l.status.From, l.status.Error, l.status.CheckedAt = from.String(), "", nil
		poke(k.wake)
	}
	return l.members
}

// stop ends the reading of a list.
func (l *list) stop() {
	if l.cancel != nil {
		l.cancel()
		l.cancel = nil
	}
}

// News tells that Take has something.
func (k *Keeper) News() <-chan struct{} { return k.news }

// Take returns the lists that have changed since it was called last, by group.
func (k *Keeper) Take() map[string]*policy.Group {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.changed
	k.changed = map[string]*policy.Group{}
	return out
}

// Status is that of the list of a group, nil if it has none.
func (k *Keeper) Status(group string) *policy.SourceStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.lists[group]
	if l == nil {
		return nil
	}
	s := l.status
	return &s
}

// Run reads lists until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	for {
		k.mu.Lock()
		for group, l := range k.lists {
			if l.cancel == nil {
				var own context.Context
				own, l.cancel = context.WithCancel(ctx)
				readers.Go(func() { k.follow(own, group, l) })
			}
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
	}
}

// follow reads one list again and again, until ctx ends.
func (k *Keeper) follow(ctx context.Context, group string, l *list) {
	k.mu.Lock()
	from, every, failures := l.from, l.from.Interval(), 0
	var wait time.Duration
	if from.URL != "" && l.ofKey == l.key && !l.fetched.IsZero() { // a restart is no reason to ask
		wait = min(max(0, time.Until(l.fetched.Add(every))), every)
	}
	k.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		select {
		case <-ctx.Done():
			return
		case k.turns <- struct{}{}:
		}
		err := k.read(ctx, group, l, from)
		<-k.turns
		wait = every
		if err == nil {
			failures = 0
		} else {
			failures++
			wait = min(every, policy.MinSourceEvery<<min(failures-1, 20))
		}
		wait -= rand.N(wait/10 + 1) // processes that began together do not ask together for ever
	}
}

// read reads a list once.
func (k *Keeper) read(ctx context.Context, group string, l *list, from policy.GroupSource) error {
	k.mu.Lock()
	known, sum := validators{}, l.sum
	if l.ofKey == l.key {
		known = l.known
	}
	k.mu.Unlock()
	got, err := k.fetch(ctx, from, known)
	var now *content // nil = it is what it was
	if err == nil && got.text != nil && digest(got.text) != sum {
		var c content
		if c, err = parse(got.text); err == nil {
			now = &c
		}
	}
	kept, another, err := k.took(ctx, group, l, got, now, err)
	if err != nil {
		return err
	}
	if err := k.keep(group, &kept, another); err != nil { // nobody waits for the disk
		k.o.Logger.Warn("a list cannot be kept over a restart", "group", group, "err", err)
	}
	return nil
}

// took notes the outcome of a try, and returns the list to keep. another is false if all but the time is as it was kept last.
func (k *Keeper) took(ctx context.Context, group string, l *list, got fetched, now *content, err error) (kept list, another bool, _ error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		return list{}, false, ctx.Err() // the source is another by now
	}
	at := time.Now()
	l.status.CheckedAt = &at
	if err != nil {
		if text := err.Error(); text != l.status.Error {
			l.status.Error = text
			k.o.Logger.Warn("a list could not be read; what is known of it stays in force", "group", group, "from", l.status.From, "err", text)
		}
		return list{}, false, err
	}
	if l.status.Error != "" {
		l.status.Error = ""
		k.o.Logger.Info("a list can be read again", "group", group, "from", l.status.From)
	}
	another = now != nil || l.ofKey != l.key || l.known != got.validators
	l.ofKey, l.known, l.fetched = l.key, got.validators, at
	if now != nil {
		before := len(l.content.prefixes)
		l.sum, l.content = digest(got.text), *now
		if members := now.members(group, l.members); members != l.members {
			l.members, k.changed[group] = members, members
			poke(k.news)
			k.o.Logger.Info("a list has changed", "group", group, "from", l.status.From, "entries", len(now.prefixes), "before", before,
				"skipped", now.skipped)
		}
	}
	l.tell()
	return *l, another, nil
}

// tell brings the status up to date with what is in force.
func (l *list) tell() {
	l.status.Entries, l.status.Skipped, l.status.SkippedLines = len(l.content.prefixes), l.content.skipped, l.content.lines
	at := l.fetched
	l.status.FetchedAt = &at
}

// poke leaves a word for whoever waits.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Lists describes the followed ones, by group.
func (k *Keeper) Lists() map[string]policy.SourceStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[string]policy.SourceStatus, len(k.lists))
	for group, l := range k.lists {
		out[group] = l.status
	}
	return out
}

var errKept = fmt.Errorf("what was kept cannot be read")
