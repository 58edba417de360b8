// Package opensearch delivers the record to OpenSearch: every event of the spool becomes a document of the index of its own day, under its
// own id, once. Nothing is sent before the templates stand; what the server cannot take is sent again until it can, what it will never take
// goes to a file of dead letters, and how far it has come survives any crash with the figures that say so.
package opensearch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// Defaults and bounds of Options.
const (
	DefaultPrefix   = "tapwall"
	DefaultReplicas = "0-1" // as many as there are other nodes, one at most

	maxInFlight   = 4
	maxReady      = 2 // that are ready when one of those is answered
	batchRecords  = 5000
	batchBytes    = 5 << 20
	smallBatch    = 100 // documents that a slow server must manage at once
	linger        = 500 * time.Millisecond
	checkpointing = time.Second
	pruning       = time.Hour
	probing       = 5 // checkpoints

	// slowAnswer is how long an answer may take for a further request to be sent beside it.
	slowAnswer = 5 * time.Second
	minWait    = 500 * time.Millisecond
	maxWait    = 30 * time.Second
	// parting is how long Close waits for answers that are under way.
	parting = 3 * time.Second
)

// Retention is for how long documents of each set are kept; 0 = for ever.
type Retention map[string]time.Duration

// DefaultRetention is a new map.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{"flow": 14 * day, "packet": 3 * day, "audit": 90 * day, "loss": 90 * day}
}

// TLS names files; empty = the system's authorities, no client certificate.
type TLS struct{ CA, Cert, Key string }

// Options of Open.
type Options struct {
	URLs         []string // of nodes, at least one
	Prefix       string   // of indices and templates; "" = DefaultPrefix
	Username     string
	PasswordFile string
	APIKeyFile   string
	TLS          TLS
	Replicas     string    // index.auto_expand_replicas, "false" for what the cluster's default is; "" = DefaultReplicas
	Retention    Retention // nil = DefaultRetention
	Dir          string    // of dead letters; mandatory
	Spool        *spool.Spool
	Timeout      time.Duration // of a request; 0 = 30 s
	MaxWait      time.Duration // between attempts; 0 = 30 s
	Logger       *slog.Logger  // nil = discard
	Now          func() time.Time
}

var prefixForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// Sink delivers from Open to Close. All methods are safe for concurrent use.
type Sink struct {
	o         Options
	log       *slog.Logger
	client    *client
	cursor    *spool.Cursor
	letters   *letters
	templates []template
	loss      atomic.Pointer[event.LossFunc]

	reading context.Context    // ends when Close begins: nothing is tried again
	stop    context.CancelFunc // of reading
	abort   context.CancelFunc // of requests
	gone    chan struct{}
	tokens  chan struct{} // requests that may be sent at once

	gate     sync.Mutex // held while templates are checked
	verified bool

	mu          sync.Mutex
	granted     int // tokens that there are
	inFlight    int
	retries     int64
	failing     time.Time // since when; zero = it is not
	failure     string
	success     time.Time
	refused     int64     // documents, since start
	refusalTold time.Time // when the log had one of them
	batchSize   int       // bytes of a request; less while the server is slow
	largest     int       // bytes that the server takes at once
}

// Open begins to deliver what the spool has, from where the last run came to. An error is one of the options, or of the disk; a server that
// is not there is none.
func Open(o Options) (*Sink, error) {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if !prefixForm.MatchString(o.Prefix) {
		return nil, fmt.Errorf("opensearch: index-prefix: %q is not of small letters, digits, - and _, 64 at most", o.Prefix)
	}
	if o.Replicas == "" {
		o.Replicas = DefaultReplicas
	}
	if o.Retention == nil {
		o.Retention = DefaultRetention()
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.MaxWait <= 0 {
		o.MaxWait = maxWait
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c, err := newClient(&o)
	if err != nil {
		return nil, fmt.Errorf("opensearch: %w", err)
	}
	s := &Sink{
		o: o, log: o.Logger.With("sink", "opensearch"), client: c, templates: templates(o.Prefix, o.Replicas), gone: make(chan struct{}),
		tokens: make(chan struct{}, maxInFlight), granted: maxInFlight, batchSize: batchBytes, largest: batchBytes,
	}
	for range maxInFlight {
		s.tokens <- struct{}{}
	}
	if s.cursor, err = o.Spool.Cursor("opensearch"); err == nil {
		cp, _, _ := s.cursor.Status()
		s.letters, err = openLetters(o.Dir, cp.Replays)
	}
	if err != nil {
		_ = c.close()
		return nil, fmt.Errorf("opensearch: %w", err)
	}
	reading, stop := context.WithCancel(context.Background())
	sending, abort := context.WithCancel(context.Background())
	s.reading, s.stop, s.abort = reading, stop, abort
	go s.run(sending)
	return s, nil
}

// Name is "opensearch".
func (s *Sink) Name() string { return "opensearch" }

// ReportLoss has f told of events that fell to the bounds of the spool or of the retention before they were delivered, and of dead letters
// that fell to their bound.
func (s *Sink) ReportLoss(f event.LossFunc) { s.loss.Store(&f) }

func (s *Sink) tell(stage event.Stage, reason string, n int64) {
	if f := s.loss.Load(); f != nil && n > 0 {
		(*f)(stage, event.NoClass, reason, n)
	}
}

// run reads chunks and has each delivered, a few at once.
func (s *Sink) run(sending context.Context) {
	reading := s.reading
	defer close(s.gone)
	var under sync.WaitGroup
	under.Go(func() { s.housekeeping(sending, reading.Done()) })
	room := make(chan struct{}, maxInFlight+maxReady) // bounds what is in memory
	for {
		select {
		case room <- struct{}{}:
		case <-reading.Done():
		}
		s.mu.Lock()
		size := s.batchSize
		s.mu.Unlock()
		ch, err := s.cursor.Read(reading, batchRecords, size, linger)
		if reading.Err() != nil {
			break
		}
		if err != nil {
			s.failed(fmt.Errorf("reading the spool: %w", err))
			<-room
			pause(reading, s.wait(1))
			continue
		}
		under.Go(func() {
			s.deliver(sending, ch)
			<-room
		})
	}
	under.Wait()
	s.save()
}

// housekeeping writes the checkpoint, deletes what is too old, and knows of a server that is away before there is an event.
func (s *Sink) housekeeping(ctx context.Context, quit <-chan struct{}) {
	save, prune := time.NewTicker(checkpointing), time.NewTicker(pruning)
	defer save.Stop()
	defer prune.Stop()
	pruned := false
	s.probe(ctx)
	for tick := 1; ; tick++ {
		select {
		case <-quit:
			return
		case <-save.C:
			s.save()
			if tick%probing == 0 {
				s.probe(ctx)
			}
			if !pruned && s.up() { // at the start, as soon as it is known that the server is there
				s.prune(ctx)
				pruned = true
			}
		case <-prune.C:
			s.prune(ctx)
		}
	}
}

// probe finds out whether the server would take events, where no delivery tells.
func (s *Sink) probe(ctx context.Context) {
	s.mu.Lock()
	known := s.failure == "" && !s.success.IsZero()
	s.mu.Unlock()
	if _, pending, _ := s.cursor.Status(); known || pending > 0 {
		return
	}
	if err := s.trust(ctx); err == nil {
		s.succeeded()
	} else if ctx.Err() == nil {
		s.failed(err)
	}
}

func (s *Sink) save() {
	if err := s.cursor.Save(); err != nil {
		s.log.Error("how far the export has come cannot be written: after a crash more is sent again", "err", err)
	}
	if f := s.loss.Load(); f != nil {
		s.cursor.TellExpired(*f)
	}
}

// wait is a random time before the attempt of a number, so that many do not come back at once.
func (s *Sink) wait(attempt int) time.Duration {
	most := min(minWait<<min(attempt, 10), s.o.MaxWait)
	return most/4 + rand.N(most*3/4)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// failed notes why nothing is delivered now.
func (s *Sink) failed(err error) {
	s.mu.Lock()
	first := s.failing.IsZero()
	if first {
		s.failing = s.o.Now()
	}
	s.failure = err.Error()
	s.mu.Unlock()
	if first {
		s.log.Error("events cannot be delivered; they wait in the spool", "err", err)
	}
}

func (s *Sink) succeeded() {
	s.mu.Lock()
	since := s.failing
	s.failing, s.failure, s.success = time.Time{}, "", s.o.Now()
	s.mu.Unlock()
	if !since.IsZero() {
		s.log.Info("events are delivered again", "after", s.o.Now().Sub(since).Round(time.Millisecond))
	}
}

func (s *Sink) up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing.IsZero() && !s.success.IsZero()
}

// Status says how it is.
func (s *Sink) Status() event.SinkStatus {
	st := s.cursor.SinkStatus(s.o.Now())
	x := &st.Export
	x.LettersKept, x.LetterBytes, x.LettersDiscarded = s.letters.status()
	s.mu.Lock()
	defer s.mu.Unlock()
	x.InFlight, x.Retries, x.LastSuccess, x.FailingSince = s.inFlight, s.retries, s.success, s.failing
	st.Name, st.Target, st.Error = s.Name(), s.o.URLs[0], s.failure
	return st
}

// Close ends delivery. Answers that are under way get a few seconds; what is not delivered then is by the next run.
func (s *Sink) Close() error {
	s.stop()
	select {
	case <-s.gone:
	case <-time.After(parting):
		s.abort()
		<-s.gone
	}
	s.abort()
	return errors.Join(s.client.close(), s.letters.close())
}
