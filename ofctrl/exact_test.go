package ofctrl_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// exactTexts are matches and actions of every kind. What the switch gives back of them must be seen as what was asked for,
// or a restart would send it all again.
func exactTexts() []string {
	return []string{
		"actions=drop",
		"in_port=1,actions=output:2,IN_PORT,LOCAL,NORMAL,FLOOD,ALL",
		"in_port=1,vlan_tci=0,actions=push_vlan:0x8100,set_field:4106->vlan_vid,output:2",
		"in_port=1,dl_vlan=10,dl_vlan_pcp=3,actions=pop_vlan,output:2",
		"in_port=1,vlan_tci=0x1000/0x1000,actions=move:OXM_OF_VLAN_VID[0..11]->NXM_NX_REG10[0..11],load:0xe->NXM_NX_REG10[12..15],resubmit(,201)",
		"xreg4=0x500000006,actions=load:0x3->NXM_NX_REG13[4..5],set_field:0x10/0xf0->reg13",
		"xxreg1=0x1/0xff,actions=set_field:0x1234567800000000/0xffffffff00000000->xxreg0",
		"ct_state=-trk,ip,actions=ct(table=204,zone=NXM_NX_REG10[0..15])",
		"ct_state=+trk+new-inv,ip,actions=ct(commit,table=211,zone=5,nat(src=10.0.0.1-10.0.0.9:100-200,random)," +
			"exec(set_field:0x65/0xffffffff->ct_label,set_field:0x1/0x3->ct_mark,move:NXM_NX_REG12[]->NXM_NX_CT_LABEL[0..31]," +
			"load:0x7->NXM_NX_CT_LABEL[32..63]))",
		"ct_state=+trk+est,ct_mark=0x1/0x1,ct_label=0x6500000000/0xffffffff00000000,ipv6,actions=ct_clear,resubmit(,0)",
		"ct_state=+trk-inv,ct_nw_src=10.0.0.0/24,ct_nw_proto=6,ct_tp_dst=0x1388/0xfffe,ip,actions=conjunction(101,2/3)",
		"ct_state=+trk-inv,ct_ipv6_dst=2001:db8::/32,ipv6,actions=conjunction(101,1/3),conjunction(102,1/2)",
		"conj_id=101,ip,actions=set_field:0x65->reg11,resubmit(,209)",
		"tcp,tcp_flags=+syn-ack,tp_src=0x8000/0x8000,actions=controller(reason=no_match,max_len=128,id=31249)",
		"udp,tp_dst=53,actions=controller(max_len=128,id=31249,userdata=01.02.03.04,meter_id=150)",
		"udp,tp_src=53,actions=controller(reason=action,userdata=07,pause),output:1",
		"sctp,tp_dst=9,actions=CONTROLLER:65535",
		"icmp,icmp_type=8,icmp_code=0,actions=CONTROLLER:128",
		"icmp6,icmp_type=135,nd_target=fe80::1,nd_sll=00:01:02:03:04:05,actions=dec_ttl,NORMAL",
		"ipv6,ipv6_src=2001:db8::/32,ipv6_label=0x12345,nw_ttl=64,nw_tos=32,nw_ecn=1,nw_frag=later,actions=NORMAL",
		"arp,arp_op=1,arp_spa=10.0.0.1,arp_tpa=10.0.0.0/24,arp_sha=00:00:00:00:00:01,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]," +
			"set_field:02:00:00:00:00:01->eth_src,set_field:2->arp_op,IN_PORT",
		"ct_state=+new+trk,ip,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,dl_src=00:11:22:33:44:55,actions=push:NXM_NX_REG8[]," +
			"push:NXM_NX_REG9[],pop:NXM_NX_REG8[],pop:NXM_NX_REG9[],resubmit(,205,ct)",
		"tun_id=0x1f/0xff,tun_src=192.0.2.1,tun_dst=192.0.2.2,actions=set_field:0x4d->tun_id,set_field:192.0.2.9->tun_dst,output:1",
		"metadata=0x5/0xff,pkt_mark=0x1/0x1,actions=meter:150,set_field:0x1->pkt_mark,goto_table:230",
		"reg15=1,actions=clone(set_field:0x1->reg0,resubmit(,1)),clear_actions,write_actions(output:1),write_metadata:0x1/0xf",
		"reg15=2,actions=group:9,output(port=2,max_len=100),output:NXM_NX_REG0[]",
		"reg15=3,actions=sample(probability=655,collector_set_id=1,obs_domain_id=2,obs_point_id=3)",
		"reg15=4,actions=check_pkt_larger(1500)->NXM_NX_REG0[0],set_queue:3,pop_queue,note:01.02.03.04.05.06",
		"reg15=5,idle_timeout=600,hard_timeout=1200,send_flow_rem,actions=resubmit(1,2)",
		"reg15=6,no_packet_counts,no_byte_counts,actions=NORMAL",
		"reg15=7,check_overlap,reset_counts,actions=NORMAL",
	}
}

func parseAll(t testing.TB, texts []string) []flow.Flow {
	t.Helper()
	fs := make([]flow.Flow, len(texts))
	for i, text := range texts {
		f, err := flow.ParseFlow(fmt.Sprintf("table=%d,priority=%d,cookie=%#x,%s", 200+i%10, 100+i, uint64(testCookie)+uint64(i), text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		fs[i] = f
	}
	return fs
}

// TestExactReadBack installs flows of every kind and restarts: nothing may be sent again.
func TestExactReadBack(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	o.AddPort("br0", "p1", 1)
	o.AddPort("br0", "p2", 2)
	o.Ofctl("add-group", "br0", "group_id=9,type=all,bucket=output:1")
	u := ofctrl.Update{
		Revision: 1, Owners: map[string][]flow.Flow{"all": parseAll(t, exactTexts())},
		Meters: []flow.MeterDesc{{ID: 150, Flags: flow.MeterPktps | flow.MeterBurst | flow.MeterStats, Bands: []flow.Band{{Type: flow.BandDrop,
			Rate: 5, Burst: 7}}}},
	}
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	s.apply(u)
	s.end()

	s = run(t, options(o.MgmtAddr("br0")))
	s.ready()
	if _, err := s.Apply(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if st := s.State(); st.Stats.FlowModsSent != 0 || st.Stats.MeterModsSent != 0 || st.Installed != 1 || st.Undecodable != 0 {
		t.Errorf("after a restart: %+v", st)
	}
	// Which flows would be at fault is told best by comparing texts.
	installed, err := s.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(installed) != len(exactTexts()) {
		t.Errorf("%d flows installed, want %d", len(installed), len(exactTexts()))
	}
	for _, f := range u.Owners["all"] {
		if !s.Has(f) {
			t.Errorf("not found: %s", f.String())
		}
	}
	if res := s.apply(ofctrl.Update{Revision: 2, Owners: map[string][]flow.Flow{"all": nil},
		Meters: []flow.MeterDesc{}}); res.Deleted != len(installed) || res.Meters != 1 {
		t.Errorf("removing all: %+v", res)
	}
	if n := count(o); n != 0 {
		t.Errorf("%d flows left:\n%s", n, dump(o))
	}
	if got := o.Ofctl("dump-meters", "br0"); strings.Contains(got, "meter=150") {
		t.Errorf("meter left: %s", got)
	}
}

// TestModifyKeepsCounters changes actions under traffic.
func TestModifyKeepsCounters(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	o.AddPort("br0", "p1", 1)
	o.AddPort("br0", "p2", 2)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	f := flow.Flow{Cookie: testCookie | 1, Actions: []flow.Action{flow.Output{Port: 2}}}
	s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": {f}}})
	for range 3 {
		o.InjectPacket("p1", make([]byte, 64))
	}
	packets := func() (n uint64) {
		err := s.EachFlow(t.Context(), ofp.FlowFilter{Table: ofp.AllTables}, func(f *ofp.FlowStats) { n += f.Stats.Packets })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.until("3 packets counted", func(ofctrl.State) bool { return packets() == 3 })
	g := f
	g.Actions = nil
	if res := s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": {g}}}); res.Modified != 1 || res.Added != 0 {
		t.Errorf("actions changed by %+v", res)
	}
	if n := packets(); n != 3 {
		t.Errorf("%d packets counted after a change of actions, want 3", n)
	}
	g.Cookie |= 0xff
	if res := s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": {g}}}); res.Modified != 0 || res.Added != 1 {
		t.Errorf("cookie changed by %+v", res)
	}
	if got := dump(o); !strings.Contains(got, "cookie=0x74617000000000ff") {
		t.Errorf("cookie is not changed:\n%s", got)
	}
}

func TestMeters(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	o.Ofctl("add-meter", "br0", "meter=7,pktps,band=type=drop,rate=1") // not ours
	o.Ofctl("add-meter", "br0", "meter=199,kbps,band=type=drop,rate=1")
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	meter := func(id, rate uint32) flow.MeterDesc {
		return flow.MeterDesc{ID: id, Flags: flow.MeterPktps | flow.MeterStats, Bands: []flow.Band{{Type: flow.BandDrop, Rate: rate}}}
	}
	metered := flow.Flow{Cookie: testCookie, Actions: []flow.Action{flow.Meter{ID: 100}}}
	steps := []struct {
		update ofctrl.Update
		want   ofctrl.Result
		meters []string
	}{
		// What is left over of an earlier run goes; the flow needs its meter to be there before it.
		{ofctrl.Update{Revision: 1, Meters: []flow.MeterDesc{meter(100, 5)}, Owners: map[string][]flow.Flow{"a": {metered}}},
			ofctrl.Result{Added: 1, Meters: 2, Bundles: 1, Installed: 1}, []string{"meter=7", "meter=100", "rate=5"}},
		{ofctrl.Update{Revision: 2}, ofctrl.Result{Installed: 2}, []string{"meter=7", "meter=100", "rate=5"}},
		{ofctrl.Update{Revision: 3, Meters: []flow.MeterDesc{meter(100, 6), meter(101, 9)}}, ofctrl.Result{Meters: 2, Installed: 3},
			[]string{"meter=7", "meter=100", "rate=6", "meter=101", "rate=9"}},
		// A meter that goes takes its flows with it, so the flow must have gone before.
		{ofctrl.Update{Revision: 4, Meters: []flow.MeterDesc{}, Owners: map[string][]flow.Flow{"a": nil}}, ofctrl.Result{Deleted: 1, Meters: 2,
			Bundles: 1, Installed: 4}, []string{"meter=7"}},
	}
	for i, step := range steps {
		if diff := cmp.Diff(step.want, s.apply(step.update)); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
		got := o.Ofctl("dump-meters", "br0")
		for _, w := range step.meters {
			if !strings.Contains(got, w+" ") && !strings.Contains(got, w+"\n") {
				t.Errorf("step %d: want %s in\n%s", i, w, got)
			}
		}
		if n := strings.Count(got, "meter="); n != strings.Count(strings.Join(step.meters, " "), "meter=") {
			t.Errorf("step %d: %d meters:\n%s", i, n, got)
		}
	}
	for _, bad := range []flow.MeterDesc{meter(7, 1), meter(200, 1), {ID: 100}} {
		if _, err := s.Apply(t.Context(), ofctrl.Update{Meters: []flow.MeterDesc{bad}}); err == nil {
			t.Errorf("meter %v is accepted", bad)
		}
	}
	// The userspace datapath knows no remarking.
	remark := flow.MeterDesc{ID: 100, Flags: flow.MeterPktps, Bands: []flow.Band{{Type: flow.BandDSCPRemark, Rate: 1, PrecLevel: 1}}}
	_, err := s.Apply(t.Context(), ofctrl.Update{Meters: []flow.MeterDesc{remark}, Owners: map[string][]flow.Flow{"a": {metered}}})
	t.Logf("%v", err)
	if err == nil || count(o) != 0 || s.State().Missing != 0 {
		t.Errorf("a refused meter: %v, %d flows, %+v", err, count(o), s.State())
	}
	ms, err := s.MeterStats(t.Context())
	if err != nil || len(ms) != 0 {
		t.Errorf("meter statistics: %v, %v", ms, err)
	}
}

// TestExpiry: a flow that goes by its own timeout is not missed, one that others delete is.
func TestExpiry(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	removed := make(chan *ofp.FlowRemoved, 1)
	opts := options(o.MgmtAddr("br0"))
	opts.OnFlowRemoved = func(m *ofp.FlowRemoved) { removed <- m }
	s := run(t, opts)
	s.ready()
	fs := []flow.Flow{{Table: 1, Cookie: testCookie, HardTimeout: 1, Flags: flow.SendFlowRem}, {Table: 2, Cookie: testCookie}}
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": fs}})
	s.until("expired", func(st ofctrl.State) bool { return st.OurFlows == 1 })
	if st := s.State(); st.Missing != 0 || st.Lost != 0 || st.Installed != 1 {
		t.Errorf("after the expiry: %+v", st)
	}
	select {
	case m := <-removed:
		if m.Reason != ofp.RemovedHard || m.Flow.Table != 1 {
			t.Errorf("flow removed: %+v", m)
		}
	case <-time.After(5 * time.Second):
		t.Error("no flow-removed message")
	}
	if res := s.apply(ofctrl.Update{Revision: 2}); res != (ofctrl.Result{Installed: 2}) {
		t.Errorf("without its owner: %+v", res)
	}
	if res := s.apply(ofctrl.Update{Revision: 3, Owners: map[string][]flow.Flow{"a": fs}}); res.Added != 1 {
		t.Errorf("with its owner: %+v", res)
	}
}

// TestPackets sends a packet in and out.
func TestPackets(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	o.AddPort("br0", "p1", 1)
	o.AddPort("br0", "p2", 2, "options:tx_pcap="+o.RunDir+"/p2.pcap")
	type in struct {
		cookie   flow.Cookie
		data     []byte
		userData string
		port     uint64
	}
	got := make(chan in, 10)
	opts := options(o.MgmtAddr("br0"))
	opts.OnPacketIn = func(m *ofp.PacketIn) {
		port, _ := m.Match.Get(flow.InPort)
		got <- in{m.Cookie, slices.Clone(m.Data), string(m.UserData), port.Value.Lo}
	}
	status := make(chan string, 10)
	opts.OnPortStatus = func(m *ofp.PortStatus) { status <- m.Port.Name }
	s := run(t, opts)
	s.ready()
	s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": {{
		Cookie: testCookie | 5, Match: flow.Match{}.With(flow.InPort, flow.U64(1)),
		Actions: []flow.Action{flow.Controller{MaxLen: 0xffff, ID: 77, Reason: uint8(ofp.ReasonAction), UserData: "abc"}},
	}}}})
	frame := append(slices.Repeat([]byte{2}, 12), append([]byte{0x88, 0xb5}, make([]byte, 50)...)...)
	o.InjectPacket("p1", frame)
	select {
	case m := <-got:
		if diff := cmp.Diff(in{testCookie | 5, frame, "abc", 1}, m, cmp.AllowUnexported(in{})); diff != "" {
			t.Errorf("packet-in (-want +got):\n%s", diff)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no packet-in")
	}
	if err := s.PacketOut(t.Context(), &ofp.PacketOut{InPort: flow.PortController, Actions: []flow.Action{flow.Output{Port: 2}},
		Data: frame}); err != nil {
		t.Error(err)
	}
	if err := s.Barrier(t.Context()); err != nil {
		t.Error(err)
	}
	ports, err := s.Ports(t.Context())
	if err != nil || !slices.ContainsFunc(ports, func(p ofp.Port) bool { return p.Name == "p2" && p.No == 2 }) {
		t.Errorf("ports %v, %v", ports, err)
	}
	if st := s.State(); st.Stats.PacketIns != 1 || st.Stats.PacketOuts != 1 || st.Stats.LateErrors != 0 {
		t.Errorf("counters: %+v", st.Stats)
	}
	// A packet-out that the switch refuses is counted, and that is all.
	if err := s.PacketOut(t.Context(), &ofp.PacketOut{InPort: flow.PortController, Actions: []flow.Action{flow.Group{ID: 4711}},
		Data: frame}); err != nil {
		t.Error(err)
	}
	s.until("refusal counted", func(st ofctrl.State) bool { return st.Stats.LateErrors == 1 })
	o.AddPort("br0", "p3", 3)
	select {
	case name := <-status:
		if name != "p3" {
			t.Errorf("port status of %q, want p3", name)
		}
	case <-time.After(5 * time.Second):
		t.Error("no port status")
	}
	if out := o.Ofctl("dump-ports", "br0", "2"); !strings.Contains(out, "tx pkts=1,") {
		t.Errorf("the packet-out did not leave:\n%s", out)
	}
}

// TestNudge makes the switch revalidate and leaves nothing behind.
func TestNudge(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(3)}})
	before := dump(o)
	revalidations := func() string {
		out, err := o.AppctlErr("coverage/read-counter", "rev_flow_table")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(out)
	}
	n := revalidations()
	if err := s.Nudge(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.until("revalidated", func(ofctrl.State) bool { return revalidations() != n })
	if got := dump(o); got != before {
		t.Errorf("flows after a nudge:\n%s", got)
	}
	if st := s.State(); st.Lost != 0 || st.Missing != 0 || st.Installed != 1 {
		t.Errorf("state after a nudge: %+v", st)
	}
	o.Ofctl("add-flow", "br0", "table=229,priority=0,cookie=5,actions=drop")
	s.until("foreign flow seen", func(st ofctrl.State) bool { return st.ForeignFlows == 1 })
	if err := s.Nudge(t.Context()); err == nil {
		t.Error("nudging replaces a foreign flow")
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	o.Vsctl("--", "--id=@c", "create", "Controller", fmt.Sprintf(`target="ptcp:%d:127.0.0.1"`, port), "type=service", "--", "add", "Bridge",
		"br0", "controller", "@c")
	s := run(t, options(fmt.Sprintf("tcp:127.0.0.1:%d", port)))
	s.ready()
	if res := s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(100)}}); res.Added != 100 || res.Installed != 1 {
		t.Errorf("result %+v", res)
	}
	if n := count(o); n != 100 {
		t.Errorf("%d flows, want 100", n)
	}
}
