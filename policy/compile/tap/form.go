package tap

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// Form is how a mirror is made on a host: native, as one Mirror row, or staged.
type Form struct {
	Staged bool
	// Because says why, for people.
	Because string
	// Circumstance: what asked for the form is no part of the mirror. Then it stays while the mirror has this revision, so that a sensor's
	// port does not move to and fro with other people's mirrors and machines.
	Circumstance bool
	Revision     int64
}

// native is the form of mirrors for which a row suffices.
var native = Form{Because: "one Mirror row of Open vSwitch does all that it asks for"}

// runs reports whether a mirror is to copy at all.
func runs(m *policy.Mirror) bool {
	return m.Runs() && len(m.Spec.Targets) > 0
}

// chooseForms decides which of the mirrors are staged: those that ask for more than a row can do, those whose sources are on several
// bridges or on another one than their target, and those that have a target in common.
func (p *mirrorPlanner) chooseForms(works []*mirrorWork) {
	p.users = map[output][]string{}
	for _, w := range works {
		for _, t := range w.identities() {
			p.users[t] = append(p.users[t], w.m.Name)
		}
	}
	for _, w := range works {
		w.info.Form = w.form()
	}
}

// form is that of the mirror.
func (w *mirrorWork) form() Form {
	if w.m.Spec.Floods() != nil {
		return floods
	}
	if words := asks(w.m); len(words) > 0 {
		return Form{Staged: true, Because: "a Mirror row cannot do this: " + strings.Join(words, ", ")}
	}
	why := w.circumstances()
	if before := w.formBefore(); why == "" && before.Circumstance && before.Revision == w.m.Revision {
		why = before.Because
	}
	if why == "" {
		return native
	}
	return Form{Staged: true, Because: why, Circumstance: true, Revision: w.m.Revision}
}

// formBefore is the form that the mirror had when mirrors were compiled last.
func (w *mirrorWork) formBefore() Form {
	if w.in.Before == nil {
		return Form{}
	}
	return w.in.Before.Info[w.m.Name].Form
}

// asks lists what of the mirror itself takes more than a Mirror row.
func asks(m *policy.Mirror) (words []string) {
	s := &m.Spec
	add := func(given bool, word string) {
		if given {
			words = append(words, word)
		}
	}
	add(s.MixesVLANs(), "vlan beside other sources")
	add(leaving(s), "capturePoint")
	add(s.Filter != nil, "filter")
	add(s.Snaplen > 0, "snaplen")
	add(s.Sample != nil, "sample")
	add(retags(s), "vlanTag")
	// An end by packets needs counters that are to be had when asked for; Open vSwitch tells those of a row every 5 s.
	add(m.Counts(), "stopAfter with packets or bytes")
	add(len(s.Targets) > 1, "several targets")
	add(s.Force, "force")
	add(reads(m), "a target that tapwall reads itself")
	add(cutsToFit(m), "cutting to what a tunnel carries")
	return words
}

// staged reports whether the mirror by itself takes more than a Mirror row; see chooseForms for what else may.
func staged(m *policy.Mirror) bool { return len(asks(m)) > 0 }

// retags reports whether copies are to have another tag than what a row gives them: what is made for a mirror strips it.
func retags(s *policy.MirrorSpec) bool {
	existing := func(t policy.MirrorTarget) bool { return t.Port != nil && !t.Port.Create }
	return s.VLANTag != "" && (s.VLANTag != policy.VLANTagStrip || slices.ContainsFunc(s.Targets, existing))
}

// leaving reports whether packets that sources sent are copied where they leave.
func leaving(s *policy.MirrorSpec) bool {
	return s.CapturePoint == policy.CaptureDelivered && s.Direction != policy.MirrorToSource
}

// circumstances says what makes a mirror staged for which a row would suffice by itself; "" = nothing.
func (w *mirrorWork) circumstances() string {
	for _, t := range w.identities() {
		if others := without(w.users[t], []string{w.m.Name}); len(others) > 0 {
			return "mirror " + strings.Join(others, ", ") + " delivers to the same target, and Open vSwitch would make one copy for both"
		}
	}
	var on []string
	sources := w.scratch().sources()
	for _, b := range w.bridges {
		if s := sources[b.Name]; s != nil {
			if len(s.entered) > 0 {
				return "a source is a patch port, at which Open vSwitch copies nothing itself"
			}
			on = append(on, b.Name)
		}
	}
	t, where := w.scratch().target(0)
	switch stands := w.standing(t.spec.Port); {
	case len(on) == 0 && stands != nil:
		return "its target is on bridge " + stands.Name + " while it waits for sources"
	case len(on) > 1:
		return "its sources are on bridges " + strings.Join(on, ", ") + ", and Open vSwitch copies within a bridge only"
	case len(on) == 1 && where != "" && where != on[0]:
		return "its sources are on bridge " + on[0] + " and its target is on bridge " + where
	}
	return ""
}

// scratch is a mirrorWork whose problems nobody reads.
func (w *mirrorWork) scratch() *mirrorWork {
	return &mirrorWork{mirrorPlanner: w.mirrorPlanner, m: w.m}
}

// identities are those of the mirror's targets.
func (w *mirrorWork) identities() []output {
	out := make([]output, 0, len(w.m.Spec.Targets))
	for i := range w.m.Spec.Targets {
		if t, _ := w.scratch().target(i); t.identity != (output{}) {
			out = append(out, t.identity)
		}
	}
	return out
}

// byName compares mirrors.
func byName(a, b *policy.Mirror) int { return cmp.Compare(a.Name, b.Name) }
