package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Upkeep of the embedded member. Old revisions serve nobody but a watch that lags, and that can list again.
const (
	// The file is mapped, so what nobody needs of it is resident all the same: hence often, and only when there is a keepful more. With
	// 70 changes a second of policies of 100 rules this keeps 40 MB from being resident that 1,000 revisions each half minute did not.
	maintainEvery = 5 * time.Second
	// quotaCheckEvery is how soon writes work again after the quota was hit and something was deleted, and how soon space is reserved again.
	quotaCheckEvery = time.Second
	keepRevisions   = 100
	// A database is rewritten if that gives back at least this much, and at least half of it. Meanwhile etcd answers nothing: about 10 ms
	// for each 10 MB that are in use.
	defragBytes = 64 << 20
	defragShare = 2 // of the file: at least 1/2
	// At the quota every tenth counts.
	quotaBytes = 1 << 20
	quotaShare = 10
)

// maintain compacts, defragments, reserves space and clears the alarm of the quota until ctx ends. An external cluster has its operators
// for that.
func (s *Store) maintain(ctx context.Context) {
	every := time.NewTicker(maintainEvery)
	defer every.Stop()
	quota := time.NewTicker(quotaCheckEvery)
	defer quota.Stop()
	tidied := int64(0) // the revision then
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.member.failed:
			return
		case <-every.C:
			now := s.revision.Load()
			if now < tidied+keepRevisions {
				continue
			}
			if err = s.tidy(ctx, keepRevisions, defragBytes, defragShare); err == nil {
				tidied = now
			}
		case <-quota.C:
			err = errors.Join(s.clearQuota(ctx), s.space.stock())
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("upkeep of the store failed", slog.Any("error", err))
		}
	}
}

// tidy drops all but the newest revisions and rewrites the database if that frees at least freeBytes and 1/share of the file.
func (s *Store) tidy(ctx context.Context, keep, freeBytes, share int64) error {
	if rev := s.revision.Load() - keep; rev > 0 {
		if _, err := s.client.Compact(ctx, rev, clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return err
		}
	}
	be := s.member.etcd.Server.Backend()
	unused := be.Size() - be.SizeInUse()
	if unused < freeBytes || unused < be.Size()/share {
		return nil
	}
	// The new file lies beside the old one for a while.
	if err := s.space.need(be.SizeInUse()); err != nil {
		return err
	}
	return be.Defrag()
}

// clearQuota acts when etcd has raised its NOSPACE alarm, which forbids writes for good once the database has reached its quota: it
// drops all old revisions, rewrites the file and, if that is below the quota now, lifts the alarm.
func (s *Store) clearQuota(ctx context.Context) error {
	srv := s.member.etcd.Server
	alarmed := false
	for _, a := range srv.Alarms() {
		alarmed = alarmed || a.Alarm == etcdserverpb.AlarmType_NOSPACE
	}
	if !alarmed {
		return nil
	}
	be := srv.Backend()
	if err := s.tidy(ctx, 0, quotaBytes, quotaShare); err != nil {
		return err
	}
	// Below nine tenths, or the next write would raise the alarm again.
	if limit := s.member.etcd.Config().QuotaBackendBytes; be.Size() > limit/10*9 {
		return nil
	}
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return err
	}
	s.log.Info("the store takes writes again", slog.Int64("bytes", be.Size()))
	return nil
}
