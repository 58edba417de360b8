package host

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/benbjohnson/immutable"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/compile/wall"
	"github.com/tapwall/tapwall/policy/inventory"
)

// view is what readers see: the state of the loop as it left it. The loop replaces it and never changes it, so that whoever reads it (a
// status, a plan, a scrape whose client takes a byte a second) holds up nobody, and sees things that belong together. Only what the
// switches tell between two turns of the loop is read where it is kept, through the links: whether they answer, and what they have counted.
type view struct {
	revision  int64 // of the store, as far as it was taken
	resources catalog
	force     shelf[policy.Resource] // policies that are in force
	observed  shelf[int64]           // revision in force, by resource.key
	unsettled shelf[struct{}]        // changed and not known to be in force, likewise

	synced    int64 // the revision up to which the rest is about
	ready     bool  // everything has been in force at least once
	host      string
	topo      *vswitch.Topology // nil = not known yet
	inventory inventory.Inventory
	peers     []*policy.Workload                 // of other hosts, as far as their addresses are known
	self      []netip.Addr                       // the host's own addresses
	learned   map[string][]policy.LearnedAddress // by workload
	notices   notices
	bridges   []bridgeView // ordered by name
	walls     []wallView   // likewise; those of bridges that have one
	books     map[string]*book
	mirrors   map[string]policy.Status
	counts    *mirrorCounts
	captures  map[string]*recording // by port
	buffers   map[string]*held      // by port
	taps      map[string]tap.Info   // by mirror
	sentences map[string]sentence   // of quarantines, by name
	rows      []vswitch.MirrorSpec  // wanted
	zones     []zoneRange
	problems  []string
	waiting   int      // entries of the ledgers that the store does not have yet
	unsaved   []string // what of them it would not take, in words

	changed chan struct{} // closed when there is another one with more than new resources
}

// bridgeView is a managed bridge as the loop left it.
type bridgeView struct {
	*link
	wanted      bool               // flows are: it has to be connected for anything to be in force
	refused     map[string]refusal // by owner; what the switch would not take
	installedAt int64              // store revision that is installed
	err         error              // of the last attempt to install
	pickups     []wire.PickupWindow
}

// wallView is the wall of a bridge as the loop left it.
type wallView struct {
	bridgeView
	policies shelf[*wall.PolicyState]
	inForce  *inForce // nil = nothing yet
	numbers  numbers
	index    int
	recalled []pipeline.Connection // what the pickup window was opened with
	arriving []string              // keys of the workloads with a window of their own
	strays   map[string][]wall.Stray
	logRate  uint32
	learning bool
	sets     numberShelf[[]string] // what chooses the addresses of a number
	services map[uint16]string     // what their numbers stand for; replaced when one changes
	usage    []wall.Use
	cells    map[string]cellView // by quarantine
	// releasing: ports that are no longer quarantined may still be configured as if they were.
	releasing bool
}

// wallOf returns the wall of a bridge; nil = it has none.
func (v *view) wallOf(bridge string) *wallView {
	for i := range v.walls {
		if v.walls[i].cfg.Name == bridge {
			return &v.walls[i]
		}
	}
	return nil
}

// numbers are the numbers in use; see wall.Assignments.
type numbers struct {
	next      uint32
	resting   []uint16
	policies  shelf[wall.PolicyAssignment]
	endpoints shelf[wall.EndpointAssignment]
	retired   map[uint32]wall.Station // few; replaced when one changes
	classes   numberShelf[wall.ClassAssignment]
	addresses shelf[wall.AddressAssignment]
	regions   numberShelf[string]
	services  numberShelf[string]
}

func newNumbers(a *wall.Assignments) numbers {
	n := numbers{policies: newShelf[wall.PolicyAssignment](), endpoints: newShelf[wall.EndpointAssignment](),
		classes: newNumberShelf[wall.ClassAssignment](), addresses: newShelf[wall.AddressAssignment](), regions: newNumberShelf[string](),
		services: newNumberShelf[string]()}
	return n.with(a.Changes())
}

// with returns the numbers after changes.
func (n numbers) with(c wall.AssignmentChanges) numbers {
	n.next, n.resting = c.Next, c.Resting
	for name, p := range c.Policies {
		if p == nil {
			n.policies = n.policies.Delete(name)
		} else {
			n.policies = n.policies.Set(name, p)
		}
	}
	n.endpoints = stocked(n.endpoints, c.Endpoints)
	n.addresses = stocked(n.addresses, c.Addresses)
	n.classes = stocked(n.classes, c.Classes)
	n.regions = named(n.regions, c.AddressNumbers)
	n.services = named(n.services, c.ServiceNumbers)
	if len(c.Retired) > 0 {
		n.retired = maps.Clone(n.retired)
	}
	for id, s := range c.Retired {
		if s == nil {
			delete(n.retired, id)
		} else {
			if n.retired == nil {
				n.retired = map[uint32]wall.Station{}
			}
			n.retired[id] = *s
		}
	}
	return n
}

// stocked returns a shelf after changes; nil takes away.
func stocked[K cmp.Ordered, V any](s *immutable.SortedMap[K, V], changes map[K]*V) *immutable.SortedMap[K, V] {
	for key, v := range changes {
		if v == nil {
			s = s.Delete(key)
		} else {
			s = s.Set(key, *v)
		}
	}
	return s
}

func named(s numberShelf[string], changes map[uint16]string) numberShelf[string] {
	for n, name := range changes {
		if name == "" {
			s = s.Delete(n)
		} else {
			s = s.Set(n, name)
		}
	}
	return s
}

// assignments returns them as the compiler takes them.
func (n numbers) assignments() *wall.Assignments {
	return &wall.Assignments{Next: n.next, Resting: n.resting, Policies: maps.Collect(each(n.policies)),
		Endpoints: maps.Collect(each(n.endpoints)),
		Retired:   maps.Clone(n.retired), Classes: maps.Collect(each(n.classes)), Addresses: maps.Collect(each(n.addresses)),
		AddressNumbers: maps.Collect(each(n.regions)), ServiceNumbers: maps.Collect(each(n.services))}
}

// publishTaken lets readers see what the store has; what becomes of it follows with the next publish.
func (e *Engine) publishTaken() {
	v := *e.view.Load()
	v.revision, v.resources, v.observed, v.unsettled = e.revision, e.resources, e.observed, e.unsettled
	e.view.Store(&v)
}

// publish lets readers and waiters see the state of the loop.
func (e *Engine) publish(done bool, problems []string) {
	before := e.view.Load()
	for _, cfg := range e.opt.Bridges {
		if e.topo != nil && e.topo.Bridges[cfg.Name] == nil {
			problems = append(problems, fmt.Sprintf("bridge %s does not exist", cfg.Name))
		}
		if err := e.unmanaged[cfg.Name]; err != nil {
			problems = append(problems, fmt.Sprintf("bridge %s: %v", cfg.Name, err))
		}
	}
	v := &view{
		revision: e.revision, resources: e.resources, force: e.force, observed: e.observed, unsettled: e.unsettled,
		synced: e.revision, ready: before.ready || done, host: e.opt.Name, topo: e.topo,
		inventory: e.inventory, peers: e.peers, self: *e.self.Load(), learned: e.learning.known, notices: e.notice(before.notices.all),
		books: e.books, mirrors: e.mirrors.statuses, counts: e.counts,
		taps: e.mirrors.plan.Info, captures: e.captures, buffers: e.buffers, sentences: e.sentences(), rows: e.mirrors.desired.Mirrors,
		zones:   e.zoneRanges(),
		changed: make(chan struct{}),
	}
	if e.topo != nil {
		v.host = e.topo.Host
	}
	for _, name := range slices.Sorted(maps.Keys(e.bridges)) {
		b, w := e.bridges[name].view(), e.walls[name]
		if w != nil {
			b.pickups = w.pickups.all()
			v.walls = append(v.walls, w.view(b))
		}
		v.bridges = append(v.bridges, b)
		if b.err != nil {
			problems = append(problems, fmt.Sprintf("bridge %s: %v", name, b.err))
		}
		for owner, r := range b.refused {
			problems = append(problems, fmt.Sprintf("bridge %s: %s is refused: %v", name, owner, r.err))
		}
	}
	v.problems = problems
	for _, name := range slices.Sorted(maps.Keys(e.ledgers)) {
		v.waiting += len(e.ledgers[name].unsaved)
		if why := e.ledgers[name].trouble(); why != "" {
			v.unsaved = append(v.unsaved, why)
		}
	}
	e.view.Store(v)
	close(before.changed)
}

// with returns the view as it would be if the store had these changes, and nothing had been done about them yet.
func (v *view) with(changes []backend.Change) *view {
	out := *v
	out.resources = v.resources.with(changes)
	for now, i := time.Now(), 0; i < len(changes); i++ {
		if c := &changes[i]; c.Kind == policy.KindPolicy && !c.Guard {
			out.force = forced(out.force, c.Name, c.Resource, now)
		}
	}
	return &out
}

// everybody are the workloads of all hosts, as the host knows them, ordered by key.
func (v *view) everybody() []*policy.Workload {
	if len(v.peers) == 0 {
		return v.inventory.Workloads
	}
	out := slices.Concat(v.inventory.Workloads, v.peers)
	slices.SortStableFunc(out, func(a, b *policy.Workload) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// set is everything that decides about packets of the host.
func (v *view) set() *policy.Set {
	return &policy.Set{Policies: policiesOn(v.force), Groups: v.resources.groups(),
		Workloads: v.everybody(), HostAddresses: v.self}
}

// portOf spells an endpoint as bridge/port.
func (v *view) portOf(key string) string {
	w := workload(v.inventory.Workloads, key)
	if w == nil {
		return key
	}
	return w.Bridge + "/" + w.Port
}

// total sums what is counted for a rule over all bridges, also those that are away.
func (v *view) total(ref policy.RuleRef) (sum counter) {
	for _, k := range v.books {
		sum = sum.plus(k.total(ref))
	}
	return sum
}

// bridgeNames are those of the managed bridges that somebody else made.
func (v *view) bridgeNames() []string {
	names := make([]string, 0, len(v.bridges))
	for _, b := range v.bridges {
		if b.cfg.Mode != made {
			names = append(names, b.cfg.Name)
		}
	}
	return names
}

// some spells the first of many.
func some(names []string) string {
	const few = 5
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}
