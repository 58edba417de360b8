package host

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// What others do to a bridge is put right each time, at once. It is told at once, too, and if it goes on, as a sum every tellEvery. What
// happened once is over; what happens again within interferenceAge is called a problem by the status until it has been over for that long.
const (
	tellEvery       = 10 * time.Second
	interferenceAge = 30 * time.Second
)

// interferenceKinds say what to call what others did, by kind.
var interferenceKinds = [...]struct{ action, one, many string }{
	ofctrl.ForeignFlows: {event.ActionForeignFlows, "foreign flow was removed from tapwall's tables",
		"foreign flows were removed from tapwall's tables"},
	ofctrl.ChangedFlows: {event.ActionChangedFlows, "flow of tapwall, changed by somebody else, was put right",
		"flows of tapwall, changed by somebody else, were put right"},
	ofctrl.ChangedMeters: {event.ActionChangedMeters, "meter of tapwall, changed by somebody else, was put right",
		"meters of tapwall, changed by somebody else, were put right"},
}

// interferences is what others did to one bridge. It is safe for concurrent use.
type interferences struct {
	mu    sync.Mutex
	kinds [len(interferenceKinds)]interference
}

type interference struct {
	since, last time.Time // of what is going on
	count       int       // since then
	untold      int
	objects     []string // of what is not told
	object      string   // the last one
	told        time.Time
}

// interfered takes what a switch tells of others.
func (e *Engine) interfered(l *link) func(ofctrl.Interference) {
	return func(i ofctrl.Interference) {
		now := time.Now()
		l.others.mu.Lock()
		k := &l.others.kinds[i.What]
		if now.Sub(k.last) > interferenceAge {
			k.since, k.count = now, 0
		}
		k.last = now
		k.count += i.Count
		k.untold += i.Count
		for _, o := range i.Objects[:min(len(i.Objects), ofctrl.MaxObjects-len(k.objects))] {
			k.objects = append(k.objects, strings.ReplaceAll(o, "\n", " ")) // a meter is several lines
		}
		if len(i.Objects) > 0 {
			k.object = i.Objects[len(i.Objects)-1]
		}
		l.others.mu.Unlock()
		e.tellInterference(l, now)
	}
}

// tellInterference logs and records what is due.
func (e *Engine) tellInterference(l *link, now time.Time) {
	l.others.mu.Lock()
	defer l.others.mu.Unlock()
	for what := range l.others.kinds {
		k, words := &l.others.kinds[what], interferenceKinds[what]
		if k.untold == 0 || now.Sub(k.told) < tellEvery {
			continue
		}
		e.tell(l, words.action, event.Notice{Message: counted(k.untold, words.one, words.many), Count: int64(k.untold), Objects: k.objects})
		k.untold, k.objects, k.told = 0, nil, now
	}
}

// tell logs and records something that happened to a bridge.
func (e *Engine) tell(l *link, action string, n event.Notice) {
	e.log.Warn(n.Message, "bridge", l.cfg.Name, "objects", n.Objects)
	e.record(l, action, n)
}

// record records something that happened to a bridge.
func (e *Engine) record(l *link, action string, n event.Notice) {
	n.Message = fmt.Sprintf("bridge %s: %s", l.cfg.Name, n.Message)
	e.opt.Recorder.Record(event.NewNotice(action, *l.host.Load(), l.cfg.Name, n))
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// problems says what others keep doing.
func (o *interferences) problems(now time.Time) (out []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for what := range o.kinds {
		if k, words := &o.kinds[what], interferenceKinds[what]; now.Sub(k.last) <= interferenceAge && k.last.Sub(k.since) > time.Second {
			out = append(out, fmt.Sprintf("%s since %s; the last: %s", counted(k.count, words.one, words.many), k.since.Format(time.TimeOnly),
				k.object))
		}
	}
	return out
}

// bypass says which foreign flows packets meet before our entry, or nil. Those behind it are met by nothing. Readers may call it.
func (l *link) bypass() error {
	if l.cfg.Mode != Owned {
		return nil
	}
	var before []flow.Flow
	l.sw.Foreign(func(f *flow.Flow) {
		if f.Table == pipeline.TableEntry && f.Priority >= entryPriority {
			before = append(before, *f)
		}
	})
	if len(before) == 0 {
		return nil
	}
	slices.SortFunc(before, func(x, y flow.Flow) int { return int(y.Priority) - int(x.Priority) })
	return fmt.Errorf("the wall does not judge what %s of table 0 takes before it: %s",
		counted(len(before), "foreign flow", "foreign flows"), before[0].String())
}

// entryPriority is that of the flow that leads into the pipeline.
var entryPriority = func() uint16 { f := entryKey(); return f.Priority }()

// errNotOurs says that a bridge is not taken over.
var errNotOurs = errors.New("the bridge is not taken over, nothing on it is changed")

// takeOver looks at what is on the bridge before this process changes anything there, and tells of what will go. It returns whether the
// bridge may be changed. A flow that bears our magic and can be no tapwall's is a reason not to, unless the bridge is known from before.
func (w *firewall) takeOver(st ofctrl.State, now time.Time) bool {
	if w.taken {
		return true
	}
	if !st.Ready {
		return false
	}
	if w.ledger.untaken {
		if err := w.strange(); err != nil {
			w.failed(w.e, now, err)
			return false
		}
	}
	if st.OurFlows == 0 {
		w.tellTakeOver()
	}
	if w.ledger.untaken {
		w.ledger.untaken = false
		w.ledger.note(stateFresh, nil)
	}
	w.taken = true
	w.e.stale.mirrors = true // the fail mode may be set now
	return true
}

// strange returns an error that names the flows that bear our magic and cannot be ours.
func (w *firewall) strange() error {
	var texts []string
	n := 0
	w.sw.Missing(func(owner string, f *flow.Flow) { // nothing is desired yet, so this is all that bears our magic
		if _, _, ours := pipeline.ParseCookie(f.Cookie); owner == "" && ours && !pipeline.Plausible(f.Table, f.Cookie) {
			if n++; n <= 3 {
				texts = append(texts, f.String())
			}
		}
	})
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s cookies of tapwall and cannot be of this tapwall (delete them if nobody needs them): %s: %w",
		counted(n, "flow has one of the", "flows have"), strings.Join(texts, "; "), errNotOurs)
}

// tellTakeOver lists the foreign flows that are about to go: those in our tables and in the place of our entry and, where the fail mode
// has to be set, which makes ovs-vswitchd wipe all tables, all those in table 0. The flow that a bridge without fail mode begins with is
// not worth a word.
func (w *firewall) tellTakeOver() {
	wiped := w.e.topo.Bridges[w.cfg.Name].FailMode != w.cfg.FailMode
	var n event.Notice
	w.sw.Foreign(func(f *flow.Flow) {
		ownPlace := f.Priority == entryPriority && len(f.Match) == 0
		if f.Table == pipeline.TableEntry && !ownPlace && (!wiped || f.Cookie == 0 && f.Priority == 0 && len(f.Match) == 0) {
			return
		}
		if n.Count++; len(n.Objects) < ofctrl.MaxObjects {
			n.Objects = append(n.Objects, f.String())
		}
	})
	if n.Count == 0 {
		return
	}
	n.Message = counted(int(n.Count), "foreign flow is", "foreign flows are") +
		" in the way and will be removed: tapwall takes the bridge over"
	w.e.tell(w.link, event.ActionTakeOver, n)
}
