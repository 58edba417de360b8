package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Neighbours is where the engines of a process tell each other which workloads they have, for policies that name endpoints of other hosts,
// or those that are nowhere. An engine leaves a list there that is not changed any more, and the others take it when they come round to
// it: none waits for another. It is safe for concurrent use.
type Neighbours struct {
	mu    sync.Mutex
	of    atomic.Pointer[map[string][]*policy.Workload] // by the host's name in the configuration
	wakes []func()
}

// NewNeighbours returns one that knows nobody.
func NewNeighbours() *Neighbours {
	n := &Neighbours{}
	n.of.Store(&map[string][]*policy.Workload{})
	return n
}

// join has wake called whenever somebody's workloads are others.
func (n *Neighbours) join(wake func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wakes = append(n.wakes, wake)
}

// tell replaces the workloads of a host, as others see them.
func (n *Neighbours) tell(host string, ws []*policy.Workload) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := *n.of.Load()
	if slices.Equal(before[host], ws) {
		return
	}
	now := maps.Clone(before)
	now[host] = ws
	n.of.Store(&now)
	for _, wake := range n.wakes {
		wake()
	}
}

// abroad are the workloads of a host as others see them.
type abroad struct {
	copies map[*policy.Workload]*policy.Workload
	list   []*policy.Workload
}

// of takes over the workloads of the host. One that is what it was stays the same pointer. Without an address nobody elsewhere knows it.
func (a *abroad) of(ws []*policy.Workload) []*policy.Workload {
	now := make(map[*policy.Workload]*policy.Workload, len(ws))
	list := make([]*policy.Workload, 0, len(ws))
	for _, w := range ws {
		if w.Remote || len(w.Addresses)+len(w.Learned) == 0 {
			continue
		}
		c := a.copies[w]
		if c == nil {
			x := *w
			c, x.Remote, x.Key = &x, true, w.Host+"/"+w.Key
		}
		now[w], list = c, append(list, c)
	}
	a.copies, a.list = now, list
	return list
}

// meet takes what the other hosts have. It returns whether that is other than before.
func (e *Engine) meet() bool {
	if e.opt.Neighbours == nil {
		return false
	}
	all := e.opt.Neighbours.of.Load()
	if all == e.met {
		return false
	}
	var peers []*policy.Workload
	for _, name := range slices.Sorted(maps.Keys(*all)) {
		if name != e.opt.Name {
			peers = append(peers, (*all)[name]...)
		}
	}
	e.met = all
	if slices.Equal(peers, e.peers) {
		return false
	}
	e.peers = peers
	return true
}

// introduce tells the others of the workloads of this host.
func (e *Engine) introduce() {
	if e.opt.Neighbours == nil || e.introduced && sameWorkloads(e.told, e.inventory.Workloads) {
		return
	}
	e.told, e.introduced = e.inventory.Workloads, true
	e.opt.Neighbours.tell(e.opt.Name, e.abroad.of(e.inventory.Workloads))
	list := e.abroad.list
	e.published.Store(&list)
}

// maxNeighbours bounds the file in which a host's workloads are kept for the other hosts: more than they take.
const maxNeighbours = 64 << 20

// recall has the others know what an earlier process knew of this host. Without that, addresses of its workloads would be strangers', after
// each restart, until its topology is there, and on other hosts connections would be cut.
func (e *Engine) recall() error {
	if e.opt.Neighbours == nil || e.opt.PeersFile == "" {
		return nil
	}
	var ws []*policy.Workload
	switch found, err := readJSON(e.opt.PeersFile, maxNeighbours, &ws); {
	case err != nil:
		return fmt.Errorf("what an earlier process knew of the host's workloads: %w", err)
	case !found:
		return nil
	}
	for _, w := range ws {
		if w == nil {
			return fmt.Errorf("%s: a workload that is none", e.opt.PeersFile)
		}
		w.Remote = true
	}
	e.opt.Neighbours.tell(e.opt.Name, ws)
	return nil
}

// keepPublished writes down what the others were last told; the file is not synced.
func (e *Engine) keepPublished(last *[]*policy.Workload) *[]*policy.Workload {
	now := e.published.Load()
	if now == last || now == nil || e.opt.PeersFile == "" {
		return last
	}
	if err := replaceJSON(e.opt.PeersFile, *now); err != nil {
		e.log.Warn("what other hosts have to know of this one's workloads is not kept", "err", err)
	}
	return now
}

// watchPublished writes down what the others are told until ctx ends.
func (e *Engine) watchPublished(ctx context.Context) {
	var last *[]*policy.Workload
	for pause(ctx, keepEvery) {
		last = e.keepPublished(last)
	}
	e.keepPublished(last)
}

// keepEvery is how often what changed is written down.
const keepEvery = time.Second
