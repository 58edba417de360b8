package capture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"pgregory.net/rapid"
)

// numbersOf reads the numbers of a stream's packets, with the library, and the ports that they are said to be of.
func numbersOf(t interface{ Fatal(...any) }, stream []byte) (numbers []uint32, ports []string) {
	r, err := pcapgo.NewNgReader(bytes.NewReader(stream), pcapgo.NgReaderOptions{})
	if err == io.EOF {
		return nil, nil // a section alone
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, err := r.ReadPacketData()
		if err == io.EOF {
			return numbers, ports
		}
		if err != nil {
			t.Fatal(err)
		}
		i, err := r.Interface(ci.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, uint32(data[14])<<24|uint32(data[15])<<16|uint32(data[16])<<8|uint32(data[17]))
		ports = append(ports, i.Name)
	}
}

// TestBufferBounds holds a buffer to a list, through random frames of random ages, captures that end and others that go on, and saves.
func TestBufferBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1<<16, 1<<18).Draw(t, "size")
		age := time.Duration(rapid.SampledFrom([]int{0, 1, 5, 60}).Draw(t, "age")) * time.Second
		b := NewBuffer(age, size)
		defer b.Free()
		e := newEncoder(&two)
		type kept struct {
			n    uint32
			at   int64
			size int
		}
		var all []kept
		now := time.Now().UnixNano()
		n := uint32(0)
		for range rapid.IntRange(1, 60).Draw(t, "batches") {
			if rapid.IntRange(0, 9).Draw(t, "another capture") == 0 {
				e = newEncoder(&Origin{Mirror: "web", Sources: two.Sources[:1]})
			}
			in := &batch{encoder: e}
			for range rapid.IntRange(1, 30).Draw(t, "frames") {
				now += int64(rapid.IntRange(0, 400).Draw(t, "ms")) * 1e6
				n++
				f := numbered(1, byte(2+n%2), n, rapid.IntRange(18, 9000).Draw(t, "length"))
				f.time = now
				start := len(in.blocks)
				in.add(f)
				all = append(all, kept{n, now, len(in.blocks) - start})
			}
			in.newest = now
			if lost := b.keep(in); lost != 0 {
				t.Fatalf("%d lost", lost)
			}
			var s Stats
			b.Held(&s)
			if s.HeldSize > uint64(size) || s.Held+s.Evicted != uint64(n) {
				t.Fatalf("%+v of %d packets in %d bytes", s, n, size)
			}
			var out bytes.Buffer
			if err := b.Save(&out, time.Time{}, time.Time{}, 0); err != nil {
				t.Fatal(err)
			}
			got, _ := numbersOf(t, out.Bytes())
			if uint64(len(got)) != s.Held || len(got) == 0 {
				t.Fatalf("%d saved: %+v", len(got), s)
			}
			first := all[len(all)-len(got)]
			for i, k := range all[len(all)-len(got):] {
				if got[i] != k.n {
					t.Fatalf("packet %d is %d, want %d", i, got[i], k.n)
				}
			}
			if age > 0 && first.at < now-int64(age) {
				t.Fatalf("the oldest is %v old", time.Duration(now-first.at))
			}
			// What is not there had to go: it was too old, or there was no room for it.
			if older := len(all) - len(got); older > 0 {
				sum := 0
				for _, k := range all[older-1:] {
					sum += k.size
				}
				if tooOld := age > 0 && all[older-1].at < now-int64(age); !tooOld && int64(sum) < size-2*9200 {
					t.Fatalf("packet %d went for nothing: %d bytes of %d", all[older-1].n, sum, size)
				}
			}
			since, until := time.Unix(0, first.at).Add(time.Second), time.Unix(0, now).Add(-time.Second)
			out.Reset()
			if err := b.Save(&out, since, until, 0); err != nil {
				t.Fatal(err)
			}
			var want []uint32
			for _, k := range all[len(all)-len(got):] {
				if at := time.Unix(0, k.at); !at.Before(since) && !at.After(until) {
					want = append(want, k.n)
				}
			}
			if got, _ := numbersOf(t, out.Bytes()); !slices.Equal(got, want) {
				t.Fatalf("between %v and %v: %v, want %v", since, until, got, want)
			}
		}
	})
}

// TestBufferInterfaces: packets keep the interfaces that they came with, over another capture that numbers them anew and while more come.
func TestBufferInterfaces(t *testing.T) {
	b := NewBuffer(0, 1<<16)
	defer b.Free()
	one := newEncoder(&two)
	b.keep(batchOf(one, numbered(1, 9, 1, 60)))
	b.keep(batchOf(one, numbered(2, 9, 2, 60)))
	other := newEncoder(&Origin{Mirror: "web", Sources: []Source{{Bridge: "br0", Port: "vm9", MACs: []string{"02:00:00:00:00:09"}}}})
	b.keep(batchOf(other, numbered(9, 1, 3, 60)))
	var out bytes.Buffer
	if err := b.Save(&out, time.Time{}, time.Time{}, 0); err != nil {
		t.Fatal(err)
	}
	numbers, ports := numbersOf(t, out.Bytes())
	if !slices.Equal(numbers, []uint32{1, 2, 3}) || !slices.Equal(ports, []string{"vm1", "vm2", "vm9"}) {
		t.Errorf("%v of %v", numbers, ports)
	}
}

// TestBufferReadersAndWriter: who saves and who follows gets whole packets in order while others come and go, each once.
func TestBufferReadersAndWriter(t *testing.T) {
	b := NewBuffer(0, 8<<20)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	const packets = 20_000
	var followed bytes.Buffer
	wg.Go(func() {
		if err := b.Follow(ctx, &followed, time.Unix(1, 0), packets); err != nil {
			t.Error(err)
		}
	})
	done := make(chan struct{})
	saves := 0
	wg.Go(func() {
		for {
			var out bytes.Buffer
			if err := b.Save(&out, time.Time{}, time.Time{}, 0); err != nil && !errors.Is(err, ErrEvicted) {
				t.Error(err)
			} else if err == nil {
				if numbers, _ := numbersOf(t, out.Bytes()); !slices.IsSorted(numbers) || len(slices.Compact(numbers)) != len(numbers) {
					t.Error("out of order or twice")
				}
				saves++
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	e := newEncoder(&two)
	for n := uint32(1); n <= packets; n += 10 {
		in := &batch{encoder: e}
		for i := range uint32(10) {
			in.add(numbered(byte(1+i%2), 9, n+i, 100))
		}
		b.keep(in)
		time.Sleep(50 * time.Microsecond)
	}
	close(done)
	wg.Wait()
	cancel()
	numbers, _ := numbersOf(t, followed.Bytes())
	if len(numbers) != packets || !slices.IsSorted(numbers) || numbers[0] != 1 || numbers[packets-1] != packets {
		t.Errorf("%d packets were followed", len(numbers))
	}
	if saves == 0 {
		t.Error("nothing was saved")
	}

	// Who follows ends with the buffer, and nothing is read or kept behind it.
	end := make(chan error)
	go func() { end <- b.Follow(context.Background(), io.Discard, time.Time{}, 0) }()
	time.Sleep(10 * time.Millisecond)
	if err := b.Free(); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err != nil {
		t.Error(err)
	}
	if lost := b.keep(batchOf(e, numbered(1, 2, 1, 60))); lost != 1 {
		t.Errorf("%d lost", lost)
	}
	var out bytes.Buffer
	if err := b.Save(&out, time.Time{}, time.Time{}, 0); err != nil {
		t.Error(err)
	}
	if numbers, _ := numbersOf(t, out.Bytes()); len(numbers) != 0 {
		t.Error(numbers)
	}
}

// TestBufferSlowReader: one who reads slower than packets go is told, and is not given what came later as if it followed.
func TestBufferSlowReader(t *testing.T) {
	b := NewBuffer(0, 1<<20)
	defer b.Free()
	e := newEncoder(&two)
	fill := func() {
		in := &batch{encoder: e}
		for n := range uint32(2000) {
			in.add(numbered(1, 2, n, 1000))
		}
		b.keep(in)
	}
	fill()
	written := 0
	err := b.Save(writerFunc(func(p []byte) (int, error) {
		if written += len(p); written > piece/2 {
			fill()
		}
		return len(p), nil
	}), time.Time{}, time.Time{}, 0)
	if !errors.Is(err, ErrEvicted) || written > 1<<20 {
		t.Errorf("%v after %d bytes", err, written)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestBufferIdle: who follows misses nothing when everything was so old that it went, and packets come again.
func TestBufferIdle(t *testing.T) {
	b := NewBuffer(50*time.Millisecond, 1<<16)
	defer b.Free()
	e := newEncoder(&two)
	b.keep(batchOf(e, numbered(1, 2, 1, 1000)))
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- b.Follow(context.Background(), &out, time.Unix(1, 0), 401) }()
	time.Sleep(100 * time.Millisecond)
	b.tick(e)
	var s Stats
	if b.Held(&s); s.Held != 0 || s.Evicted != 1 {
		t.Errorf("after its time: %+v", s)
	}
	for n := range uint32(400) {
		b.keep(batchOf(e, numbered(1, 2, n+2, 90)))
		time.Sleep(50 * time.Microsecond)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("packets are missing")
	}
	if numbers, _ := numbersOf(t, out.Bytes()); len(numbers) != 401 || numbers[400] != 401 || !slices.IsSorted(numbers) {
		t.Errorf("%d packets", len(numbers))
	}
}
