package main

import (
	"fmt"
	"testing"
)

func TestDifferences(t *testing.T) {
	a := parseDump(`OFPST_FLOW reply (OF1.3) (xid=0x2):
 cookie=0x1, table=0, priority=1 actions=drop
 cookie=0x2, table=206, priority=9,tcp,reg9=0x1 actions=load:0x1->NXM_NX_REG13[6..7],load:0x7->NXM_NX_REG12[]
 cookie=0x3, table=206, priority=8,reg9=0x1 actions=load:0x1->NXM_NX_REG13[6..7]
`)
	b := parseDump(` cookie=0x1, table=0, priority=1 actions=drop
 cookie=0x4, table=206, priority=9,tcp,reg9=0x1 actions=load:0x1->NXM_NX_REG13[6..7],load:0x7->NXM_NX_REG12[]
 cookie=0x3, table=206, priority=7,reg9=0x1 actions=load:0x1->NXM_NX_REG13[6..7]
`)
	if len(a) != 3 || differences(a, a) != 0 {
		t.Fatalf("%d flows, %d differences from itself: %v", len(a), differences(a, a), a)
	}
	// One was replaced in its place; one went and another one came.
	if n := differences(a, b); n != 3 {
		t.Errorf("%d differences, want 3", n)
	}
}

func TestParseMisses(t *testing.T) {
	n, err := parseMisses("main thread:\n  packets received: 8007\n  miss with success upcall: 4008\n  miss with failed upcall: 1\n" +
		"pmd thread:\n  miss with success upcall: 2\n")
	if n != 4010 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := parseMisses("main thread:\n"); err == nil {
		t.Error("no upcalls are no error")
	}
}

// The packets of a burst have a peer of even and a port of odd number, so that each occurs in rules and no rule takes them.
func TestFirstRulesNeverTakeABurst(t *testing.T) {
	seen := map[string]bool{}
	for i := range 10_000 {
		rule := firstRule(i)
		for _, from := range rule["from"].([]any) {
			var peer int
			if cidr, ok := from.(map[string]any)["cidr"]; ok {
				_, _ = fmt.Sscanf(cidr.(string), "10.9.0.%d/32", &peer)
			} else {
				_, _ = fmt.Sscan(from.(map[string]any)["labels"].(labels)["role"], &peer)
			}
			for _, port := range rule["services"].([]any)[0].(map[string]any)["ports"].([]string) {
				var p int
				_, _ = fmt.Sscan(port, &p)
				if peer%2 != p%2 {
					t.Fatalf("rule %d takes peer %d to port %d", i, peer, p)
				}
				seen[fmt.Sprintf("peer%d", peer)], seen[port] = true, true
			}
		}
	}
	for _, want := range []string{"peer0", "peer38", "peer1", "1000", "1001", "1099"} {
		if !seen[want] {
			t.Errorf("no rule has %s", want)
		}
	}
}

func TestFeedPrefixesDiffer(t *testing.T) {
	seen := map[any]bool{}
	for i := range feedSize + 2000 {
		seen[feedPrefix(i)["cidr"]] = true
	}
	if len(seen) != feedSize+2000 {
		t.Errorf("%d different ones", len(seen))
	}
}
