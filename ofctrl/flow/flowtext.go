package flow

import "fmt"

// String returns f as "ovs-ofctl -O OpenFlow13 --no-stats --no-names dump-flows" prints it, without the leading blank:
//
//	cookie=0x12, table=3, idle_timeout=60, send_flow_rem priority=100,tcp,tp_dst=80 actions=output:1
//
// As there, a cookie of 0, table 0 and priority 32768 are left out.
func (f Flow) String() string { return string(f.Append(nil)) }

// DefaultPriority is the priority of a flow whose text names none.
const DefaultPriority uint16 = 0x8000

// Append appends the text of f to dst.
func (f Flow) Append(dst []byte) []byte {
	if f.Cookie != 0 {
		dst = append(appendHexPad(append(dst, "cookie="...), uint64(f.Cookie), 1), ", "...)
	}
	if f.Table != 0 {
		dst = append(appendDec(append(dst, "table="...), uint64(f.Table)), ", "...)
	}
	return f.appendRest(dst)
}

func (f Flow) appendRest(dst []byte) []byte {
	for _, t := range [...]struct {
		name string
		v    uint16
	}{{"idle_timeout=", f.IdleTimeout}, {"hard_timeout=", f.HardTimeout}} {
		if t.v != 0 {
			dst = append(appendDec(append(dst, t.name...), uint64(t.v)), ", "...)
		}
	}
	dst = f.Flags.append(dst)
	if f.Importance != 0 {
		dst = append(appendDec(append(dst, "importance="...), uint64(f.Importance)), ", "...)
	}
	start := len(dst)
	if f.Priority != DefaultPriority {
		dst = append(appendDec(append(dst, "priority="...), uint64(f.Priority)), ',')
	}
	dst = f.Match.append(dst)
	if n := len(dst); n > start && dst[n-1] == ',' {
		dst = dst[:n-1]
	}
	if len(dst) > start {
		dst = append(dst, ' ')
	}
	return AppendActions(append(dst, "actions="...), f.Actions)
}

func flagNames() []string {
	return []string{"send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts"}
}

// append writes each flag with a blank after it.
func (f Flags) append(dst []byte) []byte {
	for i, n := range flagNames() {
		if f>>i&1 != 0 {
			dst = append(append(dst, n...), ' ')
		}
	}
	return dst
}

// String returns the flags as ovs-ofctl prints them, separated by blanks.
func (f Flags) String() string {
	b := f.append(nil)
	return string(b[:max(len(b)-1, 0)])
}

// String returns i as "ovs-ofctl -O OpenFlow13 --no-names dump-flows" prints it, with cookie, table and counters and
// without the leading blank.
func (i Installed) String() string {
	dst := append(appendHexPad([]byte("cookie="), uint64(i.Cookie), 1), ", duration="...)
	dst = appendDuration(dst, i.Stats.DurationSec, i.Stats.DurationNsec)
	dst = appendDec(append(dst, "s, table="...), uint64(i.Table))
	dst = appendDec(append(dst, ", n_packets="...), i.Stats.Packets)
	dst = appendDec(append(dst, ", n_bytes="...), i.Stats.Bytes)
	return string(i.Flow.appendRest(append(dst, ", "...)))
}

// appendDuration writes seconds with no, three or as many decimals as it takes.
func appendDuration(dst []byte, sec, nsec uint32) []byte {
	dst = appendDec(dst, uint64(sec))
	if nsec == 0 {
		return dst
	}
	digits, n := nsec, 9
	for digits%10 == 0 && n > 3 {
		digits, n = digits/10, n-1
	}
	return fmt.Appendf(dst, ".%0*d", n, digits)
}
