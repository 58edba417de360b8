package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/capture"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// kindPort is a port that a mirror makes, in lists of what can be read.
const kindPort = "port"

// Captures lists the targets of a mirror, "" = of all, whose packets this host reads, has kept or can read, by mirror and target.
func (e *Engine) Captures(mirror string) (out []wire.Capture) {
	v := e.view.Load()
	for _, m := range ofKind[*policy.Mirror](v.resources, policy.KindMirror) {
		if mirror != "" && m.Name != mirror {
			continue
		}
		for i := range m.Spec.Targets {
			if c := e.capture(v, m, i); c != nil {
				out = append(out, *c)
			}
		}
	}
	return out
}

// capture describes a target; nil = there is nothing of it here.
func (e *Engine) capture(v *view, m *policy.Mirror, i int) *wire.Capture {
	out := &wire.Capture{Mirror: m.Name, Host: v.host}
	live := slices.IndexFunc(v.taps[m.Name].Readable, func(c tap.Capture) bool { return c.Target == i })
	if live >= 0 {
		out.Live, out.Port, out.Kind = true, v.taps[m.Name].Readable[live].Port, kindPort
	}
	c := tap.CaptureOf(m.Name, i, &m.Spec.Targets[i])
	if c == nil {
		if !out.Live {
			return nil
		}
		return out
	}
	out.Kind, out.Port = c.Kind(), c.Port
	r := v.captures[c.Port]
	if r != nil {
		s := r.Stats()
		out.Reading, out.Problem = s.Reading, cmp.Or(s.Failing, s.Waiting)
		out.Packets, out.Bytes, out.Dropped, out.Lost = s.Packets, s.Bytes, s.Dropped, s.Lost
		out.Newest = moment(s.Newest)
	}
	if h := v.buffers[c.Port]; h != nil {
		var s capture.Stats
		h.Held(&s)
		out.HeldPackets, out.HeldBytes, out.Evicted, out.Oldest = s.Held, s.HeldSize, s.Evicted, moment(s.Oldest)
		if out.Newest == nil {
			out.Newest = moment(s.Newest)
		}
	}
	if c.Pcap != nil {
		files, err := capture.List(e.opt.CaptureDir, c.Pcap.BaseName())
		if err != nil {
			out.Problem = cmp.Or(out.Problem, err.Error())
		}
		for _, f := range files {
			out.Files = append(out.Files, wire.CaptureFile{Name: f.Name, Bytes: f.Size, From: moment(f.Begun), Until: f.Modified.UTC()})
		}
	}
	if r == nil && !out.Live && out.Oldest == nil && len(out.Files) == 0 && out.Problem == "" {
		return nil
	}
	return out
}

// moment is a time in UTC; nil = none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// Packets returns what writes the packets that are asked for.
func (e *Engine) Packets(q backend.CaptureQuery) (backend.WritePackets, error) {
	v := e.view.Load()
	m, _ := v.resources.get(policy.KindMirror, q.Mirror).(*policy.Mirror)
	if m == nil {
		return nil, noMirror(q.Mirror)
	}
	h := v.heldBy(m.Name)
	if h == nil && (!q.Follow || !q.Since.IsZero()) {
		return nil, fmt.Errorf("%w: mirror %s has no buffer here, so nothing that came before is there; add the target buffer, or ask for what "+
			"comes from now on (tapwall capture %[2]s, follow=true without since)", backend.ErrUnable, m.Name)
	}
	if !q.Follow {
		return func(_ context.Context, w io.Writer) error { return h.Save(w, q.Since, q.Until, q.Packets) }, nil
	}
	c := v.readable(m.Name)
	if c == nil {
		return nil, e.notReadable(v, m)
	}
	return func(ctx context.Context, w io.Writer) error { return e.followPackets(ctx, w, q, c, h) }, nil
}

func noMirror(name string) error { return fmt.Errorf("mirror/%s: %w", name, backend.ErrNotFound) }

// readable returns where copies of a mirror can be read: best where they are read already, as there they are its own. nil = nowhere.
func (v *view) readable(mirror string) *tap.Capture {
	list := v.taps[mirror].Readable
	if len(list) == 0 {
		return nil
	}
	i := slices.IndexFunc(list, func(c tap.Capture) bool { return c.Kind() != "" })
	return &list[max(i, 0)]
}

// notReadable says why a mirror cannot be followed here, and what to do.
func (e *Engine) notReadable(v *view, m *policy.Mirror) error {
	can := slices.ContainsFunc(m.Spec.Targets, func(t policy.MirrorTarget) bool {
		return t.Port != nil && t.Port.Create || tap.CaptureOf(m.Name, 0, &t) != nil
	})
	s := v.mirrors[m.Name]
	switch {
	case !can:
		return fmt.Errorf("%w: mirror %s delivers to no port of its own that could be read; add the target buffer", backend.ErrUnable, m.Name)
	case s.Phase == policy.PhaseStopped:
		return fmt.Errorf("%w: mirror %s is stopped (%s); begin it by tapwall mirror start %[2]s", backend.ErrUnable, m.Name, s.Reason)
	}
	why := s.Message
	if why == "" {
		why = "it is " + string(cmp.Or(s.Phase, policy.PhasePending))
	}
	return fmt.Errorf("%w: mirror %s copies nothing on host %s now: %s", backend.ErrUnable, m.Name, v.host, why)
}

// followPackets writes the packets that come to a port, by a ring of its own, until ctx ends, the bounds are reached or the mirror does not
// deliver there any more. With those that came before it goes by the buffer, so that none is missed or written twice in between.
func (e *Engine) followPackets(ctx context.Context, w io.Writer, q backend.CaptureQuery, c *tap.Capture, h *held) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if q.Duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, q.Duration)
		defer cancel()
	}
	r := &recording{mirror: q.Mirror, plan: *c}
	stream := capture.NewStream(w, q.Packets, cancel)
	if q.Since.IsZero() {
		r.Capture = capture.New(capture.Options{Device: c.Port, Origin: origin(r), Keeper: stream, Logger: e.log})
	}
	go func() {
		defer cancel()
		e.whileReadable(ctx, r)
	}()
	if r.Capture == nil {
		return h.Follow(ctx, w, q.Since, q.Packets)
	}
	r.Run(ctx)
	return stream.Err()
}

// whileReadable returns when ctx ends, or a mirror does not deliver to a port any more. Meanwhile it keeps the capture of it up to date.
func (e *Engine) whileReadable(ctx context.Context, r *recording) {
	for {
		v := e.view.Load()
		list := v.taps[r.mirror].Readable
		i := slices.IndexFunc(list, func(c tap.Capture) bool { return c.Port == r.plan.Port })
		if i < 0 {
			return
		}
		if !reflect.DeepEqual(list[i], r.plan) {
			r.plan = list[i]
			if r.Capture != nil {
				r.SetOrigin(origin(r))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-v.changed:
		}
	}
}

// CaptureFile opens a pcapng file of a mirror.
func (e *Engine) CaptureFile(mirror, file string) (backend.CaptureFile, error) {
	m, _ := e.view.Load().resources.get(policy.KindMirror, mirror).(*policy.Mirror)
	if m == nil {
		return nil, noMirror(mirror)
	}
	for _, t := range m.Spec.Targets {
		if t.Pcap == nil {
			continue
		}
		f, err := capture.Open(e.opt.CaptureDir, t.Pcap.BaseName(), file)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("file %q of mirror %s: %w; the list of captures has those that there are", file, mirror, backend.ErrNotFound)
}
