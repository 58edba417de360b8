// Package wall turns policies, groups and workloads into what a switch is to be told to enforce them: flows and meters, per owner.
//
// It is pure: no I/O, no clock, no randomness; equal inputs and assignments give equal flows, byte for byte, so a restart with
// nothing changed has nothing to send. The pipeline that the flows fill is declared in package ofctrl/pipeline.
//
// A [Firewall] is the firewall of one bridge. It is told what changed (SetWorkloads, SetGroups, SetPolicy, …) and answers, on
// Compile, with the flows of the owners that changed. Its cost follows the change and not the total. It also keeps the promise that
// revocation rests on: an allow keeps its id only while everything that it allowed before is still allowed by it; as soon as it may
// have lost something, it gets a new id, the gate of the old one disappears in the same bundle, and the connections it stands for
// are judged again.
package wall
