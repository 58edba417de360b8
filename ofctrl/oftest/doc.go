// Package oftest has the two switches that tests of OpenFlow clients run against.
//
// [StartOVS] starts a real Open vSwitch of the test's own: ovsdb-server and ovs-vswitchd without privileges, on the dummy
// datapath, with every file in one short temporary directory, so that tests may run beside each other and beside the
// host's own switch. [Fake] is a small switch that speaks the protocol over any connection and misbehaves on request.
//
// Packages under test import oftest from their external test packages only.
package oftest
