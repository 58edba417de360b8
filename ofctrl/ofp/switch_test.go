package ofp_test

import (
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// bridge starts a switch with bridge br0, which has meter 1 and group 1, and connects to it.
func bridge(t *testing.T) (*oftest.OVS, *client) {
	t.Helper()
	o := oftest.StartOVS(t, oftest.OVSOptions{})
	o.AddBridge("br0", "netdev")
	c := dial(t, o, "br0")
	c.must(ofp.AppendMeterMod(nil, c.next(), ofp.MeterAdd, &ofp.Meter{ID: 1, Flags: flow.MeterPktps,
		Bands: []ofp.MeterBand{{Type: flow.BandDrop, Rate: 1000}}}))
	c.must(ofp.AppendGroupMod(nil, c.next(), ofp.GroupAdd, &flow.GroupDesc{ID: 1, Type: flow.GroupAll,
		Buckets: []flow.Bucket{{WatchPort: flow.PortAny, WatchGroup: flow.NoGroup, Actions: []flow.Action{flow.Output{Port: 1}}}}}))
	return o, c
}

// dumpText is what ovs-ofctl prints of all flows, sorted as flowTexts sorts.
func dumpText(o *oftest.OVS) []string {
	var lines []string
	for _, l := range strings.Split(o.Ofctl("-O", "OpenFlow13", "--no-stats", "--no-names", "dump-flows", "br0"), "\n") {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "cookie=") {
			lines = append(lines, l)
		}
	}
	sort.Strings(lines)
	return lines
}

func flowTexts(fs []flow.Flow) []string {
	var lines []string
	for _, f := range fs {
		lines = append(lines, f.String())
	}
	sort.Strings(lines)
	return lines
}

// dump reads all flows back over the connection.
func dump(c *client) []ofp.FlowStats {
	c.t.Helper()
	xid := c.next()
	b, err := ofp.AppendFlowStatsRequest(nil, xid, ofp.FlowFilter{Table: ofp.AllTables})
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(b)
	var fs []ofp.FlowStats
	for {
		r := wait(c, func(r *ofp.FlowStatsReply) bool { return r.XID == xid })
		fs = append(fs, r.Flows...)
		if !r.More {
			return fs
		}
	}
}

// What is encoded must mean the same to the switch: its own tool prints each flow as package flow does, and its own
// encoding decodes to what was sent.
func TestFlowsOnSwitch(t *testing.T) {
	o, c := bridge(t)
	sent := golden()
	byCookie := map[flow.Cookie]flow.Flow{}
	var accepted []flow.Flow
	for _, f := range sent {
		b, err := ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &f, ofp.FlowModOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.send(b)
		if ms := c.barrier(); len(ms) > 0 {
			t.Errorf("%v\n%v", f, ms[0])
			continue
		}
		byCookie[f.Cookie] = f
		accepted = append(accepted, f)
	}
	if diff := cmp.Diff(flowTexts(accepted), dumpText(o)); diff != "" {
		t.Errorf("ovs-ofctl dump-flows (-want +got)\n%s", diff)
	}
	got := dump(c)
	if len(got) != len(accepted) {
		t.Errorf("read back %d flows of %d", len(got), len(accepted))
	}
	for _, g := range got {
		want := byCookie[g.Cookie]
		// These flags are of the request, not of the flow.
		want.Flags &^= flow.CheckOverlap
		g.Flags &^= flow.CheckOverlap
		if g.Err != nil || !g.Flow.Equal(want) {
			t.Errorf("%v: %v (-want +got)\n%s", want, g.Err, cmp.Diff(want, g.Flow, cmpAddr))
		}
	}
}

func TestFlowsInBundle(t *testing.T) {
	o, c := bridge(t)
	flags := ofp.BundleAtomic | ofp.BundleOrdered
	reply := c.ask(ofp.AppendBundleControl(nil, c.next(), 5, ofp.BundleOpenRequest, flags), nil)
	if r, ok := reply.(*ofp.BundleReply); !ok || r.Kind != ofp.BundleOpenReply || r.ID != 5 {
		t.Fatalf("open: %+v", reply)
	}
	var b []byte
	var err error
	sent := golden()
	for _, f := range sent {
		if b, err = ofp.AppendBundleFlowMod(b, c.next(), 5, flags, ofp.FlowAdd, &f, ofp.FlowModOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b, err = ofp.AppendBundleAdd(b, c.next(), 5, flags, func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendGroupMod(dst, xid, ofp.GroupAdd, &flow.GroupDesc{ID: 2, Type: flow.GroupIndirect,
			Buckets: []flow.Bucket{{WatchPort: flow.PortAny, WatchGroup: flow.NoGroup}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	c.send(b)
	if ms := c.barrier(); len(ms) > 0 {
		t.Fatalf("%+v", ms[0])
	}
	if n := len(dumpText(o)); n != 0 {
		t.Errorf("%d flows before the commit", n)
	}
	reply = c.ask(ofp.AppendBundleControl(nil, c.next(), 5, ofp.BundleCommitRequest, flags), nil)
	if r, ok := reply.(*ofp.BundleReply); !ok || r.Kind != ofp.BundleCommitReply || r.ID != 5 {
		t.Fatalf("commit: %+v", reply)
	}
	if n := len(dumpText(o)); n != len(sent) {
		t.Errorf("%d flows of %d after the commit", n, len(sent))
	}
	if s := o.Ofctl("-O", "OpenFlow13", "dump-groups", "br0"); !strings.Contains(s, "group_id=2") {
		t.Errorf("no group 2: %s", s)
	}
}

// Matches that the switch says in other words must still mean the same.
func TestRewordedOnSwitch(t *testing.T) {
	_, c := bridge(t)
	ms := reworded()
	for i, m := range ms {
		f := flow.Flow{Cookie: flow.Cookie(i), Priority: uint16(i), Match: m}
		c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &f, ofp.FlowModOptions{}))
	}
	got := dump(c)
	if len(got) != len(ms) {
		t.Errorf("read back %d of %d", len(got), len(ms))
	}
	for _, g := range got {
		if want := ms[g.Cookie]; g.Err != nil || !g.Match.Equal(want) {
			t.Errorf("%v came back as %v: %v", want, g.Match, g.Err)
		}
	}
}

func TestERSPANOnSwitch(t *testing.T) {
	_, c := bridge(t)
	ms := erspan()
	for i, m := range ms {
		f := flow.Flow{Cookie: flow.Cookie(i), Priority: uint16(i), Match: m}
		c.must(ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &f, ofp.FlowModOptions{}))
	}
	for _, g := range dump(c) {
		want := ms[g.Cookie]
		if len(g.Match) != len(want) {
			t.Errorf("%v came back as %v", want, g.Match)
			continue
		}
		for i, w := range want {
			got := g.Match[i]
			// The mask that was sent, or what the switch's own mistake makes of it.
			if got.Field != w.Field || got.Value != w.Value || got.Mask != w.Mask && got.Mask != w.Value {
				t.Errorf("%v came back as %v", want, g.Match)
			}
		}
	}
}

// Fields of the switch's own go on the wire, and the switch understands and refuses them.
func TestInternalFieldsOnSwitch(t *testing.T) {
	_, c := bridge(t)
	for _, m := range internalMatches() {
		f := flow.Flow{Priority: 77, Match: m}
		b, err := ofp.AppendFlowMod(nil, c.next(), ofp.FlowAdd, &f, ofp.FlowModOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.send(b)
		ms := c.barrier()
		if len(ms) != 1 {
			t.Errorf("%v: %v", m, ms)
			continue
		}
		if e, ok := ms[0].(*ofp.Error); !ok || e.Code.String() != "OFPBRC_EPERM" {
			t.Errorf("%v: %+v", m, ms[0])
		}
	}
}
