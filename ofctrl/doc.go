// Package ofctrl keeps the flow tables of Open vSwitch bridges as somebody else desires them.
//
// A [Switch] is one bridge: it connects for ever, reads back what is installed, and on [Switch.Apply] sends the difference
// between the desired and the installed flows in one atomic, ordered bundle. A [Conn] is one OpenFlow 1.3 connection below
// it: one ordered reader, one writer, every error tied to the request that caused it.
//
// The words are those of OVN: a desired flow is what an owner wants, an installed flow is what the switch was last known
// to hold; their identity is (table, priority, match). Owners are opaque strings. The package knows no policy: which
// flows are ours is told by a cookie under a mask, and flows with other cookies are never changed.
//
// Wire facts this package relies on were observed on Open vSwitch 3.1.0 and are stated at the lines that need them.
package ofctrl
