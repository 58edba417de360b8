// Package ofp is the wire codec of OpenFlow 1.3 with the Nicira and ONF extensions that Open vSwitch speaks.
//
// Encoders are named Append…: they append one whole message to a byte slice, allocate nothing if it has room, and return
// it unchanged with an error matching [ErrValue] or [ErrLength] if the message cannot be said. [Decode] turns one
// message of a switch into a value; it never panics, whatever the bytes, and every length in them is checked. Byte
// slices in decoded messages alias the decoded buffer, as their types say; everything else is copied.
//
// The package does no I/O, keeps no state and logs nothing, so all of it may be used from any goroutine. Section numbers
// (§) are those of the OpenFlow Switch Specification 1.3.5.
package ofp
