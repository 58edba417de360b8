package unixctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrNoEntry: the connection to flush is not tracked (any more).
	ErrNoEntry = errors.New("unixctl: no such connection")
	// ErrUnsafeFlush: flushing this connection by its tuple would abort ovs-vswitchd; see FlushEntry.
	ErrUnsafeFlush = errors.New("unixctl: ovs-vswitchd cannot flush this connection by its tuple")
)

// Scope selects a part of the connection table.
type Scope struct {
	// Datapath is needed where there is more than one, see Daemon.Datapaths.
	Datapath string
	// Zone restricts to one zone; nil means all.
	Zone *uint16
}

func (s Scope) args(args ...string) []string {
	if s.Datapath != "" {
		args = append(args, s.Datapath)
	}
	if s.Zone != nil {
		args = append(args, fmt.Sprintf("zone=%d", *s.Zone))
	}
	return args
}

// DumpConntrack returns the text of the connection table for Entries, with all details. The daemon makes it in one piece and does nothing
// else meanwhile, on a userspace datapath without PMD threads not even forward: some 8 µs for each connection in the text, and 0.04 µs for
// each of other zones (docs/benchmarks.md). Ask for one zone where that is enough.
func (d Daemon) DumpConntrack(ctx context.Context, s Scope) (string, error) {
	return d.Call(ctx, "dpctl/dump-conntrack", s.args("-m", "-s")...)
}

// CountConntrack returns how many connections there are in the scope. All of a userspace datapath are counted at once; those of a zone, or
// of the kernel, are gone through as DumpConntrack does, for 0.3 µs each.
func (d Daemon) CountConntrack(ctx context.Context, s Scope) (int, error) {
	if s.Zone == nil {
		text, err := d.Call(ctx, "dpctl/ct-get-nconns", s.args()...)
		var refused *Error
		if !errors.As(err, &refused) { // as the kernel's is
			return parseCount("dpctl/ct-get-nconns", text, err)
		}
	}
	text, err := d.Call(ctx, "dpctl/ct-stats-show", s.args()...)
	_, total, _ := strings.Cut(text, "Total:")
	total, _, _ = strings.Cut(total, "\n")
	return parseCount("dpctl/ct-stats-show", total, err)
}

func parseCount(method, text string, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31)
	if err != nil {
		return 0, fmt.Errorf("unixctl: %s answers %.80q", method, text)
	}
	return int(n), nil
}

// FlushZone forgets every connection of the scope.
func (d Daemon) FlushZone(ctx context.Context, s Scope) error {
	_, err := d.Call(ctx, "dpctl/flush-conntrack", s.args()...)
	return err
}

// FlushEntry forgets exactly the connection with e's zone, protocol and original tuple. The error matches ErrNoEntry when there is none.
//
// It matches ErrUnsafeFlush, and nothing is sent, for ICMPv6 and for ICMP other than echo, timestamp and information: the userspace
// connection tracker of Open vSwitch 3.1.0 aborts the whole ovs-vswitchd on such a tuple. Seen with ICMPv6 type 128 and ICMP types 3
// and 17, whether or not there is such a connection; not with types 0, 8 and 13…16. A tuple of IPv6 addresses alone does the same as
// soon as an ICMPv6 connection matches it, so only whole tuples are ever sent. Flush the zone, or let such a connection expire.
func (d Daemon) FlushEntry(ctx context.Context, datapath string, e Entry) error {
	tuple, err := flushTuple(e)
	if err != nil {
		return err
	}
	_, err = d.Call(ctx, "dpctl/flush-conntrack", append(Scope{datapath, &e.Zone}.args(), tuple)...)
	var refused *Error
	if errors.As(err, &refused) && strings.Contains(refused.Text, "No such file or directory") {
		return fmt.Errorf("%w: %w", ErrNoEntry, err)
	}
	return err
}

// flushTuple writes the original tuple as ct_dpif_parse_tuple reads it.
func flushTuple(e Entry) (string, error) {
	o := e.Orig
	if !o.Src.IsValid() || o.Src.Is4() != o.Dst.Is4() || !o.Dst.IsValid() {
		return "", fmt.Errorf("%w: not two addresses of one family", ErrEntry)
	}
	family := "nw"
	if o.Src.Is6() {
		family = "ipv6"
	}
	text := fmt.Sprintf("ct_%s_src=%s,ct_%s_dst=%s,ct_nw_proto=%d", family, o.Src.WithZone(""), family, o.Dst.WithZone(""), e.Proto)
	switch e.Proto {
	case protoICMPv6:
		return "", ErrUnsafeFlush
	case protoICMP:
		switch o.ICMPType {
		case 0, 8, 13, 14, 15, 16:
		default:
			return "", fmt.Errorf("%w: ICMP type %d", ErrUnsafeFlush, o.ICMPType)
		}
		return fmt.Sprintf("%s,icmp_type=%d,icmp_code=%d,icmp_id=%d", text, o.ICMPType, o.ICMPCode, o.ICMPID), nil
	default:
		return fmt.Sprintf("%s,ct_tp_src=%d,ct_tp_dst=%d", text, o.SrcPort, o.DstPort), nil
	}
}
