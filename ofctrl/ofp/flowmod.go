package ofp

import (
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// AppendFlowMod appends a flow-mod (§7.3.4.1). Delete commands leave out actions and timeouts, so that a delete may be made
// of the flow that was added. Errors match [ErrValue], [ErrUnsupported] and [ErrLength] and name the field or action.
func AppendFlowMod(dst []byte, xid uint32, cmd FlowModCommand, f *flow.Flow, opt FlowModOptions) ([]byte, error) {
	start := len(dst)
	table := f.Table
	switch {
	case opt.AllTables && (cmd == FlowDelete || cmd == FlowDeleteStrict):
		table = AllTables
	case opt.AllTables:
		return dst, fmt.Errorf("%v in all tables: %w", cmd, ErrValue)
	case cmd > FlowDeleteStrict:
		return dst, fmt.Errorf("%v: %w", cmd, ErrValue)
	case f.Importance != 0:
		return dst, fmt.Errorf("importance in OpenFlow 1.3: %w", ErrValue)
	}
	dst = be.AppendUint64(begin(dst, TypeFlowMod, xid), uint64(f.Cookie))
	dst = append(be.AppendUint64(dst, opt.CookieMask), table, byte(cmd))
	dst = be.AppendUint16(be.AppendUint16(dst, f.IdleTimeout), f.HardTimeout)
	dst = be.AppendUint32(be.AppendUint16(dst, f.Priority), NoBuffer)
	dst = be.AppendUint32(be.AppendUint32(dst, anyPort(opt.OutPort)), anyGroup(opt.OutGroup))
	dst = appendZeros(be.AppendUint16(dst, uint16(f.Flags)), 2)
	dst, err := AppendMatch(dst, f.Match)
	if err == nil && cmd < FlowDelete {
		dst, err = appendInstructions(dst, f.Actions)
	}
	return end(dst, start, err)
}

// AppendBundleControl appends a bundle control request (ONF extension 230, message 2300).
func AppendBundleControl(dst []byte, xid, id uint32, kind BundleKind, flags BundleFlags) []byte {
	start := len(dst)
	dst = be.AppendUint32(beginVendor(dst, xid, VendorONF, onfBundleControl), id)
	return endShort(be.AppendUint16(be.AppendUint16(dst, uint16(kind)), uint16(flags)), start)
}

// AppendBundleAdd appends a message that adds the one that inner appends to a bundle (message 2301). inner gets the outer
// transaction id, because the switch refuses an add whose two ids differ (ONF error 2309). Errors are those of inner, and
// match [ErrLength] if the whole is too long.
func AppendBundleAdd(dst []byte, xid, id uint32, flags BundleFlags, inner func(dst []byte, xid uint32) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	dst, err := inner(beginBundleAdd(dst, xid, id, flags), xid)
	return end(dst, start, err)
}

// AppendBundleFlowMod is [AppendBundleAdd] for a flow-mod.
func AppendBundleFlowMod(dst []byte, xid, id uint32, flags BundleFlags, cmd FlowModCommand, f *flow.Flow, opt FlowModOptions) ([]byte,
	error) {
	start := len(dst)
	dst, err := AppendFlowMod(beginBundleAdd(dst, xid, id, flags), xid, cmd, f, opt)
	return end(dst, start, err)
}

func beginBundleAdd(dst []byte, xid, id uint32, flags BundleFlags) []byte {
	dst = be.AppendUint32(beginVendor(dst, xid, VendorONF, onfBundleAdd), id)
	return be.AppendUint16(appendZeros(dst, 2), uint16(flags))
}

// AppendMeterMod appends a meter-mod (§7.3.4.4). A delete leaves out the bands, which the switch refuses there.
func AppendMeterMod(dst []byte, xid uint32, cmd MeterModCommand, m *Meter) ([]byte, error) {
	start := len(dst)
	if cmd > MeterDelete || cmd != MeterDelete && len(m.Bands) == 0 {
		return dst, fmt.Errorf("%v of meter %d with %d bands: %w", cmd, m.ID, len(m.Bands), ErrValue)
	}
	dst = be.AppendUint16(begin(dst, TypeMeterMod, xid), uint16(cmd))
	if cmd == MeterDelete {
		return end(be.AppendUint32(appendZeros(dst, 2), m.ID), start, nil)
	}
	dst = be.AppendUint32(be.AppendUint16(dst, uint16(m.Flags)), m.ID)
	for _, b := range m.Bands {
		dst = be.AppendUint16(be.AppendUint16(dst, uint16(b.Type)), 16)
		dst = be.AppendUint32(be.AppendUint32(dst, b.Rate), b.Burst)
		switch {
		case b.Type == flow.BandDSCPRemark:
			dst = append(dst, b.PrecLevel, 0, 0, 0)
		case b.Type == flow.BandDrop && b.PrecLevel == 0:
			dst = appendZeros(dst, 4)
		default:
			return dst[:start], fmt.Errorf("meter %d: band %v: %w", m.ID, b.Type, ErrValue)
		}
	}
	return end(dst, start, nil)
}

// AppendGroupMod appends a group-mod (§7.3.4.2). A delete leaves out the buckets.
func AppendGroupMod(dst []byte, xid uint32, cmd GroupModCommand, g *flow.GroupDesc) ([]byte, error) {
	start := len(dst)
	if cmd > GroupDelete {
		return dst, fmt.Errorf("%v: %w", cmd, ErrValue)
	}
	dst = append(be.AppendUint16(begin(dst, TypeGroupMod, xid), uint16(cmd)), byte(g.Type), 0)
	dst = be.AppendUint32(dst, g.ID)
	var err error
	if cmd != GroupDelete {
		for _, b := range g.Buckets {
			if dst, err = appendBucket(dst, b); err != nil {
				break
			}
		}
	}
	return end(dst, start, err)
}

func appendBucket(dst []byte, b flow.Bucket) ([]byte, error) {
	start := len(dst)
	dst = be.AppendUint16(appendZeros(dst, 2), b.Weight)
	dst = be.AppendUint32(be.AppendUint32(dst, b.WatchPort), b.WatchGroup)
	dst, err := appendActions(appendZeros(dst, 4), b.Actions, 0)
	if err != nil {
		return dst, err
	}
	if n := len(dst) - start; n > 0xffff {
		return dst, fmt.Errorf("bucket of %d bytes: %w", n, ErrLength)
	}
	be.PutUint16(dst[start:], uint16(len(dst)-start))
	return dst, nil
}
