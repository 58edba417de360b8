package ofctrl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// ErrUnsafeFlush: asking for this connection by its tuple would abort ovs-vswitchd; see [Switch.FlushConnection].
var ErrUnsafeFlush = errors.New("ovs-vswitchd cannot flush this connection by its tuple")

// IP protocols whose connections have more than addresses.
const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// withPorts are TCP, UDP, DCCP, SCTP and UDP-Lite.
var withPorts = []uint8{6, 17, 33, 132, 136}

// echoes are the ICMP types that the connection tracker of Open vSwitch 3.1.0 takes in a tuple: echo, timestamp and information.
var echoes = []uint8{0, 8, 13, 14, 15, 16}

// FlushConnection makes the switch forget the connection of this zone and IP protocol whose original or reply direction is the tuple,
// and returns when it has done so. That there is none is no error: Open vSwitch does not say. Zones are the datapath's: all its bridges
// share them. It works on hosts that are reached by OpenFlow only, with Open vSwitch 3.1 and later (NXT_CT_FLUSH); an earlier one
// refuses ([ErrRejected]). Connections are forgotten, not denied: what comes next is judged as any packet in the middle of an unknown
// connection.
//
// Only whole tuples are sent, as Open vSwitch 3.1.0 removes a part at random of what others select: errors match [ErrInvalid] unless there
// are two addresses of one family and, for protocols that have them, two ports other than 0. They match [ErrUnsafeFlush], and nothing is
// sent, for ICMPv6 and for ICMP other than echo, timestamp and information, for which that version aborts the whole ovs-vswitchd (seen with
// ICMPv6 type 128 and ICMP types 3 and 17). Others are those of EachFlow.
func (s *Switch) FlushConnection(ctx context.Context, zone uint16, proto uint8, t ofp.CTTuple) error {
	if err := Flushable(proto, t); err != nil {
		return err
	}
	conn, err := s.connection()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err = conn.Do(ctx, 1, func(dst []byte, xid uint32, _ int) ([]byte, error) {
		return ofp.AppendCTFlush(dst, xid, ofp.CTFlush{Proto: proto, Orig: t, Zone: zone})
	}, func(int) Label {
		return Label{Op: "flush connection", Object: fmt.Sprintf("%v to %v of protocol %d", t.Src, t.Dst, proto)}
	})
	if errors.Is(err, ofp.ErrValue) {
		return fmt.Errorf("flush of a connection: %w: %w", ErrInvalid, err)
	}
	return gone(err)
}

// Flushable reports what FlushConnection would refuse without asking the switch: errors match [ErrInvalid] and [ErrUnsafeFlush].
func Flushable(proto uint8, t ofp.CTTuple) error {
	ports := t.SrcPort != 0 && t.DstPort != 0
	switch {
	case !t.Src.IsValid() || !t.Dst.IsValid() || t.Src.Is4() != t.Dst.Is4():
		return fmt.Errorf("flush of a connection: not two addresses of one family: %w", ErrInvalid)
	case t.Src.IsUnspecified() || t.Dst.IsUnspecified() || proto == 0 || slices.Contains(withPorts, proto) && !ports:
		return fmt.Errorf("flush of a connection: an address, protocol or port of 0 would select others, too: %w", ErrInvalid)
	case proto == protoICMPv6, proto == protoICMP && !slices.Contains(echoes, t.ICMPType):
		return fmt.Errorf("%w: protocol %d, type %d", ErrUnsafeFlush, proto, t.ICMPType)
	}
	return nil
}
