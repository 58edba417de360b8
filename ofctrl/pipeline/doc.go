// Package pipeline declares tapwall's OpenFlow pipeline once, as values: table numbers, register and conntrack fields, conntrack
// zones, cookies, ids, meters and the flows that do not depend on any policy.
//
// It knows OpenFlow and no policy: endpoints and rules are numbers here. Package policy/compile/wall fills the tables; docs/pipeline.md is
// generated from the declarations by
//
//	go test ./policy/compile/wall -run Document -update
//
// and the same test without -update holds document and code together. A packet's way through the tables is drawn there.
//
// All values are constants or are treated as such: nothing of this package is changed after start, so it may be used from any
// goroutine.
package pipeline
