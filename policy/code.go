package policy

// Code is the sort of a fault, a warning or a consequence, in UPPER_SNAKE. Programs may compare it; the text beside it is for people.
type Code string

// Codes of faults that callers tell apart; most faults need none.
const (
	CodeSourceIsTarget Code = "SOURCE_IS_TARGET"  // a mirror would copy its own copies
	CodeUnknownRef     Code = "UNKNOWN_REFERENCE" // a name of a group or bridge that does not exist
	CodeGroupCycle     Code = "GROUP_CYCLE"       // a group that contains itself by way of others
	CodeNotSupported   Code = "NOT_SUPPORTED"     // known, but of a later version
	CodeSyntax         Code = "SYNTAX"            // the text is no YAML or JSON
	CodeTooLarge       Code = "TOO_LARGE"         // depth, number of keys or of values beyond the bounds of this package
)

// Codes of the warnings of this package.
const (
	WarnShadowed          Code = "SHADOWED"           // a rule that can never match
	WarnEndpointConflict  Code = "ENDPOINT_CONFLICT"  // two Endpoint resources match one port
	WarnEndpointAmbiguous Code = "ENDPOINT_AMBIGUOUS" // an Endpoint resource with a MAC or addresses matches several ports
	WarnDuplicateMAC      Code = "DUPLICATE_MAC"      // two endpoints with one MAC in one VLAN of a bridge
	WarnDuplicateIface    Code = "DUPLICATE_IFACE_ID" // two ports with one external_ids:iface-id
	WarnDuplicateAddress  Code = "DUPLICATE_ADDRESS"  // two endpoints with one address where they can meet
	WarnOneFamily         Code = "ONE_FAMILY"         // a rule that says of one IP version what it does not say of the other
	WarnNeverMatches      Code = "NEVER_MATCHES"      // a rule that meets no connection by its services, or of a filter, no packet
	WarnWider             Code = "WIDER"              // an allow that allows all that another one of its rank does
	WarnContradicts       Code = "CONTRADICTS"        // an allow and a deny of one rank that overlap
	WarnBadMAC            Code = "BAD_MAC"            // external_ids:attached-mac is not a unicast MAC
	WarnMACContradiction  Code = "MAC_CONTRADICTION"  // an Endpoint resource has another MAC than the port, so it does not apply
	WarnUnknownMAC        Code = "UNKNOWN_MAC"        // an endpoint sends under an address that it does not declare
	WarnAudit             Code = "AUDIT"              // a policy or an endpoint is in mode audit, so that something is not denied
)

// LintUnused is the code of a rule that nothing has used, which is no warning: rules for an emergency are like that.
const LintUnused Code = "UNUSED"

// OfWording reports whether a warning is about the wording of rules, and not about whom they meet.
func (c Code) OfWording() bool {
	switch c {
	case WarnShadowed, WarnNeverMatches, WarnWider, WarnContradicts, WarnOneFamily:
		return true
	}
	return false
}

// Codes of consequences.
const (
	ConsequenceIsolated Code = "DEFAULT_DENY"      // what no rule allows is denied from now on
	ConsequenceReleased Code = "NO_DEFAULT_DENY"   // the contrary
	ConsequenceOpened   Code = "OPEN_TO_EVERYBODY" // everybody may what not everybody could
)
