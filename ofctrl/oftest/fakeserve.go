package oftest

import (
	"time"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// The numbers of bundle messages (ONF extension 230) and of the flow monitor (187), and what the codec has no name for.
const (
	onfBundleControl = 2300
	onfBundleAdd     = 2301
	onfFlowMonitor   = 1870

	bundleMsgUnsupported = 2310
)

// message returns a message of the given type.
func message(t ofp.Type, xid uint32, body []byte) []byte {
	b := append(make([]byte, 0, 8+len(body)), byte(ofp.Version13), byte(t))
	b = be.AppendUint16(b, uint16(8+len(body)))
	return append(be.AppendUint32(b, xid), body...)
}

// ErrorMessage returns an error message with what the request began with.
func ErrorMessage(xid uint32, code ofp.ErrorCode, request []byte) []byte {
	request = request[:min(len(request), 64)]
	if vendor := uint32(code >> 32); vendor != 0 { // an experimenter error: the code, then the vendor
		body := be.AppendUint16(be.AppendUint16(nil, uint16(ofp.ErrorExperimenter)), uint16(code))
		return message(ofp.TypeError, xid, append(be.AppendUint32(body, vendor), request...))
	}
	return message(ofp.TypeError, xid, append(be.AppendUint32(nil, uint32(code)), request...))
}

func kindOf(t ofp.Type, body []byte) Kind {
	switch t {
	case ofp.TypeHello:
		return Hello
	case ofp.TypeEchoRequest:
		return Echo
	case ofp.TypeFeaturesRequest:
		return Features
	case ofp.TypeSetConfig:
		return SetConfig
	case ofp.TypeBarrierRequest:
		return Barrier
	case ofp.TypeFlowMod:
		return FlowMod
	case ofp.TypeMeterMod:
		return MeterMod
	case ofp.TypePacketOut:
		return PacketOut
	case ofp.TypeMultipartRequest:
		switch {
		case len(body) < 8:
		case be.Uint16(body) == uint16(ofp.MultipartFlow):
			return FlowStats
		case be.Uint16(body) == uint16(ofp.MultipartMeterConfig):
			return MeterConfig
		case be.Uint16(body) == uint16(ofp.MultipartExperimenter):
			return Monitor
		}
	case ofp.TypeExperimenter:
		if len(body) < 16 || be.Uint32(body) != ofp.VendorONF {
			return Other
		}
		switch be.Uint32(body[4:]) {
		case onfBundleAdd:
			return BundleAdd
		case onfBundleControl:
			switch ofp.BundleKind(be.Uint16(body[12:])) {
			case ofp.BundleOpenRequest:
				return BundleOpen
			case ofp.BundleCommitRequest:
				return BundleCommit
			case ofp.BundleDiscardRequest:
				return BundleDiscard
			}
		}
	}
	return Other
}

// serve does what one request asks for. It reports whether the connection goes on.
func (f *Fake) serve(s *fakeSession, t ofp.Type, xid uint32, body []byte) bool {
	kind := kindOf(t, body)
	f.mu.Lock()
	n := f.seen[kind]
	f.seen[kind]++
	f.mu.Unlock()
	r := f.opts.React(Request{Kind: kind, XID: xid, N: n, Body: body})
	time.Sleep(r.Delay)
	if len(r.Before) > 0 {
		s.send(r.Before)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.ExpireBundles {
		for id, b := range s.bundles {
			s.send(ErrorMessage(b.openXID, ofp.BundleTimeout, nil))
			delete(s.bundles, id)
		}
	}
	switch {
	case r.Error != 0:
		s.send(ErrorMessage(xid, r.Error, message(t, xid, body)))
	case r.FailXID != 0:
		s.send(ErrorMessage(r.FailXID, r.Fail, nil))
		s.send(ErrorMessage(xid, ofp.BundleFailed, nil))
		delete(s.bundles, be.Uint32(body[8:]))
	case !r.Ignore && kind == Other && t == ofp.TypeMultipartRequest: // such as for meter statistics
		s.send(ErrorMessage(xid, ofp.NewErrorCode(0, 1, 2), message(t, xid, body))) // OFPBRC_BAD_STAT
	case !r.Ignore:
		f.do(s, kind, xid, body)
	}
	return !r.Close
}

func (f *Fake) do(s *fakeSession, kind Kind, xid uint32, body []byte) {
	switch kind {
	case Echo:
		s.send(message(ofp.TypeEchoReply, xid, body))
	case Features:
		b := be.AppendUint64(nil, f.opts.DatapathID)
		s.send(message(ofp.TypeFeaturesReply, xid, append(b, 0, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0x4f, 0, 0, 0, 0)))
	case Barrier:
		s.send(message(ofp.TypeBarrierReply, xid, nil))
	case FlowMod:
		f.report(f.table.mod(body), s)
	case MeterMod:
		id := be.Uint32(body[4:])
		delete(f.meters, id)
		if ofp.MeterModCommand(be.Uint16(body)) != ofp.MeterDelete {
			f.meters[id] = append(be.AppendUint16(nil, uint16(len(body))), body[2:]...)
		}
	case PacketOut:
		f.outs = append(f.outs, body)
	case FlowStats:
		for _, part := range f.table.stats(xid) {
			s.send(part)
		}
	case MeterConfig:
		b := make([]byte, 8)
		be.PutUint16(b, uint16(ofp.MultipartMeterConfig))
		for _, m := range f.meters {
			b = append(b, m...)
		}
		s.send(message(ofp.TypeMultipartReply, xid, b))
	case Monitor:
		s.monitor = true
		s.send(message(ofp.TypeMultipartReply, xid, monitorHead()))
	case BundleOpen:
		id := be.Uint32(body[8:])
		s.bundles[id] = &fakeBundle{openXID: xid}
		s.bundleReply(xid, id, ofp.BundleOpenReply)
	case BundleAdd:
		f.bundleAdd(s, xid, body)
	case BundleCommit:
		id := be.Uint32(body[8:])
		b := s.bundles[id]
		if b == nil {
			s.send(ErrorMessage(xid, ofp.BundleBadID, nil))
			return
		}
		delete(s.bundles, id)
		for _, a := range b.adds {
			f.report(f.table.mod(a.body), s)
		}
		s.bundleReply(xid, id, ofp.BundleCommitReply)
	case BundleDiscard:
		id := be.Uint32(body[8:])
		if s.bundles[id] == nil {
			s.send(ErrorMessage(xid, ofp.BundleBadID, nil))
			return
		}
		delete(s.bundles, id)
		s.bundleReply(xid, id, ofp.BundleDiscardReply)
	}
}

// bundleAdd takes one message into a bundle. As in Open vSwitch, an unknown id opens a bundle, and a bad message is refused
// without spoiling its bundle.
func (f *Fake) bundleAdd(s *fakeSession, xid uint32, body []byte) {
	id, inner := be.Uint32(body[8:]), body[16:]
	switch {
	case len(inner) < 8:
		s.send(ErrorMessage(xid, ofp.NewErrorCode(ofp.VendorONF, 0, bundleMsgUnsupported), nil))
	case be.Uint32(inner[4:]) != xid:
		s.send(ErrorMessage(xid, ofp.BundleBadXID, nil))
	case ofp.Type(inner[1]) != ofp.TypeFlowMod:
		s.send(ErrorMessage(xid, ofp.NewErrorCode(ofp.VendorONF, 0, bundleMsgUnsupported), nil))
	default:
		if s.bundles[id] == nil {
			s.bundles[id] = &fakeBundle{openXID: xid}
		}
		s.bundles[id].adds = append(s.bundles[id].adds, fakeAdd{xid, inner[8:]})
	}
}

func (s *fakeSession) bundleReply(xid, id uint32, kind ofp.BundleKind) {
	b := be.AppendUint32(be.AppendUint32(nil, ofp.VendorONF), onfBundleControl)
	b = be.AppendUint16(be.AppendUint32(b, id), uint16(kind))
	s.send(message(ofp.TypeExperimenter, xid, be.AppendUint16(b, 3)))
}

func monitorHead() []byte {
	b := make([]byte, 8, 16)
	be.PutUint16(b, uint16(ofp.MultipartExperimenter))
	return be.AppendUint32(be.AppendUint32(b, ofp.VendorONF), onfFlowMonitor)
}
