package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/opensearch"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/internal/fleet"
	"github.com/tapwall/tapwall/internal/lists"
	"github.com/tapwall/tapwall/internal/store"
)

// Run runs tapwall until ctx ends. Flows and mirrors stay on the switches. An error says what could not be started, or what ended
// by itself.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.complete(); err != nil {
		return err
	}
	log, err := o.logger()
	if err != nil {
		return err
	}
	tasks, hosts, err := o.hosts(log)
	if err != nil {
		return err
	}
	// What was opened is closed in the reverse order, whatever happens: the API first, so that nobody is answered by half a program; the
	// store last, because all others write to it.
	var closers []func() error
	defer func() {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
	}()

	bridges := 0
	for _, h := range hosts {
		bridges += len(h.Bridges)
		if err := lockHost(h.DB.Status().Address, o.TakeOver, log, &closers); err != nil {
			return err
		}
	}
	listeners, err := listen(&o)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		closers = append(closers, func() error { _ = l.Close(); return nil }) // api.Serve closes them, unless it is never reached
	}
	st, err := openStore(ctx, &o, log)
	if err != nil {
		return err
	}
	closers = append(closers, st.Close)

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	recorder, export, err := newRecorder(&o, log, registry, &closers)
	if err != nil {
		return err
	}
	o.Lists.StateDir, o.Lists.Logger = filepath.Join(o.DataDir, "lists"), log
	groupLists, err := lists.New(o.Lists)
	if err != nil {
		return fmt.Errorf("group-lists: %w", err)
	}
	all, err := fleet.New(fleet.Options{Version: o.Version, Store: st, Recorder: recorder, Hosts: hosts, Lists: groupLists, Logger: log,
		Registry: registry})
	if err != nil {
		return err
	}
	apiOptions := api.Options{Store: st, Engine: all, Events: recorder, Record: recorder.Record, Registry: registry,
		Logger: log, Version: o.Version}
	if export != nil {
		apiOptions.Export = export
	}
	handler, err := api.NewServer(apiOptions)
	if err != nil {
		return err
	}
	if bridges == 0 {
		log.Warn("no bridge is named, so nothing is managed (--bridge NAME=owned)")
	}

	log.Info("tapwall starts", "version", o.Version, "pid", os.Getpid(), "store", st.Status().Kind, "hosts", len(hosts), "bridges", bridges)
	defer func() { log.Info("tapwall has stopped; flows and mirrors stay in force") }()
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range append(tasks, recorder, groupLists, all, handler) {
		g.Go(func() error {
			if err := t.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", t, err)
			}
			return nil
		})
	}
	g.Go(func() error { return api.Serve(ctx, log, handler, listeners...) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-st.Failed():
			return st.Err()
		}
	})
	return g.Wait()
}

// lockHost makes sure that no other tapwall manages the same OVS: two would undo each other's work for ever. Who takes over goes by the
// lock of the database server alone.
func lockHost(ovsdb string, takeOver bool, log *slog.Logger, closers *[]func() error) error {
	if !strings.HasPrefix(ovsdb, "unix:") {
		return nil
	}
	path := filepath.Join(runDir(ovsdb), "tapwall.lock")
	release, err := store.LockFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no Open vSwitch here yet; the status will say so
	}
	if errors.Is(err, store.ErrLocked) && takeOver {
		log.Warn("taking over from another tapwall", "ovsdb", ovsdb, "lock", err)
		return nil
	}
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("another tapwall manages this Open vSwitch: %w", err)
	}
	if err != nil {
		return fmt.Errorf("%w (tapwall needs to write beside the database socket; run it as root or as the user of Open vSwitch)", err)
	}
	*closers = append(*closers, func() error { release(); return nil })
	return nil
}

func listen(o *Options) ([]*api.Listener, error) {
	lo := api.ListenOptions{CertFile: o.TLSCert, KeyFile: o.TLSKey}
	if o.TokenFile != "" {
		b, err := os.ReadFile(o.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		if lo.Token = strings.TrimSpace(string(b)); len(lo.Token) < 16 {
			return nil, fmt.Errorf("--token-file: %s holds a token of %d characters; at least 16 are needed", o.TokenFile, len(lo.Token))
		}
	}
	var out []*api.Listener
	for _, addr := range o.Listen {
		if path, ok := strings.CutPrefix(addr, "unix:"); ok && addr == DefaultListen {
			// The default directory is ours to make; any other is the operator's.
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return nil, fmt.Errorf("listen: %w", err)
			}
		}
		l, err := api.Listen(addr, lo)
		if err != nil {
			for _, l := range out {
				_ = l.Close()
			}
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

func openStore(ctx context.Context, o *Options, log *slog.Logger) (*store.Store, error) {
	so := store.Options{Logger: log}
	if len(o.Store) > 0 {
		so.External, so.CertFile, so.KeyFile, so.CAFile = o.Store, o.StoreTLS.Cert, o.StoreTLS.Key, o.StoreTLS.CA
	} else {
		so.DataDir = o.DataDir
		if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("--data-dir: %w", err)
		}
	}
	start := time.Now()
	st, err := store.Open(ctx, so)
	if err == nil {
		log.Debug("store is open", "kind", st.Status().Kind, "took", time.Since(start))
	}
	return st, err
}

// newRecorder makes the record with its spool and what reads that; a nil server is none.
func newRecorder(o *Options, log *slog.Logger, registry *prometheus.Registry, closers *[]func() error) (*record.Recorder,
	*opensearch.Sink, error,
) {
	host, err := os.Hostname()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("--data-dir: %w", err)
	}
	many := len(o.Hosts) > 1 || len(o.Hosts) == 1 && len(o.Bridges) > 0
	ro := record.Options{Host: host, ManyHosts: many, DataDir: o.DataDir, RingLen: o.RingLen, Logger: log, Registry: registry}
	if !o.NoSpool {
		ro.Spool, err = spool.Open(spool.Options{Dir: o.SpoolDir, MaxBytes: o.SpoolBytes, MaxAge: o.SpoolAge, Logger: log})
		if err != nil {
			return nil, nil, err
		}
		*closers = append(*closers, ro.Spool.Close) // the recorder closes it, unless it never runs
	}
	file, err := openFile(o, ro.Spool, log)
	if err != nil {
		return nil, nil, err
	}
	if file != nil {
		ro.Exports = append(ro.Exports, file)
		*closers = append(*closers, file.Close) // likewise
	}
	export, err := openExport(o, ro.Spool, log)
	if err != nil {
		return nil, nil, err
	}
	if export != nil {
		ro.Exports = append(ro.Exports, export)
		*closers = append(*closers, export.Close)
	}
	r, err := record.NewRecorder(ro)
	if err == nil && ro.Spool != nil {
		tellResumed(r, host, ro.Spool.Newest())
	}
	return r, export, err
}

// tellResumed records that nothing was recorded for a time: what passed while tapwall did not run is in no figure of the switch that says
// how much it was. before is the time of the last event; zero = the record begins.
func tellResumed(r *record.Recorder, host string, before time.Time) {
	if before.IsZero() {
		return
	}
	message := fmt.Sprintf("tapwall runs again; the last event before was of %s, and what came to pass while it did not run is in no event",
		before.Local().Format(time.RFC3339))
	r.Record(event.NewNotice(event.ActionResumed, host, "", event.Notice{Count: 1, Message: message}))
}
