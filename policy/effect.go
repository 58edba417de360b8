package policy

// Effect is what becomes of a new connection, by one rule, on one side or altogether: the action of a rule in documents, and what
// Evaluate and compiled rules decide. Its words are those of documents.
type Effect string

// The effects. Validate refuses Audit, which is no action: an endpoint in mode audit makes it of a Deny or Reject.
const (
	Allow  Effect = "allow"
	Deny   Effect = "deny"
	Reject Effect = "reject" // deny, and tell the sender
	Pass   Effect = "pass"   // leave it to the next tier
	Audit  Effect = "audit"  // let it pass, and record that it would have been denied
)

// Passes reports whether a connection goes on with this effect. Pass decides nothing, so it does not let anything pass by itself; neither
// does an effect that is none of the constants.
func (e Effect) Passes() bool { return e == Allow || e == Audit }

// Both is what becomes of a connection on whose sides these are the effects: what either denies is dropped in silence, what either rejects
// and neither denies is rejected.
func (e Effect) Both(o Effect) Effect {
	for _, x := range [...]Effect{Deny, Reject, Audit} {
		if e == x || o == x {
			return x
		}
	}
	return Allow
}

// precedence is the order among rules of one tier and priority: what denies decides before what allows, and both before what leaves the
// tier.
func (e Effect) precedence() int {
	switch e {
	case Deny:
		return 0
	case Reject:
		return 1
	case Audit:
		return 2
	case Allow:
		return 3
	case Pass:
		return 4
	}
	return -1 // refused by Validate
}
