package flow

import "net/netip"

// Reasons of a packet-in (OpenFlow 1.5 §7.4.1) as [Controller] carries them. A copy that an action asked for has
// ReasonAction, which is not the zero value.
const (
	ReasonNoMatch    uint8 = 0
	ReasonAction     uint8 = 1
	ReasonInvalidTTL uint8 = 2
	ReasonActionSet  uint8 = 3
	ReasonGroup      uint8 = 4
	ReasonPacketOut  uint8 = 5
)

func reasonNames() []string {
	return []string{"no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"}
}

// WholePacket as MaxLen of a copy to the controller means all of it.
const WholePacket uint16 = 0xffff

// appender is what every action of this package is: text without a string of its own.
type appender interface{ append(dst []byte) []byte }

// AppendActions appends actions as ovs-ofctl prints them after "actions=": separated by commas, "drop" where there is none.
func AppendActions(dst []byte, actions []Action) []byte {
	if len(actions) == 0 {
		return append(dst, "drop"...)
	}
	for i, a := range actions {
		if i > 0 {
			dst = append(dst, ',')
		}
		if t, ok := a.(appender); ok {
			dst = t.append(dst)
		} else {
			dst = append(dst, "<nil>"...)
		}
	}
	return dst
}

// ActionsString is AppendActions into a string of its own.
func ActionsString(actions []Action) string { return string(AppendActions(nil, actions)) }

func (a Output) append(dst []byte) []byte {
	if portName(a.Port) == "" {
		dst = append(dst, "output:"...)
	}
	dst = appendPort(dst, a.Port)
	if a.Port == PortController {
		dst = appendDec(append(dst, ':'), uint64(a.MaxLen))
	}
	return dst
}

func (a OutputTrunc) append(dst []byte) []byte {
	dst = appendPort(append(dst, "output(port="...), a.Port)
	dst = appendDec(append(dst, ",max_len="...), uint64(a.MaxLen))
	return append(dst, ')')
}

func (a OutputReg) append(dst []byte) []byte { return a.Src.append(append(dst, "output:"...)) }

// plain reports whether a says no more than an Output to the controller port could.
func (a Controller) plain() bool {
	return a.Reason == ReasonAction && a.ID == 0 && a.UserData == "" && !a.Pause && a.MeterID == 0
}

func (a Controller) append(dst []byte) []byte {
	if a.plain() {
		return appendDec(append(dst, "CONTROLLER:"...), uint64(a.MaxLen))
	}
	dst = append(dst, "controller("...)
	if a.Reason != ReasonAction {
		dst = append(dst, "reason="...)
		if names := reasonNames(); int(a.Reason) < len(names) {
			dst = append(dst, names[a.Reason]...)
		} else {
			dst = appendDec(dst, uint64(a.Reason))
		}
		dst = append(dst, ',')
	}
	if a.MaxLen != WholePacket {
		dst = append(appendDec(append(dst, "max_len="...), uint64(a.MaxLen)), ',')
	}
	if a.ID != 0 {
		dst = append(appendDec(append(dst, "id="...), uint64(a.ID)), ',')
	}
	if a.UserData != "" {
		dst = append(appendHexBytes(append(dst, "userdata="...), a.UserData), ',')
	}
	if a.Pause {
		dst = append(dst, "pause,"...)
	}
	if a.MeterID != 0 {
		dst = append(appendDec(append(dst, "meter_id="...), uint64(a.MeterID)), ',')
	}
	return closeList(dst)
}

// closeList replaces a trailing comma by the closing parenthesis, or adds it after an opening one.
func closeList(dst []byte) []byte {
	if dst[len(dst)-1] == ',' {
		dst = dst[:len(dst)-1]
	}
	return append(dst, ')')
}

func (a Group) append(dst []byte) []byte {
	return appendDec(append(dst, "group:"...), uint64(a.ID))
}

func (a SetField) append(dst []byte) []byte {
	dst = appendFieldValue(append(dst, "set_field:"...), a.Field, a.Value, a.Mask)
	return append(append(dst, "->"...), a.Field.String()...)
}

func (a Load) append(dst []byte) []byte {
	dst = appendHex(append(dst, "load:"...), a.Value)
	return a.Dst.append(append(dst, "->"...))
}

func (a Move) append(dst []byte) []byte {
	dst = a.Src.append(append(dst, "move:"...))
	return a.Dst.append(append(dst, "->"...))
}

func (a Push) append(dst []byte) []byte { return a.Src.append(append(dst, "push:"...)) }

func (a Pop) append(dst []byte) []byte { return a.Dst.append(append(dst, "pop:"...)) }

func (a PushVLAN) append(dst []byte) []byte {
	return appendHex(append(dst, "push_vlan:"...), uint64(a.EthType))
}

func (PopVLAN) append(dst []byte) []byte { return append(dst, "pop_vlan"...) }

func (DecTTL) append(dst []byte) []byte { return append(dst, "dec_ttl"...) }

func (a SetQueue) append(dst []byte) []byte {
	return appendDec(append(dst, "set_queue:"...), uint64(a.ID))
}

func (PopQueue) append(dst []byte) []byte { return append(dst, "pop_queue"...) }

func (a Resubmit) append(dst []byte) []byte {
	if a.Port != PortInPort && a.Table == NoTable {
		return appendPort(append(dst, "resubmit:"...), a.Port)
	}
	dst = append(dst, "resubmit("...)
	if a.Port != PortInPort {
		dst = appendPort(dst, a.Port)
	}
	dst = append(dst, ',')
	if a.Table != NoTable {
		dst = appendDec(dst, uint64(a.Table))
	}
	if a.CT {
		dst = append(dst, ",ct"...)
	}
	return append(dst, ')')
}

// Helpers of ct(alg=…), by the port number that names them on the wire.
const (
	AlgFTP  uint16 = 21
	AlgTFTP uint16 = 69
)

func (a CT) append(dst []byte) []byte {
	dst = append(dst, "ct("...)
	if a.Commit {
		dst = append(dst, "commit,"...)
	}
	if a.Force {
		dst = append(dst, "force,"...)
	}
	if a.Table != NoTable {
		dst = append(appendDec(append(dst, "table="...), uint64(a.Table)), ',')
	}
	if a.ZoneSrc != (SubField{}) {
		dst = append(a.ZoneSrc.append(append(dst, "zone="...)), ',')
	} else if a.Zone != 0 {
		dst = append(appendDec(append(dst, "zone="...), uint64(a.Zone)), ',')
	}
	if a.NAT != nil {
		dst = append(a.NAT.append(dst), ',')
	}
	if len(a.Exec) > 0 {
		dst = append(AppendActions(append(dst, "exec("...), a.Exec), "),"...)
	}
	switch a.Alg {
	case 0:
	case AlgFTP:
		dst = append(dst, "alg=ftp,"...)
	case AlgTFTP:
		dst = append(dst, "alg=tftp,"...)
	default:
		dst = append(appendDec(append(dst, "alg="...), uint64(a.Alg)), ',')
	}
	return closeList(dst)
}

// String returns n as it stands in ct: nat, nat(src=10.0.0.1-10.0.0.9:1024-2047,random).
func (n NAT) String() string { return string(n.append(nil)) }

func (n NAT) append(dst []byte) []byte {
	dst = append(dst, "nat"...)
	switch {
	case n.Src:
		dst = append(dst, "(src"...)
	case n.Dst:
		dst = append(dst, "(dst"...)
	default:
		return dst
	}
	if n.AddrMin.IsValid() {
		dst = n.appendAddr(append(dst, '='), n.AddrMin)
		if n.AddrMax.IsValid() && n.AddrMax != n.AddrMin {
			dst = n.appendAddr(append(dst, '-'), n.AddrMax)
		}
		if n.PortMin != 0 {
			dst = appendDec(append(dst, ':'), uint64(n.PortMin))
			if n.PortMax != 0 && n.PortMax != n.PortMin {
				dst = appendDec(append(dst, '-'), uint64(n.PortMax))
			}
		}
		dst = append(dst, ',')
		if n.Persistent {
			dst = append(dst, "persistent,"...)
		}
		if n.Hash {
			dst = append(dst, "hash,"...)
		}
		if n.Random {
			dst = append(dst, "random,"...)
		}
	}
	return closeList(dst)
}

// appendAddr puts IPv6 addresses into brackets where ports follow.
func (n NAT) appendAddr(dst []byte, a netip.Addr) []byte {
	switch {
	case a.Is4():
		return appendIPv4(dst, FromAddr(a).Lo)
	case n.PortMin != 0:
		return append(appendIPv6(append(dst, '['), from16(a)), ']')
	}
	return appendIPv6(dst, from16(a))
}

func (CTClear) append(dst []byte) []byte { return append(dst, "ct_clear"...) }

func (a Conjunction) append(dst []byte) []byte {
	dst = appendDec(append(dst, "conjunction("...), uint64(a.ID))
	dst = appendDec(append(dst, ','), uint64(a.Clause))
	return append(appendDec(append(dst, '/'), uint64(a.N)), ')')
}

func (a Clone) append(dst []byte) []byte {
	return append(AppendActions(append(dst, "clone("...), a.Actions), ')')
}

// Directions of [Sample].
const (
	SampleDefault uint8 = 0
	SampleIngress uint8 = 1
	SampleEgress  uint8 = 2
)

func (a Sample) append(dst []byte) []byte {
	dst = appendDec(append(dst, "sample(probability="...), uint64(a.Probability))
	dst = appendDec(append(dst, ",collector_set_id="...), uint64(a.CollectorSet))
	dst = appendDec(append(dst, ",obs_domain_id="...), uint64(a.ObsDomainID))
	dst = appendDec(append(dst, ",obs_point_id="...), uint64(a.ObsPointID))
	if a.SamplingPort != PortAny {
		dst = appendPort(append(dst, ",sampling_port="...), a.SamplingPort)
	}
	switch a.Direction {
	case SampleIngress:
		dst = append(dst, ",ingress"...)
	case SampleEgress:
		dst = append(dst, ",egress"...)
	}
	return append(dst, ')')
}

func (a CheckPktLarger) append(dst []byte) []byte {
	dst = appendDec(append(dst, "check_pkt_larger("...), uint64(a.Len))
	return a.Dst.append(append(dst, ")->"...))
}

func (a Note) append(dst []byte) []byte { return appendHexBytes(append(dst, "note:"...), a.Data) }

func (a Meter) append(dst []byte) []byte {
	return appendDec(append(dst, "meter:"...), uint64(a.ID))
}

func (ClearActions) append(dst []byte) []byte { return append(dst, "clear_actions"...) }

func (a WriteActions) append(dst []byte) []byte {
	return append(AppendActions(append(dst, "write_actions("...), a.Actions), ')')
}

func (a WriteMetadata) append(dst []byte) []byte {
	dst = appendHex(append(dst, "write_metadata:"...), a.Value)
	if a.Mask != ^uint64(0) {
		dst = appendHex(append(dst, '/'), a.Mask)
	}
	return dst
}

func (a GotoTable) append(dst []byte) []byte {
	return appendDec(append(dst, "goto_table:"...), uint64(a.Table))
}
