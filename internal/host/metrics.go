package host

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/policy"
)

// collector gathers what the engine knows when it is scraped. Labels are names of resources and bridges, never addresses.
type collector struct{ e *Engine }

var (
	ruleLabels    = []string{"policy", "direction", "rule"}
	rulePackets   = prometheus.NewDesc("tapwall_rule_packets_total", "Packets that a rule judged or passed, as the switch counts them; (unattributed): that flows of the policy counted while nobody knows for whom.", ruleLabels, nil)
	ruleBytes     = prometheus.NewDesc("tapwall_rule_bytes_total", "Their bytes.", ruleLabels, nil)
	mirrorPkts    = prometheus.NewDesc("tapwall_mirror_packets_total", "Packets that a mirror selected.", []string{"mirror"}, nil)
	mirrorBytes   = prometheus.NewDesc("tapwall_mirror_bytes_total", "Their bytes, uncut.", []string{"mirror"}, nil)
	drops         = prometheus.NewDesc("tapwall_dropped_packets_total", "Packets that the pipeline dropped, by reason, as the switch counts them.", []string{"bridge", "reason"}, nil)
	unknownCopies = prometheus.NewDesc("tapwall_unattributed_copies_total", "Copies that flows counted behind a change and that were not received: lost, or never made.", []string{"bridge"}, nil)
	flowsDesired  = prometheus.NewDesc("tapwall_flows_desired", "Flows that should be installed.", []string{"bridge"}, nil)
	flowsThere    = prometheus.NewDesc("tapwall_flows_installed", "Flows of tapwall that are installed, as read back.", []string{"bridge"}, nil)
	flowMods      = prometheus.NewDesc("tapwall_flow_mods_total", "Flow-mods sent.", []string{"bridge"}, nil)
	flowsLost     = prometheus.NewDesc("tapwall_flows_lost_total", "Changes that others made to installed flows of tapwall.", []string{"bridge"}, nil)
	foreignGone   = prometheus.NewDesc("tapwall_foreign_flows_removed_total", "Foreign flows removed from tables that are tapwall's alone, or from the places of its flows.", []string{"bridge"}, nil)
	metersLost    = prometheus.NewDesc("tapwall_meters_lost_total", "Changes that others made to meters of tapwall.", []string{"bridge"}, nil)
	degraded      = prometheus.NewDesc("tapwall_record_degraded", "1 while the switch refuses a meter, so that packets are judged but not copied for the record.", []string{"bridge"}, nil)
	bypassed      = prometheus.NewDesc("tapwall_bypassed", "1 while foreign flows in table 0 take packets before the wall can judge them.", []string{"bridge"}, nil)
	ofConnected   = prometheus.NewDesc("tapwall_openflow_connected", "1 while the OpenFlow connection is up.", []string{"bridge"}, nil)
	dbConnected   = prometheus.NewDesc("tapwall_ovsdb_connected", "1 while the OVSDB connection is up.", nil, nil)
	revision      = prometheus.NewDesc("tapwall_revision", "Store revision that is desired, and installed.", []string{"state"}, nil)
	unsaved       = prometheus.NewDesc("tapwall_assignments_unsaved", "Policies and endpoints whose ids the store does not have yet; after a restart their connections would be judged again.", nil, nil)
	resources     = prometheus.NewDesc("tapwall_resources", "Resources by kind.", []string{"kind"}, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rulePackets, ruleBytes, mirrorPkts, mirrorBytes, drops, unknownCopies, flowsDesired, flowsThere, flowMods, flowsLost, foreignGone, metersLost, degraded, bypassed, ofConnected,
		dbConnected, revision, unsaved, resources} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c.e.Refresh(ctx, policy.KindPolicy)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	up := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge(dbConnected, up(c.e.opt.DB.Status().Connected))

	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	p := c.e.published
	installed := c.e.revision
	for _, b := range p.bridges {
		st := b.sw.State()
		gauge(ofConnected, up(st.Connected), b.cfg.Name)
		gauge(flowsDesired, float64(st.Desired), b.cfg.Name)
		gauge(flowsThere, float64(st.OurFlows), b.cfg.Name)
		before := b.book.earlier()
		counter(flowMods, float64(before.FlowModsSent+st.Stats.FlowModsSent), b.cfg.Name)
		counter(flowsLost, float64(before.LostFlows+st.Stats.LostFlows), b.cfg.Name)
		counter(foreignGone, float64(before.ForeignRemoved+st.Stats.ForeignRemoved), b.cfg.Name)
		counter(metersLost, float64(before.LostMeters+st.Stats.LostMeters), b.cfg.Name)
		gauge(degraded, up(st.MeterErr != ""), b.cfg.Name)
		gauge(bypassed, up(b.bypass() != nil), b.cfg.Name)
		if b.cfg.Mode == Owned {
			installed = min(installed, b.installedAt)
		}
	}
	for name, k := range c.e.books {
		for reason, n := range k.drops() {
			counter(drops, float64(n), name, reason)
		}
		counter(unknownCopies, float64(k.lostCopies.Load()), name)
	}
	gauge(revision, float64(c.e.revision), "desired")
	gauge(revision, float64(installed), "installed")
	gauge(unsaved, float64(p.waiting))
	for _, kind := range policy.Kinds() {
		gauge(resources, float64(len(c.e.resources[kind])), string(kind))
	}
	for name, s := range c.e.mirrorStatuses {
		for _, h := range s.Hosts {
			counter(mirrorPkts, float64(h.Counters["selectedPackets"]), name)
			counter(mirrorBytes, float64(h.Counters["selectedBytes"]), name)
		}
	}
	for name, r := range c.e.resources[policy.KindPolicy] {
		for _, h := range c.e.policyStatus(r.(*policy.Policy)).Hosts {
			for _, rule := range h.Rules {
				counter(rulePackets, float64(rule.Packets), name, string(rule.Direction), rule.Name)
				counter(ruleBytes, float64(rule.Bytes), name, string(rule.Direction), rule.Name)
			}
			for _, d := range directions {
				ref := policy.RuleRef{Policy: name, Direction: d.direction}
				ref.Rule = unattributedOf(ref)
				if n := c.e.total(ref); n.packets > 0 {
					counter(rulePackets, float64(n.packets), name, string(d.direction), ref.Rule)
					counter(ruleBytes, float64(n.bytes), name, string(d.direction), ref.Rule)
				}
			}
		}
	}
}
