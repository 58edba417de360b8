package capture

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

var two = Origin{Mirror: "web", Sources: []Source{
	{Bridge: "br0", Port: "vm1", MACs: []string{"02:00:00:00:00:01"}},
	{Bridge: "br0", Port: "vm2", MACs: []string{"02:00:00:00:00:02"}},
}}

// numbered is a frame from one machine to another with a number.
func numbered(from, to byte, n uint32, length int) frame {
	data := make([]byte, max(length, 18))
	data[0], data[5], data[6], data[11] = 2, to, 2, from
	binary.BigEndian.PutUint32(data[14:], n)
	return frame{time: time.Now().UnixNano(), length: len(data), data: data}
}

// batchOf makes a batch as a capture does.
func batchOf(e *encoder, frames ...frame) *batch {
	b := &batch{encoder: e, drops: e.missing}
	for _, f := range frames {
		b.add(f)
	}
	return b
}

// numbersIn reads the numbers of a file's packets, with the library, and what it says was dropped.
func numbersIn(t interface{ Fatal(...any) }, file string) (numbers []uint32, drops uint64) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(file, err)
	}
	for {
		data, _, opts, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(file, err)
		}
		if opts.DropCount != nil {
			drops += *opts.DropCount
		}
		numbers = append(numbers, binary.BigEndian.Uint32(data[14:]))
	}
	return numbers, drops
}

// Whatever comes in whatever portions, over restarts too: the files hold the newest packets, each once and in order; none is larger than
// it may be, and there are never more of them than there may be.
func TestFilesRotate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "files")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		dir = filepath.Join(dir, "captures") // is made
		rotate := int64(rapid.IntRange(3000, 20000).Draw(t, "rotate"))
		keep := rapid.IntRange(1, 4).Draw(t, "keep")
		var wrote uint32
		for range rapid.IntRange(1, 3).Draw(t, "restarts") {
			e := newEncoder(&two)
			f := NewFiles(dir, "web", rotate, keep)
			f.tick(e)
			for range rapid.IntRange(0, 10).Draw(t, "batches") {
				var frames []frame
				for range rapid.IntRange(1, 30).Draw(t, "frames") {
					wrote++
					frames = append(frames, numbered(byte(rapid.IntRange(1, 3).Draw(t, "from")), 2, wrote, rapid.IntRange(18, 800).Draw(t, "length")))
				}
				if lost := f.keep(batchOf(e, frames...)); lost > 0 {
					t.Fatal("lost", lost, f.err)
				}
				if files, err := List(dir, "web"); err != nil || len(files) > keep {
					t.Fatalf("%d files, %v", len(files), err)
				}
			}
			f.end(e)
		}
		files, err := List(dir, "web")
		if err != nil || len(files) > keep || wrote > 0 && len(files) == 0 {
			t.Fatal(files, err)
		}
		var all []uint32
		for _, f := range files {
			if f.Size > rotate {
				t.Fatalf("a file of %d bytes, and at most %d are allowed", f.Size, rotate)
			}
			n, _ := numbersIn(t, filepath.Join(dir, f.Name))
			all = append(all, n...)
		}
		for i, n := range all {
			if n != wrote-uint32(len(all))+uint32(i)+1 {
				t.Fatalf("packets %v of %d", all, wrote)
			}
		}
		if len(files) < keep && len(all) != int(wrote) {
			t.Fatalf("%d packets of %d, and there was room for more", len(all), wrote)
		}
	})
}

// What cannot be written is lost and told of, in the next packet that can be; the file stays readable, and others are left alone.
func TestFilesThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	e := newEncoder(&two)
	blocked := filepath.Join(dir, "captures")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	f := NewFiles(blocked, "web", 1<<20, 2)
	f.tick(e)
	var s Stats
	if f.report(&s); s.Failing == "" || s.Failures != 1 {
		t.Errorf("%+v", s)
	}
	b := batchOf(e, numbered(1, 2, 1, 60), numbered(1, 2, 2, 60))
	if lost := f.keep(b); lost != 2 {
		t.Errorf("lost %d", lost)
	}
	e.missing += 2
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	f.again = time.Time{}
	if lost := f.keep(batchOf(e, numbered(1, 2, 3, 60))); lost != 0 {
		t.Error(f.err)
	}
	if s = (Stats{}); true {
		if f.report(&s); s.Failing != "" || s.File == "" {
			t.Errorf("%+v", s)
		}
	}
	f.end(e)
	files, err := List(blocked, "web")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if got, drops := numbersIn(t, filepath.Join(blocked, files[0].Name)); !slices.Equal(got, []uint32{3}) || drops != 2 {
		t.Errorf("packets %v behind %d lost ones", got, drops)
	}
	if info, err := os.Stat(filepath.Join(blocked, files[0].Name)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// A file that somebody removed is begun anew, one without packets is not kept, and what only looks like ours is left alone.
func TestFilesOfOthers(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web_00007_20260101000000.pcapng", "web_00008_20260101000000.pcapng"} {
		if err := os.Symlink(secret, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(dir, "web_x_00001_20260101000000.pcapng")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEncoder(&two)
	f := NewFiles(dir, "web", 1<<20, 1)
	f.tick(e)
	f.end(e)
	if files, err := List(dir, "web"); err != nil || len(files) != 0 {
		t.Errorf("a file without packets stayed: %v, %v", files, err)
	}
	f = NewFiles(dir, "web", 1<<20, 1)
	f.keep(batchOf(e, numbered(1, 2, 1, 60)))
	if f.called[:9] != "web_00009" {
		t.Errorf("the file is called %s", f.called)
	}
	if err := os.Remove(filepath.Join(dir, f.called)); err != nil {
		t.Fatal(err)
	}
	f.tick(e)
	f.keep(batchOf(e, numbered(1, 2, 2, 60)))
	f.end(e)
	files, err := List(dir, "web")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if got, _ := numbersIn(t, filepath.Join(dir, files[0].Name)); !slices.Equal(got, []uint32{2}) {
		t.Errorf("packets %v", got)
	}
	for _, name := range []string{"web_00007_20260101000000.pcapng", "../secret", "web_x_00001_20260101000000.pcapng", "",
		"web_00099_20260101000000.pcapng"} {
		if file, err := Open(dir, "web", name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %v", name, file, err)
		}
	}
	file, err := Open(dir, "web", files[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	if text, err := os.ReadFile(secret); err != nil || string(text) != "x" {
		t.Errorf("a link was followed: %q, %v", text, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// Which source a packet belongs to, and which way it went, is told by MACs as far as they tell.
func TestWhose(t *testing.T) {
	unknown := Source{Bridge: "br1", Port: "eth1"}
	for _, tt := range []struct {
		name      string
		origin    Origin
		from, to  byte
		port      string
		direction pcapng.Direction
	}{
		{"sent", two, 1, 9, "vm1", pcapng.Outbound},
		{"received", two, 9, 2, "vm2", pcapng.Inbound},
		{"between two of them", two, 1, 2, "vm1", pcapng.Outbound},
		{"between two of them, only what they receive", Origin{Mirror: "web", Sources: two.Sources, Direction: pcapng.Inbound}, 1, 2, "vm2",
			pcapng.Inbound},
		{"to everybody", two, 9, 255, "web", pcapng.Inbound},
		{"of nobody known, and all are known", two, 9, 8, "web", pcapng.Inbound},
		{"of nobody known", Origin{Mirror: "web", Sources: []Source{two.Sources[0], unknown}}, 9, 8, "web", pcapng.Unknown},
		{"of one that is not known", Origin{Mirror: "web", Sources: []Source{unknown}}, 9, 8, "eth1", pcapng.Unknown},
		{"one way only", Origin{Mirror: "web", Sources: []Source{unknown}, Direction: pcapng.Outbound}, 9, 8, "eth1", pcapng.Outbound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEncoder(&tt.origin)
			n, direction := e.whose(numbered(tt.from, tt.to, 1, 60).data)
			if e.interfaces[n].Name != tt.port || direction != tt.direction {
				t.Errorf("%s %d", e.interfaces[n].Name, direction)
			}
		})
	}
}

// FuzzWalk: whatever stands in a block, frames are parts of it.
func FuzzWalk(f *testing.F) {
	block := make([]byte, 256)
	binary.NativeEndian.PutUint32(block[blockPackets:], 2)
	binary.NativeEndian.PutUint32(block[blockFirst:], 48)
	for i := range 2 {
		p := block[48+i*80:]
		binary.NativeEndian.PutUint32(p[packetNext:], 80)
		binary.NativeEndian.PutUint16(p[packetMAC:], packetHeader)
		binary.NativeEndian.PutUint32(p[packetSnaplen:], 20)
		binary.NativeEndian.PutUint32(p[packetLen:], 20)
	}
	n := 0
	walk(block, func(fr frame) { n += len(fr.data) })
	if n != 40 {
		f.Fatalf("%d bytes", n)
	}
	f.Add(block)
	e := newEncoder(&two)
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) < packetHeader {
			return
		}
		b := &batch{encoder: e}
		walk(block, func(fr frame) {
			if len(fr.data) > len(block) || b.packets > len(block) {
				t.Fatalf("a frame of %d bytes in a block of %d", len(fr.data), len(block))
			}
			b.add(fr)
		})
		rest := b.blocks
		for range b.packets {
			var ok bool
			if _, _, rest, ok = pcapng.Cut(rest); !ok {
				t.Fatal("not a block")
			}
		}
		if len(rest) > 0 {
			t.Fatal("something is left")
		}
	})
}
