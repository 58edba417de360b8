package record_test

import (
	"context"
	"encoding/hex"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names knows the rules 1 to 3 and the endpoints 1 and 2. A fault is made of every event of rule 9.
var names = func() *record.Directory {
	var d record.Directory
	d.Publish((*record.Names)(nil).WithRules(map[uint32]*event.Rule{
		1: {ID: "web/egress/to-db", Name: "to-db", Ruleset: "web", Version: "12"},
		2: {ID: "db/ingress/from-web", Name: "from-web", Ruleset: "db", Version: "7"},
		3: {ID: "db/ingress/deny-all", Name: "deny-all", Ruleset: "db", Version: "7"},
	}).WithEndpoints(map[uint32]*event.Endpoint{
		1: {Name: "web1", PortName: "tap1", Labels: map[string]string{"app": "web"}},
		2: {Name: "db1", PortName: "tap2"},
	}))
	return &d
}()

// start runs a recorder until stop, or the end of the test.
func start(t testing.TB, o record.Options) (r *record.Recorder, stop func()) {
	t.Helper()
	r, err := record.NewRecorder(o)
	if err != nil {
		t.Fatal(err)
	}
	r.FailOn(9)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return r, stop
}

// settle waits until nothing is pending.
func settle(t testing.TB, r *record.Recorder) event.Counters {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		c := r.Counters()
		if c.Pending == 0 {
			return c
		}
		if time.Now().After(end) {
			t.Fatalf("still pending: %+v", c)
		}
		time.Sleep(time.Millisecond)
	}
}

// lost sums the stages before acceptance.
func lost(c event.Counters) int64 {
	var n int64
	for stage, x := range c.Lost {
		if event.Stage(stage).BeforeAcceptance() {
			n += x
		}
	}
	return n
}

func frame(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

var (
	web = netip.MustParseAddr("10.0.0.5")
	db  = netip.MustParseAddr("10.0.0.9")
	syn = frame("020000000009 020000000005 0800 45000028000100004006 0000 0a000005 0a000009 9cac 1538 00000001 00000000 5002 ffff 0000 0000")

	noon = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)
)

// newSYN is a first packet from web to db that rule ids decided: egress by the first, ingress by the second.
func newSYN(sides ...record.VerdictSide) record.PacketIn {
	return record.PacketIn{
		DatapathID: 0xaabbccddeeff, Data: syn, TotalLen: len(syn), Table: 209, Cookie: 0x7a00000000000003, InPort: 7, InPortName: "tap1",
		CtState: 0x21, CtZone: 11, CtNwProto: 6, CtSrc: web, CtDst: db, CtTpSrc: 40108, CtTpDst: 5432,
		Time: noon, Verdicts: sides, SrcEndpoint: 1, DstEndpoint: 2, Directory: names,
	}
}

var (
	egressAllow = record.VerdictSide{Direction: event.Egress, RuleID: 1}
	ingressOK   = record.VerdictSide{Direction: event.Ingress, RuleID: 2}
	ingressDrop = record.VerdictSide{Direction: event.Ingress, RuleID: 3, Drop: true}
)
