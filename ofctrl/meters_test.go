package ofctrl_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

func dropMeter(id, rate uint32) flow.MeterDesc {
	return flow.MeterDesc{ID: id, Flags: flow.MeterPktps | flow.MeterStats | flow.MeterBurst, Bands: []flow.Band{{Type: flow.BandDrop,
		Rate: rate, Burst: rate}}}
}

// copying returns a flow that copies under each of the meters, and one that does not copy.
func copying(ids ...uint32) []flow.Flow {
	out := []flow.Flow{{Table: 201, Cookie: testCookie, Actions: []flow.Action{flow.Resubmit{Port: flow.PortInPort, Table: 209}}}}
	for i, id := range ids {
		out = append(out, flow.Flow{Table: 209, Priority: uint16(i + 1), Cookie: testCookie, Actions: []flow.Action{
			flow.Controller{MaxLen: 128, ID: 77, MeterID: id}, flow.Resubmit{Port: flow.PortInPort, Table: 211},
		}})
	}
	return out
}

// Meters that others delete, change or make anew come back within seconds, with the flows that copy under them behind them: a flow finds
// its meter when it is installed.
func TestMetersChangedByOthers(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	w := own(t, o, nil)
	w.apply(ofctrl.Update{Revision: 3, Meters: []flow.MeterDesc{dropMeter(100, 5), dropMeter(101, 9)},
		Owners: map[string][]flow.Flow{"copy": copying(100, 101)}})
	want, meters := dump(o), o.Ofctl("dump-meters", "br0")
	young := func(table string) bool { // all flows of the table are younger than 2.5 s
		for _, line := range strings.Split(o.Ofctl("dump-flows", "br0", "table="+table), "\n") {
			if _, age, ok := strings.Cut(line, "duration="); ok {
				var s float64
				if _, err := fmt.Sscanf(age, "%fs", &s); err != nil || s > 2.5 {
					return false
				}
			}
		}
		return true
	}
	for i, tt := range []struct {
		name   string
		meters int // that were changed
		do     [][]string
	}{
		{"deleted", 1, [][]string{{"del-meter", "br0", "meter=100"}}},
		{"changed", 1, [][]string{{"mod-meter", "br0", "meter=101,pktps,burst,stats,band=type=drop,rate=10000,burst_size=10000"}}},
		{"all deleted", 2, [][]string{{"del-meters", "br0"}}},
		{"made anew", 1, [][]string{{"del-meter", "br0", "meter=100"}, {"add-meter", "br0",
			"meter=100,pktps,burst,stats,band=type=drop,rate=5,burst_size=5"}}},
	} {
		time.Sleep(2600 * time.Millisecond) // so that what is installed anew can be told by its age
		w.mu.Lock()
		clear(w.told)
		w.mu.Unlock()
		for _, args := range tt.do {
			o.Ofctl(args...)
		}
		w.until(tt.name+": noticed", func(st ofctrl.State) bool {
			return st.Stats.LostMeters > uint64(i) && st.Missing > 0 && st.Installed == 0
		})
		res := w.apply(ofctrl.Update{Revision: 4})
		if res.Meters == 0 || res.Installed != 4 || res.Added == 0 {
			t.Errorf("%s: put right by %+v", tt.name, res)
		}
		if got := o.Ofctl("dump-meters", "br0"); got != meters {
			t.Errorf("%s: meters %s, want %s", tt.name, got, meters)
		}
		if got := dump(o); got != want {
			t.Errorf("%s: flows\n%s\nwant\n%s", tt.name, got, want)
		}
		if tt.name == "all deleted" && !young("209") || young("201") {
			t.Errorf("%s: flows that copy are not installed anew, or others are:\n%s", tt.name, o.Ofctl("dump-flows", "br0"))
		}
		w.mu.Lock()
		if n := w.told[ofctrl.ChangedMeters]; n != tt.meters {
			t.Errorf("%s: told of %d meters, %d were changed", tt.name, n, tt.meters)
		}
		w.mu.Unlock()
	}
	w.stop()
	<-w.done
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	res := s.apply(ofctrl.Update{Revision: 5, Meters: []flow.MeterDesc{dropMeter(100, 5), dropMeter(101, 9)},
		Owners: map[string][]flow.Flow{"a": flows(10), "copy": copying(100, 101), "entry": {{
			Priority: 1, Cookie: testCookie, Actions: []flow.Action{flow.Resubmit{Port: flow.PortInPort, Table: 205}},
		}}}})
	if res != (ofctrl.Result{Installed: 5}) {
		t.Errorf("the next process changed %+v", res)
	}
}

// A meter that others make anew is noticed, too, when tapwall has set it a moment ago.
func TestMeterMadeAnewBehindSet(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := own(t, o, nil)
	s.apply(ofctrl.Update{Revision: 1, Meters: []flow.MeterDesc{dropMeter(100, 5)}, Owners: map[string][]flow.Flow{"copy": copying(100)}})
	time.Sleep(2600 * time.Millisecond) // else its age tells nothing
	for i, do := range [][][]string{
		{{"mod-meter", "br0", "meter=100,pktps,burst,stats,band=type=drop,rate=10000,burst_size=10000"}},
		{{"del-meter", "br0", "meter=100"}, {"add-meter", "br0", "meter=100,pktps,burst,stats,band=type=drop,rate=5,burst_size=5"}},
	} {
		for _, args := range do {
			o.Ofctl(args...)
		}
		s.until("noticed", func(st ofctrl.State) bool { return st.Stats.LostMeters == uint64(i)+1 && st.Missing > 0 })
		if res := s.apply(ofctrl.Update{Revision: 2}); res.Meters != 1 || res.Added == 0 {
			t.Errorf("put right by %+v", res)
		}
	}
}

// A meter that was made anew while nobody looked is noticed at the next connection.
func TestMeterMadeAnewBehindFlow(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	update := ofctrl.Update{Revision: 1, Meters: []flow.MeterDesc{dropMeter(100, 5)}, Owners: map[string][]flow.Flow{"copy": copying(100)}}
	for i, want := range []ofctrl.Result{{Added: 2, Meters: 1, Bundles: 1, Installed: 1}, {Added: 1, Meters: 1, Bundles: 1,
		Installed: 1}, {Installed: 1}} {
		s := run(t, options(o.MgmtAddr("br0")))
		s.ready()
		if res := s.apply(update); res != want {
			t.Errorf("process %d: %+v, want %+v", i, res, want)
		}
		s.stop()
		<-s.done
		if i == 0 {
			o.Ofctl("del-meters", "br0")
			o.Ofctl("add-meter", "br0", "meter=100,pktps,burst,stats,band=type=drop,rate=5,burst_size=5")
		}
	}
}

// A switch that takes no meter gets the flows without the copies under it, and the copies once it does.
func TestMetersRefused(t *testing.T) {
	t.Parallel()
	badType := ofp.NewErrorCode(0, 1, 1) // OFPBRC_BAD_TYPE: it knows no meters at all
	for _, code := range []ofp.ErrorCode{ofp.OutOfMeters, badType} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			var on atomic.Bool
			on.Store(true)
			f := oftest.NewFake(oftest.FakeOptions{React: func(q oftest.Request) oftest.Reaction {
				if on.Load() && (q.Kind == oftest.MeterMod || q.Kind == oftest.MeterConfig && code == badType) {
					return oftest.Reaction{Error: code}
				}
				return oftest.Reaction{}
			}})
			s := run(t, options(f.Listen(t)))
			s.ready()
			res := s.apply(ofctrl.Update{Revision: 1, Meters: []flow.MeterDesc{dropMeter(100, 5)},
				Owners: map[string][]flow.Flow{"copy": copying(100)}})
			if res.Added != 2 || res.Installed != 1 {
				t.Errorf("installed %+v", res)
			}
			copied := func() (n int) {
				if err := s.EachFlow(t.Context(), ofp.FlowFilter{Table: 209}, func(f *ofp.FlowStats) {
					if f.Table != 209 { // the fake does not filter
						return
					}
					for _, a := range f.Actions {
						if _, ok := a.(flow.Controller); ok {
							n += 10
						}
					}
					n++
				}); err != nil {
					t.Fatal(err)
				}
				return n
			}
			st := s.State()
			if n := copied(); n != 1 || !strings.Contains(st.MeterErr, "meter=100") && !strings.Contains(st.MeterErr, "meter 100") ||
				!strings.Contains(st.MeterErr, code.String()) || st.Missing != 0 {
				t.Errorf("refused: flows %d, %+v", n, st)
			}
			if res := s.apply(ofctrl.Update{Revision: 2}); res != (ofctrl.Result{Installed: 2}) {
				t.Errorf("and again: %+v", res)
			}
			on.Store(false)
			select {
			case <-s.Wake(): // of the start
			default:
			}
			deadline := time.After(20 * time.Second)
			for s.State().Missing == 0 {
				select {
				case <-s.Wake():
				case <-deadline:
					t.Fatalf("not asked again: %+v", s.State())
				}
			}
			res = s.apply(ofctrl.Update{Revision: 3})
			if st := s.State(); copied() != 11 || st.MeterErr != "" || res.Added != 1 || res.Meters != 1 || res.Installed != 3 {
				t.Errorf("taken: flows %d, %+v, %+v", copied(), res, st)
			}
		})
	}
}
