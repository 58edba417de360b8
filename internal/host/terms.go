package host

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// terms are when the quarantines end. A term is measured by the clock of the machine that cannot be set: it is as long as it was by the
// other clock when the quarantine was first seen, however that is set afterwards. A file keeps it over a restart of the process, as long
// as the machine runs. The loop owns it.
type terms struct {
	file  string // "" = not kept
	boot  string // which start of the machine its clock counts from
	known map[string]term
	kept  map[string]term // of an earlier process
	dirty bool
	clock func() time.Duration // since the start of the machine
}

// term is that of one quarantine.
type term struct {
	UID   string        `json:"uid"`
	Until time.Time     `json:"until"` // zero = without end
	End   time.Duration `json:"end"`   // by terms.clock
	began bool          // and was told
	ended bool          // likewise
	apart time.Duration // how much later Until is by the clock than End
}

type termFile struct {
	Boot  string          `json:"boot"`
	Terms map[string]term `json:"terms"`
}

func newTerms(dir, name string) *terms {
	t := &terms{known: map[string]term{}, clock: SinceBoot, boot: BootID()}
	if dir == "" {
		return t
	}
	t.file = filepath.Join(dir, url.PathEscape(orElse(name, "local"))+".quarantines")
	var f termFile
	if _, err := readJSON(t.file, maxMemoryFile, &f); err == nil && f.Boot == t.boot && f.Boot != "" {
		t.kept = f.Terms
	}
	return t
}

// BootID names the start of the machine that SinceBoot counts from; "" = the system does not tell.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// SinceBoot is CLOCK_BOOTTIME (clock_gettime(2)), which nobody can set and which goes on while the machine sleeps.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// over reports whether a quarantine has ended.
func (t *terms) over(name string) bool {
	x, ok := t.known[name]
	return !ok || !x.Until.IsZero() && t.clock() >= x.End
}

// next is when the next one ends; zero = none does.
func (t *terms) due() bool {
	for name, x := range t.known {
		if !x.ended && t.over(name) {
			return true
		}
	}
	return false
}

// set brings the terms up to date with the resources.
func (t *terms) set(all []*policy.Quarantine, now time.Time) {
	seen := map[string]bool{}
	for _, q := range all {
		seen[q.Name] = true
		var until time.Time
		if q.Spec.Until != nil {
			until = *q.Spec.Until
		}
		x, known := t.known[q.Name]
		left := until.Sub(now.Round(0)) // by the clock on the wall
		if !known || x.UID != q.UID || !x.Until.Equal(until) {
			y := term{UID: q.UID, Until: until, began: known && x.UID == q.UID && x.began}
			old, ok := t.kept[q.Name]
			if ok && old.UID == q.UID && old.Until.Equal(until) {
				y.End, y.began = old.End, true
				y.ended = !until.IsZero() && t.clock() >= y.End && t.clock()-y.End > time.Hour
			} else if !until.IsZero() {
				y.End = t.clock() + left
			}
			x, t.dirty = y, true
		}
		if !until.IsZero() {
			x.apart = left - (x.End - t.clock())
		}
		t.known[q.Name] = x
	}
	for name := range t.known {
		if !seen[name] {
			delete(t.known, name)
			t.dirty = true
		}
	}
}

// save writes the file. A full disk costs what the file is for.
func (t *terms) save() error {
	if !t.dirty || t.file == "" {
		return nil
	}
	t.dirty = false
	return replaceJSON(t.file, termFile{Boot: t.boot, Terms: t.known})
}

// clockApart is from when on the two clocks do not agree about the end of a quarantine.
const clockApart = time.Minute

// WarnClockJumped is the code of the warning that the clock was set while a quarantine runs.
const WarnClockJumped policy.Code = "CLOCK_JUMPED"

// jumped says that the clock on the wall was set since the quarantine was seen first; "" = it was not.
func (t *terms) jumped(name string) string {
	x, ok := t.known[name]
	if !ok || x.Until.IsZero() || x.apart.Abs() < clockApart {
		return ""
	}
	return fmt.Sprintf("the clock was set by %v since this quarantine began; it lasts as long as it would have by the clock of then: %v more",
		(-x.apart).Round(time.Second), max(0, x.End-t.clock()).Round(time.Second))
}

// tendTerms finds out which quarantines have begun and which have ended, and tells of them.
func (e *Engine) tendTerms(now time.Time) {
	all := ofKind[*policy.Quarantine](e.resources, policy.KindQuarantine)
	gone := maps.Clone(e.terms.known)
	for _, q := range all {
		if x, ok := gone[q.Name]; ok && x.UID == q.UID {
			delete(gone, q.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		if x := gone[name]; x.began && !x.ended {
			e.tellQuarantine(event.ActionQuarantineEnded, fmt.Sprintf("quarantine %s was released", name), policy.Writer{})
		}
	}
	e.terms.set(all, now)
	for _, q := range all {
		x := e.terms.known[q.Name]
		switch {
		case e.terms.over(q.Name) && !x.ended:
			x.ended = true
			if x.began {
				e.tellQuarantine(event.ActionQuarantineEnded, ended(q, x.Until), q.Writer)
			}
		case !e.terms.over(q.Name) && !x.began:
			x.began = true
			e.tellQuarantine(event.ActionQuarantineBegan, began(q), q.Writer)
		case !e.terms.over(q.Name) && x.ended: // its end was put off
			x.ended = false
			e.tellQuarantine(event.ActionQuarantineBegan, began(q), q.Writer)
		default:
			continue
		}
		e.terms.known[q.Name] = x
	}
	if err := e.terms.save(); err != nil {
		e.log.Warn("when quarantines end is not kept over a restart of tapwall but by the clock on the wall", "err", err)
	}
}

func began(q *policy.Quarantine) string {
	text := fmt.Sprintf("quarantine %s of %s begins", q.Name, q.Spec.Match)
	if q.Spec.Until != nil {
		text += ", until " + q.Spec.Until.Format(time.RFC3339)
	}
	if len(q.PassList()) > 0 {
		text += ", but for its pass list"
	}
	if who := q.Writer.String(); who != "" {
		text += ", as asked by " + who
	}
	if q.Spec.Reason != "" {
		text += ": " + q.Spec.Reason
	}
	return text
}

func ended(q *policy.Quarantine, until time.Time) string {
	text := fmt.Sprintf("quarantine %s of %s has ended, as it said: %s", q.Name, q.Spec.Match, until.Format(time.RFC3339))
	if who := q.Writer.String(); who != "" {
		text += "; it was written by " + who
	}
	return text
}

// tellQuarantine logs and records what became of a quarantine, and who wrote that.
func (e *Engine) tellQuarantine(action, message string, who policy.Writer) {
	e.log.Info(message)
	e.opt.Recorder.Record(event.NewNotice(action, e.host, "", event.Notice{Message: message, Count: 1, By: who.By, From: who.From}))
}
