package flow

// MeterFlags are the OFPMF_* bits of a meter (OpenFlow 1.3.5 §7.3.4.4).
type MeterFlags uint16

// The flags of a meter. A rate is in kbit/s or, with MeterPktps, in packets/s.
const (
	MeterKbps  MeterFlags = 1 << 0
	MeterPktps MeterFlags = 1 << 1
	MeterBurst MeterFlags = 1 << 2 // the bands have a burst size
	MeterStats MeterFlags = 1 << 3 // keep counters
)

// String returns the flags as ovs-ofctl prints them, separated by blanks.
func (f MeterFlags) String() string {
	b := f.append(nil)
	return string(b[:max(len(b)-1, 0)])
}

// append writes each flag with a blank after it.
func (f MeterFlags) append(dst []byte) []byte {
	names := [...]string{"kbps ", "pktps ", "burst ", "stats "}
	for i, n := range names {
		if f>>i&1 != 0 {
			dst = append(dst, n...)
		}
	}
	if rest := f >> len(names) << len(names); rest != 0 {
		dst = append(appendHex(append(dst, "flags:"...), uint64(rest)), ' ')
	}
	return dst
}

// BandType is what happens to packets above the rate of a band.
type BandType uint16

// The types of bands. Open vSwitch's userspace datapath takes BandDrop only.
const (
	BandDrop       BandType = 1
	BandDSCPRemark BandType = 2
)

// String returns the name that ovs-ofctl prints.
func (t BandType) String() string {
	switch t {
	case BandDrop:
		return "drop"
	case BandDSCPRemark:
		return "dscp_remark"
	}
	return string(appendDec(nil, uint64(t)))
}

// Band is one threshold of a meter.
type Band struct {
	Type      BandType
	Rate      uint32 // kbit/s or packets/s
	Burst     uint32 // kbit or packets; meaningful with MeterBurst
	PrecLevel uint8  // BandDSCPRemark: by how much the drop precedence rises
}

// Reserved meters (OpenFlow 1.3.5 §7.3.4.4).
const (
	MeterMax        uint32 = 0xffff0000
	MeterSlowpath   uint32 = 0xfffffffd
	MeterController uint32 = 0xfffffffe
	MeterAll        uint32 = 0xffffffff
)

// MeterDesc describes a meter of a switch; the instruction that uses it is [Meter].
type MeterDesc struct {
	ID    uint32
	Flags MeterFlags
	Bands []Band
}

// String returns m as "ovs-ofctl -O OpenFlow13 dump-meters" prints it: a line for the meter and one for each band,
// without the line end of the last.
func (m MeterDesc) String() string {
	dst := []byte("meter=")
	switch {
	case m.ID <= MeterMax:
		dst = appendDec(dst, uint64(m.ID))
	case m.ID == MeterSlowpath:
		dst = append(dst, "slowpath"...)
	case m.ID == MeterController:
		dst = append(dst, "controller"...)
	case m.ID == MeterAll:
		dst = append(dst, "all"...)
	default:
		dst = append(dst, "unknown"...)
	}
	dst = append(m.Flags.append(append(dst, ' ')), "bands="...)
	for _, b := range m.Bands {
		dst = append(append(dst, "\ntype="...), b.Type.String()...)
		dst = appendDec(append(dst, " rate="...), uint64(b.Rate))
		if m.Flags&MeterBurst != 0 {
			dst = appendDec(append(dst, " burst_size="...), uint64(b.Burst))
		}
		if b.Type == BandDSCPRemark {
			dst = appendDec(append(dst, " prec_level="...), uint64(b.PrecLevel))
		}
	}
	return string(dst)
}

// GroupType is how a group chooses among its buckets (OpenFlow 1.3.5 §5.6.1).
type GroupType uint8

// The types of groups.
const (
	GroupAll GroupType = iota
	GroupSelect
	GroupIndirect
	GroupFastFailover
)

// String returns the name that ovs-ofctl prints.
func (t GroupType) String() string {
	switch t {
	case GroupAll:
		return "all"
	case GroupSelect:
		return "select"
	case GroupIndirect:
		return "indirect"
	case GroupFastFailover:
		return "ff"
	}
	return "unknown"
}

// NoGroup as Bucket.WatchGroup means that the bucket watches no group (OFPG_ANY).
const NoGroup uint32 = 0xffffffff

// Bucket is one list of actions of a group. The zero value of WatchPort and WatchGroup is port or group 0: set PortAny
// and NoGroup where nothing is watched, as the wire does.
type Bucket struct {
	Weight     uint16 // GroupSelect: its share, 1 being usual; else 0
	WatchPort  uint32 // GroupFastFailover: alive while this port is; PortAny = none
	WatchGroup uint32 // likewise; NoGroup = none
	Actions    []Action
}

// GroupDesc describes a group of a switch; the action that uses it is [Group].
type GroupDesc struct {
	ID      uint32
	Type    GroupType
	Buckets []Bucket
}

// String returns g as "ovs-ofctl -O OpenFlow13 dump-groups" prints it, without the leading blank.
func (g GroupDesc) String() string {
	dst := appendDec([]byte("group_id="), uint64(g.ID))
	dst = append(append(dst, ",type="...), g.Type.String()...)
	usual := uint16(0)
	if g.Type == GroupSelect {
		usual = 1
	}
	for _, b := range g.Buckets {
		dst = append(dst, ",bucket="...)
		if b.Weight != usual {
			dst = append(appendDec(append(dst, "weight:"...), uint64(b.Weight)), ',')
		}
		if b.WatchPort != PortAny {
			dst = append(appendPort(append(dst, "watch_port:"...), b.WatchPort), ',')
		}
		if b.WatchGroup != NoGroup {
			dst = append(appendDec(append(dst, "watch_group:"...), uint64(b.WatchGroup)), ',')
		}
		dst = AppendActions(append(dst, "actions="...), b.Actions)
	}
	return string(dst)
}
