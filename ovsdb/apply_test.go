package ovsdb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// newSwitch has bridge br0 with VM ports vm1, vm2, vm3 and a mirror "foreign" to port "ids" that belongs to somebody else.
func newSwitch(t *testing.T) *ovsdbtest.OVS {
	t.Helper()
	o := ovsdbtest.New(t)
	// Statistics would change rows on their own.
	args := []string{"set", "Open_vSwitch", ".", "other_config:stats-update-interval=600000", "--", "add-br", "br0", "--", "add-port", "br0",
		"ids"}
	for i := 1; i <= 3; i++ {
		args = append(args, addVM(i)...)
	}
	args = append(args, "--", "--id=@ids", "get", "Port", "ids", "--", "--id=@vm3", "get", "Port", "vm3", "--",
		"--id=@m", "create", "Mirror", "name=foreign", "select_src_port=@vm3", "output_port=@ids", "external_ids:ovn-owned=true", "--",
		"add", "Bridge", "br0", "mirrors", "@m")
	o.Vsctl(args...)
	return o
}

func addVM(i int) []string {
	name := fmt.Sprintf("vm%d", i)
	return []string{"--", "add-port", "br0", name, "tag=10", "--", "set", "Interface", name, "external_ids:iface-id=id-" + name}
}

// foreignRows are all rows that are not ours, byte by byte, with their versions.
func foreignRows(o *ovsdbtest.OVS) string {
	return strings.Join([]string{
		o.Select("Mirror", "foreign"),
		o.Select("Port", "br0", "ids", "vm1", "vm2", "vm3"),
		o.Select("Interface", "br0", "ids", "vm1", "vm2", "vm3"),
		strings.Join(strings.Fields(o.Vsctl("--columns=fail_mode,protocols,external_ids,other_config,controller", "list", "Bridge", "br0")), " "),
	}, "\n")
}

// mirrorSpec wants everything of the named ports at a created port "tw-<owner>".
func mirrorSpec(owner string, ports ...string) vswitch.MirrorSpec {
	return vswitch.MirrorSpec{
		Owner: owner, Bridge: "br0", Name: "tw." + owner, SelectSrcPort: ports, SelectDstPort: ports,
		Output: vswitch.OutputSpec{Port: "tw-" + owner, Create: true, Type: "internal"},
	}
}

func desired(specs ...vswitch.MirrorSpec) ovsdb.Desired { return ovsdb.Desired{Mirrors: specs} }

// apply expects success with the given number of transactions.
func apply(t *testing.T, c *ovsdb.Client, transactions int, d ovsdb.Desired) ovsdb.Result {
	t.Helper()
	before := c.Status().Transactions
	r, err := c.Apply(t.Context(), d)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	if sent := c.Status().Transactions - before; r.Transactions != transactions || sent != uint64(transactions) {
		t.Fatalf("%d transactions reported, %d sent, want %d; result %+v", r.Transactions, sent, transactions, r)
	}
	if len(r.Mirrors) != len(d.Mirrors) {
		t.Fatalf("%d results for %d mirrors", len(r.Mirrors), len(d.Mirrors))
	}
	return r
}

func codes(r ovsdb.Result) []string {
	var out []string
	for _, m := range r.Mirrors {
		out = append(out, m.Code.String())
	}
	return out
}

func mirrorRow(s *vswitch.Topology, bridge, name string) *vswitch.Mirror {
	for _, m := range s.Bridges[bridge].Mirrors {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// traced says whether a packet that enters at a port is copied to the output port, by what ovs-vswitchd itself would do.
func traced(o *ovsdbtest.OVS, in, out string) bool {
	number := func(name string) string {
		for _, line := range strings.Split(o.Appctl("dpif/show"), "\n") {
			f := strings.Fields(line) // "vm1 1/2: (dummy)"
			if len(f) > 1 && f[0] == name {
				_, dp, _ := strings.Cut(f[1], "/")
				return strings.TrimSuffix(dp, ":")
			}
		}
		return "no such port"
	}
	text := o.Appctl("ofproto/trace", "br0", "in_port="+in+",dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02")
	_, actions, _ := strings.Cut(text, "Datapath actions: ")
	return slices.Contains(strings.Split(strings.TrimSpace(actions), ","), number(out))
}

func TestApplyLifecycle(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	before := foreignRows(o)

	apply(t, c, 0, ovsdb.Desired{})

	// Create.
	spec := mirrorSpec("web", "vm1", "vm2")
	if traced(o, "vm1", "tw-web") {
		t.Fatal("mirrored before the start")
	}
	r := apply(t, c, 1, desired(spec))
	got := r.Mirrors[0]
	if got.UUID == "" || got.OutputUUID == "" || got.OutputOFPort <= 0 {
		t.Errorf("not read back: %+v", got)
	}
	want := ovsdb.MirrorResult{Owner: "web", Bridge: "br0", Name: "tw.web"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(ovsdb.MirrorResult{}, "UUID", "OutputUUID", "OutputOFPort")); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if r.Cfg == 0 || r.Generation != c.Topology().Generation {
		t.Errorf("result %+v", r)
	}
	if !traced(o, "vm1", "tw-web") || !traced(o, "vm2", "tw-web") {
		t.Error("ovs-vswitchd does not mirror vm1 and vm2")
	}
	row := mirrorRow(c.Topology(), "br0", "tw.web")
	for _, ids := range []map[string]string{row.ExternalIDs, c.Topology().Bridges["br0"].Ports["tw-web"].ExternalIDs,
		c.Topology().Bridges["br0"].Ports["tw-web"].Interfaces[0].ExternalIDs} {
		if ids[vswitch.MarkOwner] != vswitch.OwnerValue || ids[vswitch.MarkMirror] != "web" || ids[vswitch.MarkSpecHash] == "" {
			t.Errorf("marks %v", ids)
		}
	}

	// Nothing to do.
	apply(t, c, 0, desired(spec))

	// Update in place: sources, VLANs, and the created port.
	tag := 10
	spec.SelectSrcPort, spec.SelectDstPort, spec.SelectVLAN = []string{"vm2"}, nil, []int{20, 10}
	spec.Output.Tag, spec.Output.Options = &tag, map[string]string{"a": "b"}
	updated := apply(t, c, 1, desired(spec)).Mirrors[0]
	if updated.UUID != got.UUID || updated.OutputUUID != got.OutputUUID {
		t.Errorf("rows were replaced: %+v, was %+v", updated, got)
	}
	row = mirrorRow(c.Topology(), "br0", "tw.web")
	wantRow := &vswitch.Mirror{Name: "tw.web", SelectSrcPort: []string{"vm2"}, SelectVLAN: []int{10, 20}, OutputPort: "tw-web"}
	if diff := cmp.Diff(wantRow, row, cmpopts.IgnoreFields(vswitch.Mirror{}, "UUID", "ExternalIDs", "Statistics")); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	port := c.Topology().Bridges["br0"].Ports["tw-web"]
	if port.Tag == nil || *port.Tag != 10 || port.Interfaces[0].Options["a"] != "b" {
		t.Errorf("port %+v, interface %+v", port, port.Interfaces[0])
	}
	if traced(o, "vm1", "tw-web") || !traced(o, "vm2", "tw-web") {
		t.Error("ovs-vswitchd does not mirror what enters at vm2, and only that")
	}
	spec.SelectAll, spec.SelectSrcPort, spec.SelectVLAN = true, nil, nil
	apply(t, c, 1, desired(spec))
	if !traced(o, "vm1", "tw-web") {
		t.Error("select_all does not mirror vm1")
	}
	apply(t, c, 0, desired(spec))

	// What others do to our row is undone, what they add to its external_ids is theirs.
	o.Vsctl("set", "Mirror", "tw.web", "snaplen=100", "select_all=false", "external_ids:note=mine")
	eventually(t, c, "the change", func(s *vswitch.Topology) bool { return mirrorRow(s, "br0", "tw.web").Snaplen != nil })
	apply(t, c, 1, desired(spec))
	row = mirrorRow(c.Topology(), "br0", "tw.web")
	if row.Snaplen != nil || !row.SelectAll || row.ExternalIDs["note"] != "mine" || row.UUID != got.UUID {
		t.Errorf("row %+v", row)
	}

	// Delete.
	r = apply(t, c, 1, ovsdb.Desired{})
	if diff := cmp.Diff([]string{"mirror br0/tw.web", "port br0/tw-web"}, r.Removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if o.Select("Port", "tw-web") != `[{"rows":[]}]` || o.Select("Interface", "tw-web") != `[{"rows":[]}]` || o.Select("Mirror",
		"tw.web") != `[{"rows":[]}]` {
		t.Errorf("rows are left:\n%s", o.Dump("Mirror"))
	}
	apply(t, c, 0, ovsdb.Desired{})

	if diff := cmp.Diff(before, foreignRows(o)); diff != "" {
		t.Errorf("foreign rows changed (-before +after):\n%s", diff)
	}
}

// A mark on the Mirror alone must not decide: another process with the same wishes finds everything done.
func TestRestartWritesNothing(t *testing.T) {
	o := newSwitch(t)
	vxlan := mirrorSpec("tun", "vm2")
	vxlan.Output = vswitch.OutputSpec{Port: "tw-vx", Create: true, Type: "vxlan", Options: map[string]string{"remote_ip": "192.0.2.9",
		"key": "7"}}
	d := desired(mirrorSpec("web", "vm2", "vm1", "vm1"), vxlan)
	d.FailModes = map[string]string{"br0": "secure"}
	first := connected(t, o)
	apply(t, first, 1, d)
	apply(t, first, 0, d)
	dump := o.Dump()

	second := connected(t, o)
	apply(t, second, 0, d)
	if diff := cmp.Diff(dump, o.Dump()); diff != "" {
		t.Errorf("the database changed (-before +after):\n%s", diff)
	}
	o.KillDB()
	eventually(t, second, "loss", func(*vswitch.Topology) bool { return !second.Status().Connected })
	o.StartDB()
	eventually(t, second, "reconnect", func(s *vswitch.Topology) bool { return second.Status().Connected })
	apply(t, second, 0, d)
}

func TestOrphansAreRemoved(t *testing.T) {
	o := newSwitch(t)
	before := foreignRows(o)
	first := connected(t, o)
	o.Vsctl("add-br", "br1")
	eventually(t, first, "br1", func(s *vswitch.Topology) bool { return s.Bridges["br1"] != nil })
	other := mirrorSpec("c")
	other.Bridge = "br1"
	apply(t, first, 1, desired(mirrorSpec("a", "vm1"), mirrorSpec("b", "vm2"), other))
	// Two rows with the marks of one mirror, as a crash of somebody's making might leave them.
	a := mirrorRow(first.Topology(), "br0", "tw.a")
	o.Vsctl("--id=@m", "create", "Mirror", "name=tw.a", fmt.Sprintf("external_ids={%s=%s,%s=a}", vswitch.MarkOwner, vswitch.OwnerValue,
		vswitch.MarkMirror),
		"--", "add", "Bridge", "br0", "mirrors", "@m")
	eventually(t, first, "the copy", func(s *vswitch.Topology) bool { return len(s.Bridges["br0"].Mirrors) == 4 })

	second := connected(t, o)
	r := apply(t, second, 1, desired(mirrorSpec("a", "vm1")))
	if diff := cmp.Diff([]string{"mirror br0/tw.a", "mirror br0/tw.b", "mirror br1/tw.c", "port br0/tw-b", "port br1/tw-c"},
		slices.Sorted(slices.Values(r.Removed))); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	s := second.Topology()
	if len(s.Bridges["br0"].Mirrors) != 2 || len(s.Bridges["br1"].Mirrors) != 0 || s.Bridges["br0"].Ports["tw-a"] == nil {
		t.Errorf("left: %v", o.Dump("Mirror"))
	}
	if m := mirrorRow(s, "br0", "tw.a"); m.OutputPort != "tw-a" || !slices.Equal(m.SelectSrcPort, []string{"vm1"}) {
		t.Errorf("row %+v, was %+v", m, a)
	}
	if diff := cmp.Diff(before, foreignRows(o)); diff != "" {
		t.Errorf("foreign rows changed (-before +after):\n%s", diff)
	}
}

func TestForeignOverwrite(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	d := desired(mirrorSpec("web", "vm1"))
	apply(t, c, 1, d)
	o.Vsctl("--id=@x", "create", "Mirror", "name=x", "select_all=true", "--", "set", "Bridge", "br0", "mirrors=@x")
	eventually(t, c, "the overwrite", func(s *vswitch.Topology) bool { return len(s.Bridges["br0"].Mirrors) == 1 })
	x := o.Select("Mirror", "x")
	r := apply(t, c, 1, d)
	if r.Mirrors[0].UUID == "" || len(r.Removed) != 0 {
		t.Errorf("result %+v", r)
	}
	if got := o.Select("Mirror", "x"); got != x {
		t.Errorf("their mirror was\n%s\nand is\n%s", x, got)
	}
	if s := c.Topology(); len(s.Bridges["br0"].Mirrors) != 2 || mirrorRow(s, "br0", "tw.web").OutputPort != "tw-web" {
		t.Errorf("mirrors:\n%s", o.Dump("Mirror"))
	}
	apply(t, c, 0, d)
}

func TestReplug(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	d := desired(mirrorSpec("web", "vm1", "vm2"))
	uuid := apply(t, c, 1, d).Mirrors[0].UUID

	o.Vsctl("del-port", "vm1")
	eventually(t, c, "unplug", func(s *vswitch.Topology) bool { return s.Bridges["br0"].Ports["vm1"] == nil })
	if got := mirrorRow(c.Topology(), "br0", "tw.web").SelectSrcPort; !slices.Equal(got, []string{"vm2"}) {
		t.Errorf("select_src_port %v after the unplug", got)
	}
	r := apply(t, c, 0, d)
	if m := r.Mirrors[0]; m.Code != ovsdb.CodeOK || !slices.Equal(m.MissingSources, []string{"vm1"}) {
		t.Errorf("result without vm1: %+v", m)
	}
	o.Vsctl(addVM(1)[1:]...)
	eventually(t, c, "plug", func(s *vswitch.Topology) bool { return s.Bridges["br0"].Ports["vm1"] != nil })
	r = apply(t, c, 1, d)
	if m := r.Mirrors[0]; len(m.MissingSources) != 0 || m.UUID != uuid {
		t.Errorf("result with vm1 again: %+v", m)
	}
	if !traced(o, "vm1", "tw-web") {
		t.Error("vm1 is not mirrored again")
	}
}

func TestSinkDeleted(t *testing.T) {
	o := newSwitch(t)
	o.Vsctl("add-port", "br0", "sink")
	c := connected(t, o)
	existing := mirrorSpec("old", "vm2")
	existing.Output = vswitch.OutputSpec{Port: "sink"}
	d := desired(mirrorSpec("web", "vm1"), existing)
	first := apply(t, c, 1, d)
	o.Vsctl("del-port", "tw-web", "--", "del-port", "sink")
	eventually(t, c, "deletion", func(s *vswitch.Topology) bool { return s.Bridges["br0"].Ports["sink"] == nil })

	// The created port comes back; the other is not ours to make.
	r := apply(t, c, 1, d)
	if diff := cmp.Diff([]string{"OK", "OUTPUT_MISSING"}, codes(r)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if m := r.Mirrors[0]; m.UUID != first.Mirrors[0].UUID || m.OutputUUID == "" || m.OutputUUID == first.Mirrors[0].OutputUUID {
		t.Errorf("result %+v", m)
	}
	if m := r.Mirrors[1]; m.UUID != first.Mirrors[1].UUID || m.OutputUUID != "" || !strings.Contains(m.Message, "sink") {
		t.Errorf("result %+v", m)
	}
	if !traced(o, "vm1", "tw-web") {
		t.Error("vm1 is not mirrored again")
	}
	apply(t, c, 0, d)
	o.Vsctl("add-port", "br0", "sink")
	eventually(t, c, "sink", func(s *vswitch.Topology) bool { return s.Bridges["br0"].Ports["sink"] != nil })
	r = apply(t, c, 1, d)
	if m := r.Mirrors[1]; m.Code != ovsdb.CodeOK || m.OutputUUID == "" {
		t.Errorf("result %+v", m)
	}
	// A port that was not created is not removed with its mirror.
	apply(t, c, 1, ovsdb.Desired{})
	if c.Topology().Bridges["br0"].Ports["sink"] == nil {
		t.Error("the existing sink was removed")
	}
}

func TestMirrorLimit(t *testing.T) {
	o := newSwitch(t) // one foreign mirror
	args := []string{"add-br", "br1"}
	for i := range 28 {
		args = append(args, "--", fmt.Sprintf("--id=@m%d", i), "create", "Mirror", fmt.Sprintf("name=f%d", i), "--", "add", "Bridge", "br0",
			"mirrors", fmt.Sprintf("@m%d", i))
	}
	o.Vsctl(args...)
	c := connected(t, o)
	spec := func(owner string) vswitch.MirrorSpec {
		m := mirrorSpec(owner, "vm1")
		m.Output.Port = "tw-all"
		return m
	}
	elsewhere := mirrorSpec("other")
	elsewhere.Bridge, elsewhere.SelectAll = "br1", true
	d := desired(spec("e"), spec("d"), spec("c"), spec("b"), elsewhere)
	r := apply(t, c, 1, d)
	if diff := cmp.Diff([]string{"MIRROR_LIMIT", "OK", "OK", "OK", "OK"}, codes(r)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if r.Mirrors[0].UUID != "" || len(c.Topology().Bridges["br0"].Mirrors) != ovsdb.MaxMirrors {
		t.Errorf("%d mirrors, result %+v", len(c.Topology().Bridges["br0"].Mirrors), r.Mirrors[0])
	}
	// Who is in stays in, also when one comes that sorts first.
	d.Mirrors[0] = spec("a")
	if diff := cmp.Diff([]string{"MIRROR_LIMIT", "OK", "OK", "OK", "OK"}, codes(apply(t, c, 0, d))); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	// One that goes makes room in the same transaction.
	d.Mirrors[1] = spec("d2")
	if diff := cmp.Diff([]string{"OK", "MIRROR_LIMIT", "OK", "OK", "OK"}, codes(apply(t, c, 1, d))); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

func TestBridgeComesAndGoes(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	spec := mirrorSpec("web")
	spec.Bridge, spec.SelectAll = "br7", true
	d := desired(spec)
	d.FailModes = map[string]string{"br7": "secure"}
	r := apply(t, c, 0, d)
	if diff := cmp.Diff([]string{"BRIDGE_MISSING"}, codes(r)); diff != "" || !slices.Equal(r.MissingBridges, []string{"br7"}) {
		t.Errorf("codes (-want +got):\n%s; missing %v", diff, r.MissingBridges)
	}
	for range 2 {
		o.Vsctl("add-br", "br7")
		eventually(t, c, "br7", func(s *vswitch.Topology) bool { return s.Bridges["br7"] != nil })
		r = apply(t, c, 1, d)
		if r.Mirrors[0].Code != ovsdb.CodeOK || c.Topology().Bridges["br7"].FailMode != "secure" {
			t.Errorf("result %+v, bridge %+v", r, c.Topology().Bridges["br7"])
		}
		o.Vsctl("del-br", "br7")
		eventually(t, c, "br7 gone", func(s *vswitch.Topology) bool { return s.Bridges["br7"] == nil })
		apply(t, c, 0, d)
	}
}

func TestFailModes(t *testing.T) {
	o := newSwitch(t)
	o.Vsctl("add-br", "br1", "--", "set-fail-mode", "br1", "secure")
	c := connected(t, o)
	for _, step := range []struct {
		mode         string
		transactions int
	}{{"secure", 1}, {"secure", 0}, {"standalone", 1}, {"", 1}, {"", 0}} {
		apply(t, c, step.transactions, ovsdb.Desired{FailModes: map[string]string{"br0": step.mode}})
		if got := c.Topology().Bridges["br0"].FailMode; got != step.mode {
			t.Errorf("fail mode %q, want %q", got, step.mode)
		}
		if got := c.Topology().Bridges["br1"].FailMode; got != "secure" {
			t.Errorf("fail mode of the other bridge %q", got)
		}
	}
	// A value that the schema refuses fails the call and says where.
	_, err := c.Apply(t.Context(), ovsdb.Desired{FailModes: map[string]string{"br0": "sometimes"}})
	var op *ovsdb.OpError
	if !errors.As(err, &op) || op.Op != "update" || op.Table != "Bridge" || op.Code != "constraint violation" {
		t.Errorf("bad fail mode: %v", err)
	}
}

func TestUnconfirmed(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o, func(opts *ovsdb.Options) { opts.Timeout = 2 * time.Second }) // enough for the database, which lives
	o.KillSwitch()
	d := desired(mirrorSpec("web", "vm1"))
	for transactions := 1; transactions >= 0; transactions-- {
		r, err := c.Apply(t.Context(), d)
		if !errors.Is(err, ovsdb.ErrNotRealized) || r.Transactions != transactions {
			t.Errorf("%d transactions, error %v", r.Transactions, err)
		}
	}
	o.StartSwitch()
	eventually(t, c, "confirmation", func(s *vswitch.Topology) bool { return s.CurCfg == s.NextCfg })
	apply(t, c, 0, d)
	if !traced(o, "vm1", "tw-web") {
		t.Error("vm1 is not mirrored")
	}
}

// A transaction that the server carries out after its sender has given up must not make anything twice.
func TestUnknownOutcome(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o, func(opts *ovsdb.Options) {
		opts.ProbeInterval, opts.ProbeTimeout = 100*time.Millisecond, 3*time.Second
	})
	d := desired(mirrorSpec("web", "vm1"), mirrorSpec("web2", "vm2"))
	o.FreezeDB()
	// Long enough to send the transaction, and over before the probe ends the connection.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.Apply(ctx, d); !errors.Is(err, ovsdb.ErrUnknownOutcome) {
		t.Errorf("error %v, want ErrUnknownOutcome", err)
	}
	// Again while nothing has come back: the server gets the same wish twice.
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Apply(ctx, d); err == nil {
		t.Error("no error from a frozen server")
	}
	eventually(t, c, "loss", func(*vswitch.Topology) bool { return !c.Status().Connected })
	o.ThawDB()
	eventually(t, c, "reconnect", func(*vswitch.Topology) bool { return c.Status().Connected })
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := c.Apply(t.Context(), d)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := len(c.Topology().Bridges["br0"].Mirrors); got != 3 {
		t.Errorf("%d mirrors, want 3:\n%s", got, o.Dump("Mirror"))
	}
	apply(t, c, 0, d)
}

func TestNotConnected(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	c := run(t, o)
	if _, err := c.Apply(t.Context(), ovsdb.Desired{}); !errors.Is(err, ovsdb.ErrNotConnected) {
		t.Errorf("error %v", err)
	}
}
