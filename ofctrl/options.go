package ofctrl

import (
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// Options are the inputs of [New].
type Options struct {
	Bridge  string      // mandatory: its name, for logs and errors
	Address string      // mandatory: unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT
	TLS     *tls.Config // mandatory for ssl
	Logger  *slog.Logger

	// Cookie and CookieMask tell which flows are ours: those whose cookie equals Cookie under CookieMask. CookieMask is
	// mandatory; bits of Cookie outside it are ignored.
	Cookie, CookieMask flow.Cookie
	// Own are the tables that are ours alone: foreign flows in them are removed. If there are any, the bridge is ours, and a
	// foreign flow in the place of a desired one is replaced in other tables, too; without, foreign flows are never changed.
	Own Tables
	// OnInterference, if set, is called after something that others did has been put right, on the goroutine that did so: it must
	// not call methods of the Switch that wait for the switch.
	OnInterference func(Interference)
	// MeterFirst and MeterLast bound the ids of our meters, both inclusive. Meters in the range that are not desired are
	// deleted; no other meter is touched. Both 0 = no meters.
	MeterFirst, MeterLast uint32
	// ControllerID is the id under which controller actions reach this connection (NXT_SET_CONTROLLER_ID).
	ControllerID uint16
	// NudgeFlow is what [Switch.Nudge] installs for an instant. It must be ours by cookie and in a table that no packet passes.
	// A flow without cookie = nudging is refused.
	NudgeFlow flow.Flow
	// Renewal, if set, is what each bundle changes in addition that is about more than the table of NudgeFlow.
	Renewal *Renewal

	// OnPacketIn is called for each packet-in, in order, on the connection's reader: it must not block and must not call
	// methods of the Switch that wait for the switch. The message aliases the read buffer; Clone what is kept.
	OnPacketIn func(*ofp.PacketIn)
	// OnPortStatus is called likewise when a port changes.
	OnPortStatus func(*ofp.PortStatus)
	// OnFlowRemoved is called likewise when a flow with the flag SendFlowRem goes.
	OnFlowRemoved func(*ofp.FlowRemoved)
	// OnReadBack is called likewise for each flow with its counters as everything is read back, which begins each connection, and
	// then with nil; the value is the callee's until it returns.
	OnReadBack func(*ofp.FlowStats)
	// OnCommit is called likewise when the switch says that a bundle is in force, with the flows that it added and deleted: what counted
	// in their places is gone, and new ones begin at 0. What was read before shows the flows as they were before the bundle, what is
	// read afterwards as they were behind it.
	OnCommit func(changed iter.Seq[*flow.Flow])

	// BackoffMin and BackoffMax bound the pause before another attempt to connect; 0 = 50 ms and 2 s.
	BackoffMin, BackoffMax time.Duration
	// Timeout bounds the wait for the answer to one request, and for connection and handshake; 0 = 10 s. For a bundle and for a read-back
	// it grows by [PerMessage] for each flow.
	Timeout time.Duration
	// ProbeInterval is how long the connection may be silent before an echo request is sent; 0 = 5 s, negative = no probes.
	ProbeInterval time.Duration
	// ProbeTimeout is how long an echo request may stay unanswered, and the connection silent, before the connection is given up;
	// 0 = ProbeInterval; while a bundle is under way, that bundle's deadline if it is longer. What it is meanwhile is told by [State.Silent].
	ProbeTimeout time.Duration
	// AuditInterval is how often it is checked that nothing was missed: flows are counted, and if the count is wrong or the switch
	// refuses to report changes (no flow monitor), read back; 0 = 30 s.
	AuditInterval time.Duration
}

func (o *Options) validate() error {
	var errs []error
	if o.Bridge == "" {
		errs = append(errs, errors.New("no bridge"))
	}
	if network, _, err := ParseAddress(o.Address); err != nil {
		errs = append(errs, err)
	} else if network == "ssl" && o.TLS == nil {
		errs = append(errs, errors.New("ssl address without TLS configuration"))
	}
	if o.CookieMask == 0 {
		errs = append(errs, errors.New("no cookie mask: every flow would be ours"))
	}
	if o.Own.Last < o.Own.First {
		errs = append(errs, fmt.Errorf("own tables %d..%d", o.Own.First, o.Own.Last))
	}
	if o.MeterLast < o.MeterFirst || (o.MeterFirst == 0) != (o.MeterLast == 0) {
		errs = append(errs, fmt.Errorf("meter range %d..%d", o.MeterFirst, o.MeterLast))
	}
	o.Cookie &= o.CookieMask
	if c := o.NudgeFlow.Cookie; c != 0 && c&o.CookieMask != o.Cookie {
		errs = append(errs, errors.New("nudge flow has a foreign cookie"))
	}
	if r := o.Renewal; r != nil {
		for _, f := range r.Flows(0) {
			if f.Cookie&o.CookieMask != o.Cookie {
				errs = append(errs, errors.New("renewal flow has a foreign cookie"))
			}
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.BackoffMin, 50 * time.Millisecond}, {&o.BackoffMax, 2 * time.Second}, {&o.Timeout, 10 * time.Second},
		{&o.ProbeInterval, 5 * time.Second}, {&o.AuditInterval, 30 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.ProbeTimeout == 0 {
		o.ProbeTimeout = o.ProbeInterval
	}
	o.BackoffMax = max(o.BackoffMax, o.BackoffMin)
	if len(errs) > 0 {
		return fmt.Errorf("switch options: %w", errors.Join(errs...))
	}
	return nil
}

// Tables is a range of flow tables, First and Last included; the zero value is none, as table 0 is never ours alone.
type Tables struct{ First, Last uint8 }

// Has reports whether id lies in the range.
func (t Tables) Has(id uint8) bool { return t.Last != 0 && t.First <= id && id <= t.Last }

// Interference is what others did to a bridge, now put right.
type Interference struct {
	What InterferenceKind
	// Count is how many flows or meters it was about, Objects the text of up to [MaxObjects] of them: as the others made them,
	// and as we want them where they changed ours.
	Count   int
	Objects []string
}

// InterferenceKind tells what others did.
type InterferenceKind uint8

// The kinds.
const (
	ForeignFlows  InterferenceKind = iota // put flows into tables that are ours alone or in the places of ours
	ChangedFlows                          // changed or deleted flows of ours
	ChangedMeters                         // changed or deleted meters of ours
)

// MaxObjects bounds the texts of one [Interference].
const MaxObjects = 8

// Update is one change of what is desired.
type Update struct {
	// Revision is the caller's number of the desired state after this update; see [Result.Installed].
	Revision int64
	// Owners replaces the flows of each named owner; nil or empty removes the owner. Owners that are not named keep theirs.
	// The slices and what they point to must not be changed afterwards. All flows must have a cookie of ours.
	Owners map[string][]flow.Flow
	// Meters replaces all meters, which must have ids in the range of the options; nil leaves them as they are.
	Meters []flow.MeterDesc
}

// Result is what an Apply did.
type Result struct {
	Added, Modified, Deleted int   // flow-mods sent and committed
	Meters                   int   // meter-mods sent
	Bundles                  int   // 0 or 1, more only if others interfered meanwhile; without those that were refused
	Installed                int64 // the newest revision of which nothing is missing on the switch, or refused by it
	// Refused says which owners the switch refuses, as found now; nil = none. What was found earlier and not asked again is in [State.Err].
	Refused *RefusedError
}

// State is a snapshot of a Switch.
type State struct {
	Connected bool      // a connection is up
	Ready     bool      // and what is installed has been read back: Apply works
	Epoch     uint64    // number of connections made so far; 0 = never connected
	Since     time.Time // of the last change of Connected
	Err       string    // why not connected, or what is wrong; "" = nothing
	// Silent is for how long nothing has come from a switch that owes the answer to an echo request; 0 = it owes none. It may be
	// stuck, or busy with a large bundle.
	Silent time.Duration
	// DatapathID, Tables, Monitored and Software describe the current or last connection. Monitored says that the switch reports
	// changes made by others; without, they are noticed at the next audit. Software is the switch's version in its own words, "" = unknown.
	DatapathID uint64
	Tables     uint8
	Monitored  bool
	Software   string

	OurFlows     int   // installed and ours
	ForeignFlows int   // installed and not ours
	Desired      int   // distinct flows desired
	Missing      int   // desired and not, or not so, installed, or installed and to be removed; without what an Apply is about to change
	Lost         int   // changes by others of our installed flows since the last Apply
	Blocked      int   // desired, but in the place of a foreign flow that is left alone
	Undecodable  int   // installed flows of ours that hold fields or actions unknown to this version; they are left alone outside own tables
	Installed    int64 // revision, as in Result
	// MeterErr says which desired meters the switch refuses. They are not missing: the flows that copy under them are installed without
	// the copies, and the switch is asked again every 5 s.
	MeterErr string
	Stats    Counters
}

// Counters only grow.
type Counters struct {
	FlowModsSent    uint64
	BundlesSent     uint64
	BundlesRejected uint64
	MeterModsSent   uint64
	Resyncs         uint64 // read-backs of the whole flow table
	PacketIns       uint64
	PacketOuts      uint64
	DecodeErrors    uint64 // messages of the switch that could not be decoded
	LateErrors      uint64 // errors of the switch that belong to no pending request, such as of a packet-out
	Reconnects      uint64 // connections after the first
	LostFlows       uint64 // changes by others of our installed flows
	LostMeters      uint64 // changes by others of our installed meters
	Impostors       uint64 // flows with a cookie of ours that others added, as the switch reported them
	ForeignRemoved  uint64 // foreign flows that were removed from tables that are ours alone, or replaced by ours
}
