package unixctl_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCall(t *testing.T) {
	o := ovsdbtest.New(t)
	d := unixctl.Daemon{RunDir: o.Dir}
	text, err := d.Call(t.Context(), "version")
	if err != nil || !strings.Contains(text, "Open vSwitch") {
		t.Errorf("version: %q, %v", text, err)
	}
	_, err = d.Call(t.Context(), "nosuch/command", `quote"`, "<&>")
	var refused *unixctl.Error
	if !errors.As(err, &refused) || refused.Method != "nosuch/command" || !strings.Contains(refused.Text, "is not a valid command") {
		t.Errorf("bad command: %v", err)
	}
	if n, err := d.ReadCounter(t.Context(), "unixctl_received"); err != nil || n == 0 {
		t.Errorf("counter: %d, %v", n, err)
	}
	if _, err := d.ReadCounter(t.Context(), "nosuch"); !errors.As(err, &refused) {
		t.Errorf("bad counter: %v", err)
	}
	small := unixctl.Daemon{RunDir: o.Dir, MaxReply: 100}
	if _, err := small.Call(t.Context(), "list-commands"); !errors.Is(err, unixctl.ErrTooLarge) {
		t.Errorf("long answer: %v", err)
	}
	// The socket has another name after a restart.
	before, err := d.Socket()
	if err != nil {
		t.Fatal(err)
	}
	o.KillSwitch()
	if _, err := d.Call(t.Context(), "version"); !errors.Is(err, unixctl.ErrNotRunning) {
		t.Errorf("daemon down: %v", err)
	}
	o.StartSwitch()
	after, err := d.Socket()
	if err != nil || after == before {
		t.Errorf("socket %s, was %s, %v", after, before, err)
	}
	if _, err := d.Call(t.Context(), "version"); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	d := unixctl.Daemon{RunDir: dir}
	pid := filepath.Join(dir, "ovs-vswitchd.pid")
	for _, tt := range []struct{ name, content, want string }{
		{"no pid file", "", "no such file"},
		{"stale pid file", "4242\n", "no such file"},
		{"bad pid file", "/../x", "no process id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.content != "" {
				if err := os.WriteFile(pid, []byte(tt.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := d.Call(t.Context(), "version")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if tt.name != "bad pid file" && !errors.Is(err, unixctl.ErrNotRunning) {
				t.Errorf("error %v is not ErrNotRunning", err)
			}
		})
	}
}

// A daemon that accepts and does not answer, or answers nonsense.
func TestCallEnds(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ovs-vswitchd.pid"), []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "ovs-vswitchd.7.ctl"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answer := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var request any
			if err := json.NewDecoder(conn).Decode(&request); err != nil {
				t.Error(err)
			}
			if text := <-answer; text != "" {
				fmt.Fprint(conn, text)
				conn.Close()
			} else {
				defer conn.Close()
			}
		}
	}()
	defer func() { l.Close(); <-ended }()
	d := unixctl.Daemon{RunDir: dir}

	answer <- ""
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the daemon has read the request by then
	defer cancel()
	if _, err := d.Call(ctx, "version"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent daemon: %v", err)
	}
	for _, bad := range []string{"{", "[]", `{"result":null,"error":null,"id":1}`, `{"result":5}`, "nonsense"} {
		answer <- bad
		if text, err := d.Call(t.Context(), "version"); err == nil {
			t.Errorf("answer %q: %q and no error", bad, text)
		}
	}
	answer <- `{"result":null,"error":{"strange":1}}`
	var refused *unixctl.Error
	if _, err := d.Call(t.Context(), "version"); !errors.As(err, &refused) || !strings.Contains(refused.Text, "strange") {
		t.Errorf("error that is no text: %v", err)
	}
}

const ethernet = "in_port(1),eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),"

// tracked returns a switch with one connection of each kind: IPv4 in zone 5 with mark and label, IPv6 in zone 6.
func tracked(t *testing.T) (*ovsdbtest.OVS, unixctl.Daemon) {
	t.Helper()
	o := ovsdbtest.New(t)
	o.Vsctl("add-br", "br0", "--", "add-port", "br0", "p1", "--", "add-port", "br0", "p2")
	o.Ofctl("add-flow", "br0",
		"ip,actions=ct(commit,zone=5,exec(set_field:7->ct_mark,set_field:0x1234567890abcdef1122334455667788->ct_label)),2")
	o.Ofctl("add-flow", "br0", "ipv6,actions=ct(commit,zone=6,nat(src=[2001:db8::99])),2")
	v4 := func(proto int) string {
		return fmt.Sprintf("%seth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=%d,tos=0,ttl=64,frag=no)", ethernet, proto)
	}
	v6 := func(proto int) string {
		return fmt.Sprintf("%seth_type(0x86dd),ipv6(src=fe80::1,dst=fe80::2,label=0,proto=%d,tclass=0x0,hlimit=64,frag=no)", ethernet, proto)
	}
	for _, packet := range []string{
		v4(6) + ",tcp(src=1000,dst=80),tcp_flags(syn)",
		v4(17) + ",udp(src=53,dst=5353)",
		v4(1) + ",icmp(type=8,code=0)",
		v4(47),
		v6(58) + ",icmpv6(type=128,code=0)",
		v6(17) + ",udp(src=1,dst=2)",
	} {
		o.Appctl("netdev-dummy/receive", "p1", packet)
	}
	d := unixctl.Daemon{RunDir: o.Dir}
	for deadline := time.Now().Add(10 * time.Second); len(dump(t, d, unixctl.Scope{})) != 6; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("connections: %+v", dump(t, d, unixctl.Scope{}))
		}
	}
	return o, d
}

func dump(t *testing.T, d unixctl.Daemon, s unixctl.Scope) []unixctl.Entry {
	t.Helper()
	text, err := d.DumpConntrack(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	var out []unixctl.Entry
	for e, err := range unixctl.Entries(text) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b unixctl.Entry) int {
		return int(a.Zone)<<8 + int(a.Proto) - int(b.Zone)<<8 - int(b.Proto)
	})
	return out
}

func TestConntrack(t *testing.T) {
	_, d := tracked(t)
	dps, err := d.Datapaths(t.Context())
	if err != nil || len(dps) != 1 {
		t.Fatalf("datapaths %v, %v", dps, err)
	}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	a6, b6, nat := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2"), netip.MustParseAddr("2001:db8::99")
	v4 := func(proto uint8, orig, reply unixctl.Tuple) unixctl.Entry {
		orig.Src, orig.Dst, reply.Src, reply.Dst = a, b, b, a
		return unixctl.Entry{Proto: proto, Orig: orig, Reply: reply, Zone: 5, Mark: 7,
			LabelsHi: 0x1234567890abcdef, LabelsLo: 0x1122334455667788, Status: "0"}
	}
	tcp := v4(6, unixctl.Tuple{SrcPort: 1000, DstPort: 80}, unixctl.Tuple{SrcPort: 80, DstPort: 1000})
	tcp.State, tcp.StateReply = "SYN_SENT", "CLOSED"
	want := []unixctl.Entry{
		v4(1, unixctl.Tuple{ICMPType: 8}, unixctl.Tuple{}),
		tcp,
		v4(17, unixctl.Tuple{SrcPort: 53, DstPort: 5353}, unixctl.Tuple{SrcPort: 5353, DstPort: 53}),
		v4(47, unixctl.Tuple{}, unixctl.Tuple{}),
		{Proto: 17, Orig: unixctl.Tuple{Src: a6, Dst: b6, SrcPort: 1, DstPort: 2}, Reply: unixctl.Tuple{Src: b6, Dst: nat, SrcPort: 2,
			DstPort: 1}, Zone: 6, Status: "0"},
		{Proto: 58, Orig: unixctl.Tuple{Src: a6, Dst: b6, ICMPType: 128}, Reply: unixctl.Tuple{Src: b6, Dst: nat, ICMPType: 129}, Zone: 6,
			Status: "0"},
	}
	opts := cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(unixctl.Entry{}, "Timeout")}
	got := dump(t, d, unixctl.Scope{Datapath: dps[0]})
	if diff := cmp.Diff(want, got, opts); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
	for _, e := range got {
		if e.Timeout == 0 || e.Timeout > 3600 {
			t.Errorf("timeout %d of %+v", e.Timeout, e)
		}
	}
	for zone, n := range map[uint16]int{5: 4, 6: 2, 7: 0} {
		if got, err := d.CountConntrack(t.Context(), unixctl.Scope{Datapath: dps[0], Zone: &zone}); err != nil || got != n {
			t.Errorf("%d connections in zone %d, %v; want %d", got, zone, err, n)
		}
	}
	if n, err := d.CountConntrack(t.Context(), unixctl.Scope{Datapath: dps[0]}); err != nil || n != len(want) {
		t.Errorf("%d connections, %v; want %d", n, err, len(want))
	}
	if n, err := d.CountConntrack(t.Context(), unixctl.Scope{Datapath: "netdev@nowhere"}); err == nil {
		t.Errorf("%d connections of a datapath that is not there", n)
	}
	zone := uint16(6)
	if diff := cmp.Diff(want[4:], dump(t, d, unixctl.Scope{Zone: &zone}), opts); diff != "" {
		t.Errorf("zone 6 (-want +got):\n%s", diff)
	}
}

func TestFlush(t *testing.T) {
	_, d := tracked(t)
	all := dump(t, d, unixctl.Scope{})
	for i, e := range all[:5] {
		if err := d.FlushEntry(t.Context(), "", e); err != nil {
			t.Errorf("flush %+v: %v", e, err)
		}
		left := dump(t, d, unixctl.Scope{})
		if len(left) != len(all)-1-i || slices.ContainsFunc(left, func(x unixctl.Entry) bool { return x.Orig == e.Orig && x.Proto == e.Proto }) {
			t.Errorf("after the flush of %+v: %+v", e, left)
		}
	}
	// The daemon would not survive it.
	if err := d.FlushEntry(t.Context(), "", all[5]); !errors.Is(err, unixctl.ErrUnsafeFlush) {
		t.Errorf("ICMPv6: %v", err)
	}
	unreachable := all[0]
	unreachable.Orig.ICMPType = 3
	if err := d.FlushEntry(t.Context(), "", unreachable); !errors.Is(err, unixctl.ErrUnsafeFlush) {
		t.Errorf("ICMP type 3: %v", err)
	}
	if err := d.FlushEntry(t.Context(), "", all[1]); !errors.Is(err, unixctl.ErrNoEntry) {
		t.Errorf("twice: %v", err)
	}
	if err := d.FlushEntry(t.Context(), "", unixctl.Entry{Proto: 6}); !errors.Is(err, unixctl.ErrEntry) {
		t.Errorf("no addresses: %v", err)
	}
	zone := uint16(6)
	if err := d.FlushZone(t.Context(), unixctl.Scope{Zone: &zone}); err != nil {
		t.Error(err)
	}
	if left := dump(t, d, unixctl.Scope{}); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}
