package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// A rule may sample the connections that it allows: one of N is drawn, of which the beginning and all packets of both directions are
// recorded. Its leaf draws a number by a hash of what both directions of a connection have in common and SAMPLE looks whether it is the
// one; COMMIT copies the packet and writes that into ct_mark, by which EXIT knows later ones. So nobody else pays for the draw, and who is
// drawn does not depend on when, or on which bridge.
//
// The number is the hash's range by hash_threshold: the sample of a larger N is a part of that of a smaller one. So where the rules of both
// sides sample, the connection is of the sample of the smaller N, exactly.

// sampleBasis has others that hash draw otherwise.
const sampleBasis = 0x7a11

// scratchSample is where a number is drawn, of up to 65,536. The leaf keeps what is there: INGRESS may still ask for it.
var scratchSample = sub(flow.Reg15, 0, 16)

// Draw returns what a leaf of EGRESS or INGRESS also does to sample one of n connections, 1 <= n <= 65536.
func Draw(n int) []flow.Action {
	if n == 1 {
		return []flow.Action{Sampled.Load(1)}
	}
	return []flow.Action{
		flow.Push{Src: scratchSample},
		flow.Multipath{Fields: flow.HashSymmetricL3L4UDP, Basis: sampleBasis, Algorithm: flow.LinkHashThreshold, Links: uint32(n),
			Dst: scratchSample},
		table(TableSample),
		flow.Pop{Dst: scratchSample},
	}
}

// tellSample copies a packet of a sample.
var tellSample = flow.Controller{MaxLen: LogBytes, ID: ControllerID, Reason: reasonAction, UserData: CopySample.UserData(),
	MeterID: MeterSample}

// sample has what a leaf has drawn copied in COMMIT, behind which nothing is known any more of the connection.
func (p *program) sample() {
	if !p.opt.Samples {
		return
	}
	p.system(TableSample, 10, Field{SubField: scratchSample}.Is(nil, 0), Sampled.Load(1))
	p.tell(145, nil)
}

// tell adds flows to COMMIT that tell once of packets, by actions and as a sample.
func (p *program) tell(priority uint16, m flow.Match, actions ...flow.Action) {
	m = Told.Is(m, 0)
	told := []flow.Action{Told.Load(1), table(TableCommit)}
	if len(actions) > 0 {
		p.system(TableCommit, priority, m, append(actions[:len(actions):len(actions)], told...)...)
	}
	if p.opt.Samples {
		p.system(TableCommit, priority+1, Sampled.Is(m, 1), append(append([]flow.Action{tellSample}, actions...), told...)...)
	}
}

// leave adds flows to EXIT by which packets leave, told of by actions and, if their connection is of a sample and COMMIT has not told of
// them, as one.
func (p *program) leave(priority uint16, m flow.Match, actions ...flow.Action) {
	out := append(actions[:len(actions):len(actions)], flow.Output{Port: flow.PortNormal})
	p.system(TableExit, priority, m, out...)
	if p.opt.Samples {
		p.system(TableExit, priority+1, MarkSampled.Is(Told.Is(m, 0), 1), append([]flow.Action{tellSample}, out...)...)
	}
}
