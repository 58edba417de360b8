// Package host turns stored resources into what runs on the switches of one host, which is one Open vSwitch: it follows the resources
// and the topology, compiles what changed, installs it and reports what was read back.
//
// One goroutine owns all mutable state (see [Engine.Run]) and publishes, at every turn, an immutable view of it; everything else reads
// that. So no reader, however slow, can delay a change. The engine reconciles and never commands: whatever was lost, by whomever, is
// found by comparing the desired state with what was read back.
package host

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/inventory"
)

// Mode says what tapwall may do with a bridge.
type Mode string

// The modes. On a Guest bridge only mirrors are made; its flow tables belong to somebody else.
const (
	Owned Mode = "owned"
	Guest Mode = "guest"
)

// BridgeConfig names a bridge to manage.
type BridgeConfig struct {
	Name string
	Mode Mode
	// OpenFlow is the endpoint of the bridge's OpenFlow connection; "" = its management socket in RunDir.
	OpenFlow string
	// Listen makes the bridge listen there for that connection, as long as it is managed; its Bridge is Name. nil = it does so already, or
	// need not.
	Listen *vswitch.ControllerSpec
	// FailMode of an owned bridge: "secure" ("" too) or "standalone".
	FailMode string
	// NoDNS keeps DNS messages of endpoints of an owned bridge out of the record.
	NoDNS bool
	// Record says what of an owned bridge is recorded where policies say nothing else. What is absent is all.
	Record policy.Record
}

// Options configures an Engine. Store, DB, Recorder and RunDir are mandatory.
type Options struct {
	// Name is the host's in the configuration; "" = it is the one that the process runs on.
	Name  string
	Store Store
	// Claim asks whether nobody else goes by an id; its error says who does. It is asked again and again, also for the id that is held. nil
	// = nobody does.
	Claim func(id string) error
	// Keep says under which ids something is kept of the host, from now on; its error, of whom else something is kept there. nil = of nobody.
	Keep     func(ids ...string) error
	DB       *ovsdb.Client
	Recorder *record.Recorder
	Bridges  []BridgeConfig
	// Taps completes the configuration of a bridge that tapwall makes, the i-th of them, with where it listens and is dialled. nil = they
	// are reached by their management sockets in RunDir.
	Taps func(b *BridgeConfig, i int)
	// Neighbours is where the engines of a process tell each other of their workloads; nil = there are no others.
	Neighbours *Neighbours
	// PeersFile keeps, over a restart of this process, what is told there of this host; "" = nothing does.
	PeersFile string
	// Lock is the right to change the host, which the caller acquires; nil = nobody else could have it.
	Lock *ovsdb.Lock
	// TakeOver makes the engine the primary controller of its owned bridges, with a higher generation than whoever is that.
	TakeOver bool
	// HostFile is where the engine remembers the id of the host; "" = it does not, and what is kept under another id is not found again.
	HostFile string
	// RunDir holds the management sockets of the bridges and the control socket of ovs-vswitchd.
	RunDir string
	// MemoryDir keeps, over a restart of this process, who opened which connection; "" = nowhere.
	MemoryDir string
	// CaptureDir is where pcapng files are written.
	CaptureDir string
	// HitsDir keeps, over a restart of this process, when rules were hit and what mirrors have counted; "" = nowhere.
	HitsDir string
	// OpenFlowTLS is for bridges with an ssl: address.
	OpenFlowTLS *tls.Config
	// PickupWindow is for how long connections that are older than the installed flows may be taken up; 0 = not at all.
	PickupWindow time.Duration
	// ZoneLimit is how many connections each conntrack zone of owned bridges (bridge and VLAN) may have; 0 = tapwall sets no limit.
	ZoneLimit int
	// Timeouts are the seconds after which conntrack forgets silent connections there, by the names of CT_Timeout_Policy; nil = as the
	// switch has them.
	Timeouts map[string]int
	// Learning bounds the addresses that are learned of endpoints; nil = none are. LearnedFile keeps them over a restart of this process;
	// "" = nothing does.
	Learning    *learn.Limits
	LearnedFile string
	// SpoofGrace is for how long, after an upgrade from a version without them, guards that nobody demanded only tell of what they would drop.
	SpoofGrace time.Duration
	// EventRate bounds the packets per second that a bridge copies to tapwall; default 10,000, with a burst of twice that.
	EventRate uint32
	// MaxFlows bounds the flows of the walls together: a write that would take more is refused; 0 = DefaultMaxFlows.
	MaxFlows int
	Logger   *slog.Logger // nil discards
}

// Store is what the engine needs of the store.
type Store interface {
	// Watch sends the present resources first and then every change, in order.
	Watch(ctx context.Context, from int64) <-chan backend.Batch
	ListStates(ctx context.Context, host, prefix string) (map[string][]byte, error)
	PutStates(ctx context.Context, host string, values map[string][]byte) error
}

// Engine reconciles. Its exported methods are safe for concurrent use.
type Engine struct {
	opt  Options
	log  *slog.Logger
	wake chan struct{} // something below changed: a topology, a connection

	// view is what readers see. The loop replaces it.
	view atomic.Pointer[view]
	// shadows are what the adviser found; it replaces them.
	shadows atomic.Pointer[shadows]
	// zoneUse are the conntrack zones that are to be spoken of, as of the last look at them.
	zoneUse atomic.Pointer[[]zoneUse]
	rounds  cacheRounds
	// self are the host's own addresses, published what the neighbours were told last.
	self      atomic.Pointer[[]netip.Addr]
	published atomic.Pointer[[]*policy.Workload]
	listing   chan struct{} // holds one value while connections are asked for, see turn

	// Owned by the loop.
	loaded           bool   // the first batch of the store has come
	entitled         bool   // the lock was held, and nobody else is known to have had it since
	rival            string // what showed that somebody else has it
	revision         int64
	resources        catalog
	force            shelf[policy.Resource] // policies that are in force
	schedules        schedules
	observed         shelf[int64]      // revision in force, by resource.key
	unsettled        shelf[struct{}]   // changed and not known to be in force, likewise
	seen             *vswitch.Topology // as the database has it
	topo             *vswitch.Topology // the same, under the id that the host goes by
	id               string            // that id; "" = there was none yet
	idErr            error             // why it is not that of seen
	host             string            // id under which the host's state is kept
	hostErr          error             // why that is not the topology's, or not remembered
	remembered       string            // what HostFile says
	inventory        inventory.Inventory
	endpointWarnings []policy.Warning
	met              *map[string][]*policy.Workload // as last taken from Neighbours
	peers            []*policy.Workload             // the workloads of other hosts
	told             []*policy.Workload             // of which the others were told
	introduced       bool                           // they were told at all
	abroad           abroad
	learning         learning
	bridges          map[string]*bridge
	walls            map[string]*firewall // of the owned ones among bridges
	unmanaged        map[string]error     // named bridges that exist and could not be taken on
	ledgers          map[string]*ledger   // by bridge; nil = not read yet
	books            map[string]*book     // by bridge, kept when it goes; replaced when there is another one
	counts           *mirrorCounts
	terms            *terms          // of quarantines
	block            uint32          // how many numbers are reserved at a time
	written          chan written    // ends of writes; each ledger has at most one
	saving           context.Context // of the writes: it ends a little later than the loop
	mirrors          mirrorState
	prober           *prober
	captures         map[string]*recording // by port; replaced when it changes
	buffers          map[string]*held      // by port; likewise
	endpointNames    atomic.Pointer[endpointNames]
	namedEndpoints   []*policy.Workload // that endpointNames is of
	tapCompiler      func(tap.Input) tap.Plan
	stale            work      // what the next sync has to look at
	away             time.Time // until when the lock is in doubt; see excluded
	retry            backoff
	tasks            sync.WaitGroup
}

// resource names one resource.
type resource struct {
	kind policy.Kind
	name string
}

// key is the resource's on a shelf.
func (r resource) key() string { return string(r.kind) + "/" + r.name }

// ofKey is the other way round.
func ofKey(key string) resource {
	kind, name, _ := strings.Cut(key, "/")
	return resource{policy.Kind(kind), name}
}

// work lists what changed since the last sync.
type work struct {
	topology  bool
	endpoints bool
	peers     bool
	learned   bool // addresses of workloads
	groups    bool
	mirrors   bool
	policies  map[string]bool // by name
}

func newWork() work { return work{policies: map[string]bool{}} }

// New checks the options.
func New(o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxFlows == 0 {
		o.MaxFlows = DefaultMaxFlows
	}
	if o.EventRate == 0 {
		o.EventRate = 10000
	}
	seen := map[string]bool{}
	o.Bridges = slices.Clone(o.Bridges)
	for i, b := range o.Bridges {
		switch {
		case b.Name == "":
			return nil, errors.New("a bridge without a name")
		case seen[b.Name]:
			return nil, fmt.Errorf("bridge %s is named twice", b.Name)
		case b.Mode != Owned && b.Mode != Guest:
			return nil, fmt.Errorf("bridge %s: mode %q is neither owned nor guest", b.Name, b.Mode)
		case b.FailMode != "" && b.FailMode != "secure" && b.FailMode != "standalone":
			return nil, fmt.Errorf("bridge %s: fail mode %q is neither secure nor standalone", b.Name, b.FailMode)
		case b.Mode == Guest && (b.Record != (policy.Record{}) || b.NoDNS):
			return nil, fmt.Errorf("bridge %s: record is for owned bridges: on others there are no verdicts", b.Name)
		}
		if fault := b.Record.Fault(); fault != "" {
			return nil, fmt.Errorf("bridge %s: record: %s", b.Name, fault)
		}
		r := &o.Bridges[i].Record
		r.Connections, r.Denies = cmp.Or(r.Connections, policy.RecordAll), cmp.Or(r.Denies, policy.RecordAll)
		if b.FailMode == "" {
			o.Bridges[i].FailMode = "secure"
		}
		seen[b.Name] = true
	}
	e := &Engine{
		opt: o, log: o.Logger,
		wake:        make(chan struct{}, 1),
		listing:     make(chan struct{}, 1),
		resources:   newCatalog(),
		force:       newShelf[policy.Resource](),
		schedules:   schedules{names: map[string]struct{}{}},
		observed:    newShelf[int64](),
		unsettled:   newShelf[struct{}](),
		bridges:     map[string]*bridge{},
		walls:       map[string]*firewall{},
		unmanaged:   map[string]error{},
		block:       numberBlock,
		written:     make(chan written, len(o.Bridges)+pipeline.MaxBridges),
		mirrors:     newMirrorState(),
		tapCompiler: tap.Compile,
		stale:       newWork(),
		books:       map[string]*book{},
		terms:       newTerms(o.MemoryDir, o.Name),
		learning:    newLearning(o.Learning),
	}
	var err error
	if e.counts, err = newMirrorCounts(o.HitsDir); err != nil {
		e.log.Warn("what mirrors had counted is lost", "err", err)
	}
	e.prober = newProber(e.poke)
	e.self.Store(&[]netip.Addr{})
	if o.Neighbours != nil {
		o.Neighbours.join(e.poke)
		if err := e.recall(); err != nil {
			e.log.Warn("until the host's database is read, endpoints of other hosts take its workloads for strangers", "err", err)
		}
	}
	if err := e.recallAddresses(time.Now()); err != nil {
		e.log.Warn("what an earlier process had learned of addresses is lost, or not forgotten", "err", err)
	}
	if old, err := e.rememberedHost(); err == nil && old != "" {
		_ = e.keep(old) // a host that is away must find it again; whoever is refused is so again when he comes
	}
	e.shadows.Store(&shadows{})
	e.view.Store(&view{resources: e.resources, force: e.force, observed: e.observed, unsettled: e.unsettled, host: o.Name,
		changed: make(chan struct{})})
	return e, nil
}

// String names the task.
func (e *Engine) String() string { return strings.TrimSpace("engine " + e.opt.Name) }

// local reports whether the switch runs on this machine, where its control socket and its devices can be reached.
func (e *Engine) local() bool { return strings.HasPrefix(e.opt.DB.Status().Address, "unix:") }

// Name is what the host is called: its id or, as long as that is not known, its name in the configuration.
func (e *Engine) Name() string { return e.view.Load().host }

// Resources returns how many resources of a kind the engine has taken.
func (e *Engine) Resources(kind policy.Kind) int { return e.view.Load().resources[kind].Len() }

// Run reconciles until ctx ends. Flows and mirrors stay on the switches: tapwall may be restarted or upgraded without traffic noticing.
func (e *Engine) Run(ctx context.Context) error {
	saving, stopSaving := context.WithCancel(context.WithoutCancel(ctx))
	e.saving = saving
	ctx, cancel := context.WithCancel(ctx)
	defer e.tasks.Wait()
	defer func() {
		cancel()
		e.closeLedgers(ctx)
		stopSaving()
		for _, b := range e.bridges {
			b.cancel()
		}
	}()
	self := e.ownAddresses()
	e.self.Store(&self)
	topologies, unsubscribe := e.opt.DB.Subscribe()
	defer unsubscribe()
	e.follow(ctx, topologies)
	if e.opt.Lock != nil {
		e.follow(ctx, e.opt.Lock.Wake())
	}
	e.tasks.Go(func() { e.advise(ctx) })
	e.tasks.Go(func() { e.remember(ctx) })
	e.tasks.Go(func() { e.watchHits(ctx) })
	e.tasks.Go(func() { e.watchMirrors(ctx) })
	e.tasks.Go(func() { e.watchSelf(ctx) })
	e.tasks.Go(func() { e.watchPublished(ctx) })
	e.tasks.Go(func() { e.watchZones(ctx) })
	e.tasks.Go(func() { e.watchEnds(ctx) })
	e.tasks.Go(func() { e.watchAddresses(ctx) })
	batches := e.opt.Store.Watch(ctx, 0)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		waiting := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case b, ok := <-batches:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("the store's watch ended")
			}
			e.take(b)
			// A burst of writes becomes one bundle.
			for more := true; more; {
				select {
				case b, ok := <-batches:
					if more = ok; ok {
						e.take(b)
					}
				default:
					more = false
				}
			}
			e.publishTaken()
			e.woke(waiting)
		case <-e.wake:
			e.woke(waiting)
		case <-tick.C:
			e.woke(waiting)
			for _, b := range e.bridges {
				e.tellInterference(b.link, time.Now())
			}
			if !e.due(time.Now()) {
				continue
			}
		}
		e.sync(ctx)
	}
}

// follow forwards wake-ups of a source into the loop.
func (e *Engine) follow(ctx context.Context, source <-chan struct{}) {
	e.tasks.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-source:
				e.poke()
			}
		}
	})
}

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// take applies a batch of the store to the resources and notes what it touches.
func (e *Engine) take(b backend.Batch) {
	e.loaded = true
	e.revision = b.Revision
	e.resources = e.resources.with(b.Changes)
	mirrored := e.resources[policy.KindMirror].Len() > 0
	for _, c := range b.Changes {
		e.unsettled = e.unsettled.Set(resource{c.Kind, c.Name}.key(), struct{}{})
		switch c.Kind {
		case policy.KindPolicy:
			e.stale.policies[c.Name] = true
			e.schedules.note(c.Name, c.Resource)
		case policy.KindGroup:
			e.stale.groups, e.stale.mirrors = true, e.stale.mirrors || mirrored
		case policy.KindEndpoint:
			e.stale.endpoints, e.stale.mirrors = true, e.stale.mirrors || mirrored
		case policy.KindMirror:
			e.stale.mirrors = true
		}
	}
}

// backoff spaces attempts after failures: 100 ms, doubling up to 10 s.
type backoff struct {
	pause time.Duration
	next  time.Time
}

func (b *backoff) fail(now time.Time) {
	b.pause = min(max(2*b.pause, 100*time.Millisecond), 10*time.Second)
	b.next = now.Add(b.pause)
}

func (b *backoff) ok() { *b = backoff{} }
