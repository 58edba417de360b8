// Package ovsdb talks to the Open_vSwitch database of one host (RFC 7047). Client keeps one connection with one monitor alive
// and publishes immutable snapshots of the topology; Client.Apply makes the rows that tapwall owns (Bridge, Port, Interface,
// Mirror, Flow_Table, Controller, Datapath, CT_Zone, CT_Timeout_Policy) equal to the wanted ones, in one transaction, and never
// touches a row of anybody else.
//
// The library below it, libovsdb, is used for the schema, the operations and the cache of rows. Its client is not: what a server says
// would be looked at on goroutines of the library, where any of the many panics that an odd answer causes ends the process, with all its
// other hosts. A fresh cache is made for every connection, so no state of a lost one survives into the next.
package ovsdb
