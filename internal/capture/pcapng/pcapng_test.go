package pcapng

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"pgregory.net/rapid"
)

// What is written is what another reader finds.
func TestReadByGopacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.StringMatching(`[ -~]{0,40}`)
		interfaces := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Interface {
			return Interface{Name: words.Draw(t, "name"), Description: words.Draw(t, "description"), Comment: words.Draw(t, "comment")}
		}), 1, 4).Draw(t, "interfaces")
		packets := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Packet {
			data := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "data")
			return Packet{Interface: uint32(rapid.IntRange(0, len(interfaces)-1).Draw(t, "interface")),
				Time: rapid.Int64Range(0, 1<<62).Draw(t, "time"), Data: data, Length: len(data) + rapid.IntRange(0, 9000).Draw(t, "cut"),
				Direction: Direction(rapid.IntRange(0, 2).Draw(t, "direction")), Drops: rapid.Uint64().Draw(t, "drops"),
				Comment: words.Draw(t, "comment")}
		}), 0, 20).Draw(t, "packets")
		b := AppendSection(nil, "tapwall", words.Draw(t, "section"))
		for _, i := range interfaces {
			b = AppendInterface(b, i)
		}
		for i := range packets {
			b = AppendPacket(b, &packets[i])
		}
		start := time.Unix(0, 1).UTC()
		stats := Statistics{Start: start, End: start.Add(time.Hour), Received: 7, Dropped: 3}
		for i := range interfaces {
			at := len(b)
			if b = AppendStatistics(b, uint32(i), stats); len(b)-at > MaxStatistics {
				t.Fatalf("statistics of %d bytes", len(b)-at)
			}
		}

		r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{SkipUnknownVersion: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packets {
			data, ci, opts, err := r.ReadPacketDataWithOptions()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(data, p.Data) || ci.Timestamp.UnixNano() != p.Time || ci.Length != p.Length || ci.InterfaceIndex != int(p.Interface) {
				t.Fatalf("%+v of %+v", ci, p)
			}
			var comment string
			for _, c := range opts.Comments {
				comment += c
			}
			var flags uint32
			if opts.Flags != nil {
				flags = opts.Flags.ToUint32()
			}
			var drops uint64
			if opts.DropCount != nil {
				drops = *opts.DropCount
			}
			if comment != p.Comment || flags != uint32(p.Direction) || drops != p.Drops {
				t.Fatalf("%+v of %+v", opts, p)
			}
		}
		if _, _, err := r.ReadPacketData(); err != io.EOF {
			t.Fatalf("then %v", err)
		}
		for i, want := range interfaces {
			got, err := r.Interface(i)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, Interface{got.Name, got.Description, got.Comment}); diff != "" || got.LinkType != layers.LinkTypeEthernet ||
				got.Resolution() != gopacket.TimestampResolutionNanosecond {
				t.Fatalf("%s%+v", diff, got)
			}
			s := got.Statistics
			if s.PacketsReceived != 10 || s.PacketsDropped != 3 || !s.StartTime.Equal(stats.Start) || !s.EndTime.Equal(stats.End) {
				t.Fatalf("%+v", s)
			}
		}

		// And our own reader finds the same bytes, block by block.
		own, rest := NewReader(bytes.NewReader(b)), b
		for {
			kind, block, err := own.Next()
			if err == io.EOF && len(rest) == 0 {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			k, want, more, ok := Cut(rest)
			if !ok || k != kind || !bytes.Equal(block, want) {
				t.Fatalf("%x is not %x", block, want)
			}
			rest = more
		}
	})
}

func TestReaderOfACutStream(t *testing.T) {
	whole := AppendInterface(AppendSection(nil, "x", ""), Interface{Name: "a"})
	first := len(AppendSection(nil, "x", ""))
	for n := range whole {
		r := NewReader(bytes.NewReader(whole[:n]))
		blocks := 0
		var err error
		for err == nil {
			if _, _, err = r.Next(); err == nil {
				blocks++
			}
		}
		want := io.ErrUnexpectedEOF
		if n == 0 || n == first {
			want = io.EOF
		}
		if err != want || (blocks == 1) != (n >= first) {
			t.Errorf("%d bytes: %d blocks, %v", n, blocks, err)
		}
	}
}

// Whatever comes, the reader returns whole blocks or says why not.
func FuzzReader(f *testing.F) {
	f.Add(AppendPacket(AppendInterface(AppendSection(nil, "x", "y"), Interface{Name: "a"}), &Packet{Data: []byte("hello")}))
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		total := 0
		for {
			_, block, err := r.Next()
			if err != nil {
				if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.Is(err, ErrCorrupt) {
					t.Fatal(err)
				}
				break
			}
			if !bytes.Equal(block, b[total:total+len(block)]) {
				t.Fatal("not what came")
			}
			TimeOf(block)
			total += len(block)
		}
	})
}

func BenchmarkAppendPacket(b *testing.B) {
	p := Packet{Time: 1, Length: 500, Data: make([]byte, 500), Direction: Inbound, Comment: "mirror web"}
	buf := make([]byte, 0, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		if len(buf) > 1<<19 {
			buf = buf[:0]
		}
		buf = AppendPacket(buf, &p)
	}
}

// BenchmarkLibrary is the same by gopacket.
func BenchmarkLibrary(b *testing.B) {
	w, err := pcapgo.NewNgWriter(io.Discard, layers.LinkTypeEthernet)
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 500)
	ci := gopacket.CaptureInfo{Timestamp: time.Unix(0, 1), Length: 500, CaptureLength: 500}
	b.ReportAllocs()
	for b.Loop() {
		opts := pcapgo.NgPacketOptions{Comments: []string{"mirror web"}, Flags: &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}}
		if err := w.WritePacketWithOptions(ci, data, opts); err != nil {
			b.Fatal(err)
		}
	}
}
