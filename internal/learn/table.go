package learn

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Limits bound what is learned.
type Limits struct {
	PerEndpoint int // addresses of one endpoint
	PerHost     int // of all
	// Networks are those that addresses are learned of.
	Networks []netip.Prefix
	// Age is for how long an address is known that nobody claims any more. One that a DHCP server gave is known as long as the lease, and at
	// most MaxLease; who claims it meanwhile goes on having it.
	Age time.Duration
}

// MaxLease bounds for how long a DHCP server is believed.
const MaxLease = 24 * time.Hour

func (l *Limits) within(a netip.Addr) bool {
	return Plausible(a) && slices.ContainsFunc(l.Networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Private are the networks whose addresses are nobody's on the Internet (RFC 1918, RFC 6598, RFC 4193).
func Private() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Entry is an address that was learned.
type Entry struct {
	Key     string     `json:"key"` // of the workload
	Bridge  string     `json:"bridge"`
	Port    string     `json:"port"`
	OFPort  uint32     `json:"ofport"`
	VLAN    int        `json:"vlan"` // of the frames; 0 = untagged
	MAC     string     `json:"mac"`
	Address netip.Addr `json:"address"`
	Source  Source     `json:"source"` // that of the first claim
	Since   time.Time  `json:"since"`
	Seen    time.Time  `json:"seen"` // the last claim
	Until   time.Time  `json:"until"`
}

// spot is where an address can be one machine's only: the network.
type spot struct {
	bridge  string
	vlan    int
	address netip.Addr
}

// Reason says what became of a claim.
type Reason string

// What becomes of claims. Nobody is told of those that are refused for a reason of the second group: other warnings tell.
const (
	Learned Reason = "learned"
	Seen    Reason = "seen" // it is known
	Taken   Reason = "taken"
	Full    Reason = "full" // of the endpoint's addresses, or of the host's

	Outside  Reason = "outside"  // of the networks
	Stranger Reason = "stranger" // the MAC address is not the endpoint's, or not the endpoint's alone
	Spoofed  Reason = "spoofed"  // the endpoint is held to other addresses
	Declared Reason = "declared" // by the endpoint itself, so there is nothing to learn
)

// Outcome is what became of a claim.
type Outcome struct {
	Reason   Reason
	Workload *policy.Workload // whose claim it was; nil = nobody's
	Address  netip.Addr
	By       string // who has the address, as in "endpoint vm7 declares"; of Taken only
}

// Table is what was learned on one host. No two endpoints of a network have one address in it. It is for one goroutine.
type Table struct {
	limits  Limits
	entries map[spot]*Entry
	count   map[string]int // by workload
}

// NewTable returns an empty one.
func NewTable(l Limits) *Table {
	return &Table{limits: l, entries: map[spot]*Entry{}, count: map[string]int{}}
}

// MaxAway is for how long what was learned is good while nobody looks.
const MaxAway = 24 * time.Hour

// Restore takes over what an earlier process had learned and wrote down at a time. While nobody looked nothing grew older, but for leases.
func (t *Table) Restore(entries []Entry, written, now time.Time) {
	away := max(now.Sub(written), 0)
	if away > MaxAway {
		return
	}
	for _, e := range entries {
		if e.Source != DHCP {
			e.Until = e.Until.Add(away)
		}
		at := spot{e.Bridge, e.VLAN, e.Address}
		if t.entries[at] == nil && t.limits.within(e.Address) && len(t.entries) < t.limits.PerHost && t.count[e.Key] < t.limits.PerEndpoint {
			t.entries[at] = &e
			t.count[e.Key]++
		}
	}
}

// Note takes a claim into account that was heard on a bridge and in a VLAN. sender is the key of the workload that made it; "" = somebody
// made it who may speak for others.
func (t *Table) Note(w *World, sender, bridge string, vlan int, c Claim, now time.Time) Outcome {
	x := w.At(bridge, vlan, c.MAC)
	if x == nil || sender != "" && x.Key != sender {
		return Outcome{Reason: Stranger, Workload: w.byKey[sender], Address: c.Address}
	}
	out := Outcome{Workload: x, Address: c.Address}
	if !t.limits.within(c.Address) {
		out.Reason = Outside
		return out
	}
	if out.Reason, out.By = w.objection(x, c.Address); out.Reason != "" {
		return out
	}
	until := now.Add(t.limits.Age)
	if c.Source == DHCP {
		until = now.Add(min(c.Lease, MaxLease))
	}
	at := spot{bridge, vlan, c.Address}
	switch e := t.entries[at]; {
	case e != nil && e.Key == x.Key:
		e.Seen = now
		if until.After(e.Until) {
			e.Until = until
		}
		out.Reason = Seen
	case e != nil:
		out.Reason, out.By = Taken, "endpoint "+e.Key+" was the first to use"
	case t.count[x.Key] >= t.limits.PerEndpoint || len(t.entries) >= t.limits.PerHost:
		out.Reason = Full
	default:
		t.entries[at] = &Entry{Key: x.Key, Bridge: bridge, Port: x.Port, OFPort: x.OFPort, VLAN: vlan, MAC: c.MAC.String(), Address: c.Address,
			Source: c.Source, Since: now, Seen: now, Until: until}
		t.count[x.Key]++
		out.Reason = Learned
	}
	return out
}

// Forgotten is an entry that is no more.
type Forgotten struct {
	Entry
	Aged bool
	By   string // who else has it now, in words; "" = nobody
}

// Tend forgets what is too old and what is not so any more: of workloads that are gone, sit in another port or have another MAC address,
// and what somebody declares. looks reports whether a bridge is looked at; of others only the age counts. The result is in order.
func (t *Table) Tend(w *World, looks func(bridge string) bool, now time.Time) []Forgotten {
	var out []Forgotten
	for at, e := range t.entries {
		f := Forgotten{Entry: *e, Aged: !now.Before(e.Until)}
		if !f.Aged {
			if !looks(e.Bridge) {
				continue
			}
			var gone bool
			if f.By, gone = e.contradicted(w); !gone {
				continue
			}
		}
		out = append(out, f)
		delete(t.entries, at)
		if t.count[e.Key]--; t.count[e.Key] == 0 {
			delete(t.count, e.Key)
		}
	}
	slices.SortFunc(out, func(a, b Forgotten) int { return a.compare(&b.Entry) })
	return out
}

// contradicted reports whether the entry is not so any more. by is who has the address instead.
func (e *Entry) contradicted(w *World) (by string, is bool) {
	x := w.byKey[e.Key]
	if x == nil || x.Bridge != e.Bridge || x.Port != e.Port || x.VLAN != 0 && x.VLAN != e.VLAN ||
		x.OFPort != e.OFPort && x.OFPort != 0 && e.OFPort != 0 {
		return "", true
	}
	if w.at(e.Bridge, e.VLAN, e.MAC) != x {
		return "", true
	}
	why, by := w.objection(x, e.Address)
	return by, why != ""
}

func (e *Entry) compare(o *Entry) int {
	return cmp.Or(cmp.Compare(e.Key, o.Key), e.Address.Compare(o.Address), cmp.Compare(e.VLAN, o.VLAN))
}

// Next is when the first entry will be too old; zero = there is none.
func (t *Table) Next() (next time.Time) {
	for _, e := range t.entries {
		if next.IsZero() || e.Until.Before(next) {
			next = e.Until
		}
	}
	return next
}

// Entries returns all entries, in order of their workloads and addresses.
func (t *Table) Entries() []Entry {
	out := make([]Entry, 0, len(t.entries))
	for _, e := range t.entries {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return a.compare(&b) })
	return out
}

// Addresses returns those of each workload, by its key: sorted, each once. entries are in order.
func Addresses(entries []Entry) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for i := range entries {
		e := &entries[i]
		if list := out[e.Key]; len(list) == 0 || list[len(list)-1] != e.Address {
			out[e.Key] = append(list, e.Address)
		}
	}
	return out
}
