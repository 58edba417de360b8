package policy

import "cmp"

// Record says of which verdicts the record has events. A rule or default deny with log has them whatever is said here.
type Record struct {
	// Connections: of those that are allowed, one event for each.
	Connections string `json:"connections,omitempty"` // all | logged | none; absent = as the bridge has it
	// Denies: of packets that are denied or rejected, one for each.
	Denies string `json:"denies,omitempty"` // all | logged; absent = as the bridge has it
}

// The values of Record. What is none has no event but for rules with log, as what is logged; it says that none are meant to be.
const (
	RecordAll    = "all"
	RecordLogged = "logged"
	RecordNone   = "none"
)

// Records says what a rule of the policy wants of a record on a bridge: that what it decides is recorded (log), or that it is not (quiet).
// Of connections that are allowed it may want neither: then the other side says, and if that wants neither, the bridge does. What one side
// wants recorded is, whatever the other wants. Connections of a rule that samples are recorded if they are of the sample; others are quiet.
func (p *Policy) Records(bridge Record, r *Rule) (log, quiet bool) {
	var own Record
	if p.Spec.Record != nil {
		own = *p.Spec.Record
	}
	switch {
	case r.Action == Pass:
		return false, false
	case r.Action.Passes() && r.OneOf() > 0:
		return false, true
	case r.Action.Passes():
		log = r.Log.All || own.Connections == RecordAll
		return log, !log && own.Connections != ""
	}
	return r.Log.All || cmp.Or(own.Denies, bridge.Denies) == RecordAll, false
}

// RecordsDefaultDeny reports whether what the policy denies by default is recorded.
func (p *Policy) RecordsDefaultDeny(bridge Record) bool {
	log, _ := p.Records(bridge, &Rule{Action: Deny, Log: RuleLog{All: p.LogsDefaultDeny()}})
	return log
}

// Fault says what is wrong with the record of a bridge; "" = nothing is. It may have words that policies do not: denies may be none.
func (r Record) Fault() string {
	for _, x := range [...]struct{ key, value string }{{"connections", r.Connections}, {"denies", r.Denies}} {
		switch x.value {
		case "", RecordAll, RecordLogged, RecordNone:
		default:
			return x.key + ": " + quote(x.value) + " is not one of all, logged, none"
		}
	}
	return ""
}

// record checks what a policy says of the record.
func (c *checker) record(at pointer, r *Record) {
	if r == nil {
		return
	}
	if *r == (Record{}) {
		c.addf(at, nil, "says nothing: give connections or denies, or leave it out")
	}
	c.oneOf(at.field("connections"), r.Connections, RecordAll, RecordLogged, RecordNone)
	c.oneOf(at.field("denies"), r.Denies, RecordAll, RecordLogged)
}
