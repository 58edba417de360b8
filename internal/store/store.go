// Package store keeps tapwall's resources and the state of each host in etcd: a single member inside the process by default, an
// external cluster on request. Client, transactions and watches are the same either way.
//
// Keys are /tapwall/v1/<kind>/<name> for resources and /tapwall/v1/hosts/<id>/… for what belongs to one host. The revision of a
// resource is etcd's modification revision of its key, so it grows with every write and serves as the ETag of the API.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/api/wire"
)

// Errors of this package beside backend.ErrNotFound, backend.ErrConflict, backend.ErrUnavailable and backend.ErrTooLarge; match with
// errors.Is.
var (
	// ErrLocked means that another process (or another Store of this one) holds the lock; LockedError names it.
	ErrLocked = errors.New("in use by another tapwall")
	// ErrDamaged means that the files of the embedded store cannot be trusted. They were left as they are.
	ErrDamaged = errors.New("the data directory is damaged")
	// ErrNoSpace accompanies backend.ErrUnavailable where the disk, or the quota of the database, is full.
	ErrNoSpace = errors.New("no space left")
	// ErrFailed accompanies backend.ErrUnavailable once the embedded etcd has stopped for good; the process has to be started again.
	ErrFailed = errors.New("the embedded store has failed")
)

// Bounds of one write.
const (
	// embeddedTxnOps is the number of changes the embedded member takes in one transaction. etcd's own default, which external
	// clusters have unless told otherwise, is externalTxnOps.
	embeddedTxnOps = 4096
	externalTxnOps = 128
	// embeddedRequestBytes bounds one transaction; the API takes bodies of 10 MB, which grow a little when stored.
	embeddedRequestBytes = 32 << 20
	externalRequestBytes = 1 << 20 // below etcd's default of 1.5 MiB, with room for keys and framing

	requestTimeout = 10 * time.Second
)

// Options of Open. Either DataDir or External is given.
type Options struct {
	// DataDir holds the embedded member. It is created with mode 0700 if it does not exist.
	DataDir string
	// External lists the endpoints of a cluster, https://host:2379 or http://…; not empty means that nothing is embedded.
	External []string
	// CertFile and KeyFile authenticate to the cluster, CAFile verifies it; empty = the system's roots. For https endpoints only.
	CertFile, KeyFile, CAFile string
	// Username and Password are for a cluster with authentication; empty = none.
	Username, Password string
	// StartTimeout bounds Open; 0 = 30 s.
	StartTimeout time.Duration
	// QuotaBytes bounds the database of the embedded member; 0 = 2 GiB.
	QuotaBytes int64
	// ReserveBytes is the free space of the file system below which the embedded member takes no more writes; 0 = 96 MiB, which is what
	// etcd may ask for next at any time: 64 MB of log and 16 MiB of database. Negative = any is enough.
	ReserveBytes int64
	// Logger receives etcd's warnings as well; nil = discard.
	Logger *slog.Logger
}

func (o Options) validate() error {
	switch {
	case o.DataDir == "" && len(o.External) == 0:
		return errors.New("store: neither a data directory nor an external cluster is given")
	case o.DataDir != "" && len(o.External) > 0:
		return errors.New("store: a data directory is for the embedded store; it cannot be given together with an external cluster")
	case (o.CertFile == "") != (o.KeyFile == ""):
		return errors.New("store: certificate and key are given together")
	}
	return nil
}

// Store implements api.Store. All methods are safe for concurrent use.
type Store struct {
	client   *clientv3.Client
	log      *slog.Logger
	kind     string // embedded | external
	member   *member
	space    *space // nil = not ours to guard
	maxOps   int
	maxBytes int
	// readOpts makes reads of the embedded member local: it is alone, so what it has applied is all there is.
	readOpts []clientv3.OpOption

	shared shared
	// folding means that edits of a group are being folded into its list.
	folding atomic.Bool

	// revision is the newest seen and trouble the last failure, for Status.
	revision atomic.Int64
	trouble  atomic.Pointer[string]

	// stateMu serialises writers of host state, and readers while a journal is rolled forward. journaled remembers the hosts whose
	// journal is known to be empty.
	stateMu   sync.Mutex
	journaled map[string]bool

	cancel    context.CancelFunc
	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Open starts the embedded member, or connects to the cluster, and returns when the store can be used. Errors match ErrLocked,
// ErrDamaged, ErrNoSpace or backend.ErrUnavailable where they apply.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()

	s := &Store{log: o.Logger, journaled: map[string]bool{}, shared: newShared()}
	var err error
	if len(o.External) > 0 {
		err = s.connect(ctx, o)
	} else {
		err = s.embed(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	if err := s.probe(ctx); err != nil {
		if s.member == nil {
			err = explainConnect(o, err)
		}
		return nil, errors.Join(err, s.Close())
	}
	run, cancelRun := context.WithCancel(context.Background())
	s.cancel = cancelRun
	if s.member != nil {
		s.wg.Go(func() { s.maintain(run) })
	}
	return s, nil
}

// probe reads one key, which needs a working member or a cluster with a leader.
func (s *Store) probe(ctx context.Context) error {
	resp, err := s.client.Get(ctx, root+"probe") // from a quorum
	if err != nil {
		return s.fail(ctx, err)
	}
	s.saw(resp.Header.Revision)
	return nil
}

// Close stops the embedded member or leaves the cluster. It ends all watches. It may be called more than once.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		if s.cancel != nil {
			s.cancel()
		}
		closed := make(chan error, 1)
		go func() { closed <- s.close() }()
		select {
		case s.closeErr = <-closed:
		case <-s.Failed():
			// Nothing can be stopped in order any more; the end of the process closes the files.
		}
	})
	return s.closeErr
}

func (s *Store) close() error {
	var errs []error
	if s.client != nil {
		if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, fmt.Errorf("store: %w", err))
		}
	}
	s.wg.Wait()
	if s.member != nil {
		errs = append(errs, s.member.close())
	}
	return errors.Join(errs...)
}

// Failed is closed when the embedded member has stopped for good, so that every further call returns ErrFailed: etcd ends itself when it
// cannot write its log. The process should exit then and be started again; what was acknowledged is on disk. It is nil for an external
// cluster, which may come back.
func (s *Store) Failed() <-chan struct{} {
	if s.member == nil {
		return nil
	}
	return s.member.failed
}

// Err says why Failed was closed.
func (s *Store) Err() error {
	if s.member == nil {
		return nil
	}
	return s.member.err()
}

// Status is the health as seen by the last operations; it does no I/O beyond asking for the free space.
func (s *Store) Status() wire.StoreStatus {
	st := wire.StoreStatus{Kind: s.kind, Connected: true, Revision: s.revision.Load()}
	if msg := s.trouble.Load(); msg != nil {
		st.Connected, st.Message = false, *msg
	}
	if s.space != nil {
		if err := s.space.check(); err != nil {
			st.Message = err.Error()
		}
	}
	if err := s.Err(); err != nil {
		st.Connected, st.Message = false, err.Error()
	}
	return st
}

// saw records a successful answer of etcd.
func (s *Store) saw(revision int64) {
	for {
		old := s.revision.Load()
		if revision <= old || s.revision.CompareAndSwap(old, revision) {
			break
		}
	}
	s.trouble.Store(nil)
}
