package ofp_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// frame is a TCP segment from 10.0.0.1 to 10.0.0.2.
const frame = "0200000000020200000000010800" + "4500002800010000400666cd0a0000010a000002" + "303900500000000100000000500220009aab0000"

func TestSession(t *testing.T) {
	o, c := bridge(t)
	o.AddPort("br0", "p1", 1)

	features, ok := c.ask(ofp.AppendFeaturesRequest(nil, c.next()), nil).(*ofp.FeaturesReply)
	if !ok || features.Tables != 254 || features.DatapathID == 0 {
		t.Errorf("features %+v", features)
	}
	c.must(ofp.AppendSetConfig(nil, c.next(), 0, 0xffff), nil)
	config, ok := c.ask(ofp.AppendGetConfigRequest(nil, c.next()), nil).(*ofp.ConfigReply)
	if !ok || config.MissSendLen != 0xffff {
		t.Errorf("config %+v", config)
	}
	echo, ok := c.ask(ofp.AppendEchoRequest(nil, c.next(), []byte("ping"))).(*ofp.EchoReply)
	if !ok || string(echo.Data) != "ping" {
		t.Errorf("echo %+v", echo)
	}
	role, ok := c.ask(ofp.AppendRoleRequest(nil, c.next(), ofp.RolePrimary, 77), nil).(*ofp.RoleReply)
	if !ok || role.Role != ofp.RolePrimary || role.GenerationID != 77 {
		t.Errorf("role %+v", role)
	}
	stale, ok := c.ask(ofp.AppendRoleRequest(nil, c.next(), ofp.RolePrimary, 76), nil).(*ofp.Error)
	if !ok || stale.Code.String() != "OFPRRFC_STALE" {
		t.Errorf("stale role %+v", stale)
	}
	c.must(ofp.AppendSetAsync(nil, c.next(), ofp.AsyncConfig{PacketIn: [2]uint32{7, 0}, PortStatus: [2]uint32{7, 7},
		FlowRemoved: [2]uint32{15, 0}}), nil)
	c.must(ofp.AppendSetAsync2(nil, c.next(), ofp.AsyncConfig{PacketIn: [2]uint32{7, 1}, PortStatus: [2]uint32{7, 3},
		FlowRemoved: [2]uint32{15, 2}}), nil)
	async, ok := c.ask(unhex(t, "041a00080000eeee"), nil).(*ofp.Unknown) // OFPT_GET_ASYNC_REQUEST
	// Masks for us as primary or equal come first and for a secondary second, in 1.3 only of its own reasons.
	want := "00000007" + "00000001" + "00000007" + "00000003" + "0000000f" + "00000002"
	if !ok || async.Type != ofp.TypeGetAsyncReply || hexOf(async.Body) != want {
		t.Errorf("async config %+v", async)
	}

	o.AddPort("br0", "p2", 2)
	added := wait(c, func(m *ofp.PortStatus) bool { return m.Reason == ofp.PortAdded })
	if added.Port.No != 2 || added.Port.Name != "p2" {
		t.Errorf("port status %+v", added)
	}
	desc, ok := c.ask(ofp.AppendPortDescRequest(nil, c.next()), nil).(*ofp.PortDescReply)
	if !ok || len(desc.Ports) != 3 || desc.Ports[0].Name == "" {
		t.Fatalf("ports %+v", desc)
	}
	mod := &ofp.PortMod{No: 2, HWAddr: added.Port.HWAddr, Config: ofp.PortConfigDown, Mask: ofp.PortConfigDown}
	c.must(ofp.AppendPortMod(nil, c.next(), mod), nil)
	down := wait(c, func(m *ofp.PortStatus) bool {
		return m.Reason == ofp.PortModified && m.Port.Config&ofp.PortConfigDown != 0
	})
	if down.Port.No != 2 {
		t.Errorf("port status %+v", down)
	}

	expiring := flow.Flow{Table: 9, Priority: 5, Cookie: 0xdead, Flags: flow.SendFlowRem, IdleTimeout: 100,
		Match: match(term(flow.InPort, 3), term(flow.Reg8, 4))}
	c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &expiring, ofp.FlowModOptions{}))
	c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowDeleteStrict, &expiring, ofp.FlowModOptions{}))
	removed := wait(c, func(*ofp.FlowRemoved) bool { return true })
	got, wantFlow := removed.Flow.Flow, expiring
	wantFlow.Flags = 0
	if !got.Equal(wantFlow) || removed.Reason != ofp.RemovedDelete || removed.Err != nil {
		t.Errorf("removed %+v, want %v", removed, expiring)
	}
}

func TestStatistics(t *testing.T) {
	o, c := bridge(t)
	o.AddPort("br0", "p1", 1)
	o.AddPort("br0", "p2", 2)
	f := flow.Flow{Priority: 1, Cookie: 0x700, Match: match(term(flow.InPort, 1)), Actions: []flow.Action{flow.Meter{ID: 1},
		flow.Group{ID: 1}, flow.Output{Port: 2}}}
	other := flow.Flow{Table: 4, Cookie: 0x800, Match: match(term(flow.InPort, 2)), Actions: []flow.Action{flow.Group{ID: 1}}}
	for _, f := range []flow.Flow{f, other} {
		c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &f, ofp.FlowModOptions{}))
	}
	for range 5 {
		o.InjectPacket("p1", unhex(t, frame))
	}
	o.Appctl("revalidator/wait")

	d, ok := c.ask(ofp.AppendDescRequest(nil, c.next()), nil).(*ofp.DescReply)
	if !ok || d.Manufacturer != "Nicira, Inc." || d.Hardware != "Open vSwitch" || d.Software == "" {
		t.Errorf("desc %+v", d)
	}
	for _, tt := range []struct {
		name   string
		filter ofp.FlowFilter
		flows  uint32
	}{
		{"all", ofp.FlowFilter{Table: ofp.AllTables}, 2},
		{"table 0", ofp.FlowFilter{}, 1},
		{"out_port", ofp.FlowFilter{Table: ofp.AllTables, OutPort: 2}, 1},
		{"out_port elsewhere", ofp.FlowFilter{Table: ofp.AllTables, OutPort: 3}, 0},
		{"out_group", ofp.FlowFilter{Table: ofp.AllTables, OutGroup: 1}, 2},
		{"cookie", ofp.FlowFilter{Table: ofp.AllTables, Cookie: 0x800, CookieMask: 0xf00}, 1},
		{"match", ofp.FlowFilter{Table: ofp.AllTables, Match: match(term(flow.InPort, 1))}, 1},
	} {
		a, ok := c.ask(ofp.AppendAggregateRequest(nil, c.next(), tt.filter)).(*ofp.AggregateReply)
		if !ok || a.Flows != tt.flows {
			t.Errorf("%s: %+v, want %d flows", tt.name, a, tt.flows)
		}
		r, ok := c.ask(ofp.AppendFlowStatsRequest(nil, c.next(), tt.filter)).(*ofp.FlowStatsReply)
		if !ok || uint32(len(r.Flows)) != tt.flows {
			t.Errorf("%s: %+v, want %d flows", tt.name, r, tt.flows)
		}
	}
	a, _ := c.ask(ofp.AppendAggregateRequest(nil, c.next(), ofp.FlowFilter{})).(*ofp.AggregateReply)
	size := uint64(len(frame) / 2)
	if a == nil || a.Packets != 5 || a.Bytes < 5*size {
		t.Errorf("aggregate %+v, want 5 packets of %d bytes", a, size)
	}
	for _, s := range dump(c) {
		if s.Cookie == f.Cookie && (s.Stats.Packets != 5 || s.Stats.DurationSec == 0 && s.Stats.DurationNsec == 0) {
			t.Errorf("flow stats %+v", s)
		}
	}

	ts, ok := c.ask(ofp.AppendTableStatsRequest(nil, c.next()), nil).(*ofp.TableStatsReply)
	if !ok || len(ts.Tables) != 254 || ts.Tables[0].Active != 1 || ts.Tables[4].ID != 4 || ts.Tables[4].Active != 1 ||
		ts.Tables[0].Matched < 5 || ts.Tables[0].Lookups < 5 {
		t.Errorf("table stats: %d tables, %+v", len(ts.Tables), ts.Tables[:5])
	}
	ps, ok := c.ask(ofp.AppendPortStatsRequest(nil, c.next(), 1), nil).(*ofp.PortStatsReply)
	if !ok || len(ps.Ports) != 1 || ps.Ports[0].No != 1 || ps.Ports[0].RxPackets != 5 || ps.Ports[0].RxBytes < 5*size {
		t.Errorf("port stats %+v", ps)
	}
	ps, ok = c.ask(ofp.AppendPortStatsRequest(nil, c.next(), flow.PortAny), nil).(*ofp.PortStatsReply)
	if !ok || len(ps.Ports) != 3 {
		t.Errorf("port stats %+v", ps)
	}

	group := flow.GroupDesc{ID: 5, Type: flow.GroupSelect, Buckets: []flow.Bucket{
		{Weight: 3, WatchPort: flow.PortAny, WatchGroup: flow.NoGroup, Actions: []flow.Action{flow.Output{Port: 1}, set(flow.Reg1, 9)}},
		{Weight: 4, WatchPort: flow.PortAny, WatchGroup: flow.NoGroup, Actions: []flow.Action{flow.Output{Port: 2}}},
	}}
	ff := flow.GroupDesc{ID: 6, Type: flow.GroupFastFailover, Buckets: []flow.Bucket{{WatchPort: 1, WatchGroup: flow.NoGroup,
		Actions: []flow.Action{flow.Output{Port: 1}}}, {WatchPort: flow.PortAny, WatchGroup: 1}}}
	for _, g := range []flow.GroupDesc{group, ff} {
		c.must(ofp.AppendGroupMod(nil, c.next(), ofp.GroupAdd, &g))
	}
	ff.Buckets = ff.Buckets[:1]
	c.must(ofp.AppendGroupMod(nil, c.next(), ofp.GroupModify, &ff))
	gd, ok := c.ask(ofp.AppendGroupDescRequest(nil, c.next()), nil).(*ofp.GroupDescReply)
	if !ok {
		t.Fatalf("group desc %+v", gd)
	}
	gotGroups := map[uint32]flow.GroupDesc{}
	for _, g := range gd.Groups {
		if g.Err != nil {
			t.Error(g.Err)
		}
		gotGroups[g.ID] = g.GroupDesc
	}
	wantGroups := map[uint32]flow.GroupDesc{1: {ID: 1, Buckets: []flow.Bucket{{WatchPort: flow.PortAny, WatchGroup: flow.NoGroup,
		Actions: []flow.Action{flow.Output{Port: 1}}}}}, 5: group, 6: ff}
	if diff := cmp.Diff(wantGroups, gotGroups); diff != "" {
		t.Errorf("groups (-want +got)\n%s", diff)
	}
	gs, ok := c.ask(ofp.AppendGroupStatsRequest(nil, c.next(), ofp.AllGroups), nil).(*ofp.GroupStatsReply)
	if !ok || len(gs.Groups) != 3 {
		t.Fatalf("group stats %+v", gs)
	}
	for _, g := range gs.Groups {
		if g.ID == 1 && (g.Packets != 5 || g.References != 2 || len(g.Buckets) != 1 || g.Buckets[0].Packets != 5 || g.Bytes < 5*size) {
			t.Errorf("group stats %+v", g)
		}
		if n := len(gotGroups[g.ID].Buckets); len(g.Buckets) != n {
			t.Errorf("%d buckets of %d in %+v", len(g.Buckets), n, g)
		}
	}
	c.must(ofp.AppendGroupMod(nil, c.next(), ofp.GroupDelete, &group))
	if gd, ok = c.ask(ofp.AppendGroupDescRequest(nil, c.next()), nil).(*ofp.GroupDescReply); !ok || len(gd.Groups) != 2 {
		t.Errorf("after the delete %+v", gd)
	}

	meter := ofp.Meter{ID: 8, Flags: flow.MeterKbps | flow.MeterBurst | flow.MeterStats, Bands: []ofp.MeterBand{{Type: flow.BandDrop,
		Rate: 1234, Burst: 5678}}}
	c.must(ofp.AppendMeterMod(nil, c.next(), ofp.MeterAdd, &meter))
	mc, ok := c.ask(ofp.AppendMeterConfigRequest(nil, c.next(), 8), nil).(*ofp.MeterConfigReply)
	if !ok || !cmp.Equal(mc.Meters, []ofp.Meter{meter}) {
		t.Errorf("meter config %+v", mc)
	}
	ms, ok := c.ask(ofp.AppendMeterStatsRequest(nil, c.next(), 1), nil).(*ofp.MeterStatsReply)
	if !ok || len(ms.Meters) != 1 || ms.Meters[0].ID != 1 || ms.Meters[0].Packets != 5 || len(ms.Meters[0].Bands) != 1 {
		t.Errorf("meter stats %+v", ms)
	}
	c.must(ofp.AppendMeterMod(nil, c.next(), ofp.MeterDelete, &meter))
	unknown, ok := c.ask(ofp.AppendMeterConfigRequest(nil, c.next(), 8), nil).(*ofp.Error)
	if !ok || !errors.Is(unknown, ofp.UnknownMeter) {
		t.Errorf("deleted meter: %+v", unknown)
	}
	mf, ok := c.ask(ofp.AppendMeterFeaturesRequest(nil, c.next()), nil).(*ofp.MeterFeaturesReply)
	if !ok || mf.MaxMeters == 0 || mf.BandTypes&(1<<flow.BandDrop) == 0 || mf.MaxBands == 0 {
		t.Errorf("meter features %+v", mf)
	}
}

func TestPacketIns(t *testing.T) {
	o, c := bridge(t)
	o.AddPort("br0", "p1", 1)
	c.must(ofp.AppendSetConfig(nil, c.next(), 0, 0xffff), nil)
	want := unhex(t, frame)
	userdata := "0123456789abc"
	fs := []flow.Flow{
		{Cookie: 0x11, Match: match(term(flow.InPort, 1)), Actions: []flow.Action{
			set(flow.Reg9, 0x99), set(flow.Metadata, 0x77), flow.Output{Port: flow.PortController, MaxLen: 0xffff},
		}},
		{Cookie: 0x12, Match: match(term(flow.InPort, 1)), Actions: []flow.Action{
			set(flow.Reg9, 0x9a), flow.SetField(wide(flow.XXReg3, 5, 6)), set(flow.TunID, 0x33),
			flow.Controller{MaxLen: 0xffff, Reason: uint8(ofp.ReasonNoMatch), UserData: userdata, Pause: true, MeterID: 1}, set(flow.Reg1, 1),
			flow.Output{Port: flow.PortInPort},
		}},
		{Cookie: 0x13, Match: match(term(flow.InPort, 1)), Actions: []flow.Action{flow.Controller{MaxLen: 0xffff, ID: 42,
			Reason: uint8(ofp.ReasonAction)}}},
		{Cookie: 0x14, Match: match(term(flow.InPort, uint64(flow.PortLocal))), Actions: []flow.Action{flow.Controller{MaxLen: 0xffff,
			Reason: uint8(ofp.ReasonInvalidTTL)}}},
	}
	// deliver makes the packet meet flow i alone and returns what came of it.
	deliver := func(i int) *ofp.PacketIn {
		t.Helper()
		c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowDelete, &flow.Flow{}, ofp.FlowModOptions{AllTables: true}))
		c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &fs[i], ofp.FlowModOptions{}))
		if i == 3 {
			out := &ofp.PacketOut{InPort: flow.PortLocal, Actions: []flow.Action{flow.Output{Port: flow.PortTable}}, Data: want}
			c.must(ofp.AppendPacketOut(nil, c.next(), out))
		} else {
			o.Appctl("revalidator/wait") // or the datapath takes the packet by the flow before
			o.InjectPacket("p1", want)
		}
		return wait(c, func(*ofp.PacketIn) bool { return true })
	}

	p := deliver(0)
	if p.Extended || p.Cookie != 0x11 || p.Reason != ofp.ReasonAction || p.TotalLen < uint32(len(want)) || !bytes.HasPrefix(p.Data, want) ||
		p.Continuation != nil {
		t.Errorf("packet-in %+v", p)
	}
	if s := p.Match.String(); s != "reg9=0x99,metadata=0x77,in_port=1" {
		t.Errorf("pipeline fields %s", s)
	}
	c.must(ofp.AppendSetPacketInFormat(nil, c.next(), ofp.FormatNXM2), nil)
	p = deliver(1)
	if !p.Extended || p.Cookie != 0x12 || p.Reason != ofp.ReasonNoMatch || !bytes.HasPrefix(p.Data, want) ||
		string(p.UserData) != userdata || len(p.Continuation) == 0 || p.UnknownFields != 0 {
		t.Errorf("packet-in %+v", p)
	}
	if v, ok := p.Match.Get(flow.Reg9); !ok || v.Value.Lo != 0x9a {
		t.Errorf("pipeline fields %v", p.Match)
	}
	if v, ok := p.Match.Get(flow.TunID); !ok || v.Value.Lo != 0x33 {
		t.Errorf("pipeline fields %v", p.Match)
	}
	tx := func() uint64 {
		t.Helper()
		s, ok := c.ask(ofp.AppendPortStatsRequest(nil, c.next(), 1), nil).(*ofp.PortStatsReply)
		if !ok || len(s.Ports) != 1 {
			t.Fatalf("port stats %+v", s)
		}
		return s.Ports[0].TxPackets
	}
	before := tx()
	c.must(ofp.AppendResume(nil, c.next(), p))
	if n := tx() - before; n != 1 {
		t.Errorf("%d packets sent after the resume", n)
	}
	if _, err := ofp.AppendResume(nil, 1, &ofp.PacketIn{}); !errors.Is(err, ofp.ErrValue) {
		t.Errorf("resume without a continuation: %v", err)
	}

	c.must(ofp.AppendSetControllerID(nil, c.next(), 42), nil)
	if p = deliver(2); p.Cookie != 0x13 || p.Reason != ofp.ReasonAction {
		t.Errorf("packet-in %+v", p)
	}
	c.must(ofp.AppendSetControllerID(nil, c.next(), 0), nil)
	// Without this the switch keeps packets with a bad TTL to itself.
	c.must(ofp.AppendSetAsync(nil, c.next(), ofp.AsyncConfig{PacketIn: [2]uint32{1 << ofp.ReasonInvalidTTL, 0}}), nil)
	if p = deliver(3); p.Cookie != 0x14 || p.Reason != ofp.ReasonInvalidTTL || p.Match.String() != "in_port=LOCAL" {
		t.Errorf("packet-in %+v", p)
	}
}

func TestFlowMonitor(t *testing.T) {
	o, c := bridge(t)
	old := flow.Flow{Table: 2, Priority: 3, Cookie: 4, IdleTimeout: 5, HardTimeout: 6, Match: match(term(flow.InPort, 7)),
		Actions: []flow.Action{flow.Output{Port: 8}}}
	c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &old, ofp.FlowModOptions{}))
	all := ofp.MonitorInitial | ofp.MonitorAdd | ofp.MonitorDelete | ofp.MonitorModify | ofp.MonitorActions
	monitor := ofp.FlowMonitor{ID: 9, Flags: all, Table: ofp.AllTables}
	first, ok := c.ask(ofp.AppendFlowMonitorRequest(nil, c.next(), monitor)).(*ofp.FlowUpdates)
	if !ok || len(first.Updates) != 1 || first.Updates[0].Event != ofp.FlowAddedEvent || !first.Updates[0].Flow.Equal(old) {
		t.Fatalf("first report %+v", first)
	}
	// Another hand changes the table: full reports. One's own changes: the transaction id.
	other := dial(t, o, "br0")
	alien := flow.Flow{Table: 3, Priority: 33, Cookie: 44, Match: match(term(flow.Reg8, 8)), Actions: []flow.Action{flow.GotoTable{Table: 77}}}
	other.must(ofp.AppendFlowMod(nil, other.next(), ofp.FlowAdd, &alien, ofp.FlowModOptions{}))
	own := c.next()
	c.must(ofp.AppendFlowMod(nil, own, ofp.FlowAdd, &flow.Flow{Table: 5}, ofp.FlowModOptions{}))
	old.Actions = []flow.Action{flow.Output{Port: 9}}
	other.must(ofp.AppendFlowMod(nil, other.next(), ofp.FlowModifyStrict, &old, ofp.FlowModOptions{}))
	other.must(ofp.AppendFlowMod(nil, other.next(), ofp.FlowDeleteStrict, &alien, ofp.FlowModOptions{}))
	var got []ofp.FlowUpdate
	for len(got) < 4 {
		got = append(got, wait(c, func(u *ofp.FlowUpdates) bool { return u.XID == 0 }).Updates...)
	}
	want := []ofp.FlowUpdate{
		{Event: ofp.FlowAddedEvent, Flow: alien}, {Event: ofp.FlowAbbrev, AbbrevXID: own},
		{Event: ofp.FlowModifiedEvent, Flow: old}, {Event: ofp.FlowRemovedEvent, Reason: ofp.RemovedDelete, Flow: alien},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("updates (-want +got)\n%s", diff)
	}
	c.must(ofp.AppendFlowMonitorCancel(nil, c.next(), 9), nil)
	e, ok := c.ask(ofp.AppendFlowMonitorCancel(nil, c.next(), 9), nil).(*ofp.Error)
	if !ok || e.Code.String() != "OFPMOFC_UNKNOWN_MONITOR" {
		t.Errorf("second cancel: %+v", e)
	}
	if _, err := ofp.AppendFlowMonitorRequest(nil, 1, ofp.FlowMonitor{ID: 9, Flags: ofp.MonitorInitial}); !errors.Is(err, ofp.ErrValue) {
		t.Errorf("monitor of nothing: %v", err)
	}
}

func TestErrorsOnSwitch(t *testing.T) {
	_, c := bridge(t)
	flags := ofp.BundleAtomic | ofp.BundleOrdered
	bad := flow.Flow{Cookie: 0xbad, Actions: []flow.Action{flow.Group{ID: 4711}}}
	direct := c.next()
	e, ok := c.ask(ofp.AppendFlowMod(nil, direct, ofp.FlowAdd, &bad, ofp.FlowModOptions{})).(*ofp.Error)
	if !ok || !errors.Is(e, ofp.BadOutGroup) {
		t.Fatalf("unknown group: %+v", e)
	}
	if h, ok := e.Request(); !ok || h.Type != ofp.TypeFlowMod || h.XID != direct {
		t.Errorf("request %+v", h)
	}
	if s := e.Error(); !strings.Contains(s, "OFPBAC_BAD_OUT_GROUP in reply to OFPT_FLOW_MOD") {
		t.Error(s)
	}
	// A bundle fails at its commit with the error of the message at fault, then its own.
	c.ask(ofp.AppendBundleControl(nil, c.next(), 1, ofp.BundleOpenRequest, flags), nil)
	inner := c.next()
	c.must(ofp.AppendBundleFlowMod(nil, inner, 1, flags, ofp.FlowAdd, &bad, ofp.FlowModOptions{}))
	commit := c.next()
	c.send(ofp.AppendBundleControl(nil, commit, 1, ofp.BundleCommitRequest, flags))
	ms := c.barrier()
	if len(ms) != 2 {
		t.Fatalf("after the commit: %+v", ms)
	}
	if e, ok := ms[0].(*ofp.Error); !ok || e.XID != inner || !errors.Is(e, ofp.BadOutGroup) {
		t.Errorf("first error %+v", ms[0])
	}
	if e, ok := ms[1].(*ofp.Error); !ok || e.XID != commit || !errors.Is(e, ofp.BundleFailed) || e.Code.Vendor() != ofp.VendorONF {
		t.Errorf("second error %+v", ms[1])
	}
	e, ok = c.ask(ofp.AppendBundleControl(nil, c.next(), 1, ofp.BundleCommitRequest, flags), nil).(*ofp.Error)
	if !ok || !errors.Is(e, ofp.BundleBadID) {
		t.Errorf("commit twice: %+v", e)
	}
	e, ok = c.ask(ofp.AppendBundleAdd(nil, c.next(), 2, flags, func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendMeterMod(dst, xid, ofp.MeterAdd, &ofp.Meter{ID: 2, Flags: flow.MeterPktps,
			Bands: []ofp.MeterBand{{Type: flow.BandDrop, Rate: 1}}})
	})).(*ofp.Error)
	if !ok || !errors.Is(e, ofp.BundleUnsup) {
		t.Errorf("meter-mod in a bundle: %+v", e)
	}
	// A Nicira error, with the vendor in it.
	b, err := ofp.AppendResume(nil, c.next(), &ofp.PacketIn{Data: unhex(t, frame), Continuation: make([]byte, 4)})
	if e, ok = c.ask(b, err).(*ofp.Error); !ok || e.Code.Vendor() != ofp.VendorNicira {
		t.Errorf("resume of nothing: %+v", e)
	}
}

func TestCTFlushOnSwitch(t *testing.T) {
	o, c := bridge(t)
	o.AddPort("br0", "p1", 1)
	zone := func(z uint16) flow.Action { return flow.CT{Commit: true, Table: flow.NoTable, Zone: z} }
	f := flow.Flow{Match: match(term(flow.EthType, 0x800)), Actions: []flow.Action{zone(5), zone(6), zone(7)}}
	c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &f, ofp.FlowModOptions{}))
	udp := "0200000000020200000000010800" + "45000020000100004011" + "66ca" + "0a0000010a000002" + "0401003500 0c0000 61626364"
	o.InjectPacket("p1", unhex(t, udp))
	entries := func() string {
		var out []string
		for _, z := range []string{"5", "6", "7"} {
			if strings.Contains(o.Appctl("dpctl/dump-conntrack", "zone="+z), "sport=1025,dport=53") {
				out = append(out, z)
			}
		}
		return strings.Join(out, " ")
	}
	if s := entries(); s != "5 6 7" {
		t.Fatalf("entries in zones %s", s)
	}
	tuple := ofp.CTTuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), SrcPort: 1025, DstPort: 53}
	otherPort := tuple
	otherPort.SrcPort = 1026
	c.must(ofp.AppendCTFlush(nil, c.next(), ofp.CTFlush{Proto: 17, Orig: otherPort, Zone: 5}))
	if s := entries(); s != "5 6 7" {
		t.Errorf("entries in zones %s after a flush of another connection", s)
	}
	c.must(ofp.AppendCTFlush(nil, c.next(), ofp.CTFlush{Proto: 17, Orig: tuple, Zone: 5}))
	if s := entries(); s != "6 7" {
		t.Errorf("entries in zones %s after a flush of the connection in zone 5", s)
	}
	c.must(ofp.AppendCTFlush(nil, c.next(), ofp.CTFlush{Proto: 17,
		Reply: ofp.CTTuple{Src: tuple.Dst, Dst: tuple.Src, SrcPort: 53, DstPort: 1025}, Zone: 6}))
	if s := entries(); s != "7" {
		t.Errorf("entries in zones %s after a flush by the reply in zone 6", s)
	}
	c.must(ofp.AppendCTFlushZone(nil, c.next(), 7), nil)
	if s := entries(); s != "" {
		t.Errorf("entries in zones %s after a flush of zone 7", s)
	}
	for _, bad := range []ofp.CTFlush{{Orig: tuple}, {Proto: 1, Orig: tuple}, {Proto: 6, Orig: ofp.CTTuple{ICMPType: 8}}} {
		if _, err := ofp.AppendCTFlush(nil, 1, bad); !errors.Is(err, ofp.ErrValue) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A hello must tell a switch that does not speak 1.3 from one that does.
func TestHelloOnSwitch(t *testing.T) {
	o := oftest.StartOVS(t, oftest.OVSOptions{})
	o.AddBridge("new", "", "protocols=OpenFlow14,OpenFlow15")
	o.AddBridge("all", "")
	for _, tt := range []struct {
		bridge  string
		offer   []ofp.Version
		version ofp.Version
		has13   bool
	}{
		{"new", nil, ofp.Version15, false},
		{"new", []ofp.Version{ofp.Version13, ofp.Version14}, ofp.Version15, false},
		{"all", nil, ofp.Version15, true},
	} {
		conn, err := net.Dial("unix", strings.TrimPrefix(o.MgmtAddr(tt.bridge), "unix:"))
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, conn: conn}
		c.send(ofp.AppendHello(nil, 1, tt.offer...))
		m := c.read()
		if e, ok := m.(*ofp.Error); ok {
			if e.Code.Type() != ofp.ErrorHelloFailed || tt.has13 {
				t.Errorf("%s: %v", tt.bridge, e)
			}
			m = c.read()
		}
		if h, ok := m.(*ofp.Hello); !ok || h.Version != tt.version || h.Supports(ofp.Version13) != tt.has13 {
			t.Errorf("%s: hello %+v", tt.bridge, m)
		}
		conn.Close()
	}
}
