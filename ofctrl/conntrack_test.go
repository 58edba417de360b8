package ofctrl_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// sum is the Internet checksum (RFC 1071).
func sum(b []byte) uint16 {
	var n uint32
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	n = n>>16 + n&0xffff
	return ^uint16(n + n>>16)
}

// frame4 is an IPv4 packet from 10.0.0.1 to 10.0.0.2.
func frame4(proto uint8, payload []byte) []byte {
	ip := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 1, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	binary.BigEndian.PutUint16(ip[10:], sum(ip))
	eth := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}
	return append(append(eth, ip...), payload...)
}

// A connection goes by its tuple: that one, in that zone, and no other. What would abort the switch is not sent.
func TestFlushConnection(t *testing.T) {
	o := oftest.StartOVS(t, oftest.OVSOptions{})
	o.AddBridge("br0", "")
	o.AddPort("br0", "p1", 1)
	o.Ofctl("add-flow", "br0", "ip,actions=ct(commit,zone=5),ct(commit,zone=6)")
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()

	udp := func(port byte) []byte { return frame4(17, []byte{4, port, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4}) } // from 1024+port; no checksum
	ping := []byte{8, 0, 0, 0, 0, 7, 0, 1}
	binary.BigEndian.PutUint16(ping[2:], sum(ping))
	for _, f := range [][]byte{udp(1), udp(2), frame4(1, ping), frame4(47, []byte{0, 0, 8, 0})} {
		o.InjectPacket("p1", f)
	}
	from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	first := ofp.CTTuple{Src: from, Dst: to, SrcPort: 1025, DstPort: 53}
	second := ofp.CTTuple{Src: to, Dst: from, SrcPort: 53, DstPort: 1026} // by the reply
	echo := ofp.CTTuple{Src: from, Dst: to, ICMPID: 7, ICMPType: 8}
	tracked := func() string {
		var out []string
		for zone := 5; zone <= 6; zone++ {
			text := o.Appctl("dpctl/dump-conntrack", fmt.Sprintf("zone=%d", zone))
			for name, part := range map[string]string{"a": "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1025", "b": "sport=1026", "c": "icmp,",
				"d": "47,"} {
				if strings.Contains(text, part) {
					out = append(out, fmt.Sprint(name, zone))
				}
			}
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got := tracked(); got != "a5 a6 b5 b6 c5 c6 d5 d6" {
		t.Fatalf("tracked before: %s\n%s", got, o.Appctl("dpctl/dump-conntrack"))
	}
	for _, tc := range []struct {
		zone  uint16
		proto uint8
		tuple ofp.CTTuple
		left  string
	}{
		{7, 17, first, "a5 a6 b5 b6 c5 c6 d5 d6"}, // none: no error
		{5, 6, first, "a5 a6 b5 b6 c5 c6 d5 d6"},
		{5, 17, first, "a6 b5 b6 c5 c6 d5 d6"},
		{6, 17, second, "a6 b5 c5 c6 d5 d6"},
		{5, 1, echo, "a6 b5 c6 d5 d6"},
		{6, 47, ofp.CTTuple{Src: from, Dst: to}, "a6 b5 c6 d5"},
	} {
		if err := s.FlushConnection(t.Context(), tc.zone, tc.proto, tc.tuple); err != nil {
			t.Errorf("%+v: %v", tc, err)
		}
		if got := tracked(); got != tc.left {
			t.Errorf("left %s after %+v, want %s", got, tc, tc.left)
		}
	}

	six := ofp.CTTuple{Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.MustParseAddr("2001:db8::2")}
	ping6 := six
	ping6.ICMPID, ping6.ICMPType = 7, 128
	noPort, mixed := first, first
	noPort.DstPort, mixed.Dst = 0, six.Dst
	for _, tc := range []struct {
		proto uint8
		tuple ofp.CTTuple
		want  error
	}{
		{58, ping6, ofctrl.ErrUnsafeFlush},
		{58, six, ofctrl.ErrUnsafeFlush},
		{1, ofp.CTTuple{Src: from, Dst: to, ICMPType: 3}, ofctrl.ErrUnsafeFlush},
		{1, ofp.CTTuple{Src: from, Dst: to, ICMPType: 17}, ofctrl.ErrUnsafeFlush},
		{17, noPort, ofctrl.ErrInvalid},
		{17, mixed, ofctrl.ErrInvalid},
		{17, ofp.CTTuple{SrcPort: 1, DstPort: 2}, ofctrl.ErrInvalid},
		{0, first, ofctrl.ErrInvalid},
		{1, first, ofctrl.ErrInvalid},
		{17, echo, ofctrl.ErrInvalid},
	} {
		if err := s.FlushConnection(t.Context(), 5, tc.proto, tc.tuple); !errors.Is(err, tc.want) {
			t.Errorf("protocol %d, %+v: %v, want %v", tc.proto, tc.tuple, err, tc.want)
		}
	}
	if got := tracked(); got != "a6 b5 c6 d5" {
		t.Errorf("left %s after what was refused", got)
	}
	s.end()
	if err := s.FlushConnection(context.Background(), 6, 17, first); !errors.Is(err, ofctrl.ErrNotConnected) {
		t.Errorf("without a connection: %v", err)
	}
}
