package wall

import (
	"sync"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// maxTombstones bounds how many removed ids are remembered: packets and events that name them are at most seconds old.
const maxTombstones = 8192

// registry says what ids stand for. It may be read from any goroutine.
type registry struct {
	mu      sync.RWMutex
	byID    map[uint32]RuleInfo
	removed []uint32 // a ring once it is full
	next    int

	changed map[uint32]*RuleInfo // since the last take; nil = forgotten
}

func newRegistry() *registry {
	none := RuleInfo{Ref: policy.RuleRef{Rule: policy.RuleDefaultAllow}, Action: policy.Allow}
	return &registry{byID: map[uint32]RuleInfo{pipeline.IDNoEndpoint: none}, changed: map[uint32]*RuleInfo{pipeline.IDNoEndpoint: &none}}
}

// set names an id that is in force.
func (r *registry) set(id uint32, info RuleInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, ok := r.byID[id]; !ok || before.Ref != info.Ref {
		r.changed[id] = &info
	}
	r.byID[id] = info
}

// take returns the ids that stand for something else since the last call, and forgets them.
func (r *registry) take() map[uint32]*RuleInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.changed
	r.changed = map[uint32]*RuleInfo{}
	return out
}

// remove marks an id as no longer in force and forgets the oldest such mark when there are too many.
func (r *registry) remove(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, ok := r.byID[id]
	if !ok || info.Removed {
		return
	}
	info.Removed = true
	r.byID[id] = info
	if len(r.removed) < maxTombstones {
		r.removed = append(r.removed, id)
		return
	}
	// Default denies come and go under the same id, so the oldest mark may be void.
	if old := r.removed[r.next]; r.byID[old].Removed {
		delete(r.byID, old)
		r.changed[old] = nil
	}
	r.removed[r.next] = id
	r.next = (r.next + 1) % maxTombstones
}

func (r *registry) get(id uint32) (RuleInfo, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	info, ok := r.byID[id]
	return info, ok
}

// has reports whether the id is in force or was removed lately.
func (r *registry) has(id uint32) bool {
	_, ok := r.get(id)
	return ok
}
