package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// Two things about numbers must survive a restart. That a number was given: for that, blocks of them are reserved in the store ahead of
// their use (wall.Firewall.Reserve). And what it stands for, so that its connections go on: for that, each policy and endpoint has an
// entry in the store. Entries are written behind the installation of the flows, which waits for no disk: a revocation has to happen with
// the disk full, too. Until an entry is written, a mark that names the entry and the value that the store has of it stands on the switch,
// in a flow that nothing matches: it comes in the bundle that makes the value stale, and goes in the first one after the value has been
// replaced. A later process takes no marked value for true; what it finds nothing of gets new numbers, and its connections are judged
// again. Nothing else would do: an entry that says that id 5 lets in vm1 may be older than an hour in which id 5 let in vm2 as well, and
// the disk is full.

// Keys of the host's state in the store, below bridge/NAME/.
const (
	stateIndex    = "index"
	stateGuards   = "guards"
	stateLimits   = "limits" // of connections in its zones, that were ever set
	stateFresh    = "fresh"  // there as long as the bridge has not been taken over
	stateNext     = "next"   // the bound of the block of numbers
	statePolicy   = "policy/"
	stateEndpoint = "endpoint/"
	stateRetired  = "retired/" // endpoint ids that are no more; they mean what they meant, so they are never stale
	stateClass    = "class/"
	// stateAddresses: what peers' addresses were.
	stateAddresses = "addresses/"
	// stateRegion and stateService: what address and service numbers name. No connection carries them, so none is marked.
	stateRegion  = "number/address/"
	stateService = "number/service/"
)

const stateRoot = "bridge/"

// numberBlock is how many numbers are reserved at a time: changes for hours on most hosts, and all that 4,000 endpoints begin with. A
// process that is killed wastes up to so many, of half a billion.
const numberBlock = 1 << 16

// An entry is saved when it has been unsaved for saveAfter, or with maxUnsaved others: in a burst of changes every one of them would
// else compete with a data sync for the one before. Until then marks stand for it.
const (
	saveAfter  = 200 * time.Millisecond
	maxUnsaved = 64
)

// holdFor is how long an installation that needs numbers beyond the block waits for the next one before it goes ahead without them.
const holdFor = 500 * time.Millisecond

// ledger is what a bridge's numbers stand for, and what the store has of that. It outlives the bridge, which may be deleted and made
// again while the store is away. The loop owns it.
type ledger struct {
	bridge string
	index  int // of the bridge's conntrack zones; -1 = not known
	bound  uint32
	given  wall.Assignments // while there is no bridge
	// unproven: as read, and the switch has not been asked yet what of it is stale. untaken: no tapwall of this store has taken the bridge
	// over yet.
	unproven, untaken bool
	guards            *guardsSince // nil = of a version that has none
	limits            []int

	stored  map[string][]byte // as the store has it, as far as is known
	unsaved map[string][]byte // what it is to have instead; nil = nothing
	// write is under way, or failed and may be in the store all the same. It is tried until it succeeds, so that at most two values of an
	// entry are in doubt.
	write   *write
	writing bool
	err     error // of the last try
	retry   backoff
	heldAt  time.Time // since when an installation waits for numbers
	since   time.Time // when the first of unsaved was noticed; zero = there is none
}

// write is one call of PutStates.
type write struct {
	values map[string][]byte
	bound  uint32 // 0 = none
}

// written is how one ended.
type written struct {
	ledger *ledger
	err    error
}

// readLedgers reads what earlier processes left, once.
func (e *Engine) readLedgers(ctx context.Context) error {
	if e.ledgers != nil {
		return nil
	}
	all, err := e.opt.Store.ListStates(ctx, e.host, stateRoot)
	if err != nil {
		return err
	}
	ledgers := map[string]*ledger{}
	for key, value := range all {
		name, rest, _ := strings.Cut(strings.TrimPrefix(key, stateRoot), "/")
		l := ledgers[name]
		if l == nil {
			l = newLedger(name)
			ledgers[name] = l
		}
		if err := l.read(rest, value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	e.ledgers = ledgers
	return nil
}

func newLedger(bridge string) *ledger {
	return &ledger{
		bridge: bridge, index: -1, unproven: true, stored: map[string][]byte{}, unsaved: map[string][]byte{},
		given: wall.Assignments{Policies: map[string]wall.PolicyAssignment{}, Endpoints: map[string]wall.EndpointAssignment{},
			Retired: map[uint32]wall.Station{}, Classes: map[uint16]wall.ClassAssignment{}, Addresses: map[string]wall.AddressAssignment{},
			AddressNumbers: map[uint16]string{}, ServiceNumbers: map[uint16]string{}},
	}
}

// read takes one value of the store.
func (l *ledger) read(key string, value []byte) error {
	l.stored[key] = value
	switch {
	case key == stateIndex:
		return json.Unmarshal(value, &l.index)
	case key == stateFresh:
		l.untaken = true
	case key == stateLimits:
		return json.Unmarshal(value, &l.limits)
	case key == stateGuards:
		return json.Unmarshal(value, &l.guards)
	case key == stateNext:
		defer func() { l.given.Next = l.bound }()
		return json.Unmarshal(value, &l.bound)
	}
	if name, ok := strings.CutPrefix(key, statePolicy); ok {
		return readEntry(value, l.given.Policies, name)
	}
	if name, ok := strings.CutPrefix(key, stateEndpoint); ok {
		return readEntry(value, l.given.Endpoints, name)
	}
	if name, ok := strings.CutPrefix(key, stateAddresses); ok {
		return readEntry(value, l.given.Addresses, name)
	}
	for prefix, read := range map[string]func(n uint64) error{
		stateRetired: func(n uint64) error { return readEntry(value, l.given.Retired, uint32(n)) },
		stateClass:   func(n uint64) error { return readEntry(value, l.given.Classes, uint16(n)) },
		stateRegion:  func(n uint64) error { return readEntry(value, l.given.AddressNumbers, uint16(n)) },
		stateService: func(n uint64) error { return readEntry(value, l.given.ServiceNumbers, uint16(n)) },
	} {
		if text, ok := strings.CutPrefix(key, prefix); ok {
			n, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return err
			}
			return read(n)
		}
	}
	return nil
}

func readEntry[K comparable, V any](value []byte, into map[K]V, key K) error {
	var v V
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	into[key] = v
	return nil
}

// ledgerOf returns the ledger of a bridge, with an index and a first block of numbers that are in the store.
func (e *Engine) ledgerOf(ctx context.Context, name string, now time.Time) (*ledger, error) {
	if err := e.readLedgers(ctx); err != nil {
		return nil, fmt.Errorf("read what is kept of it: %w", err)
	}
	l := e.ledgers[name]
	if l == nil {
		l = newLedger(name)
		e.ledgers[name] = l
	}
	if l.guards == nil {
		l.guards = &guardsSince{Since: now, Fresh: l.index < 0 || l.untaken}
		l.note(stateGuards, l.guards)
	}
	if l.index < 0 {
		taken := map[int]bool{}
		for _, other := range e.ledgers {
			taken[other.index] = true
		}
		index := 0
		for taken[index] {
			index++
		}
		if index >= pipeline.MaxBridges {
			return nil, errTooManyBridges
		}
		l.index = index
		// The bridge may have had another life, whose record is lost while its connections live on. The numbers that they carry must not be
		// given again, so it begins anywhere.
		l.given.Next = 1 + rand.Uint32N(pipeline.MaxNumber)
		l.note(stateIndex, index)
		l.untaken = true
		l.note(stateFresh, true)
	}
	if l.stored[stateIndex] == nil {
		e.save(ctx, l, now)
		if l.err != nil {
			return nil, fmt.Errorf("keep the first of its numbers: %w", l.err)
		}
		return nil, errLedgerUnderWay
	}
	return l, nil
}

// note says what the store is to have under a key; nil = nothing.
func (l *ledger) note(key string, v any) {
	var j []byte
	if v != nil {
		j, _ = json.Marshal(v) // plain values
		if len(j) > backend.MaxStateBytes {
			j = nil // what cannot be kept is judged again after a restart, and keeps nothing else from being kept
		}
	}
	if _, doubtful := l.doubtful()[key]; !doubtful && bytes.Equal(l.stored[key], j) {
		delete(l.unsaved, key)
		return
	}
	l.unsaved[key] = j
}

// change notes what a Compile found.
func (l *ledger) change(c wall.AssignmentChanges) {
	for name, p := range c.Policies {
		if p == nil {
			l.note(statePolicy+name, nil)
		} else {
			l.note(statePolicy+name, p)
		}
	}
	noteEach(l, c.Endpoints, func(key string) string { return stateEndpoint + key })
	noteEach(l, c.Addresses, func(hash string) string { return stateAddresses + hash })
	noteEach(l, c.Retired, func(id uint32) string { return stateRetired + strconv.FormatUint(uint64(id), 10) })
	noteEach(l, c.Classes, func(n uint16) string { return stateClass + strconv.Itoa(int(n)) })
	for prefix, names := range map[string]map[uint16]string{stateRegion: c.AddressNumbers, stateService: c.ServiceNumbers} {
		for n, name := range names {
			if name == "" {
				l.note(prefix+strconv.Itoa(int(n)), nil)
			} else {
				l.note(prefix+strconv.Itoa(int(n)), name)
			}
		}
	}
}

func noteEach[K comparable, V any](l *ledger, changes map[K]*V, key func(K) string) {
	for k, v := range changes {
		if v == nil {
			l.note(key(k), nil)
		} else {
			l.note(key(k), v)
		}
	}
}

// doubtful are the values that may be in the store instead of those of stored.
func (l *ledger) doubtful() map[string][]byte {
	if l.write == nil {
		return nil
	}
	return l.write.values
}

// save brings the store up to date, in the background. How it ended is told by Engine.written.
func (e *Engine) save(ctx context.Context, l *ledger, now time.Time) {
	if l.writing || now.Before(l.retry.next) {
		return
	}
	if l.write == nil {
		w := e.collect(l)
		switch {
		case w == nil:
			return
		case w.bound != 0 || len(w.values) > maxUnsaved || l.stored[stateIndex] == nil: // somebody may be waiting for it, or it is much
		case l.since.IsZero():
			l.since = now
			time.AfterFunc(saveAfter, e.poke)
			return
		case now.Before(l.since.Add(saveAfter)):
			return
		}
		l.write, l.since = w, time.Time{}
	}
	l.writing = true
	host, values := e.host, map[string][]byte{}
	for key, v := range l.write.values {
		values[stateRoot+l.bridge+"/"+key] = v
	}
	e.tasks.Go(func() {
		e.written <- written{l, e.opt.Store.PutStates(e.saving, host, values)}
		e.poke()
	})
}

// await starts the write that reserves more numbers, and reports whether it is worth while to wait for it: with a store that answers, a
// change comes into force whole.
func (e *Engine) await(ctx context.Context, l *ledger, now time.Time) bool {
	e.save(ctx, l, now)
	if !l.writing || l.err != nil {
		return false
	}
	if l.heldAt.IsZero() {
		l.heldAt = now
		time.AfterFunc(holdFor, e.poke)
	}
	return now.Before(l.heldAt.Add(holdFor))
}

// collect returns what is to be written; nil = nothing.
func (e *Engine) collect(l *ledger) *write {
	w := &write{values: maps.Clone(l.unsaved)}
	if fw := e.walls[l.bridge]; fw != nil {
		if bound, due := fw.fw.Reservation(e.block); due {
			w.bound = bound
		}
	} else if l.bound == 0 {
		w.bound = (l.given.Next+e.block-1)%pipeline.MaxNumber + 1
	}
	if w.bound != 0 {
		w.values[stateNext], _ = json.Marshal(w.bound)
	}
	if len(w.values) == 0 {
		return nil
	}
	return w
}

// takeWritten takes the outcomes of writes.
func (e *Engine) takeWritten(now time.Time) {
	for {
		select {
		case w := <-e.written:
			w.ledger.settle(w.err, now)
			if fw := e.walls[w.ledger.bridge]; w.err == nil && fw != nil {
				fw.fw.Reserve(w.ledger.bound)
			}
		default:
			return
		}
	}
}

// settle takes the outcome of a write.
func (l *ledger) settle(err error, now time.Time) {
	l.writing = false
	if l.err = err; err != nil {
		l.heldAt = time.Time{}
		l.retry.fail(now)
		l.retry.pause = min(l.retry.pause, time.Second) // a try costs nothing but itself
		l.retry.next = now.Add(l.retry.pause)
		return
	}
	l.retry.ok()
	l.heldAt = time.Time{}
	for key, v := range l.write.values {
		if v == nil {
			delete(l.stored, key)
		} else {
			l.stored[key] = v
		}
		if now, ok := l.unsaved[key]; ok && bytes.Equal(now, v) {
			delete(l.unsaved, key)
		}
	}
	if l.write.bound != 0 {
		l.bound = l.write.bound
	}
	l.write = nil
}

// trouble says what is not saved; "" = nothing that is not just under way.
func (l *ledger) trouble() string {
	if l.err == nil {
		return ""
	}
	if len(l.unsaved) == 0 {
		return fmt.Sprintf("bridge %s: no further ids are reserved: %v", l.bridge, l.err)
	}
	return fmt.Sprintf("bridge %s: %d id assignments are not saved: %v; after a restart these connections would be judged again", l.bridge,
		len(l.unsaved), l.err)
}

// closeLedgers saves what an orderly end should leave behind: all entries, and no number reserved that was not given. It waits for a
// store that answers.
func (e *Engine) closeLedgers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	for _, l := range e.ledgers {
		for l.writing {
			select {
			case w := <-e.written:
				w.ledger.settle(w.err, time.Now())
			case <-ctx.Done():
				return
			}
		}
		fw, values := e.walls[l.bridge], map[string][]byte{}
		for key, v := range l.unsaved {
			values[stateRoot+l.bridge+"/"+key] = v
		}
		if fw != nil && !l.unproven {
			values[stateRoot+l.bridge+"/"+stateNext], _ = json.Marshal(fw.fw.Next())
		}
		if l.err != nil || len(values) == 0 {
			continue
		}
		if err := e.opt.Store.PutStates(ctx, e.host, values); err != nil {
			e.log.Warn("id assignments are not saved; these connections will be judged again", "bridge", l.bridge, "assignments", len(l.unsaved),
				"err", err)
			continue
		}
		if fw != nil && len(fw.marks) > 0 && len(fw.owners) == 0 {
			// else the next process does it
			_, _ = fw.sw.Apply(ctx, ofctrl.Update{Revision: e.revision, Owners: map[string][]flow.Flow{ownerMarks: nil}})
		}
	}
}
