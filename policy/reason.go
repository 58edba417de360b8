package policy

import "strings"

// Reason says in one word, in CamelCase, why a status has its phase. Programs may compare it; the message beside it is for people.
type Reason string

// Code is the reason as faults have it: MTU_EXCEEDED of MTUExceeded.
func (r Reason) Code() Code {
	upper := func(b byte) bool { return 'A' <= b && b <= 'Z' }
	var out []byte
	for i := range len(r) {
		// A word begins with a capital letter, and the last one of several.
		if i > 0 && upper(r[i]) && (!upper(r[i-1]) || i+1 < len(r) && !upper(r[i+1])) {
			out = append(out, '_')
		}
		out = append(out, r[i])
	}
	return Code(strings.ToUpper(string(out)))
}

// Reasons of all kinds.
const (
	ReasonNotSeen      Reason = "NotSeen"      // Pending: the host or the resource has not been looked at yet
	ReasonNotInstalled Reason = "NotInstalled" // Pending or Degraded: the flows of the newest revision are not on the switch
	ReasonUnknownKind  Reason = "UnknownKind"  // Failed: there is no status for the kind
)

// Reasons of policies.
const (
	ReasonNoEndpoints        Reason = "NoEndpoints"        // Pending: it selects nobody on the host, and a port may come
	ReasonNoOwnedBridge      Reason = "NoOwnedBridge"      // Degraded: tapwall owns no bridge of the host
	ReasonNotCompiled        Reason = "NotCompiled"        // Failed: rules could not be turned into flows
	ReasonRejected           Reason = "Rejected"           // Failed: the switch would not take its flows
	ReasonDisconnected       Reason = "Disconnected"       // Degraded: no OpenFlow connection to a bridge with its endpoints
	ReasonSilent             Reason = "Silent"             // Degraded: such a bridge does not answer
	ReasonBypassed           Reason = "Bypassed"           // Degraded: packets pass such a bridge without being judged
	ReasonRestoreWait        Reason = "RestoreWait"        // Degraded: the switch forwards nothing until its flows are restored
	ReasonFlowsMissing       Reason = "FlowsMissing"       // Degraded: the switch lost flows, or foreign ones are in their place
	ReasonScheduled          Reason = "Scheduled"          // Pending: its time has not come
	ReasonEndpointMACUnknown Reason = "EndpointMACUnknown" // Degraded: ingress of an endpoint cannot be enforced
)

// Reasons of quarantines.
const (
	ReasonExpired           Reason = "Expired"           // Stopped: its time is over; of policies, too
	ReasonPortNotConfigured Reason = "PortNotConfigured" // Degraded: the switch does not keep everything away from a port
)

// Reasons of Endpoint resources.
const (
	ReasonNoPort           Reason = "NoPort"           // Pending: no port matches, and there are no addresses to know it by
	ReasonElsewhere        Reason = "Elsewhere"        // Active: no port matches; its addresses are in force as a peer's
	ReasonNoDevice         Reason = "NoDevice"         // Degraded: the port that matches has no device
	ReasonMACContradiction Reason = "MACContradiction" // Degraded: it has another MAC than the port, so it does not apply
)

// Reasons of groups that take members from a file or URL.
const (
	ReasonListPending Reason = "ListPending" // Pending: the list has not been read yet
	ReasonListMissing Reason = "ListMissing" // Degraded: the list could not be read yet, so that nobody is in it
	ReasonListStale   Reason = "ListStale"   // Degraded: the list cannot be read now, and the last good one is in force
)

// Reasons of mirrors.
const (
	ReasonDisabled      Reason = "Disabled"      // Stopped: spec.enabled is false
	ReasonCompleted     Reason = "Completed"     // Stopped: what spec.stopAfter says has come
	ReasonNotWritten    Reason = "NotWritten"    // Pending: its rows are being written, or cannot be
	ReasonPending       Reason = "Pending"       // Pending: an old port of the same name goes first
	ReasonNotProgrammed Reason = "NotProgrammed" // Degraded: ovs-vswitchd reports no statistics for it
	// ReasonSourceMissing: some of the sources are not there or have no device or, where no endpoints are listed, none is there. Degraded.
	ReasonSourceMissing       Reason = "SourceMissing"
	ReasonSourceDown          Reason = "SourceDown"          // Degraded: a source passes nothing
	ReasonTargetMissing       Reason = "TargetMissing"       // Degraded: the target port does not exist, or has no device
	ReasonTargetDown          Reason = "TargetDown"          // Degraded: the target passes nothing
	ReasonTargetOnOtherBridge Reason = "TargetOnOtherBridge" // Degraded or Failed: some or all sources are on other bridges than the target
	ReasonSourceCarriesTarget Reason = "SourceCarriesTarget" // Failed: a source would see the copies
	ReasonOutputShared        Reason = "OutputShared"        // Failed: another mirror has the file, or the session with other fields
	ReasonOutputPortTaken     Reason = "OutputPortTaken"     // Failed: the target is a port that must not be used
	ReasonTargetAmbiguous     Reason = "TargetAmbiguous"     // Failed: the machine has several ports
	ReasonCapturePoint        Reason = "CapturePoint"        // Failed: what leaves a bridge cannot be told there
	ReasonPatchPort           Reason = "PatchPort"           // Degraded: what passes a patch port cannot be told from the rest
	ReasonMirrorLimit         Reason = "MirrorLimit"         // Failed: the bridge has as many mirrors as Open vSwitch runs
	ReasonInvalid             Reason = "Invalid"             // Failed: the rows contradict the schema of the database
	ReasonOwnAddress          Reason = "OwnAddress"          // Failed: a collector is the host itself, or everybody
	ReasonMTUExceeded         Reason = "MTUExceeded"         // Failed: sources have larger frames than the tunnel carries (mtuPolicy: fail)
	ReasonTargetUnresolved    Reason = "TargetUnresolved"    // Degraded: a collector cannot be reached
	ReasonTunnelUnsupported   Reason = "TunnelUnsupported"   // Failed: the switch has no tunnels of that type
	ReasonCaptureFailed       Reason = "CaptureFailed"       // Degraded: what a target gets cannot be read, or not be written
	ReasonNoLocalDevices      Reason = "NoLocalDevices"      // Failed: the target would be made on a host whose devices are out of reach
)
