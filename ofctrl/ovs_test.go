package ofctrl_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

const (
	testCookie     flow.Cookie = 0x746170_00_00000000
	testCookieMask flow.Cookie = 0xffffff_00_00000000
)

// running is a Switch with its Run and what a test waits for.
type running struct {
	*ofctrl.Switch
	t    testing.TB
	stop context.CancelFunc
	done chan struct{}
}

// options are those of a test's switch.
func options(address string) ofctrl.Options {
	return ofctrl.Options{
		Bridge: "br0", Address: address, Cookie: testCookie, CookieMask: testCookieMask,
		MeterFirst: 100, MeterLast: 199, ControllerID: 77,
		NudgeFlow: flow.Flow{Table: 229, Cookie: testCookie},
	}
}

// run starts a Switch and ends it with the test.
func run(t testing.TB, opts ofctrl.Options) *running {
	t.Helper()
	s, err := ofctrl.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Switch: s, t: t, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(r.end)
	return r
}

// end stops Run and waits for it.
func (r *running) end() {
	r.stop()
	<-r.done
}

// until waits until cond holds for the state.
func (r *running) until(what string, cond func(ofctrl.State) bool) ofctrl.State {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		st := r.State()
		if cond(st) {
			return st
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s within 10 s: %+v", what, st)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *running) ready() ofctrl.State {
	r.t.Helper()
	return r.until("ready", func(st ofctrl.State) bool { return st.Ready })
}

func (r *running) apply(u ofctrl.Update) ofctrl.Result {
	r.t.Helper()
	res, err := r.Apply(r.t.Context(), u)
	if err != nil {
		r.t.Fatalf("Apply: %v", err)
	}
	return res
}

// flows returns n flows that look like those of a firewall.
func flows(n int) []flow.Flow {
	fs := make([]flow.Flow, n)
	for i := range fs {
		fs[i] = flow.Flow{
			Table: 205, Priority: 1000, Cookie: testCookie | flow.Cookie(i),
			Match: flow.Match{}.With(flow.EthType, flow.U64(0x0800)).With(flow.IPProto, flow.U64(6)).
				With(flow.Reg(8), flow.U64(uint64(i>>16))).With(flow.IPSrc, flow.U64(uint64(0x0a000000+i))).
				With(flow.TCPDst, flow.U64(80)),
			Actions: []flow.Action{
				flow.SetField{Field: flow.Reg(11), Value: flow.U64(uint64(i)), Mask: flow.Ones(32)},
				flow.Resubmit{Port: flow.PortInPort, Table: 209},
			},
		}
	}
	return fs
}

func startOVS(t testing.TB) *oftest.OVS {
	t.Helper()
	o := oftest.StartOVS(t, oftest.OVSOptions{})
	o.AddBridge("br0", "netdev", "protocols=OpenFlow13,OpenFlow15")
	return o
}

// count returns the number of flows that ovs-ofctl sees.
func count(o *oftest.OVS) int {
	return strings.Count(o.Ofctl("dump-flows", "br0"), "cookie=")
}

func TestInstallRestart(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	o.Ofctl("add-flow", "br0", "cookie=0x1234,table=0,priority=3,ip,actions=NORMAL")
	foreign := o.Ofctl("--no-stats", "dump-flows", "br0")
	desired := ofctrl.Update{Revision: 7, Owners: map[string][]flow.Flow{"a": flows(10000), "b": {{Table: 200, Cookie: testCookie}}}}

	s := run(t, options(o.MgmtAddr("br0")))
	if st := s.ready(); st.ForeignFlows != 1 || st.OurFlows != 0 || !st.Monitored || st.DatapathID == 0 || st.Epoch != 1 {
		t.Errorf("after connecting: %+v", st)
	}
	start := time.Now()
	res := s.apply(desired)
	t.Logf("10,001 flows installed in %v", time.Since(start))
	if want := (ofctrl.Result{Added: 10001, Bundles: 1, Installed: 7}); res != want {
		t.Errorf("result %+v, want %+v", res, want)
	}
	if n := count(o); n != 10002 {
		t.Errorf("%d flows on the switch, want 10002", n)
	}
	if res := s.apply(ofctrl.Update{Revision: 8, Owners: desired.Owners}); res != (ofctrl.Result{Installed: 8}) {
		t.Errorf("second time: %+v", res)
	}
	s.end()

	s = run(t, options(o.MgmtAddr("br0")))
	if st := s.ready(); st.OurFlows != 10001 || st.Missing != 10001 || !s.Has(desired.Owners["b"][0]) {
		t.Errorf("after a restart: %+v", st)
	}
	start = time.Now()
	res = s.apply(desired)
	t.Logf("restart without changes: %v", time.Since(start))
	if want := (ofctrl.Result{Installed: 7}); res != want {
		t.Errorf("after a restart: %+v, want %+v", res, want)
	}
	if st := s.State(); st.Stats.FlowModsSent != 0 || st.Stats.BundlesSent != 0 || st.Missing != 0 {
		t.Errorf("after a restart with nothing changed: %+v", st)
	}
	if res := s.apply(ofctrl.Update{Revision: 9, Owners: map[string][]flow.Flow{"a": nil, "b": nil}}); res.Deleted != 10001 ||
		res.Installed != 9 {
		t.Errorf("deleting everything: %+v", res)
	}
	if got := o.Ofctl("--no-stats", "dump-flows", "br0"); got != foreign {
		t.Errorf("foreign flow: %s, want %s", got, foreign)
	}
}

func TestRejected(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"good": flows(10)}})
	before := o.Ofctl("--no-stats", "dump-flows", "br0")

	bad := flow.Flow{Table: 201, Priority: 5, Cookie: testCookie, Actions: []flow.Action{flow.Group{ID: 4711}}}
	more := append(flows(20), bad)
	_, err := s.Apply(t.Context(), ofctrl.Update{Revision: 2, Owners: map[string][]flow.Flow{"good": nil, "bad": more}})
	var re *ofctrl.RequestError
	if !errors.Is(err, ofctrl.ErrRejected) || !errors.As(err, &re) || re.Owner != "bad" || !strings.Contains(re.Object, "4711") {
		t.Errorf("Apply: %v", err)
	}
	t.Logf("%v", err)
	if got := o.Ofctl("--no-stats", "dump-flows", "br0"); got != before {
		t.Errorf("after a rejected update: %s, want %s", got, before)
	}
	if st := s.State(); st.Missing != 0 || st.Installed != 1 || st.Desired != 10 {
		t.Errorf("after a rejected update: %+v", st)
	}
}
