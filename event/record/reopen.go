package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/internal/wholefile"
)

const (
	openFile = "open-connections"
	// keepEvery is how often it is noted which connections are open. Ends that were told less than that ago are found in the spool.
	keepEvery = 10 * time.Second
	// sightFor is how long after a start somebody may take to look for what an earlier process has recorded.
	sightFor = 10 * time.Minute
)

// openConnections is what openFile holds: the connections that were open when the event with the last sequence number had been made.
type openConnections struct {
	Install uint32 `json:"install"`
	Last    int64  `json:"last"`
	// Open has the sequence number of the event of each start, and when the connection was seen last, in Unix nanoseconds.
	Open [][2]int64 `json:"open"`
}

// keeper takes up what openFile has, and writes it, so that a disk which hangs holds up nothing but that. It is for Run's goroutine; a nil
// one keeps nothing.
type keeper struct {
	r       *Recorder
	path    string
	told    uint64           // openTable.changes of the last one that was captured
	before  *openConnections // captured keepEvery ago, so that the spool has the ends that it lacks
	write   chan *openConnections
	written chan struct{} // closed when nothing is written any more
	since   time.Time
	next    time.Time // when it is noted again

	reopened chan struct{} // closed when the connections of earlier processes were looked for
	whole    bool          // they were found then
}

// newKeeper looks for the connections of earlier processes while events are made already.
func (r *Recorder) newKeeper(ctx context.Context) *keeper {
	if r.opts.Spool == nil || r.opts.DataDir == "" {
		return nil
	}
	k := &keeper{r: r, path: filepath.Join(r.opts.DataDir, openFile), write: make(chan *openConnections, 1), written: make(chan struct{}),
		since: r.now(), reopened: make(chan struct{})}
	go func() {
		defer close(k.reopened)
		err := r.reopen(ctx, k.path)
		if k.whole = ctx.Err() == nil; err != nil && k.whole {
			r.log.Warn("the ends of connections that an earlier process recorded are not told", "err", err)
		}
	}()
	go func() {
		defer close(k.written)
		for c := range k.write {
			if err := save(k.path, c); err != nil {
				r.log.Warn("which connections are open is not remembered over a restart", "err", err)
			}
		}
	}()
	return k
}

// tick notes, each keepEvery, which connections are open, if that has changed.
func (k *keeper) tick() {
	if k == nil || time.Now().Before(k.next) {
		return
	}
	k.next = time.Now().Add(keepEvery)
	select {
	case <-k.reopened:
	default:
		return
	}
	if now := k.r.now(); now.Sub(k.since) > sightFor {
		k.r.open.abandon(now.UnixNano())
		k.since = now.AddDate(1000, 0, 0) // there will be no more of them
	}
	if k.before != nil {
		select {
		case k.write <- k.before:
			k.before = nil
		default: // the disk has not taken the last one
			return
		}
	}
	k.before = k.capture()
}

// wait returns when no more connections of earlier processes come.
func (k *keeper) wait() {
	if k != nil {
		<-k.reopened
	}
}

// close writes what is open at the end. The spool must have all events by now.
func (k *keeper) close() error {
	if k == nil {
		return nil
	}
	close(k.write)
	<-k.written
	k.told = 0
	if c := k.capture(); c != nil && k.whole {
		return save(k.path, c)
	}
	return nil
}

// capture is what is open now; nil = the same as last time. It is for the goroutine that makes events.
func (k *keeper) capture() *openConnections {
	ids, o := k.r.builder.ids, &k.r.open
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changes == k.told {
		return nil
	}
	k.told = o.changes
	c := &openConnections{Install: ids.install, Last: ids.last(), Open: make([][2]int64, 0, o.held)}
	add := func(x *opened) { c.Open = append(c.Open, [2]int64{x.start.Event.Sequence, x.seen}) }
	for i := range o.ended {
		add(o.ended[i].opened)
	}
	for _, zones := range o.places {
		for _, conns := range zones {
			for _, x := range conns {
				add(x)
			}
		}
	}
	return c
}

func save(path string, c *openConnections) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return wholefile.Write(path, text, 0o600)
}

// reopen takes up the connections that were open when an earlier process ended: those that it noted, and those that the spool tells of
// since.
func (r *Recorder) reopen(ctx context.Context, path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) { // what comes now is found in the spool, however this process ends
		return save(path, &openConnections{Install: r.began.Install, Last: int64(r.began.Epoch) << seqBits, Open: [][2]int64{}})
	}
	var noted openConnections
	if err == nil {
		err = json.Unmarshal(text, &noted)
	}
	if err != nil || noted.Install != r.began.Install {
		return err
	}
	seen, oldest := make(map[int64]int64, len(noted.Open)), noted.Last
	for _, x := range noted.Open {
		seen[x[0]] = x[1]
		oldest = min(oldest, x[0]-1)
	}
	found := reopening{noted: &noted, seen: seen, ended: map[int64]bool{}}
	q := spool.Query{After: oldest, Before: int64(r.began.Epoch) << seqBits, Newest: true}
	err = r.opts.Spool.Scan(ctx, q, func(rec spool.Record) bool {
		found.take(&rec)
		return true
	})
	slices.Reverse(found.starts)
	for _, c := range found.starts {
		at, zone, t, fresh, ok := connectionOf(c.start)
		if ok && !r.open.begin(at, zone, t, c, fresh) {
			r.builder.lose(at.host)
		}
	}
	for range found.seen { // noted, and not in the spool any more
		r.AddLoss(event.StageConnections, event.P1, "expired", 1)
	}
	r.rouse()
	return err
}

// reopening looks through the spool, newest first.
type reopening struct {
	noted  *openConnections
	seen   map[int64]int64
	ended  map[int64]bool // starts whose end is told
	starts []*opened
}

var (
	endText   = []byte(`"action":"` + event.ActionEnded + `"`)
	startText = []byte(`"action":"` + event.ActionVerdict + `"`)
)

func (f *reopening) take(rec *spool.Record) {
	seen, noted := f.seen[rec.Sequence]
	delete(f.seen, rec.Sequence)
	newer := rec.Sequence > f.noted.Last
	isEnd := newer && bytes.Contains(rec.JSON, endText)
	if f.ended[rec.Sequence] || !isEnd && !noted && !(newer && bytes.Contains(rec.JSON, startText)) {
		return
	}
	e := new(event.Event)
	if json.Unmarshal(rec.JSON, e) != nil {
		return
	}
	switch {
	case isEnd && e.Tapwall.Ended != nil:
		if id, err := event.ParseID(e.Tapwall.Ended.StartID); err == nil {
			f.ended[id.Sequence] = true
		}
	case slices.Contains(e.Event.Type, "allowed") && len(f.starts) < maxOpen:
		began := e.Timestamp.UnixNano()
		f.starts = append(f.starts, &opened{start: e, began: began, seen: max(seen, began), restored: true})
	}
}

// connectionOf finds the connection that the event of a start is of. fresh is as in openTable.begin.
func connectionOf(e *event.Event) (at place, zone uint16, t Tuple, fresh, ok bool) {
	if e.Observer == nil || e.Network == nil || e.Tapwall.CT == nil {
		return at, 0, t, false, false
	}
	f := event.FactsOf(e)
	proto, err := strconv.ParseUint(e.Network.IANANumber, 10, 8)
	if err != nil || f.Src == (netip.Addr{}) || f.Dst == (netip.Addr{}) {
		return at, 0, t, false, false
	}
	sport, dport := f.SrcPort, f.DstPort
	if x := e.Tapwall.ICMP; x != nil {
		sport, dport = uint16(x.ID), ICMPPort(uint8(x.Type), uint8(x.Code))
	}
	return place{e.Observer.Name, f.Bridge}, uint16(e.Tapwall.CT.Zone), NewTuple(uint8(proto), f.Src, f.Dst, sport, dport),
		slices.Contains(e.Tapwall.CT.State, "new"), true
}
