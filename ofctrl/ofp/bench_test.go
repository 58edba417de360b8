package ofp_test

import (
	"fmt"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

func typeName(m ofp.Message) string { return fmt.Sprintf("%T", m) }

// usual is a flow as the firewall has them by the thousand.
func usual() flow.Flow {
	return flow.Flow{Table: 210, Priority: 100, Cookie: 1,
		Match: match(term(flow.EthType, 0x800), term(flow.IPProto, 6), term(flow.Reg8, 5), masked(flow.IPSrc, 0x0a000000, 0xffffff00),
			term(flow.TCPDst, 80)),
		Actions: []flow.Action{
			flow.CT{Commit: true, Table: flow.NoTable, Zone: 5, Exec: []flow.Action{flow.Load{Dst: sub(flow.CtLabel, 32, 32), Value: 7}}},
			flow.Resubmit{Port: flow.PortInPort, Table: 220},
		}}
}

func TestNoAllocations(t *testing.T) {
	flows := append(golden(), usual())
	buf := make([]byte, 0, 4096)
	xid := uint32(0)
	for i := range flows {
		f := &flows[i]
		n := testing.AllocsPerRun(20, func() {
			xid++
			if _, err := ofp.AppendBundleFlowMod(buf, xid, 1, ofp.BundleAtomic, ofp.FlowAdd, f, ofp.FlowModOptions{}); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%v: %v allocations", f, n)
		}
		n = testing.AllocsPerRun(20, func() {
			_, err := ofp.AppendBundleAdd(buf, xid, 1, ofp.BundleAtomic, func(dst []byte, xid uint32) ([]byte, error) {
				return ofp.AppendFlowMod(dst, xid, ofp.FlowDeleteStrict, f, ofp.FlowModOptions{})
			})
			if err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("delete %v: %v allocations", f, n)
		}
	}
}

func TestDecodePacketInNoAllocations(t *testing.T) {
	p := &ofp.PacketIn{Match: make(flow.Match, 0, 16)}
	for _, s := range []string{
		"040a0000 00000007 ffffffff 0006 02 09 00000000000000aa 0001000c 80000004 00000003 00000000 0000 010203040506",
		"04040000 00000008 00002320 0000001e 0000 0007 aabbcc 00 0004 0010 00000000 00000000000000bb 0006 0014 80000004 00000003 00010204 " +
			"00000005 00000000 0007 000a 010203040506 000000000000",
	} {
		b := setLength(unhex(t, s))
		n := testing.AllocsPerRun(100, func() {
			if ok, err := ofp.DecodePacketIn(p, b); !ok || err != nil {
				t.Fatal(ok, err)
			}
		})
		if n != 0 {
			t.Errorf("%v allocations for %+v", n, p)
		}
	}
}

func BenchmarkAppendFlowMod(b *testing.B) {
	f := usual()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		out, err := ofp.AppendBundleFlowMod(buf, 1, 1, ofp.BundleAtomic, ofp.FlowAdd, &f, ofp.FlowModOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(out)))
	}
}

func BenchmarkDecodePacketIn(b *testing.B) {
	p := &ofp.PacketIn{}
	msg := setLength(append(unhex(b, "04040000 00000008 00002320 0000001e 0004 0010 00000000 00000000000000bb 0006 0014 80000004 00000003 "+
		"00010204 00000005 00000000 0000 0080"), make([]byte, 124)...))
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := ofp.DecodePacketIn(p, msg); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkDecodeFlowStats(b *testing.B) {
	f := usual()
	mod, err := ofp.AppendFlowMod(nil, 1, ofp.FlowAdd, &f, ofp.FlowModOptions{})
	if err != nil {
		b.Fatal(err)
	}
	entry := entrySize(append(unhex(b,
		"0000 03 00 00000001 00000002 0001 0000 0000 0000 00000000 0000000000000001 0000000000000002 0000000000000003"), mod[flowModBody:]...))
	msg := unhex(b, "04130000 00000001 0001 0000 00000000")
	const flows = 100
	for range flows {
		msg = append(msg, entry...)
	}
	setLength(msg)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		m, err := ofp.Decode(msg)
		if err != nil || len(m.(*ofp.FlowStatsReply).Flows) != flows {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/flows, "ns/flow")
}
