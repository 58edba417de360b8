package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// A collector is silent after three misses in a row and well after two answers; one that nobody asks about is neither.
func TestProberHysteresis(t *testing.T) {
	told := make(chan struct{}, 100)
	p := newProber(func() { told <- struct{}{} })
	turns := make(chan error)
	p.every, p.within = time.Microsecond, time.Minute
	asking := make(chan struct{})
	p.ask = func(ctx context.Context, _ tap.Probe) error {
		select {
		case asking <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case err := <-turns:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	q := tap.Probe{Kind: policy.ProbeICMP, Remote: netip.MustParseAddr("192.0.2.9")}
	p.want(ctx, &tasks, []tap.Probe{q, q})
	<-asking
	miss, answer := errors.New("lost"), error(nil)
	turn := func(errs ...error) (silent bool) {
		for _, err := range errs {
			turns <- err
			<-asking // what came before has been taken note of
		}
		now := p.take()
		return now[q] != ""
	}
	for i, c := range []struct {
		turns []error
		want  bool
	}{
		{[]error{miss, miss}, false}, {[]error{answer, miss, miss}, false}, {[]error{miss}, true}, {[]error{miss, answer, miss}, true},
		{[]error{answer}, true}, {[]error{answer}, false}, {[]error{answer, answer}, false}, {[]error{miss, miss, miss}, true},
	} {
		if got := turn(c.turns...); got != c.want {
			t.Fatalf("step %d: silent %v, want %v", i, got, c.want)
		}
	}
	if len(told) != 3 {
		t.Errorf("told %d times, want 3", len(told))
	}
	p.want(ctx, &tasks, nil)
	if silent := p.take(); len(silent) > 0 {
		t.Errorf("silent, though nobody asks: %v", silent)
	}
}

// A port that is open answers, one that is closed does not, and the host answers pings of its own.
func TestAskProbe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	here := netip.MustParseAddr("127.0.0.1")
	q := tap.Probe{Port: uint16(ln.Addr().(*net.TCPAddr).Port), Remote: here, Local: here}
	if err := askProbe(ctx, q); err != nil {
		t.Error(err)
	}
	_ = ln.Close()
	if askProbe(ctx, q) == nil {
		t.Error("a closed port answers")
	}
	if err := askProbe(ctx, tap.Probe{Kind: policy.ProbeICMP, Remote: here}); err != nil {
		t.Skipf("pings are not permitted here: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if askProbe(short, tap.Probe{Kind: policy.ProbeICMP, Remote: netip.MustParseAddr("127.255.255.255")}) == nil {
		t.Error("nobody answers as 127.255.255.255")
	}
}
