package pcapng

import "testing"

// A block tells how many packets were lost before it, whatever its other options, and one that is cut or claims too much tells nothing.
func TestDropCount(t *testing.T) {
	for length := range 9 {
		for _, want := range []uint64{0, 1, 1 << 40} {
			p := Packet{Data: make([]byte, length), Direction: Inbound, Comment: "mirror=web", Drops: want}
			b := AppendPacket(nil, &p)
			if got := DropCountOf(b); got != want {
				t.Errorf("%d bytes: %d, want %d", length, got, want)
			}
			for cut := range b {
				DropCountOf(b[:cut]) // it must not look behind the end
			}
			le.PutUint32(b[20:], ^uint32(0))
			if got := DropCountOf(b); got != 0 {
				t.Errorf("of a length that cannot be it reads %d", got)
			}
		}
	}
}
