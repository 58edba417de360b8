package policy

import (
	"encoding/json"
	"reflect"
)

// RuleLog says what the record has of what a rule decides: nothing more than elsewhere (the zero value); every verdict, which documents
// write true; or, of rules that allow, what its other fields say, which documents write as a map.
type RuleLog struct {
	All bool `json:"-"`
	// Sample is "1/N": of one of N connections, drawn by a hash of addresses, protocol and ports, the beginning and all packets. The others
	// are not recorded, unless the rule of their other side says so.
	Sample string `json:"sample,omitempty"`
	// L7: of TCP connections also what the two sides say first, as far as it can be read: a TLS client's hello, a request and a response of
	// HTTP/1.
	L7 bool `json:"l7,omitempty"`
}

// OneOf is the number of connections of which the rule samples one; 0 = it samples none.
func (r *Rule) OneOf() int {
	if r.Log.Sample == "" {
		return 0
	}
	return oneOf(r.Log.Sample)
}

// ruleLogFields are written as a map.
type ruleLogFields RuleLog

// MarshalJSON writes true, false or a map.
func (l RuleLog) MarshalJSON() ([]byte, error) {
	if l == (RuleLog{All: l.All}) {
		return json.Marshal(l.All)
	}
	return json.Marshal(ruleLogFields(l))
}

// UnmarshalJSON takes true, false or a map.
func (l *RuleLog) UnmarshalJSON(b []byte) error {
	*l = RuleLog{}
	if len(b) > 0 && b[0] != '{' {
		return json.Unmarshal(b, &l.All)
	}
	return json.Unmarshal(b, (*ruleLogFields)(l))
}

// ruleLog reads what a document says.
func (w *walker) ruleLog(at pointer, v any, to *RuleLog) {
	switch v := v.(type) {
	case bool:
		to.All = v
	case object:
		if len(v.members) == 0 {
			w.addf(at, nil, `says nothing: give sample or l7, write true, or leave it out`)
		}
		w.structure(at, v, reflect.ValueOf(to).Elem())
	default:
		w.addf(at, plain(v), `must be true, false or a map such as {sample: "1/100"}, not %s`, describe(v))
	}
}

// ruleLog checks what a rule says of the record.
func (c *checker) ruleLog(at pointer, r *Rule) {
	if r.Log.Sample != "" {
		c.share(at.field("sample"), r.Log.Sample)
	}
	if r.Log != (RuleLog{All: r.Log.All}) && r.Action != Allow {
		c.addf(at, nil, "goes with action allow only, whose connections have packets to record; what a rule denies is recorded with log: true")
	}
}
