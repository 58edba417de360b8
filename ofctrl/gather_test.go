package ofctrl_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// packetIn is OFPT_PACKET_IN with a cookie and without a match.
func packetIn(cookie uint64) []byte {
	b := make([]byte, 34, 98)
	b[0], b[1], b[3] = byte(ofp.Version13), byte(ofp.TypePacketIn), 98
	binary.BigEndian.PutUint64(b[16:], cookie)
	b[25], b[27] = 1, 4 // an empty match
	return b[:98]
}

// Packet-ins that gather come all, in order and soon, with what is asked meanwhile answered.
func TestPacketInsGather(t *testing.T) {
	t.Parallel()
	const n = 2000
	sent := make([]time.Time, n)
	var mu sync.Mutex
	var order []uint64
	var slowest time.Duration
	bunches := 0
	var last time.Time
	f := oftest.NewFake(oftest.FakeOptions{DatapathID: 5})
	conn, err := ofctrl.Dial(t.Context(), ofctrl.ConnOptions{Address: f.Listen(t), Handlers: ofctrl.Handlers{PacketIn: func(p *ofp.PacketIn) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if i := uint64(p.Cookie); i < n {
			slowest = max(slowest, now.Sub(sent[i]))
		}
		if now.Sub(last) > time.Millisecond {
			bunches++
		}
		last = now
		order = append(order, uint64(p.Cookie))
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked := 0
	began := time.Now()
	for i := range n {
		mu.Lock()
		sent[i] = time.Now()
		mu.Unlock()
		f.Send(packetIn(uint64(i)))
		time.Sleep(200 * time.Microsecond)
		if i%100 == 0 {
			if err := conn.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			asked++
		}
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		mu.Lock()
		done := len(order) == n
		mu.Unlock()
		if done {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i, c := range order {
		if uint64(i) != c {
			t.Fatalf("number %d came as %d", c, i)
		}
	}
	most := int(time.Since(began)/(2500*time.Microsecond)) + 3*asked
	if len(order) != n || slowest > time.Second || bunches > most || asked != n/100 {
		t.Errorf("%d of %d came, in %d bunches, the slowest after %v", len(order), n, bunches, slowest)
	}
	t.Logf("%d bunches, the slowest after %v", bunches, slowest)
}
