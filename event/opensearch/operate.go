package opensearch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// tooOld says that the retention would delete the index of a document.
func (s *Sink) tooOld(d doc, now time.Time) bool {
	set, day, ok := partsOf(s.o.Prefix, d.index)
	return ok && s.past(set, day, now)
}

// past says that all that the index of a day can hold is older than the retention of its set.
func (s *Sink) past(set string, day, now time.Time) bool {
	keep := s.o.Retention[set]
	return keep > 0 && day.AddDate(0, 0, 1).Before(now.Add(-keep))
}

// partsOf takes the name of an index apart; only names that indexOf makes are ok.
func partsOf(prefix, index string) (set string, day time.Time, ok bool) {
	rest, ok := strings.CutPrefix(index, prefix+"-")
	set, text, cut := strings.Cut(rest, "-")
	if !ok || !cut || !slices.Contains(sets[:], set) {
		return "", time.Time{}, false
	}
	day, err := time.Parse(dayForm, text)
	return set, day, err == nil && day.Format(dayForm) == text
}

// prune deletes the indices of days that are past their retention.
func (s *Sink) prune(ctx context.Context) {
	if err := s.deletePast(ctx); err != nil {
		s.log.Warn("old indices cannot be deleted", "err", err)
	}
}

// maxClockSkew is how far apart the clocks of this machine and of the server may be for days to be taken for past. A machine that begins
// with a clock of the future must not delete the evidence of the past.
const maxClockSkew = time.Hour

// agrees is an error if the server does not take now for the present.
func (s *Sink) agrees(ctx context.Context, now time.Time) error {
	answer, err := s.client.ask(ctx, http.MethodGet, "/_cat/health?format=json&h=epoch", nil)
	if err != nil {
		return err
	}
	var clock []struct {
		Epoch int64 `json:"epoch,string"`
	}
	if err := json.Unmarshal(answer, &clock); err != nil || len(clock) != 1 {
		return fmt.Errorf("%w: its clock reads %.80q", errNotOpenSearch, answer)
	}
	if theirs := time.Unix(clock[0].Epoch, 0).UTC(); theirs.Sub(now).Abs() > maxClockSkew {
		return fmt.Errorf("here it is %s, and on the server %s: nothing is deleted while one of them is wrong",
			now.UTC().Format(time.DateTime), theirs.Format(time.DateTime))
	}
	return nil
}

func (s *Sink) deletePast(ctx context.Context) error {
	now := s.o.Now()
	if err := s.agrees(ctx, now); err != nil {
		return err
	}
	list := "/_cat/indices/" + s.o.Prefix + "-*?format=json&h=index&expand_wildcards=open,closed"
	answer, err := s.client.ask(ctx, http.MethodGet, list, nil)
	if answered(err, http.StatusNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var all []struct {
		Index string `json:"index"`
	}
	if err := json.Unmarshal(answer, &all); err != nil {
		return fmt.Errorf("%w: %w", errNotOpenSearch, err)
	}
	for _, i := range all {
		set, day, ok := partsOf(s.o.Prefix, i.Index)
		if !ok || !s.past(set, day, now) {
			continue
		}
		if _, err := s.client.ask(ctx, http.MethodDelete, "/"+i.Index, nil); err != nil && !answered(err, http.StatusNotFound) {
			return fmt.Errorf("%s: %w", i.Index, err)
		}
		s.log.Info("an index was deleted: it is past its retention", "index", i.Index, "retention", s.o.Retention[set])
	}
	return nil
}

// Replay sends the dead letters again, as after a mapping was mended. An error leaves them to the next replay.
func (s *Sink) Replay(ctx context.Context) (out event.ExportReplay, err error) {
	cp, _, _ := s.cursor.Status()
	path, err := s.letters.begin(cp.Replays + 1)
	if err != nil || path == "" {
		return out, err
	}
	defer s.letters.end()
	var done spool.Done
	err = readLetters(path, 500, func(batch []letter) error {
		docs := make([]doc, len(batch))
		for i, l := range batch {
			docs[i] = doc{l.Index, l.ID, l.Document}
		}
		if !s.deliverDocs(ctx, docs, &done) {
			return errors.Join(ctx.Err(), s.reading.Err())
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	out = event.ExportReplay{Taken: done.Created + done.Duplicates, Refused: done.Dead}
	done.Dead = -out.Taken // the others were counted already
	s.cursor.Replayed(done)
	if err := s.cursor.Save(); err != nil {
		return out, err
	}
	return out, os.Remove(path)
}

var versionForm = regexp.MustCompile(`^[0-9]+\.[0-9]+`)

// Check asks the server who it is and makes sure that the templates stand.
func (s *Sink) Check(ctx context.Context) (event.ExportTest, error) {
	answer, err := s.client.ask(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return event.ExportTest{}, err
	}
	var root struct {
		Cluster string `json:"cluster_name"`
		Version struct {
			Number       string `json:"number"`
			Distribution string `json:"distribution"`
		} `json:"version"`
	}
	if err := json.Unmarshal(answer, &root); err != nil || !versionForm.MatchString(root.Version.Number) {
		return event.ExportTest{}, fmt.Errorf("%w: %s", errNotOpenSearch, short(answer))
	}
	info := event.ExportTest{
		Sink: s.Name(), Target: s.o.URLs[0], Distribution: root.Version.Distribution, Version: root.Version.Number, Cluster: root.Cluster,
	}
	if answer, err := s.client.ask(ctx, http.MethodGet, "/_cluster/health", nil); err == nil {
		var health struct {
			Status string `json:"status"`
		}
		if json.Unmarshal(answer, &health) == nil {
			info.Health = health.Status
		}
	}
	return info, s.client.ensure(ctx, s.templates)
}

// Delivered has an event made and waits until one more than the spool had has its fate.
func (s *Sink) Delivered(ctx context.Context, made func()) error {
	cp, pending, _ := s.cursor.Status()
	end := cp.Next + uint64(pending) + 1
	made()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for cp.Next < end {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.failure != "" {
				return errors.New(s.failure)
			}
			return fmt.Errorf("%d events wait: %w", end-cp.Next, ctx.Err())
		case <-tick.C:
			cp, _, _ = s.cursor.Status()
		}
	}
	return nil
}
