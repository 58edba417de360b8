package host

import (
	"fmt"
	"maps"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/capture"
	"github.com/tapwall/tapwall/policy"
)

// held is a buffer of a mirror, which outlives the capture that fills it: what came before a mirror was stopped can still be saved.
type held struct {
	*capture.Buffer
	mirror, uid string
	target      policy.BufferTarget
}

// buffer returns the buffer of a target, with what it holds already if it was there before.
func (e *Engine) buffer(r *recording) *capture.Buffer {
	if h := e.buffers[r.plan.Port]; h != nil {
		return h.Buffer // freeBuffers has looked whether it is still the one
	}
	h := &held{mirror: r.mirror, target: *r.plan.Buffer}
	if m, _ := e.resources.get(policy.KindMirror, r.mirror).(*policy.Mirror); m != nil {
		h.uid = m.UID
	}
	h.Buffer = capture.NewBuffer(h.target.Limits())
	e.buffers = maps.Clone(e.buffers) // who reads it in a view has the old one
	if e.buffers == nil {
		e.buffers = map[string]*held{}
	}
	e.buffers[r.plan.Port] = h
	return h.Buffer
}

// freeBuffers gives back the memory of buffers whose mirror or target is gone, or is another one.
func (e *Engine) freeBuffers() {
	kept := map[string]*held{}
	for port, h := range e.buffers {
		m, _ := e.resources.get(policy.KindMirror, h.mirror).(*policy.Mirror)
		if m != nil && m.UID == h.uid && hasBuffer(m, h.target) {
			kept[port] = h
			continue
		}
		if r := e.captures[port]; r != nil {
			r.stop() // else it would go on without room; what is wanted now is begun anew
			e.captures = maps.Clone(e.captures)
			delete(e.captures, port)
		}
		if err := h.Free(); err != nil {
			e.log.Warn("the memory of a buffer is not given back", "mirror", h.mirror, "err", err)
		}
	}
	if len(kept) != len(e.buffers) {
		e.buffers = kept
	}
}

func hasBuffer(m *policy.Mirror, target policy.BufferTarget) bool {
	for _, t := range m.Spec.Targets {
		if t.Buffer != nil && *t.Buffer == target {
			return true
		}
	}
	return false
}

// heldBy returns the buffer of a mirror; nil = there is none here.
func (v *view) heldBy(mirror string) *held {
	for _, h := range v.buffers {
		if h.mirror == mirror {
			return h
		}
	}
	return nil
}

// bufferMemory refuses buffers that together may take more than the half of this machine's memory.
func (v *view) bufferMemory(ours map[string]bool) error {
	var sum int64
	asked := ""
	for _, m := range ofKind[*policy.Mirror](v.resources, policy.KindMirror) {
		for _, t := range m.Spec.Targets {
			if t.Buffer == nil {
				continue
			}
			_, size := t.Buffer.Limits()
			sum += size
			if ours[m.Name] {
				asked = m.Name
			}
		}
	}
	if asked == "" {
		return nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("the memory of the machine is not known: %w", err)
	}
	if all := int64(info.Totalram) * int64(info.Unit); sum > all/2 {
		return fmt.Errorf("%w: the buffers of all mirrors would take %d bytes with that of mirror %s, and half of this machine's memory is %d; "+
			"make one of them smaller", backend.ErrLimit, sum, asked, all/2)
	}
	return nil
}
