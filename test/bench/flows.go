package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/test/lab"
)

const manyFlows = 100_000

// flows makes n distinct flows of the shape that rules have.
func flows(n int) []flow.Flow {
	out := make([]flow.Flow, n)
	for i := range out {
		out[i] = flow.Flow{
			Table: pipeline.TableEgress, Priority: 1000, Cookie: benchMagic | flow.Cookie(i),
			Match: flow.Match{}.With(flow.EthType, flow.U64(0x0800)).With(flow.IPProto, flow.U64(6)).With(flow.Reg0, flow.U64(uint64(i&255))).
				With(flow.IPSrc, flow.U64(uint64(0x0a000000+i))).With(flow.TCPDst, flow.U64(uint64(1+i%60000))),
			Actions: []flow.Action{
				flow.CT{Commit: true, Table: flow.NoTable, Zone: 1, Exec: []flow.Action{flow.Load{Dst: flow.SubField{Field: flow.CtMark, Bits: 32},
					Value: 1}}},
				flow.Resubmit{Port: flow.PortInPort, Table: pipeline.TableExit},
			},
		}
	}
	return out
}

// benchMagic marks the flows of benchmarks in the place of tapwall's magic, so that a tapwall on the same switch takes them for foreign.
const benchMagic flow.Cookie = 0xbe0c41 << 40

// connect runs a Switch for br0 until stop is called, and returns when it is ready.
func connect(l *lab.Lab) (sw *ofctrl.Switch, stop func(), err error) {
	sw, err = ofctrl.New(ofctrl.Options{Bridge: "br0", Address: "unix:" + filepath.Join(l.Dir, "br0.mgmt"),
		Cookie: benchMagic, CookieMask: pipeline.CookieMagicMask, ControllerID: pipeline.ControllerID + 1, Timeout: 30 * time.Second})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = sw.Run(ctx) }()
	stop = func() { cancel(); <-done }
	for deadline := time.After(10 * time.Second); !sw.State().Ready; {
		select {
		case <-sw.Wake():
		case <-deadline:
			stop()
			return nil, nil, errors.New("the switch is not ready: " + sw.State().Err)
		}
	}
	return sw, stop, nil
}

func switchLab() (*lab.Lab, error) {
	l, err := lab.Start("")
	if err != nil {
		return nil, err
	}
	if err := l.AddBridge("br0", "fail_mode=secure"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// benchBundle installs the same flows with ovs-ofctl and with ofctrl in turn, from the start of process or connection to the commit reply.
func benchBundle() (out []line, err error) {
	l, err := switchLab()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	fs := flows(manyFlows)
	var text strings.Builder
	for i := range fs {
		text.WriteString(fs[i].String())
		text.WriteByte('\n')
	}
	file := filepath.Join(l.Dir, "flows.txt")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	clear := func() error { _, err := l.Ofctl("del-flows", "br0"); return err }
	var ours, theirs []time.Duration
	for range 5 {
		if err := clear(); err != nil {
			return nil, err
		}
		start := time.Now()
		if _, err := l.Ofctl("add-flows", "br0", "--bundle", file); err != nil {
			return nil, err
		}
		theirs = append(theirs, time.Since(start))
		if err := clear(); err != nil {
			return nil, err
		}
		start = time.Now()
		sw, stop, err := connect(l)
		if err != nil {
			return nil, err
		}
		r, err := sw.Apply(context.Background(), ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"bench": fs}})
		ours = append(ours, time.Since(start))
		stop()
		if err != nil || r.Added != manyFlows {
			return nil, fmt.Errorf("added %d flows: %w", r.Added, err)
		}
	}
	ratio := float64(median(ours)) / float64(median(theirs))
	return []line{{"100k flows in one bundle / ovs-ofctl --bundle", fmt.Sprintf("%.2f (%v / %v, medians of 5)", ratio,
		median(ours).Round(time.Millisecond), median(theirs).Round(time.Millisecond)),
		"<= 0.6", ratio <= 0.6, "0.47"}}, nil
}

// benchRestart connects to a switch that has all flows already.
func benchRestart() (out []line, err error) {
	l, err := switchLab()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	fs := flows(manyFlows)
	update := ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"bench": fs}}
	sw, stop, err := connect(l)
	if err != nil {
		return nil, err
	}
	_, err = sw.Apply(context.Background(), update)
	stop()
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	mods := uint64(0)
	for range 5 {
		start := time.Now()
		sw, stop, err := connect(l)
		if err != nil {
			return nil, err
		}
		_, err = sw.Apply(context.Background(), update)
		took = append(took, time.Since(start))
		mods += sw.State().Stats.FlowModsSent
		stop()
		if err != nil {
			return nil, err
		}
	}
	limit := 1500 * time.Millisecond
	return []line{{"restart with 100k flows unchanged", fmt.Sprintf("%d flow-mods, %.2f of 1.5 s (%v, median of 5)", mods,
		float64(median(took))/float64(limit), median(took).Round(time.Millisecond)),
		"0 flow-mods, <= 1.5 s", mods == 0 && median(took) <= limit, "615 ms"}}, nil
}
