// Package ovsdb talks to the Open_vSwitch database of one host (RFC 7047). Client keeps one connection with one monitor alive
// and publishes immutable snapshots of the topology; Client.Apply makes the rows that tapwall owns (Bridge, Port, Interface,
// Mirror, Flow_Table, Controller, Datapath, CT_Zone, CT_Timeout_Policy) equal to the wanted ones, in one transaction, and never
// touches a row of anybody else.
//
// The library below it, libovsdb, is used for framing, the schema, the monitor and its cache. Its reconnect and its inactivity
// check are not: a fresh library client is made for every connection, so no state of a lost connection survives into the next.
package ovsdb
