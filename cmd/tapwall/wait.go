package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// waitFlags are --wait and --timeout.
type waitFlags struct {
	until   string
	timeout time.Duration
}

// What a write can be waited for.
const (
	waitAccepted  = "accepted"  // checked and stored; every write waits for that
	waitInstalled = "installed" // in force on the switches, as read back
	waitEffective = "effective" // and no decision is left that a switch cached before
)

func (w *waitFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.until, "wait", "", "return when the change is installed: in force on the switch, as read back; exit code 4 if "+
		"it is not (or --wait=accepted: when it is stored; --wait=effective: when no cached decision of before is left, either)")
	c.Flags().Lookup("wait").NoOptDefVal = waitInstalled
	c.Flags().DurationVar(&w.timeout, "timeout", 10*time.Second, "how long --wait waits, at most "+maxWait.String())
	completeFlag(c, "wait", fixed(waitInstalled, waitEffective, waitAccepted))
}

// maxWait is the longest wait that the server accepts.
const maxWait = time.Minute

func (w *waitFlags) check() error {
	switch w.until {
	case "", waitAccepted, waitInstalled, waitEffective:
	case "true": // --wait was a switch once
		w.until = waitInstalled
	case "false":
		w.until = ""
	default:
		return usage("--wait=%s: want --wait=installed (or --wait), --wait=effective or --wait=accepted", w.until)
	}
	if w.timeout <= 0 || w.timeout > maxWait {
		return usage("--timeout %v: want more than 0 and at most %v", w.timeout, maxWait)
	}
	return nil
}

// waits reports whether the answer is about what is in force.
func (w *waitFlags) waits() bool { return w.until == waitInstalled || w.until == waitEffective }

func (w *waitFlags) options() client.WriteOptions {
	if !w.waits() {
		return client.WriteOptions{}
	}
	return client.WriteOptions{Wait: w.timeout, Effective: w.until == waitEffective}
}

// state is what to print behind a resource that was written and waited for. What is known without waiting is that of the revision before.
func (w *waitFlags) state(s policy.Status) string {
	if !w.waits() {
		return ""
	}
	return " (" + phase(s) + ")"
}

// waited is one resource that was written.
type waited struct {
	name   string // policy/web
	status *policy.Status
}

// outcome is the error of a write that was waited for: err, that of the request, or what is not in force of the resources that were
// written, with exit code 4.
func (w *waitFlags) outcome(err error, written ...waited) error {
	if err != nil && !errors.Is(err, client.ErrNotInstalled) {
		return err
	}
	var lacking []string
	for _, x := range written {
		if w.waits() && x.status != nil {
			if why := lacks(*x.status); why != "" {
				lacking = append(lacking, x.name+" is "+why)
			}
		}
	}
	if err == nil && lacking == nil {
		return nil
	}
	if err == nil {
		err = errors.New("written, but not in force")
	}
	if len(lacking) == 1 {
		return &exitError{exitNotInstalled, fmt.Errorf("%w: %s", err, event.Escape(lacking[0]))}
	}
	for _, l := range lacking {
		err = fmt.Errorf("%w\n  %s", err, event.Escape(l))
	}
	return &exitError{exitNotInstalled, err}
}

// lacks says in words what is missing until a resource is in force; "" = nothing. A host on which it selects nobody is no failure while
// it is in force on another.
func lacks(s policy.Status) string {
	if asAsked(s.Phase, s.Reason) {
		return ""
	}
	var why []string
	somewhere := false
	for _, h := range s.Hosts {
		switch {
		case asAsked(h.Phase, h.Reason):
			somewhere = true
		case h.Reason != policy.ReasonNoEndpoints && h.Reason != policy.ReasonNoPort:
			why = append(why, "host "+h.Host+" "+phase(policy.Status{Phase: h.Phase, Reason: h.Reason, Message: h.Message}))
		}
	}
	switch {
	case len(why) == 0 && somewhere:
		return ""
	case len(why) > 0 && len(s.Hosts) > 1:
		return string(s.Phase) + ": " + strings.Join(why, "; ")
	}
	return phase(s)
}

// asAsked reports whether a resource is in force, or is not because it says so.
func asAsked(p policy.Phase, why policy.Reason) bool {
	return p == policy.PhaseActive || p == policy.PhaseStopped || why == policy.ReasonScheduled
}

func phase(s policy.Status) string {
	out := string(s.Phase)
	if s.Reason != "" {
		out += ": " + string(s.Reason)
	}
	if s.Message != "" {
		out += ", " + s.Message
	}
	return out
}
