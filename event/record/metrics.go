package record

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
)

// metrics reads the figures of a recorder when they are scraped, so that they cost nothing in between and agree with Counters.
type metrics struct {
	r                                                                      *Recorder
	events, packetIns, metered, lost, decode, ring, ringCap, gaps          *prometheus.Desc
	clients, domains, open, spoolBytes, spoolSegments, spoolAge, spoolSync *prometheus.Desc
}

func newMetrics(r *Recorder) *metrics {
	lost := []string{"stage", "class", "reason"}
	if r.opts.ManyHosts {
		lost = append(lost, "host")
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &metrics{
		r:         r,
		events:    desc("tapwall_events_total", "Events of the record.", "dataset", "action", "verdict"),
		packetIns: desc("tapwall_packetin_received_total", "Packet-ins received from switches."),
		metered:   desc("tapwall_packetin_meter_dropped_total", "Packet-ins dropped by the switch's meter."),
		lost:      desc("tapwall_lost_events_total", "Events lost, by stage.", lost...),
		decode:    desc("tapwall_decode_errors_total", "Packets that could not be read whole, by header.", "layer"),
		ring:      desc("tapwall_ring_entries", "Events in the ring."),
		ringCap:   desc("tapwall_ring_capacity", "Events the ring can hold."),
		clients:   desc("tapwall_stream_clients", "Readers following events."),
		gaps:      desc("tapwall_stream_gaps_total", "Gaps in streams, each told to its reader."),

		domains: desc("tapwall_dns_cache_entries", "Addresses that DNS answers have named."),
		open:    desc("tapwall_open_connections", "Connections that were recorded and whose end has not been told."),

		spoolBytes:    desc("tapwall_spool_bytes", "Bytes of the record on disk."),
		spoolSegments: desc("tapwall_spool_segments", "Files of the record on disk."),
		spoolAge:      desc("tapwall_spool_oldest_age_seconds", "Age of the oldest event on disk."),
		spoolSync:     desc("tapwall_spool_fsync_seconds", "How long the disk took to keep what was written."),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.events, m.packetIns, m.metered, m.lost, m.decode, m.ring, m.ringCap, m.clients, m.gaps, m.domains,
		m.open, m.spoolBytes, m.spoolSegments, m.spoolAge, m.spoolSync} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	r := m.r
	send := func(d *prometheus.Desc, t prometheus.ValueType, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, float64(n), labels...)
	}
	r.mu.Lock()
	verdicts := maps.Clone(r.byVerdict)
	packetIns, bad := r.packetIns, r.decodeErrors
	r.mu.Unlock()

	for k, n := range verdicts {
		send(m.events, prometheus.CounterValue, n, k.dataset, k.action, string(k.verdict))
	}
	send(m.packetIns, prometheus.CounterValue, packetIns)
	for l, n := range bad {
		if n > 0 {
			send(m.decode, prometheus.CounterValue, n, packet.Layer(l).String())
		}
	}
	var metered int64
	lost := make(map[lossTotalKey]int64)
	r.losses.each(func(k lossTotalKey, n int64) {
		if k.stage == event.StagePacketInMeter {
			metered += n
		}
		if !r.opts.ManyHosts {
			k.host = ""
		}
		lost[k] += n
	})
	for k, n := range lost {
		labels := []string{string(k.stage), string(k.class), k.reason}
		if r.opts.ManyHosts {
			labels = append(labels, k.host)
		}
		send(m.lost, prometheus.CounterValue, n, labels...)
	}
	send(m.metered, prometheus.CounterValue, metered)
	clients, gaps := r.streams.figures()
	send(m.ring, prometheus.GaugeValue, int64(r.ring.len()))
	send(m.ringCap, prometheus.GaugeValue, int64(r.opts.RingLen))
	send(m.clients, prometheus.GaugeValue, int64(clients))
	send(m.gaps, prometheus.CounterValue, gaps)
	send(m.domains, prometheus.GaugeValue, r.builder.domains.count.Load())
	send(m.open, prometheus.GaugeValue, int64(r.open.count()))
	if r.opts.Spool == nil {
		return
	}
	st := r.opts.Spool.Status()
	send(m.spoolBytes, prometheus.GaugeValue, st.Bytes)
	send(m.spoolSegments, prometheus.GaugeValue, int64(st.Segments))
	ch <- prometheus.MustNewConstSummary(m.spoolSync, uint64(st.Syncs), st.SyncTime, nil)
	if !st.Oldest.IsZero() {
		send(m.spoolAge, prometheus.GaugeValue, int64(r.now().Sub(st.Oldest).Seconds()))
	}
}
