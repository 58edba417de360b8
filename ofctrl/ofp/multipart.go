package ofp

import (
	"github.com/tapwall/tapwall/ofctrl/flow"
)

// multipart reads a multipart reply (§7.3.5).
func (r *reader) multipart(h Header) Message {
	p := Part{Header: h, Kind: MultipartType(r.u16("multipart type"))}
	p.More = r.u16("multipart flags")&1 != 0
	r.skip(4, "multipart padding")
	if r.st.err != nil {
		return nil
	}
	r.st.msg = p.Kind.String()
	switch p.Kind {
	case MultipartDesc:
		return &DescReply{
			Part: p, Manufacturer: cString(r.bytes(256, "mfr_desc")), Hardware: cString(r.bytes(256, "hw_desc")),
			Software: cString(r.bytes(256, "sw_desc")), Serial: cString(r.bytes(32, "serial_num")),
			Datapath: cString(r.bytes(256, "dp_desc")),
		}
	case MultipartFlow:
		return &FlowStatsReply{Part: p, Flows: r.flowStats()}
	case MultipartAggregate:
		return &AggregateReply{Part: p, Packets: r.u64("packet_count"), Bytes: r.u64("byte_count"), Flows: r.u32("flow_count")}
	case MultipartTable:
		return &TableStatsReply{Part: p, Tables: r.tableStats()}
	case MultipartPortStats:
		return &PortStatsReply{Part: p, Ports: r.portStats()}
	case MultipartPortDesc:
		m := &PortDescReply{Part: p}
		for r.more() {
			m.Ports = append(m.Ports, r.port())
		}
		return m
	case MultipartGroupDesc:
		return &GroupDescReply{Part: p, Groups: r.groupDesc()}
	case MultipartGroup:
		return &GroupStatsReply{Part: p, Groups: r.groupStats()}
	case MultipartMeter:
		return &MeterStatsReply{Part: p, Meters: r.meterStats()}
	case MultipartMeterConfig:
		return &MeterConfigReply{Part: p, Meters: r.meterConfig()}
	case MultipartMeterFeatures:
		m := &MeterFeaturesReply{Part: p, MaxMeters: r.u32("max_meter"), BandTypes: r.u32("band_types"), Capabilities: r.u32("capabilities")}
		m.MaxBands, m.MaxColor = r.u8("max_bands"), r.u8("max_color")
		return m
	case MultipartExperimenter:
		vendor, subtype := r.u32("experimenter"), r.u32("exp_type")
		if vendor == VendorONF && subtype == onfFlowMonitor {
			return &FlowUpdates{Part: p, Updates: r.flowUpdates()}
		}
		return &Unknown{Header: h, Kind: p.Kind, Vendor: vendor, Subtype: subtype, Body: r.rest()}
	}
	return &Unknown{Header: h, Kind: p.Kind, Body: r.rest()}
}

// takeUnknown returns what was unknown in the entry that has just been read, and forgets it.
func (r *reader) takeUnknown() error {
	err := r.st.unsupported
	r.st.unsupported = nil
	return err
}

func (r *reader) flowStats() []FlowStats {
	var fs []FlowStats
	for r.more() {
		e := r.sized(0, 56, "flow stats")
		e.skip(2, "length")
		var f FlowStats
		f.Table = e.u8("table_id")
		e.skip(1, "padding")
		f.Stats.DurationSec, f.Stats.DurationNsec = e.u32("duration_sec"), e.u32("duration_nsec")
		f.Priority = e.u16("priority")
		f.IdleTimeout, f.HardTimeout = e.u16("idle_timeout"), e.u16("hard_timeout")
		f.Flags = flow.Flags(e.u16("flags"))
		e.skip(4, "padding")
		f.Cookie = flow.Cookie(e.u64("cookie"))
		f.Stats.Packets, f.Stats.Bytes = e.u64("packet_count"), e.u64("byte_count")
		f.Match = e.match(nil)
		f.Actions = e.instructions()
		f.Err = r.takeUnknown()
		if r.st.err != nil {
			return nil
		}
		fs = append(fs, f)
	}
	return fs
}

func (r *reader) tableStats() []TableStats {
	var ts []TableStats
	for r.more() {
		t := TableStats{ID: r.u8("table_id")}
		r.skip(3, "padding")
		t.Active = r.u32("active_count")
		t.Lookups, t.Matched = r.u64("lookup_count"), r.u64("matched_count")
		ts = append(ts, t)
	}
	return ts
}

func (r *reader) portStats() []PortStats {
	var ps []PortStats
	for r.more() {
		p := PortStats{No: r.u32("port_no")}
		r.skip(4, "padding")
		for _, c := range [...]*uint64{
			&p.RxPackets, &p.TxPackets, &p.RxBytes, &p.TxBytes, &p.RxDropped, &p.TxDropped, &p.RxErrors, &p.TxErrors,
			&p.RxFrameErrors, &p.RxOverErrors, &p.RxCRCErrors, &p.Collisions,
		} {
			*c = r.u64("port counter")
		}
		p.DurationSec, p.DurationNsec = r.u32("duration_sec"), r.u32("duration_nsec")
		ps = append(ps, p)
	}
	return ps
}

func (r *reader) groupDesc() []GroupDesc {
	var gs []GroupDesc
	for r.more() {
		e := r.sized(0, 8, "group desc")
		e.skip(2, "length")
		g := GroupDesc{GroupDesc: flow.GroupDesc{Type: flow.GroupType(e.u8("group type"))}}
		e.skip(1, "padding")
		g.ID = e.u32("group_id")
		for e.more() {
			b := e.sized(0, 16, "bucket")
			b.skip(2, "length")
			k := flow.Bucket{Weight: b.u16("weight"), WatchPort: b.u32("watch_port"), WatchGroup: b.u32("watch_group")}
			b.skip(4, "padding")
			k.Actions = b.actions(0, nil)
			g.Buckets = append(g.Buckets, k)
		}
		g.Err = r.takeUnknown()
		gs = append(gs, g)
	}
	return gs
}

func (r *reader) counters(field string) []Counter {
	var cs []Counter
	for r.more() {
		cs = append(cs, Counter{Packets: r.u64(field), Bytes: r.u64(field)})
	}
	return cs
}

func (r *reader) groupStats() []GroupStats {
	var gs []GroupStats
	for r.more() {
		e := r.sized(0, 40, "group stats")
		e.skip(4, "length")
		g := GroupStats{ID: e.u32("group_id"), References: e.u32("ref_count")}
		e.skip(4, "padding")
		g.Packets, g.Bytes = e.u64("packet_count"), e.u64("byte_count")
		g.DurationSec, g.DurationNsec = e.u32("duration_sec"), e.u32("duration_nsec")
		g.Buckets = e.counters("bucket counter")
		gs = append(gs, g)
	}
	return gs
}

func (r *reader) meterStats() []MeterStats {
	var ms []MeterStats
	for r.more() {
		e := r.sized(4, 40, "meter stats")
		m := MeterStats{ID: e.u32("meter_id")}
		e.skip(8, "length")
		m.Flows = e.u32("flow_count")
		m.Packets, m.Bytes = e.u64("packet_in_count"), e.u64("byte_in_count")
		m.DurationSec, m.DurationNsec = e.u32("duration_sec"), e.u32("duration_nsec")
		m.Bands = e.counters("band counter")
		ms = append(ms, m)
	}
	return ms
}

func (r *reader) meterConfig() []Meter {
	var ms []Meter
	for r.more() {
		e := r.sized(0, 8, "meter config")
		e.skip(2, "length")
		m := Meter{Flags: MeterFlags(e.u16("meter flags")), ID: e.u32("meter_id")}
		for e.more() {
			b := e.sized(2, 12, "band")
			k := MeterBand{Type: BandType(b.u16("band type"))}
			b.skip(2, "length")
			k.Rate, k.Burst = b.u32("rate"), b.u32("burst")
			if k.Type == flow.BandDSCPRemark {
				k.PrecLevel = b.u8("prec_level")
			}
			m.Bands = append(m.Bands, k)
		}
		ms = append(ms, m)
	}
	return ms
}

// flowUpdates reads the entries of a flow monitor's report. In OpenFlow 1.3 they have the layout of NXST_FLOW_MONITOR, with
// an ofp_match and instructions instead of an nx_match and actions.
func (r *reader) flowUpdates() []FlowUpdate {
	var us []FlowUpdate
	for r.more() {
		at := r.off
		e := r.sized(0, 8, "flow update")
		e.skip(2, "length")
		u := FlowUpdate{Event: FlowEvent(e.u16("event"))}
		switch u.Event {
		case FlowAbbrev:
			u.AbbrevXID = e.u32("xid")
		case FlowAddedEvent, FlowRemovedEvent, FlowModifiedEvent:
			u.Reason = FlowRemovedReason(e.u16("reason"))
			f := &u.Flow
			f.Priority = e.u16("priority")
			f.IdleTimeout, f.HardTimeout = e.u16("idle_timeout"), e.u16("hard_timeout")
			e.skip(2, "match_len")
			f.Table = e.u8("table_id")
			e.skip(1, "padding")
			f.Cookie = flow.Cookie(e.u64("cookie"))
			f.Match = e.match(nil)
			f.Actions = e.instructions()
			u.Err = r.takeUnknown()
		default:
			r.failAt(at, "event", ErrUnsupported)
		}
		if r.st.err != nil {
			return nil
		}
		us = append(us, u)
	}
	return us
}
