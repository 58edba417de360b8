package host

import (
	"testing"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl/flow"
)

// A flood of rejected packets does not hold up the reader of the connection: what the queue cannot hold is counted and not answered.
func TestRejectedPacketsAreBounded(t *testing.T) {
	l := &link{book: newBook(), answers: make(chan answer, 2)}
	udp := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2,
		0, 8, 0, 0}
	for range 5 {
		takeRejected(nil, l, &record.PacketIn{InPort: 7, Data: udp}, flow.Match{})
	}
	takeRejected(nil, l, &record.PacketIn{InPort: 7, Data: udp[:20]}, flow.Match{})
	c := &l.book.answers
	if len(l.answers) != 2 || c.asked.Load() != 6 || c.queue.Load() != 3 || c.unanswerable.Load() != 1 {
		t.Errorf("%d wait, %v", len(l.answers), c.all())
	}
	if a := <-l.answers; a.port != 7 || len(a.frame) != 14+20+8+28 {
		t.Errorf("%+v", a)
	}
}

func TestMeterAccount(t *testing.T) {
	var a meterAccount
	for i, r := range []struct{ reads, more uint64 }{{100, 0}, {100, 0}, {130, 30}, {10, 10}, {12, 2}} {
		if more := a.add(r.reads); more != r.more {
			t.Errorf("reading %d: %d, want %d", i, more, r.more)
		}
	}
}
