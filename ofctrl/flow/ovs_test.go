package flow_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// startOVS gives a bridge br0 with what the golden flows refer to: ports 1 and 2, meter 5 and group 5.
func startOVS(t *testing.T) *oftest.OVS {
	t.Helper()
	ovs := oftest.StartOVS(t, oftest.OVSOptions{})
	ovs.AddBridge("br0", "dummy", "protocols=OpenFlow13,OpenFlow15")
	ovs.AddPort("br0", "p1", 1)
	ovs.AddPort("br0", "p2", 2)
	ovs.Ofctl("add-meter", "br0", "meter=5,pktps,band=type=drop,rate=100")
	ovs.Ofctl("add-group", "br0", "group_id=5,type=all,bucket=output:1")
	return ovs
}

// dump returns the flow lines of br0 by table and priority, both of which stand in the text.
func dump(t *testing.T, ovs *oftest.OVS, version string) map[string]string {
	t.Helper()
	out, err := ovs.Tool("ovs-ofctl", "-O", version, "--no-stats", "--no-names", "dump-flows", "br0")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := map[string]string{}
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(strings.TrimPrefix(line, " "), "\n")
		lines[id(t, line)] = line
	}
	return lines
}

// id is what tells the flows of a test apart. It is cut out of the text, so that it does not depend on the parser.
func id(t *testing.T, line string) string {
	t.Helper()
	head, _, ok := strings.Cut(line, "actions=")
	if !ok {
		t.Fatalf("not a flow: %q", line)
	}
	key := ""
	for _, name := range []string{"table=", "priority="} {
		v := "default"
		if _, tail, ok := strings.Cut(head, name); ok {
			v = tail[:strings.IndexAny(tail+",", ", ")]
		}
		key += name + v + " "
	}
	return key
}

// install adds texts in one go, so that one bad flow names itself.
func install(t *testing.T, ovs *oftest.OVS, version string, texts []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(strings.Join(texts, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := ovs.Tool("ovs-ofctl", "-O", version, "add-flows", "br0", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// same installs texts and requires that the switch prints each of them back byte by byte.
func same(t *testing.T, ovs *oftest.OVS, version string, texts []string) {
	t.Helper()
	install(t, ovs, version, texts)
	got := dump(t, ovs, version)
	if len(got) != len(texts) || len(texts) == 0 {
		t.Errorf("%d flows installed, %d printed", len(texts), len(got))
	}
	for _, text := range texts {
		if line := got[id(t, text)]; line != text {
			t.Errorf("%s\nours %s\n ovs %s", version, text, line)
		}
	}
}

// TestGoldenOVS holds every golden row against ovs-ofctl of the installed Open vSwitch, byte by byte.
func TestGoldenOVS(t *testing.T) {
	ovs := startOVS(t)
	var in13, in15 []string
	priority := uint16(100)
	add := func(to *[]string, m flow.Match, actions []flow.Action) {
		priority++
		*to = append(*to, flow.Flow{Table: 2, Priority: priority, Match: m, Actions: actions}.String())
	}
	for _, row := range goldenMatches() {
		if !row.internal {
			add(&in13, row.match, nil)
		}
	}
	for _, row := range goldenActions() {
		m, err := flow.ParseMatch(row.needs)
		if err != nil {
			t.Fatal(err)
		}
		to := &in13
		if row.of15 {
			to = &in15
		}
		add(to, m, row.actions)
	}
	for _, row := range goldenHeaders() {
		in13 = append(in13, row.flow.String())
	}
	same(t, ovs, "OpenFlow13", in13)
	ovs.Ofctl("del-flows", "br0")
	same(t, ovs, "OpenFlow15", in15)
}

// TestSpellingsOVS gives the same text to ovs-ofctl and to ParseFlow: what the switch then prints is what our flow prints.
func TestSpellingsOVS(t *testing.T) {
	ovs := startOVS(t)
	spellings := []string{
		"priority=9 tcp tp_dst=80 action=normal",
		"tp_dst=80,tcp,actions=NORMAL",
		"tcp,tcp_dst=0x50/0xffff,ip_dst=1.2.3.4,eth_src=0:1:2:3:4:5,actions=1,LOCAL,in_port,flood,all",
		"ip,nw_proto=6,tp_src=5,actions=output:2",
		"ipv4,ip_proto=17,udp_src=5,actions=",
		"ip4,nw_src=10.1.2.3/255.0.0.0,actions=drop",
		"ip6,ipv6_dst=2001:DB8::1/32,actions=drop",
		"dl_type=0x800,nw_src=10.0.0.1/24,actions=drop",
		"eth_type=0x86dd,ip_proto=58,icmp_type=135,nd_target=fe80::1,actions=drop",
		"icmp6,icmpv6_type=128,icmpv6_code=0,actions=drop",
		"arp,nw_src=1.2.3.4,nw_dst=1.2.3.5,nw_proto=1,actions=drop",
		"dl_vlan=10,dl_vlan_pcp=7,actions=strip_vlan,output:1",
		"dl_vlan=0xffff,actions=push_vlan:0x8100,set_field:0x100a->vlan_vid,output:1",
		"vlan_vid=0x1005/0x1fff,actions=drop",
		"vlan_vid=0x1000/0x1000,vlan_pcp=2,actions=drop",
		"vlan_tci=0x100a,actions=drop",
		"vlan_tci=0x700a/0xffff,actions=drop",
		"vlan_tci=0,actions=drop",
		"vlan_tci=0/0x1000,actions=drop",
		"ct_state=+trk+est,ct_mark=0x3/0xf,actions=drop",
		"ct_state=0x21/0x21,actions=drop",
		"ct_state=0x21/0xff,actions=drop",
		"ct_state=est|trk,actions=drop",
		"reg0[0..3]=5,reg1[4]=1,NXM_NX_REG2[8..15]=3,xreg2=7,xxreg2[64..127]=9,actions=drop",
		"tunnel_id=5/0xff,tun_flags=oam,actions=drop",
		"ip,nw_frag=Later,nw_tos=32,nw_ecn=1,actions=drop",
		"ip,ip_frag=yes,ip_dscp=8,ip_ecn=2,actions=drop",
		"in_port=65534,actions=output:65533",
		"in_port=4294967294,actions=controller",
		"nw_src=*,in_port=3,actions=drop",
		"tcp,tp_dst=0/0,actions=drop",
		"tcp,tcp_flags=0x12/0x12,actions=drop",
		"dl_src=aa:bb:cc:dd:ee:ff/00:00:00:00:00:ff,actions=drop",
		"cookie=18,idle_timeout=0,hard_timeout=60,send_flow_rem,reset_counts,in_port=1,actions=drop",
		"cookie=0x0, duration=3.5s, table=0, n_packets=0, n_bytes=0, idle_age=3, hard_age=1, priority=5,in_port=2 actions=drop",
		"actions=controller:128",
		"actions=controller(max_len=128)",
		"actions=CONTROLLER(reason=action,id=0)",
		"actions=controller(userdata=0102.ff,pause,reason=no_match)",
		"actions=output:controller,output:NORMAL,output:reg0[0..15],output:NXM_NX_REG1[]",
		"actions=output(max_len=100,port=2)",
		"actions=resubmit:3,resubmit(,5),resubmit(3,5),resubmit(IN_PORT,7),resubmit(LOCAL,)",
		"ip,actions=ct",
		"ip,actions=ct(commit,zone=0)",
		"ip,actions=ct(zone=reg6[0..15],table=4)",
		"ip,actions=ct(nat(src=1.2.3.4-1.2.3.4:80-80),commit)",
		"ipv6,actions=ct(commit,nat(dst=fe80::1-fe80::9))",
		"ipv6,actions=ct(commit,nat(dst=[fe80::1]:80,random))",
		"ip,actions=ct(exec(load:0x10000000000000005->NXM_NX_CT_LABEL[],set_field:7->ct_mark),commit)",
		"actions=load:5->reg0,load:0x7->xreg1[4..7],load:1->OXM_OF_TUNNEL_ID[],load:0xfff->in_port[0..11]",
		"actions=load:0x1ffffffffffffffff->NXM_NX_XXREG0[]",
		"actions=move:reg0->reg1,move:eth_src[0..15]->NXM_NX_REG2[16..31]",
		"ip,actions=move:ip_dscp->reg0[0..5],move:ip_ecn[]->reg0[6..7]",
		"actions=set_field:00:11:22:33:44:55->dl_src,set_field:5->tunnel_id,set_field:0x5/0xffffffff->reg3",
		"actions=push:reg0[],pop:reg1",
		"actions=clone( output:1 , output:2 )",
		"actions=clone()",
		"actions=conjunction( 7, 1/2 )",
		"actions=sample(probability=7,egress,sampling_port=1)",
		"actions=check_pkt_larger(0x5dc)->reg0[3],note:010203040506",
		"actions=multipath(symmetric_l3l4, 16, modulo_n, 4, 0, reg2),multipath(nw_src,1,hrw,2,3,metadata[4..9])",
		"actions=METER:5,Output:1,clear_actions(),write_actions(output:1),write_metadata:7,goto_table:9",
		"actions=set_queue:0x10,pop_queue",
		"ip,actions=dec_ttl()",
	}
	var texts, ours []string
	for i, s := range spellings {
		if !strings.Contains(s, "priority=") {
			s = fmt.Sprintf("priority=%d,%s", 1000+i, s)
		}
		f, err := flow.ParseFlow(s)
		if err != nil {
			t.Errorf("%s\n%v", s, err)
			continue
		}
		texts, ours = append(texts, s), append(ours, f.String())
	}
	install(t, ovs, "OpenFlow13", texts)
	got := dump(t, ovs, "OpenFlow13")
	for i, text := range ours {
		if line := got[id(t, text)]; line != text {
			t.Errorf("given %s\n ours %s\n  ovs %s", texts[i], text, line)
		}
	}
}

// TestRandomOVS installs random valid flows: whatever Validate accepts the switch must take and print as we do.
func TestRandomOVS(t *testing.T) {
	ovs := startOVS(t)
	const n = 1500
	r := rand.New(rand.NewPCG(1, 2))
	var texts []string
	want := map[string]flow.Flow{}
	for i := range n {
		f := randomFlow(r)
		f.Table, f.Priority = 3, uint16(1000+i)
		if err := f.Validate(); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		texts = append(texts, f.String())
		want[id(t, f.String())] = f
	}
	same(t, ovs, "OpenFlow13", texts)
	for key, line := range dump(t, ovs, "OpenFlow13") {
		back, err := flow.ParseFlow(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if w := want[key]; !w.Equal(back) {
			t.Errorf("read back differs (-want +got):\n%s", cmp.Diff(w, back, exact()))
		}
	}
}

func TestMetersAndGroupsOVS(t *testing.T) {
	ovs := startOVS(t)
	ovs.Ofctl("del-meters", "br0")
	ovs.Ofctl("del-groups", "br0")
	meters := []flow.MeterDesc{
		{ID: 1, Flags: flow.MeterKbps, Bands: []flow.Band{{Type: flow.BandDrop, Rate: 100}}},
		{ID: 7, Flags: flow.MeterPktps | flow.MeterBurst | flow.MeterStats, Bands: []flow.Band{{Type: flow.BandDrop, Rate: 100, Burst: 20}}},
		{ID: flow.MeterController, Flags: flow.MeterPktps | flow.MeterStats, Bands: []flow.Band{{Type: flow.BandDrop, Rate: 5}}},
	}
	groups := []flow.GroupDesc{
		{ID: 1, Type: flow.GroupAll, Buckets: []flow.Bucket{{WatchPort: flow.PortAny, WatchGroup: flow.NoGroup,
			Actions: []flow.Action{flow.Output{Port: 1}, flow.Output{Port: 2}}}, {WatchPort: flow.PortAny, WatchGroup: flow.NoGroup}}},
		{ID: 2, Type: flow.GroupSelect, Buckets: []flow.Bucket{
			{Weight: 1, WatchPort: flow.PortAny, WatchGroup: flow.NoGroup, Actions: []flow.Action{flow.Output{Port: 1}}},
			{Weight: 0, WatchPort: flow.PortAny, WatchGroup: flow.NoGroup, Actions: []flow.Action{flow.Output{Port: 2}}},
			{Weight: 500, WatchPort: flow.PortAny, WatchGroup: flow.NoGroup, Actions: []flow.Action{flow.SetField{Field: flow.Reg0,
				Value: flow.U64(1), Mask: flow.Ones(32)}, flow.Resubmit{Port: flow.PortInPort, Table: 4}}}}},
		{ID: 3, Type: flow.GroupIndirect, Buckets: []flow.Bucket{{WatchPort: flow.PortAny, WatchGroup: flow.NoGroup,
			Actions: []flow.Action{flow.Output{Port: flow.PortInPort}}}}},
		{ID: 4, Type: flow.GroupFastFailover, Buckets: []flow.Bucket{{WatchPort: 1, WatchGroup: flow.NoGroup,
			Actions: []flow.Action{flow.Output{Port: 1}}}, {WatchPort: flow.PortAny, WatchGroup: 3, Actions: []flow.Action{flow.Group{ID: 3}}}}},
		{ID: 5, Type: flow.GroupAll},
	}
	var wantMeters, wantGroups []string
	for _, m := range meters {
		wantMeters = append(wantMeters, m.String())
	}
	// What dump-meters prints is not what add-meter reads.
	ovs.Ofctl("add-meter", "br0", "meter=1,kbps,band=type=drop,rate=100")
	ovs.Ofctl("add-meter", "br0", "meter=7,pktps,burst,stats,band=type=drop,rate=100,burst_size=20")
	ovs.Ofctl("add-meter", "br0", "meter=controller,pktps,stats,band=type=drop,rate=5")
	for _, g := range []int{0, 1, 2, 3, 4} { // in this order: group 4 names group 3
		text := groups[g].String()
		wantGroups = append(wantGroups, text)
		ovs.Ofctl("add-group", "br0", text)
	}
	sorted := func(s []string) map[string]bool {
		m := map[string]bool{}
		for _, x := range s {
			m[x] = true
		}
		return m
	}
	var got []string
	_, body, _ := strings.Cut(ovs.Ofctl("dump-meters", "br0"), "\n")
	for m := range strings.SplitSeq(strings.TrimSpace(body), "\n\n") {
		got = append(got, m)
	}
	if diff := cmp.Diff(sorted(wantMeters), sorted(got)); diff != "" {
		t.Errorf("meters (-ours +ovs):\n%s", diff)
	}
	got = nil
	_, body, _ = strings.Cut(ovs.Ofctl("dump-groups", "br0"), "\n")
	for g := range strings.Lines(body) {
		got = append(got, strings.TrimSpace(g))
	}
	if diff := cmp.Diff(sorted(wantGroups), sorted(got)); diff != "" {
		t.Errorf("groups (-ours +ovs):\n%s", diff)
	}
	for text, d := range map[string]fmt.Stringer{
		"meter=slowpath bands=\ntype=dscp_remark rate=1 prec_level=2": flow.MeterDesc{ID: flow.MeterSlowpath,
			Bands: []flow.Band{{Type: flow.BandDSCPRemark, Rate: 1, Burst: 9, PrecLevel: 2}}},
		"meter=all flags:0x10 bands=\ntype=9 rate=0": flow.MeterDesc{ID: flow.MeterAll, Flags: 0x10, Bands: []flow.Band{{Type: 9}}},
		"meter=unknown bands=":                       flow.MeterDesc{ID: flow.MeterMax + 1},
		"group_id=1,type=unknown":                    flow.GroupDesc{ID: 1, Type: 9},
	} {
		if d.String() != text {
			t.Errorf("got %q, want %q", d, text)
		}
	}
}
