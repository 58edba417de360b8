package unixctl_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwall/tapwall/ovsdb/unixctl"
)

// Lines as different versions and datapaths print them.
var lines = []struct {
	name string
	line string
	want unixctl.Entry
	bad  bool
}{
	{
		name: "OK short",
		line: "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=80),reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=1000),zone=5,mark=7," +
			"labels=0x12,protoinfo=(state=ESTABLISHED)",
		want: unixctl.Entry{Proto: 6, Zone: 5, Mark: 7, LabelsLo: 0x12, State: "ESTABLISHED",
			Orig:  unixctl.Tuple{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), SrcPort: 1000, DstPort: 80},
			Reply: unixctl.Tuple{Src: ip("10.0.0.2"), Dst: ip("10.0.0.1"), SrcPort: 80, DstPort: 1000}},
	},
	{
		name: "OK kernel with counters, helper and parent",
		line: "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=21,packets=3,bytes=180),reply=(src=10.0.0.2,dst=10.0.0.1,sport=21,dport=1," +
			"packets=2,bytes=120),start=2026-01-01T00:00:00.000,id=3264,zone=65535,status=SEEN_REPLY|ASSURED|CONFIRMED,timeout=431999," +
			"labels=0xffffffffffffffff0000000000000001,helper=ftp,parent=(src=1.1.1.1,dst=2.2.2.2,sport=1,dport=2)," +
			"protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED,wscale_orig=7,wscale_reply=7,flags_orig=WINDOW_SCALE|SACK_PERM," +
			"flags_reply=WINDOW_SCALE)",
		want: unixctl.Entry{Proto: 6, Zone: 65535, ID: 3264, Timeout: 431999, Status: "SEEN_REPLY|ASSURED|CONFIRMED", Helper: "ftp",
			LabelsHi: 1<<64 - 1, LabelsLo: 1, State: "ESTABLISHED", StateReply: "ESTABLISHED",
			Orig:  unixctl.Tuple{Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"), SrcPort: 1, DstPort: 21, Packets: 3, Bytes: 180},
			Reply: unixctl.Tuple{Src: ip("10.0.0.2"), Dst: ip("10.0.0.1"), SrcPort: 21, DstPort: 1, Packets: 2, Bytes: 120}},
	},
	{
		name: "OK number as protocol, zone 0, unknown fields",
		line: "47,orig=(src=::1,dst=::2,new=(a=(b))),reply=(),future,thing=1,other=(x,y)",
		want: unixctl.Entry{Proto: 47, Orig: unixctl.Tuple{Src: ip("::1"), Dst: ip("::2")}},
	},
	{name: "bad empty", line: "", bad: true},
	{name: "bad protocol", line: "quic,orig=(src=1.1.1.1,dst=2.2.2.2)", bad: true},
	{name: "bad protocol number", line: "256,orig=(src=1.1.1.1,dst=2.2.2.2)", bad: true},
	{name: "bad no tuple", line: "udp,zone=1", bad: true},
	{name: "bad tuple without parentheses", line: "udp,orig=src", bad: true},
	{name: "bad unbalanced", line: "udp,orig=(src=1.1.1.1,dst=2.2.2.2", bad: true},
	{name: "bad after parenthesis", line: "udp,orig=(src=1.1.1.1,dst=2.2.2.2)x", bad: true},
	{name: "bad address", line: "udp,orig=(src=1.1.1.999,dst=2.2.2.2)", bad: true},
	{name: "bad port", line: "udp,orig=(src=1.1.1.1,dst=2.2.2.2,sport=70000)", bad: true},
	{name: "bad zone", line: "udp,orig=(src=1.1.1.1,dst=2.2.2.2),zone=65536", bad: true},
	{name: "bad labels", line: "udp,orig=(src=1.1.1.1,dst=2.2.2.2),labels=0x123456789012345678901234567890123", bad: true},
	{name: "bad protoinfo", line: "udp,orig=(src=1.1.1.1,dst=2.2.2.2),protoinfo=x", bad: true},
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestParseEntry(t *testing.T) {
	for _, tt := range lines {
		t.Run(tt.name, func(t *testing.T) {
			got, err := unixctl.ParseEntry(tt.line)
			if tt.bad {
				if !errors.Is(err, unixctl.ErrEntry) {
					t.Fatalf("error %v, want ErrEntry; entry %+v", err, got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("entry (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEntriesGoesOn(t *testing.T) {
	text := lines[0].line + "\n\ngarbage\r\n" + lines[2].line
	good, bad := 0, 0
	for _, err := range unixctl.Entries(text) {
		if err != nil {
			bad++
		} else {
			good++
		}
	}
	if good != 2 || bad != 1 {
		t.Errorf("%d good and %d bad lines, want 2 and 1", good, bad)
	}
	for range unixctl.Entries(text) {
		break // must not go on after the loop has ended
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, tt := range lines {
		f.Add(tt.line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, err := unixctl.ParseEntry(line)
		if err != nil {
			if !errors.Is(err, unixctl.ErrEntry) || e != (unixctl.Entry{}) {
				t.Errorf("%q: error %v with entry %+v", line, err, e)
			}
			return
		}
		if !e.Orig.Src.IsValid() || !e.Orig.Dst.IsValid() {
			t.Errorf("%q: no addresses in %+v", line, e)
		}
		// What is unknown changes nothing.
		more, err := unixctl.ParseEntry(line + ",later=(a=(b,c)),x")
		if err == nil && more != e {
			t.Errorf("%q: %+v, with more fields %+v", line, e, more)
		}
	})
}
