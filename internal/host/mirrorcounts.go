package host

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// What a mirror counts. What stands behind one for a single target has the name of its port behind it: see stage.at.
type stage string

const (
	rowSelected   stage = "selected"   // by the Mirror row of a native mirror, which then is sent
	accepted      stage = "accepted"   // by flows, as the next ones
	rejected      stage = "rejected"   //
	sampledOut    stage = "sampledOut" // of what was accepted
	passed        stage = "passed"     // to the targets, ahead of the limit; as copies, if it is of all targets
	limited       stage = "limited"    // of that by the limit, as copies
	rateDropped   stage = "rateDropped"
	sent          stage = "sent" // the most that passed and was not limited
	cut           stage = "cut"  // of that, ahead of the port
	sinkDropped   stage = "sinkDropped"
	allToTargets        = "targets" // in the account of a tap bridge, ahead of passed
	toOnePrefix         = "target/" // likewise, with the index of the target behind it
	rowSource           = "row "
	captureSource       = "capture " // with a moment: one that begins anew is another one
	maxCountsFile       = 64 << 20   // bytes
	countEvery          = 5 * time.Second
	saveCountsMin       = time.Second
	sinksEvery          = time.Second
)

// at is the stage for one target.
func (s stage) at(port string) stage { return s + " " + stage(port) }

// mirrorCounts are what mirrors have counted on this host, in totals that never go back: neither when the switch or this process begins
// anew, nor when other flows, rows and meters take the place of those that counted. A mirror is its uid here, so one that is made anew
// counts from 0. Whatever counts is a source: a reading of it adds to the totals what it has more than at the last reading, or all that
// it has if that is less, as then it has begun anew. It is safe for concurrent use.
type mirrorCounts struct {
	mu    sync.Mutex
	file  string // "" = nowhere
	kept  keptCounts
	dirty bool
	saved time.Time
	sinks time.Time // when those were read last
}

// keptCounts are what outlives the process.
type keptCounts struct {
	Mirrors map[string]*mirrorCount `json:"mirrors"` // by uid
	Read    map[string]time.Time    `json:"read"`    // when the flows of a bridge were read last
}

// mirrorCount is what one mirror has counted.
type mirrorCount struct {
	Totals map[stage]counter  `json:"totals"`
	Last   map[string]counter `json:"last"` // by source, as read; of flows the sum of those that there were

	account map[string]counter // by source of flows: the totals of the account of the bridge, as read
}

// MarshalJSON writes packets and bytes.
func (c counter) MarshalJSON() ([]byte, error) { return json.Marshal([2]uint64{c.packets, c.bytes}) }

// UnmarshalJSON reads what MarshalJSON writes.
func (c *counter) UnmarshalJSON(text []byte) error {
	var x [2]uint64
	err := json.Unmarshal(text, &x)
	c.packets, c.bytes = x[0], x[1]
	return err
}

// newMirrorCounts takes up what an earlier process has left in the directory; "" = there is none. The error says why nothing could be.
func newMirrorCounts(dir string) (*mirrorCounts, error) {
	c := &mirrorCounts{}
	var err error
	if dir != "" {
		c.file = filepath.Join(dir, "mirrors") // bridges have files with an ending
		_, err = readJSON(c.file, maxCountsFile, &c.kept)
	}
	if err != nil {
		c.kept = keptCounts{}
	}
	if c.kept.Mirrors == nil {
		c.kept.Mirrors = map[string]*mirrorCount{}
	}
	if c.kept.Read == nil {
		c.kept.Read = map[string]time.Time{}
	}
	for _, m := range c.kept.Mirrors {
		maps.DeleteFunc(m.Last, func(source string, _ counter) bool { return strings.HasPrefix(source, captureSource) })
	}
	return c, err
}

// of is what a mirror has counted.
func (c *mirrorCounts) of(uid string) *mirrorCount {
	m := c.kept.Mirrors[uid]
	if m == nil {
		m = &mirrorCount{}
		c.kept.Mirrors[uid] = m
	}
	if m.Totals == nil {
		m.Totals = map[stage]counter{}
	}
	if m.Last == nil {
		m.Last = map[string]counter{}
	}
	if m.account == nil {
		m.account = map[string]counter{}
	}
	return m
}

// read takes a reading of a source and returns what it has more than at the last one.
func (m *mirrorCount) read(source string, now counter) counter {
	more := now.since(m.Last[source])
	m.Last[source] = now
	return more
}

// add adds to a total and reports whether that changes it.
func (m *mirrorCount) add(s stage, n counter) bool {
	m.Totals[s] = m.Totals[s].plus(n)
	return n != counter{}
}

// times is what so many copies of it are.
func (c counter) times(n int) counter { return counter{c.packets * uint64(n), c.bytes * uint64(n)} }

// pass notes what was for all of the targets, or with only for that one.
func (m *mirrorCount) pass(n counter, targets []tap.Send, only int) bool {
	if n == (counter{}) {
		return false
	}
	copies := 0
	for _, t := range targets {
		if only < 0 || only == t.Target {
			m.add(passed.at(t.Port), n)
			copies++
		}
	}
	return m.add(passed, n.times(copies))
}

// limit notes what a limit has dropped of what was for the targets. Where each packet is for one of them, nobody knows for which.
func (m *mirrorCount) limit(n counter, targets []tap.Send, balanced bool) bool {
	m.add(rateDropped, n)
	if balanced {
		return m.add(limited, n)
	}
	for _, t := range targets {
		m.add(limited.at(t.Port), n)
	}
	return m.add(limited, n.times(len(targets)))
}

// settle works out what was sent. Meters count at once and flows up to half a second later, so what is worked out of both may be less than
// it was a moment ago; then that stays.
func (m *mirrorCount) settle() {
	for s, n := range m.Totals {
		if port, ok := strings.CutPrefix(string(s), string(passed)); ok {
			to := sent + stage(port)
			if left := n.packets - min(n.packets, m.Totals[limited+stage(port)].packets); left > m.Totals[to].packets {
				m.Totals[to] = counter{packets: left}
			}
		}
	}
}

// readRows takes the statistics of the rows of native mirrors. A row that was another mirror's of the name until now goes on from there.
func (c *mirrorCounts) readRows(topo *vswitch.Topology, mirrors map[string]*policy.Mirror, plan *tap.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, br := range topo.Bridges {
		for _, row := range br.Mirrors {
			m := mirrors[row.ExternalIDs[vswitch.MarkMirror]]
			if m == nil || row.ExternalIDs[vswitch.MarkOwner] != vswitch.OwnerValue || len(row.Statistics) == 0 {
				continue // without statistics it has not begun, and what it had counted may come back with them
			}
			x, source := c.of(m.UID), rowSource+row.UUID
			if _, known := x.Last[source]; !known {
				for _, other := range c.kept.Mirrors {
					if n, was := other.Last[source]; was {
						x.Last[source] = n
					}
				}
			}
			more := x.read(source, counter{uint64(row.Statistics["tx_packets"]), uint64(row.Statistics["tx_bytes"])})
			if x.add(rowSelected, more) {
				x.pass(more, plan.Info[m.Name].Sends, -1)
				x.settle()
				c.dirty = true
			}
		}
	}
}

// readMeters takes what the meters of a tap bridge have counted.
func (c *mirrorCounts) readMeters(bridge string, stats []ofp.MeterStats, meters mirrorMeters, mirrors map[string]*policy.Mirror,
	plan map[string]tap.Info,
) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byUID := mirrorsByUID(mirrors)
	for _, x := range stats {
		if m := byUID[meters.limits[x.ID]]; m != nil && len(x.Bands) > 0 {
			k := c.of(m.UID)
			if more := k.read("meter "+bridge, counter{packets: x.Bands[0].Packets}); more.packets > 0 {
				c.dirty = k.limit(more, plan[m.Name].Sends, m.Spec.Balance != nil) || c.dirty
			}
		}
		if m := byUID[meters.cuts[x.ID]]; m != nil {
			k := c.of(m.UID)
			c.dirty = k.add(cut, k.read("cuts "+bridge, counter{packets: x.Packets})) || c.dirty
		}
	}
}

func mirrorsByUID(mirrors map[string]*policy.Mirror) map[string]*policy.Mirror {
	out := map[string]*policy.Mirror{}
	for _, m := range mirrors {
		out[m.UID] = m
	}
	return out
}

// readFlows takes what the flows of a tap bridge have counted.
func (c *mirrorCounts) readFlows(bridge string, k *book, mirrors map[string]*policy.Mirror, plan map[string]tap.Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	totals, flows, ok := k.mirrorSums()
	if !ok {
		return
	}
	c.kept.Read[bridge] = time.Now()
	byUID := mirrorsByUID(mirrors)
	for ref, n := range totals {
		m := byUID[ref.Policy]
		if m == nil {
			continue
		}
		x, source := c.of(m.UID), "flows "+bridge+" "+ref.Rule
		more := n.since(x.account[source])
		c.dirty = c.dirty || x.Last[source] != flows[ref]
		x.account[source], x.Last[source] = n, flows[ref]
		var index int
		switch _, err := fmt.Sscanf(ref.Rule, toOnePrefix+"%d", &index); {
		case err == nil:
			c.dirty = x.pass(more, plan[m.Name].Sends, index) || c.dirty
		case ref.Rule == allToTargets:
			c.dirty = x.pass(more, plan[m.Name].Sends, -1) || c.dirty
		default:
			c.dirty = x.add(stage(ref.Rule), more) || c.dirty
		}
	}
	for uid := range byUID {
		if x := c.kept.Mirrors[uid]; x != nil {
			x.settle()
		}
	}
}

// earlier is what the flows of a bridge had counted together when they were read last, and when that was.
func (c *mirrorCounts) earlier(bridge string) (sums map[policy.RuleRef]counter, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sums = map[policy.RuleRef]counter{}
	for uid, m := range c.kept.Mirrors {
		for source, n := range m.Last {
			if rule, ok := strings.CutPrefix(source, "flows "+bridge+" "); ok {
				sums[policy.RuleRef{Policy: uid, Rule: rule}] = n
			}
		}
	}
	return sums, c.kept.Read[bridge]
}

// readDrops takes what a sink has not taken. What it lost before it was one is not the mirror's, unless it begins with it.
func (c *mirrorCounts) readDrops(uid, source, port string, packets uint64, begins bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.of(uid)
	if _, known := x.Last[source]; !known && !begins {
		x.Last[source] = counter{packets: packets}
	}
	if more := x.read(source, counter{packets: packets}); more.packets > 0 {
		x.add(sinkDropped, more)
		x.add(sinkDropped.at(port), more)
		c.dirty = true
	}
}

// sinksDue reports whether it is time to read what sinks drop, and takes it for done.
func (c *mirrorCounts) sinksDue(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := now.Sub(c.sinks) >= sinksEvery
	if due {
		c.sinks = now
	}
	return due
}

// forget drops what is kept of mirrors that are gone with their rows, and of rows that are gone.
func (c *mirrorCounts) forget(mirrors map[string]*policy.Mirror, rows map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	alive := map[string]bool{}
	for _, m := range mirrors {
		alive[m.UID] = true
	}
	for uid, m := range c.kept.Mirrors {
		stands := false
		maps.DeleteFunc(m.Last, func(source string, _ counter) bool {
			row, is := strings.CutPrefix(source, rowSource)
			stands = stands || is && rows[row]
			return is && !rows[row]
		})
		if !alive[uid] && !stands {
			delete(c.kept.Mirrors, uid)
			c.dirty = true
		}
	}
}

// totals are those of a mirror.
func (c *mirrorCounts) totals(uid string) map[stage]counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.kept.Mirrors[uid]; m != nil {
		return maps.Clone(m.Totals)
	}
	return nil
}

// save writes the totals down if they have changed, but not more often than every saveCountsMin, unless at once.
func (c *mirrorCounts) save(atOnce bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == "" || !c.dirty || !atOnce && time.Since(c.saved) < saveCountsMin {
		return nil
	}
	c.saved = time.Now()
	err := replaceJSON(c.file, &c.kept)
	c.dirty = err != nil
	return err
}
