package tap

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// A mirror that samples or balances decides by sessions: see policy.Session. SAMPLE has Open vSwitch draw numbers by a hash that both
// directions of a session have in common, and BALANCE goes by them. Each session takes a datapath flow of its own from there on, which
// mirrors that ask for neither are spared.

// buckets is how many classes of sessions are given to the targets of a mirror that balances.
const buckets = 64

// The draws of one packet are independent of each other, because they have different bases; else of a mirror that takes one session of 64
// all that it takes would be in one bucket.
const (
	basisSample = 0
	basisBucket = 1
)

// Probe is a question whether a collector is there.
type Probe struct {
	Kind   string     // policy.ProbeARP or ProbeICMP; "" = by TCP
	Port   uint16     // of TCP
	Remote netip.Addr // who is asked
	Local  netip.Addr // from where; the zero value = as the host's routes say
}

// String is "icmp 192.0.2.9", "tcp:22 192.0.2.9".
func (p Probe) String() string {
	if p.Port > 0 {
		return fmt.Sprintf("tcp:%d %s", p.Port, p.Remote)
	}
	return p.Kind + " " + p.Remote.String()
}

// WarnNotProbed: nobody asks the targets of a mirror whether they are well, because the host is managed over the network.
const WarnNotProbed policy.Code = "TARGETS_NOT_PROBED"

// first is the table that packets come to that the filter of a mirror accepts.
func first(s *policy.MirrorSpec) uint8 {
	if s.Balance != nil || s.Sample.OneOf() > 1 {
		return TableSample
	}
	return TableTargets
}

// sessionFlows decide by sessions: of how many one is taken, and which target each bucket goes to, by index; without any all get
// everything.
func sessionFlows(number uint32, oneOf int, bucketTargets []int) []flow.Flow {
	if oneOf <= 1 && bucketTargets == nil {
		return nil
	}
	is := flow.Match{}.With(regMirror, flow.U64(uint64(number)))
	draw := flow.Flow{Table: TableSample, Priority: 1, Cookie: system(TableSample), Match: is}
	pick := func(dst flow.FieldID, basis uint16, links int) {
		draw.Actions = append(draw.Actions, flow.Multipath{Fields: flow.HashSymmetricL3L4, Basis: basis, Links: uint32(links),
			Dst: flow.Whole(dst)})
	}
	taken := is
	var out []flow.Flow
	if oneOf > 1 {
		pick(regSample, basisSample, oneOf)
		taken = taken.With(regSample, flow.U64(0))
		out = append(out, flow.Flow{Table: TableBalance, Priority: 1, Cookie: cookie(number, SampledOut), Match: is})
	}
	decided := flow.Flow{Table: TableBalance, Priority: 2, Cookie: system(TableBalance), Match: taken}
	next := flow.Resubmit{Port: flow.PortInPort, Table: TableTargets}
	if bucketTargets == nil {
		decided.Actions = []flow.Action{next}
		out = append(out, decided)
	} else {
		pick(regBucket, basisBucket, buckets)
		for b, target := range bucketTargets {
			f := decided
			f.Match = taken.With(regBucket, flow.U64(uint64(b)))
			f.Actions = []flow.Action{flow.Load{Dst: flow.Whole(regBucket), Value: uint64(target + 1)}, next}
			out = append(out, f)
		}
	}
	draw.Actions = append(draw.Actions, flow.Resubmit{Port: flow.PortInPort, Table: TableBalance})
	return append(out, draw)
}

// balance gives the buckets to the targets that are well, of those with these names, by rendezvous: each bucket has an order of all
// targets, from which it takes the first that is well. So what a sick one has moves to the others, what they have stays, and when it is
// well again it gets its own back. Who is first is evened out, so that with all well each target has as many buckets as any other, or one
// more or less. If none is well, all are used. The result is the index of each bucket's target.
func balance(names []string, well func(i int) bool) []int {
	if len(names) == 0 {
		return nil
	}
	type bid struct {
		score          uint64
		bucket, target int
	}
	var bids []bid
	for i, name := range names {
		for b := range buckets {
			sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", b, name))
			bids = append(bids, bid{binary.BigEndian.Uint64(sum[:]), b, i})
		}
	}
	slices.SortFunc(bids, func(x, y bid) int { return cmp.Compare(y.score, x.score) })
	const nobody = -1
	out, has := slices.Repeat([]int{nobody}, buckets), make([]int, len(names))
	most := (buckets + len(names) - 1) / len(names)
	rich := len(names) - (most*len(names) - buckets) // so many targets have as many as that, the others one less
	for _, x := range bids {
		if out[x.bucket] == nobody && (has[x.target] < most-1 || has[x.target] == most-1 && rich > 0) {
			out[x.bucket] = x.target
			if has[x.target]++; has[x.target] == most {
				rich--
			}
		}
	}
	moves := make([]bool, buckets)
	for b, target := range out {
		moves[b] = !well(target)
	}
	for _, x := range bids {
		if moves[x.bucket] && well(x.target) {
			out[x.bucket], moves[x.bucket] = x.target, false
		}
	}
	return out
}

// chooseTargets gives the buckets of a mirror that balances to those of its targets, given by index, to which the tap bridge can send
// now. What is wrong with one of them becomes a problem. The result is the index of each bucket's target.
func (w *mirrorWork) chooseTargets(tapBridge string, targets []mirrorTarget, there []int) []int {
	b := w.m.Spec.Balance
	if b == nil {
		return nil
	}
	sick := map[string]bool{}
	var told []string
	asked := false
	for _, t := range targets {
		probe, asks := w.probe(b, t)
		if asks {
			w.plan.Probes = append(w.plan.Probes, probe)
		}
		fault := portFault(w.in.Topology.Bridges[tapBridge], t.spec.Port)
		if t.at != nil {
			fault = portFault(t.at, t.spec.Port)
		}
		switch why, silent := w.in.Silent[probe]; {
		case fault != "": // which is a problem of its own
			sick[t.spec.Port] = true
			told = append(told, fmt.Sprintf("target %s: %s", t.spec.Port, fault))
		case asks && silent:
			sick[t.spec.Port], asked = true, true
			told = append(told, fmt.Sprintf("target %s (%s): %s", t.spec.Port, t.remote, why))
		}
	}
	var names []string
	for _, i := range there {
		names = append(names, targets[i].spec.Port)
	}
	all := !slices.ContainsFunc(names, func(n string) bool { return !sick[n] })
	switch {
	case len(names) == 0:
	case all:
		// Ahead of what is wrong with each; while ports are brought up, that is all.
		w.info.Problems = slices.Insert(w.info.Problems, 0, Problem{Reason: policy.ReasonTargetDown, Soon: !asked,
			Message: "no target is well, so all are used: " + strings.Join(told, "; ")})
	case asked:
		w.problem(false, policy.ReasonTargetDown, "%s; the others get its sessions", strings.Join(told, "; "))
	}
	out := balance(names, func(i int) bool { return !sick[names[i]] })
	for b, i := range out {
		out[b] = there[i]
	}
	return out
}

// probe is the question to ask about a target; asks: there is one. A port is asked nothing: its link says enough.
func (w *mirrorWork) probe(b *policy.MirrorBalance, t mirrorTarget) (p Probe, asks bool) {
	if !t.remote.IsValid() || b.Probe == "" || b.Probe == policy.ProbeNone {
		return p, false
	}
	if w.in.NoDevices {
		w.warn(policy.Warning{Code: WarnNotProbed, Message: "host " + w.in.Topology.Host + " is managed over the network, so whether its " +
			"targets are well cannot be asked from there; only their ports are looked at"})
		return p, false
	}
	p = Probe{Remote: t.remote, Local: t.identity.local, Port: b.ProbePort()}
	if p.Port == 0 {
		p.Kind = b.Probe
	}
	return p, true
}

// portFault says why nothing passes through a port of a bridge, which may be nil; "" = nothing is known to be wrong.
func portFault(b *vswitch.Bridge, port string) string {
	if b == nil || b.Ports[port] == nil {
		return ""
	}
	return b.Ports[port].Fault()
}
