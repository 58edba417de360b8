package tap

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// Copies that are about to be cut are counted by a meter. Flows cannot: Open vSwitch adds what a datapath flow has passed to those of both
// branches of check_pkt_larger, as it does not know which was taken (seen on 3.1.0). In the datapath only the packets of a branch pass its
// meter.

// cutsRate is how many packets a second pass a meter that is there to count. It has to have a rate, and nothing exceeds this one; Open
// vSwitch of old has 32 bits for a thousand times as many.
const cutsRate = 4_000_000

// cutTo are the lengths in bytes that copies are cut to, with how many of each packet are.
func (d *delivery) cutTo() map[int]int {
	out := map[int]int{}
	for _, s := range d.sinks {
		out[d.length(s)]++
	}
	out[d.snaplen] += len(d.ways)
	maps.DeleteFunc(out, func(length, copies int) bool { return length == 0 || copies == 0 })
	return out
}

// length is how many bytes of a copy a port gets; 0 = all.
func (d *delivery) length(s sink) int {
	if d.snaplen > 0 && (s.room == 0 || d.snaplen < s.room) {
		return d.snaplen
	}
	return s.room
}

// countCuts are the actions that count what is cut of a packet. What follows check_pkt_larger would be translated for both branches, so it
// stands in a clone.
func (d *delivery) countCuts() (out []flow.Action) {
	if d.cuts == 0 {
		return nil
	}
	lengths := d.cutTo()
	for _, length := range slices.Sorted(maps.Keys(lengths)) {
		count := []flow.Action{flow.CheckPktLarger{Len: uint16(length), Dst: flow.SubField{Field: regLonger, Bits: 1}}}
		for range lengths[length] {
			count = append(count, flow.Resubmit{Port: flow.PortInPort, Table: TableCuts})
		}
		out = append(out, flow.Clone{Actions: count})
	}
	return out
}

// cutFlow is that of CUTS, for the mirror that is matches.
func (d *delivery) cutFlow(is flow.Match) flow.Flow {
	return flow.Flow{Table: TableCuts, Priority: 1, Cookie: system(TableCuts), Match: is.With(regLonger, flow.U64(1)),
		Actions: []flow.Action{flow.Meter{ID: d.cuts}}}
}

// measures reports whether the datapath can look how long packets are. The userspace one can; of the kernel's ovs-vswitchd says so in the
// row that conntrack zones make. One that cannot has ovs-vswitchd handle each packet.
func (w *mirrorWork) measures(datapathType string) bool {
	name := vswitch.DatapathName(datapathType)
	return name == "netdev" || w.in.Topology.Datapaths[name].Capabilities["check_pkt_len"] == "true"
}
