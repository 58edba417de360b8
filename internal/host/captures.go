package host

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/capture"
	"github.com/tapwall/tapwall/internal/capture/pcapng"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// readAfter is how long a port of our own may take to be there and up.
const readAfter = 5 * time.Second

// recording is a target of a mirror that this host reads, while it does.
type recording struct {
	*capture.Capture
	mirror string
	plan   tap.Capture
	since  time.Time // that it is wanted
	stop   context.CancelFunc
	done   chan struct{} // closed when it has ended
}

// tendCaptures starts and ends captures as the plan says. They run on their own, whatever the disk and the devices do.
func (e *Engine) tendCaptures(ctx context.Context) {
	wanted := map[string]*recording{} // by port
	events := false
	for name, info := range e.mirrors.plan.Info {
		for _, c := range info.Captures {
			events = events || c.Events != nil
			wanted[c.Port] = &recording{mirror: name, plan: c, since: time.Now()}
		}
	}
	if events {
		e.nameEndpoints()
	}
	e.freeBuffers()
	if maps.EqualFunc(wanted, e.captures, func(a, b *recording) bool { return reflect.DeepEqual(a.plan, b.plan) }) {
		return
	}
	now := map[string]*recording{}
	for port, r := range wanted {
		running := e.captures[port]
		if running != nil && sameTarget(running.plan, r.plan) {
			kept := *running
			kept.plan = r.plan
			kept.SetOrigin(origin(r))
			now[port] = &kept
			continue
		}
		now[port] = r
		e.startCapture(ctx, r, running)
	}
	for port, r := range e.captures {
		if wanted[port] == nil {
			r.stop()
		}
	}
	e.captures = now // who reads it in a view has the old one
}

// sameTarget reports whether two plans differ at most in the sources.
func sameTarget(a, b tap.Capture) bool {
	a.Sources, a.Direction, b.Sources, b.Direction = nil, "", nil, ""
	a.Target, b.Target = 0, 0
	return reflect.DeepEqual(a, b)
}

// startCapture starts a capture, behind the one that it takes the place of, if there is any.
func (e *Engine) startCapture(ctx context.Context, r *recording, before *recording) {
	ctx, r.stop = context.WithCancel(ctx)
	r.done = make(chan struct{})
	r.Capture = capture.New(capture.Options{Device: r.plan.Port, Origin: origin(r), Keeper: e.keeper(r), Changed: e.poke, Logger: e.log})
	if before != nil {
		before.stop()
	}
	e.tasks.Go(func() {
		defer close(r.done)
		if before != nil {
			<-before.done // one writer of a file at a time
		}
		r.Run(ctx)
	})
}

// keeper makes what keeps the packets.
func (e *Engine) keeper(r *recording) capture.Keeper {
	c := &r.plan
	switch {
	case c.Events != nil:
		return e.newPacketEvents(r.mirror, c.Events)
	case c.Buffer != nil:
		return e.buffer(r)
	}
	rotate, keep := c.Pcap.Limits()
	return capture.NewFiles(e.opt.CaptureDir, c.Pcap.BaseName(), rotate, keep)
}

// origin says what is captured.
func origin(r *recording) capture.Origin {
	o := capture.Origin{Mirror: r.mirror}
	switch r.plan.Direction {
	case policy.MirrorFromSource:
		o.Direction = pcapng.Outbound
	case policy.MirrorToSource:
		o.Direction = pcapng.Inbound
	}
	for _, s := range r.plan.Sources {
		o.Sources = append(o.Sources, capture.Source(s))
	}
	return o
}

// captureFault says why what a mirror delivers to this host is not kept as it should be; "" = it is.
func (e *Engine) captureFault(name string, now time.Time) (reason policy.Reason, message string) {
	for _, c := range e.mirrors.plan.Info[name].Captures {
		r := e.captures[c.Port]
		if r == nil {
			return policy.ReasonPending, targetText(&c) + ": port " + c.Port + " is not read yet"
		}
		switch s := r.Stats(); {
		case s.Failing != "":
			return policy.ReasonCaptureFailed, fmt.Sprintf("%s: %s", targetText(&c), s.Failing)
		case !s.Reading && now.Sub(r.since) > readAfter:
			return policy.ReasonTargetMissing, fmt.Sprintf("%s: %s", targetText(&c), orElse(s.Waiting, "not read yet"))
		case !s.Reading:
			return policy.ReasonPending, fmt.Sprintf("%s: port %s is not read yet", targetText(&c), c.Port)
		}
	}
	return "", ""
}

// targetText names a target in messages.
func targetText(c *tap.Capture) string {
	if c.Pcap != nil {
		return "pcap " + c.Pcap.BaseName()
	}
	return c.Kind()
}

// countCaptures adds to the status of a mirror what became of the packets that this host reads.
func (v *view) countCaptures(s *policy.Status, name string) {
	if len(s.Hosts) == 0 {
		return
	}
	var changed bool
	for _, port := range slices.Sorted(maps.Keys(v.captures)) {
		r := v.captures[port]
		if r.mirror != name {
			continue
		}
		if !changed {
			changed = true
			s.Hosts = slices.Clone(s.Hosts)
		}
		h := &s.Hosts[0]
		tellTarget(h, port, captureTexts(r.Stats()))
	}
}

// captureTexts spells what a target says of itself.
func captureTexts(s capture.Stats) map[string]string {
	out := map[string]string{"packets": strconv.FormatUint(s.Packets, 10), "bytes": strconv.FormatUint(s.Bytes, 10)}
	for key, n := range map[string]uint64{"dropped": s.Dropped, "lost": s.Lost, "failures": s.Failures, "heldPackets": s.Held,
		"heldBytes": s.HeldSize, "evicted": s.Evicted} {
		if n > 0 {
			out[key] = strconv.FormatUint(n, 10)
		}
	}
	if s.File != "" {
		out["file"] = s.File
	}
	if !s.Oldest.IsZero() {
		out["oldest"] = s.Oldest.UTC().Format(time.RFC3339Nano)
	}
	return out
}

// sharedFile refuses mirrors that would write files of one name.
func (v *view) sharedFile(ours map[string]bool) error {
	writes := map[string]string{} // by name of the file
	for _, m := range ofKind[*policy.Mirror](v.resources, policy.KindMirror) {
		for _, t := range m.Spec.Targets {
			if t.Pcap == nil {
				continue
			}
			other, taken := writes[t.Pcap.BaseName()]
			if taken && (ours[m.Name] || ours[other]) {
				return fmt.Errorf("%w: mirrors %q and %q would both write pcap files of the name %s; choose another one for one of them",
					backend.ErrTaken, other, m.Name, t.Pcap.BaseName())
			}
			writes[t.Pcap.BaseName()] = m.Name
		}
	}
	return nil
}
