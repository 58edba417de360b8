package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tapwall/tapwall/internal/backend"
)

const (
	memberDir    = "store"
	lockName     = "tapwall.lock"
	defaultQuota = 2 << 30
	closeTimeout = 10 * time.Second
)

// member is the etcd server inside this process. It listens nowhere: the client calls it by function calls.
type member struct {
	etcd    *embed.Etcd
	release func() // of the lock on the data directory

	failed chan struct{}
	mu     sync.Mutex
	reason error
}

// embed starts the member and fills s.
func (s *Store) embed(ctx context.Context, o Options) (err error) {
	m := &member{failed: make(chan struct{})}
	if err := prepareDir(o.DataDir); err != nil {
		return err
	}
	m.release, err = LockFile(filepath.Join(o.DataDir, lockName))
	if err != nil {
		var locked *LockedError
		if errors.As(err, &locked) {
			locked.Path = "data directory " + o.DataDir
		}
		return fmt.Errorf("store: %w", err)
	}
	defer func() {
		if err != nil {
			m.release()
		}
	}()

	sp := &space{dir: o.DataDir, reserve: o.ReserveBytes}
	if sp.reserve == 0 {
		sp.reserve = defaultReserve
	}
	extra := int64(0)
	dir := filepath.Join(o.DataDir, memberDir)
	if _, err := os.Stat(filepath.Join(dir, "member")); errors.Is(err, fs.ErrNotExist) {
		extra = newMemberBytes
	}
	if err := inspect(dir); err != nil {
		return startError(o.DataDir, err)
	}
	if err := sp.need(extra); err != nil {
		return err
	}
	if err := m.start(ctx, dir, o); err != nil {
		return err
	}
	if err := sp.stock(); err != nil {
		o.Logger.Warn("deletions and quarantines may not be possible on a full disk", slog.Any("error", err))
	}
	s.kind, s.member, s.space = "embedded", m, sp
	s.maxOps, s.maxBytes = embeddedTxnOps, embeddedRequestBytes
	s.client = v3client.New(m.etcd.Server)
	s.client.KV = guardedKV{s.client.KV, m}
	s.readOpts = slices.Clip([]clientv3.OpOption{clientv3.WithSerializable()}) // appended to by several
	return nil
}

// prepareDir makes the data directory and proves that it can be written, so that the error names the cause before etcd meets it.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("store: the data directory cannot be made: %w", err)
	}
	f, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("store: the data directory %s is not writable by user %d: %w", dir, os.Getuid(), err)
		}
		return fmt.Errorf("store: the data directory %s is not writable: %w", dir, err)
	}
	_ = f.Close()
	return os.Remove(f.Name())
}

// start runs etcd's start in a goroutine of its own, because etcd answers damage with Fatal and Panic logs and with panics. The hooks of
// the logger turn the former into the end of that goroutine, recover catches the latter.
func (m *member) start(ctx context.Context, dir string, o Options) error {
	cfg := m.config(dir, o)
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errors.New("etcd ended its start")} // stays if a hook ends the goroutine
		defer func() {
			if p := recover(); p != nil {
				r = result{err: fmt.Errorf("etcd: %v", p)}
			}
			if reason := m.err(); reason != nil {
				r.err = reason
			}
			done <- r
		}()
		r.etcd, r.err = embed.StartEtcd(cfg)
	}()
	var r result
	select {
	case r = <-done:
	case <-m.failed: // maybe in another goroutine, for which the one above waits for ever
		r.err = m.err()
	case <-ctx.Done():
		return &unavailable{text: "the embedded etcd did not start in time", cause: ctx.Err()}
	}
	if r.err != nil {
		return startError(o.DataDir, r.err)
	}
	select {
	case <-r.etcd.Server.ReadyNotify():
	case <-m.failed:
		return startError(o.DataDir, m.err())
	case <-ctx.Done():
		r.etcd.Close()
		return &unavailable{text: "the embedded etcd did not become ready in time", cause: ctx.Err()}
	}
	m.etcd = r.etcd
	return nil
}

// startError sorts what kept etcd from starting: the disk, or its files.
func startError(dir string, err error) error {
	var failed *unavailable
	if errors.As(err, &failed) && failed.cause != nil {
		err = failed.cause
	}
	if isNoSpace(err) {
		return &unavailable{reason: ErrNoSpace, text: "no space left for the embedded etcd to start in " + dir, cause: err}
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("store: %s: %w", dir, err)
	}
	return fmt.Errorf("store: %w: %s: %v; restore %s from a backup, or move it away to start empty", ErrDamaged, dir, err, filepath.Join(dir,
		memberDir))
}

// config is that of a single member which nobody else ever talks to.
func (m *member) config(dir string, o Options) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "tapwall"
	cfg.Dir = dir
	// No listeners. The advertised addresses only name the member in its own membership list; nothing listens there.
	nowhere := []url.URL{{Scheme: "http", Host: "localhost:0"}}
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = nowhere, nowhere
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// etcd's own timing: every tick wakes the process, for ever, and a member that is alone starts one tick before its election, so that a
	// start takes well under a second all the same.
	cfg.TickMs, cfg.ElectionMs = 100, 1000
	cfg.MaxTxnOps = embeddedTxnOps
	cfg.MaxRequestBytes = embeddedRequestBytes
	cfg.QuotaBackendBytes = o.QuotaBytes
	if cfg.QuotaBackendBytes == 0 {
		cfg.QuotaBackendBytes = defaultQuota
	}
	// Durable is what is in the log, which is synced before a write is answered. The database behind it is synced by batches, and while it
	// is, nothing is written: at etcd's own ten times a second that is each twentieth write that waits for a second sync. After a crash the
	// log is replayed from the last batch on.
	cfg.BackendBatchInterval = time.Second
	// So many of the last entries of the log stay in memory, for members that lag: there are none. etcd keeps 5,000, which may be a hundred
	// megabytes of policies.
	cfg.SnapshotCatchUpEntries = 1
	cfg.AutoCompactionRetention = "0" // maintain does it, with an eye on the free space
	cfg.EnableGRPCGateway = false
	cfg.LogLevel = "warn"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: o.Logger},
		zap.WithFatalHook(failHook{m}), zap.WithPanicHook(failHook{m})))
	return cfg
}

// failHook ends the goroutine that logged at Fatal or Panic instead of the process, and marks the member as failed. The goroutine cannot
// go on, as etcd relies on not returning from such a log; the data on disk is what etcd had written until then.
type failHook struct{ m *member }

// OnWrite implements zapcore.CheckWriteHook.
func (h failHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	text := e.Message
	for _, f := range fields {
		switch {
		case f.Type == zapcore.ErrorType:
			if err, ok := f.Interface.(error); ok {
				text += ": " + err.Error()
			}
		case f.Key == "path" && f.String != "":
			text += " " + f.String
		}
	}
	h.m.fail(errors.New(text))
	runtime.Goexit()
}

func (m *member) fail(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason != nil {
		return
	}
	u := &unavailable{reason: ErrFailed, text: "the embedded etcd has stopped and needs a restart of tapwall", cause: cause}
	if isNoSpace(cause) {
		u.text = "no space left: the embedded etcd has stopped and needs a restart of tapwall once there is space"
		u.reason = errors.Join(ErrFailed, ErrNoSpace)
	}
	m.reason = u
	close(m.failed)
}

func (m *member) err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reason
}

// close stops etcd and gives the data directory back. A member that has failed cannot be stopped in order: its files are closed by the end
// of the process.
func (m *member) close() error {
	if m.err() != nil {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.etcd.Close()
	}()
	select {
	case <-done:
		m.release()
		return nil
	case <-m.failed: // by its last write
		return m.err()
	case <-time.After(closeTimeout):
		return fmt.Errorf("store: %w: the embedded etcd did not stop within %v", backend.ErrUnavailable, closeTimeout)
	}
}

// slogCore hands etcd's logs to slog: what etcd warns of is a warning of tapwall, the rest is left out.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled implements zapcore.LevelEnabler.
func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields)+1)
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	// etcd warns of a lone member's every start, and its first start always fails to find a version that is written later.
	level := slog.LevelDebug
	if e.Level > zapcore.WarnLevel && e.Message != "failed to update storage version" {
		level = slog.LevelError
	}
	c.log.LogAttrs(context.Background(), level, "etcd: "+e.Message, attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *slogCore) Sync() error { return nil }
