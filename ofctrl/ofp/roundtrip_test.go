package ofp_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

var cmpAddr = cmpopts.EquateComparable(netip.Addr{})

// flowModBody is the offset of the match in a flow-mod.
const flowModBody = 48

// decodeFlowMod is what a switch makes of match and instructions of a flow-mod.
func decodeFlowMod(t *testing.T, b []byte) (flow.Match, []flow.Action) {
	t.Helper()
	m, n, err := ofp.DecodeMatch(b[flowModBody:])
	if err != nil {
		t.Fatal(err)
	}
	as, err := ofp.DecodeInstructions(b[flowModBody+n:])
	if err != nil {
		t.Fatal(err)
	}
	return m, as
}

func TestFlowModRoundTrip(t *testing.T) {
	seen := map[flow.FieldID]bool{}
	fs := golden()
	for _, ms := range [][]flow.Match{internalMatches(), reworded(), erspan()} {
		for _, m := range ms {
			fs = append(fs, flow.Flow{Match: m})
		}
	}
	for _, f := range fs {
		b, err := ofp.AppendFlowMod(nil, 7, ofp.FlowAdd, &f, ofp.FlowModOptions{})
		if err != nil {
			t.Errorf("%s: %v", label(f), err)
			continue
		}
		h, err := ofp.ParseHeader(b)
		if err != nil || h != (ofp.Header{Version: ofp.Version13, Type: ofp.TypeFlowMod, Length: uint16(len(b)), XID: 7}) {
			t.Errorf("%s: header %+v, %v for %d bytes", label(f), h, err, len(b))
		}
		if len(b)%8 != 0 {
			t.Errorf("%s: %d bytes", label(f), len(b))
		}
		m, as := decodeFlowMod(t, b)
		if diff := cmp.Diff(f.Match, m); diff != "" {
			t.Errorf("match %v (-want +got)\n%s", f.Match, diff)
		}
		if diff := cmp.Diff(f.Actions, as, cmpAddr); diff != "" {
			t.Errorf("actions %v (-want +got)\n%s", f.Actions, diff)
		}
		for _, x := range f.Match {
			seen[x.Field] = true
		}
	}
	for f := flow.FieldID(1); f.Valid(); f++ {
		if !seen[f] {
			t.Errorf("no flow of the table matches on %v", f)
		}
	}
}

// Every field must survive at every width of sub-field, since registers are cut in many ways.
func TestFieldWidths(t *testing.T) {
	for f := flow.FieldID(1); f.Valid(); f++ {
		w := uint16(f.SubBits())
		for ofs := range w {
			s := flow.SubField{Field: f, Ofs: ofs, Bits: w - ofs}
			want := []flow.Action{flow.Move{Src: s, Dst: s}, flow.Push{Src: s}, flow.Pop{Dst: s}}
			if s.Bits <= 64 {
				want = append(want, flow.OutputReg{Src: s, MaxLen: 11})
				if f < flow.TunERSPANVer || f > flow.TunERSPANHWID && f != flow.ActsetOutput {
					want = append(want, flow.Load{Dst: s, Value: ^uint64(0) >> (64 - s.Bits)})
				}
			}
			b, err := ofp.AppendActions(nil, want)
			if err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			got, err := ofp.DecodeActions(b)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Fatalf("%v: %v (-want +got)\n%s", s, err, diff)
			}
		}
		for _, s := range []flow.SubField{{Field: f, Bits: w + 1}, {Field: f, Ofs: 1, Bits: w}, {Field: f, Ofs: w}} {
			if _, err := ofp.AppendActions(nil, []flow.Action{flow.Push{Src: s}}); !errors.Is(err, ofp.ErrValue) {
				t.Errorf("push of %d bits at %d of %v: error %v", s.Bits, s.Ofs, f, err)
			}
		}
	}
}

func TestBadValues(t *testing.T) {
	reg := sub(flow.Reg0, 0, 32)
	exec := func(c flow.CT) flow.CT { c.Table = flow.NoTable; return c }
	addr := netip.MustParseAddr
	nat := func(n flow.NAT) flow.Action { return exec(flow.CT{Commit: true, NAT: &n}) }
	var deep flow.Action = flow.DecTTL{}
	for range 40 {
		deep = flow.Clone{Actions: []flow.Action{deep}}
	}
	for _, tt := range []struct {
		name string
		f    flow.Flow
		opt  ofp.FlowModOptions
		want error
	}{
		{name: "value outside the mask", f: flow.Flow{Match: flow.Match{{Field: flow.Reg0, Value: flow.U64(3), Mask: flow.U64(1)}}},
			want: ofp.ErrValue},
		{name: "value outside the field", f: flow.Flow{Match: flow.Match{{Field: flow.CtZone, Value: flow.U64(0x10000), Mask: flow.Ones(17)}}},
			want: ofp.ErrValue},
		{name: "empty mask", f: flow.Flow{Match: flow.Match{{Field: flow.Reg0}}}, want: ofp.ErrValue},
		{name: "unknown field", f: flow.Flow{Match: flow.Match{{Field: 250, Value: flow.U64(1), Mask: flow.U64(1)}}}, want: ofp.ErrUnsupported},
		{name: "importance", f: flow.Flow{Importance: 1}, want: ofp.ErrValue},
		{name: "add in all tables", opt: ofp.FlowModOptions{AllTables: true}, want: ofp.ErrValue},
		{name: "meter after actions", f: flow.Flow{Actions: []flow.Action{flow.DecTTL{}, flow.Meter{ID: 1}}}, want: ofp.ErrValue},
		{name: "actions after goto_table", f: flow.Flow{Actions: []flow.Action{flow.GotoTable{Table: 1}, flow.DecTTL{}}}, want: ofp.ErrValue},
		{name: "two goto_table", f: flow.Flow{Actions: []flow.Action{flow.GotoTable{Table: 1}, flow.GotoTable{Table: 2}}}, want: ofp.ErrValue},
		{name: "instruction in an action list",
			f: flow.Flow{Actions: []flow.Action{flow.Clone{Actions: []flow.Action{flow.GotoTable{Table: 1}}}}}, want: ofp.ErrValue},
		{name: "metadata outside the mask", f: flow.Flow{Actions: []flow.Action{flow.WriteMetadata{Value: 2, Mask: 1}}}, want: ofp.ErrValue},
		{name: "load too wide", f: flow.Flow{Actions: []flow.Action{flow.Load{Dst: sub(flow.Reg0, 0, 4), Value: 16}}}, want: ofp.ErrValue},
		{name: "load over 64 bits", f: flow.Flow{Actions: []flow.Action{flow.Load{Dst: sub(flow.CtLabel, 0, 65)}}}, want: ofp.ErrValue},
		{name: "move of two widths", f: flow.Flow{Actions: []flow.Action{flow.Move{Src: reg, Dst: sub(flow.Reg1, 0, 31)}}}, want: ofp.ErrValue},
		{name: "set_field outside the mask", f: flow.Flow{Actions: []flow.Action{flow.SetField{Field: flow.Reg0, Value: flow.U64(2),
			Mask: flow.U64(1)}}}, want: ofp.ErrValue},
		{name: "set_field of nothing", f: flow.Flow{Actions: []flow.Action{flow.SetField{Field: flow.Reg0}}}, want: ofp.ErrValue},
		{name: "conjunction clause 0", f: flow.Flow{Actions: []flow.Action{flow.Conjunction{ID: 1, Clause: 0, N: 2}}}, want: ofp.ErrValue},
		{name: "conjunction clause 3 of 2", f: flow.Flow{Actions: []flow.Action{flow.Conjunction{ID: 1, Clause: 3, N: 2}}}, want: ofp.ErrValue},
		{name: "conjunction of 65", f: flow.Flow{Actions: []flow.Action{flow.Conjunction{ID: 1, Clause: 3, N: 65}}}, want: ofp.ErrValue},
		{name: "resubmit to a port over 16 bits", f: flow.Flow{Actions: []flow.Action{flow.Resubmit{Port: 70000}}}, want: ofp.ErrValue},
		{name: "truncated output to a port over 16 bits", f: flow.Flow{Actions: []flow.Action{flow.OutputTrunc{Port: 0xff01, MaxLen: 1}}},
			want: ofp.ErrValue},
		{name: "sample with probability 0", f: flow.Flow{Actions: []flow.Action{flow.Sample{SamplingPort: flow.PortAny}}}, want: ofp.ErrValue},
		{name: "check_pkt_larger into two bits", f: flow.Flow{Actions: []flow.Action{flow.CheckPktLarger{Dst: sub(flow.Reg0, 0, 2)}}},
			want: ofp.ErrValue},
		{name: "multipath over 65536 links", f: flow.Flow{Actions: []flow.Action{flow.Multipath{Links: 65537, Dst: reg}}}, want: ofp.ErrValue},
		{name: "multipath into no link", f: flow.Flow{Actions: []flow.Action{flow.Multipath{Dst: reg}}}, want: ofp.ErrValue},
		{name: "multipath into 65 bits", f: flow.Flow{Actions: []flow.Action{flow.Multipath{Links: 1, Dst: sub(flow.XXReg0, 0, 65)}}},
			want: ofp.ErrValue},
		{name: "ct force without commit", f: flow.Flow{Actions: []flow.Action{exec(flow.CT{Force: true})}}, want: ofp.ErrValue},
		{name: "ct zone twice", f: flow.Flow{Actions: []flow.Action{exec(flow.CT{Zone: 1, ZoneSrc: sub(flow.Reg0, 0, 16)})}}, want: ofp.ErrValue},
		{name: "ct zone of 15 bits", f: flow.Flow{Actions: []flow.Action{exec(flow.CT{ZoneSrc: sub(flow.Reg0, 0, 15)})}}, want: ofp.ErrValue},
		{name: "ct exec on a register",
			f: flow.Flow{Actions: []flow.Action{exec(flow.CT{Commit: true, Exec: []flow.Action{set(flow.Reg0, 1)}})}}, want: ofp.ErrValue},
		{name: "ct exec without commit", f: flow.Flow{Actions: []flow.Action{exec(flow.CT{Exec: []flow.Action{set(flow.CtMark, 1)}})}},
			want: ofp.ErrValue},
		{name: "ct exec of an output",
			f: flow.Flow{Actions: []flow.Action{exec(flow.CT{Commit: true, Exec: []flow.Action{flow.Output{Port: 1}}})}}, want: ofp.ErrValue},
		{name: "nat src and dst", f: flow.Flow{Actions: []flow.Action{nat(flow.NAT{Src: true, Dst: true})}}, want: ofp.ErrValue},
		{name: "nat address without a side", f: flow.Flow{Actions: []flow.Action{nat(flow.NAT{AddrMin: addr("1.2.3.4")})}}, want: ofp.ErrValue},
		{name: "nat port without an address", f: flow.Flow{Actions: []flow.Action{nat(flow.NAT{Src: true, PortMin: 1})}}, want: ofp.ErrValue},
		{name: "nat of two families", f: flow.Flow{Actions: []flow.Action{nat(flow.NAT{Src: true, AddrMin: addr("1.2.3.4"),
			AddrMax: addr("::1")})}}, want: ofp.ErrValue},
		{name: "nat range upside down", f: flow.Flow{Actions: []flow.Action{nat(flow.NAT{Src: true, AddrMin: addr("1.2.3.4"),
			AddrMax: addr("1.2.3.3")})}}, want: ofp.ErrValue},
		{name: "nat ports upside down", f: flow.Flow{Actions: []flow.Action{nat(flow.NAT{Src: true, AddrMin: addr("1.2.3.4"), PortMin: 5,
			PortMax: 4})}}, want: ofp.ErrValue},
		{name: "nested too deep", f: flow.Flow{Actions: []flow.Action{deep}}, want: ofp.ErrValue},
		{name: "action over 65,535 bytes", f: flow.Flow{Actions: []flow.Action{flow.Note{Data: strings.Repeat("x", 65536)}}},
			want: ofp.ErrLength},
		{name: "message over 65,535 bytes", f: flow.Flow{Actions: []flow.Action{flow.Note{Data: strings.Repeat("x", 65500)}}},
			want: ofp.ErrLength},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := []byte("before")
			b, err := ofp.AppendFlowMod(before, 1, ofp.FlowAdd, &tt.f, tt.opt)
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if string(b) != "before" {
				t.Errorf("a failed encoder left %d bytes", len(b)-len(before))
			}
		})
	}
}

// Deletes must not carry actions, and name out_port and out_group each in its own place.
func TestFlowDelete(t *testing.T) {
	f := flow.Flow{Table: 3, Cookie: 0xc00c1e, Priority: 9, Match: match(term(flow.InPort, 1)), Actions: []flow.Action{flow.Output{Port: 1}}}
	opt := ofp.FlowModOptions{CookieMask: ^uint64(0), OutPort: 0x01020304, OutGroup: 0x05060708}
	b, err := ofp.AppendFlowMod(nil, 1, ofp.FlowDeleteStrict, &f, opt)
	if err != nil {
		t.Fatal(err)
	}
	if m, as := decodeFlowMod(t, b); as != nil || m.String() != "in_port=1" {
		t.Errorf("match %v actions %v", m, as)
	}
	want := "" +
		"040e0040" + "00000001" + "0000000000c00c1e" + "ffffffffffffffff" + "03" + "04" + "0000" + "0000" + "0009" +
		"ffffffff" + "01020304" + "05060708" + "0000" + "0000" + "0001000c80000004" + "00000001" + "00000000"
	if diff := cmp.Diff(want, hexOf(b)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	f = flow.Flow{}
	if b, err = ofp.AppendFlowMod(nil, 1, ofp.FlowDelete, &f, ofp.FlowModOptions{AllTables: true}); err != nil {
		t.Fatal(err)
	}
	want = "040e0038" + "00000001" + "0000000000000000" + "0000000000000000" + "ff" + "03" + "0000" + "0000" + "0000" +
		"ffffffff" + "ffffffff" + "ffffffff" + "0000" + "0000" + "0001000400000000"
	if diff := cmp.Diff(want, hexOf(b)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
