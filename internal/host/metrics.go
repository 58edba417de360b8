package host

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/internal/capture"
	"github.com/tapwall/tapwall/policy"
)

// Metrics describes what engines report when they are scraped. Labels are names of resources, bridges and hosts, never addresses.
type Metrics struct {
	all  []*prometheus.Desc
	host bool

	rulePackets, ruleBytes, ruleNew, ruleDenied, ruleHit, mirrorPkts, mirrorBytes, mirrorStages,
	mirrorPhase, bufferPackets, bufferBytes, bufferEvicted,
	drops, spoofs, unknownCopies, answers, flowsDesired, flowsThere,
	flowMods,
	flowsLost,
	foreignGone, metersLost, degraded, bypassed, ofConnected, dbConnected, revision, unsaved, limitUsed, limitMax, learned, claims,
	disagreements *prometheus.Desc
}

// NewMetrics returns the descriptions; with host, all of them have a label of that name. A process that manages no host but its own
// needs none.
func NewMetrics(host bool) *Metrics {
	m := &Metrics{host: host}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		if host {
			labels = append(labels, "host")
		}
		d := prometheus.NewDesc("tapwall_"+name, help, labels, nil)
		m.all = append(m.all, d)
		return d
	}
	m.rulePackets = desc("rule_packets_total",
		"Packets that a rule judged or passed, as the switch counts them; (unattributed): that flows of the policy counted while nobody "+
			"knows for whom.", "policy", "direction", "rule")
	m.ruleNew = desc("rule_new_packets_total", "Those of them that the rule judged: first packets, and what was judged again.", "policy",
		"direction", "rule")
	m.ruleDenied = desc("rule_denied_packets_total", "Those of them that the rule denied.", "policy", "direction", "rule")
	m.ruleHit = desc("rule_last_hit_timestamp_seconds", "When a packet met the rule last; absent = never since it is counted.", "policy",
		"direction", "rule")
	m.ruleBytes = desc("rule_bytes_total", "Their bytes.", "policy", "direction", "rule")
	m.mirrorPkts = desc("mirror_packets_total", "Packets that a mirror selected.", "mirror")
	m.mirrorBytes = desc("mirror_bytes_total", "Their bytes, uncut.", "mirror")
	m.mirrorStages = desc("mirror_stage_packets_total", "What became of the packets that a mirror selected: accepted or rejected by "+
		"its filter, sampled_out, rate_dropped, and sent, cut (copies, of all targets together) and sink_dropped by targets.", "mirror", "stage")
	m.mirrorPhase = desc("mirror_phase", "1 = the phase of a mirror on the host, and the reason for it where it is not Active.",
		"mirror", "phase", "reason")
	m.bufferPackets = desc("buffer_held_packets", "Packets that the buffer of a mirror holds.", "mirror")
	m.bufferBytes = desc("buffer_held_bytes", "Memory that they take, as pcapng.", "mirror")
	m.bufferEvicted = desc("buffer_evicted_packets_total", "Packets that fell to the bounds of the buffer, duration or size.", "mirror")
	m.drops = desc("dropped_packets_total",
		"Packets that the pipeline dropped, by reason, as the switch counts them.", "bridge", "reason")
	m.spoofs = desc("spoofed_packets_total",
		"Packets of a guarded endpoint, by its name, that its guard refused, or only told of in the time of grace.", "bridge", "endpoint")
	m.unknownCopies = desc("unattributed_copies_total",
		"Copies that flows counted behind a change and that were not received: lost, or never made.", "bridge")
	m.answers = desc("reject_answers_total", "Rejected packets that were answered (sent), or not: one that must not be (unanswerable), too "+
		"many of them (metered, queue), or the connection to the switch was gone (failed).", "bridge", "outcome")
	m.flowsDesired = desc("flows_desired", "Flows that should be installed.", "bridge")
	m.flowsThere = desc("flows_installed", "Flows of tapwall that are installed, as read back.", "bridge")
	m.flowMods = desc("flow_mods_total", "Flow-mods sent.", "bridge")
	m.flowsLost = desc("flows_lost_total", "Changes that others made to installed flows of tapwall.", "bridge")
	m.foreignGone = desc("foreign_flows_removed_total",
		"Foreign flows removed from tables that are tapwall's alone, or from the places of its flows.", "bridge")
	m.metersLost = desc("meters_lost_total", "Changes that others made to meters of tapwall.", "bridge")
	m.degraded = desc("record_degraded",
		"1 while the switch refuses a meter, so that packets are judged but not copied for the record.", "bridge")
	m.bypassed = desc("bypassed", "1 while foreign flows in table 0 take packets before the wall can judge them.", "bridge")
	m.ofConnected = desc("openflow_connected", "1 while the OpenFlow connection is up.", "bridge")
	m.dbConnected = desc("ovsdb_connected", "1 while the OVSDB connection is up.")
	m.revision = desc("revision", "Store revision that is desired, and installed.", "state")
	m.unsaved = desc("assignments_unsaved",
		"Policies and endpoints whose ids the store does not have yet; after a restart their connections would be judged again.")
	m.disagreements = desc("trace_disagreements_total",
		"Traced packets that the switch judged otherwise than the policies say, for no known reason: a fault.", "bridge")
	m.limitUsed = desc("limit_used", "How much is in use of what there is a limited number of: class, address and service numbers, "+
		"priorities of rules, and conjunctions that apply to one endpoint.", "bridge", "limit")
	m.learned = desc("learned_addresses", "Addresses that are known because endpoints were seen to use them.", "bridge")
	m.claims = desc("address_claims_total",
		"What endpoints were heard to say of their addresses: learned, seen (known already); not believed: "+
			"taken (another endpoint's, or the host's), full (too many), outside (of the networks that are learned of), stranger (a MAC address "+
			"that is not the endpoint's alone), spoofed (it is "+
			"held to others), declared; not looked at: metered.", "bridge", "outcome")
	m.limitMax = desc("limit_max", "How much there is of it.", "bridge", "limit")
	return m
}

// Describe sends the descriptions, as a prometheus.Collector does.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range m.all {
		out <- d
	}
}

// Collect reports what the engine knows.
func (e *Engine) Collect(m *Metrics, out chan<- prometheus.Metric) {
	v := e.view.Load()
	report := func(d *prometheus.Desc, kind prometheus.ValueType, x float64, labels []string) {
		if m.host {
			labels = append(labels, v.host)
		}
		out <- prometheus.MustNewConstMetric(d, kind, x, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { report(d, prometheus.GaugeValue, v, labels) }
	counter := func(d *prometheus.Desc, v float64, labels ...string) { report(d, prometheus.CounterValue, v, labels) }
	up := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge(m.dbConnected, up(e.opt.DB.Status().Connected))
	installed := v.revision
	for _, b := range v.bridges {
		st := b.sw.State()
		gauge(m.ofConnected, up(st.Connected), b.cfg.Name)
		gauge(m.flowsDesired, float64(st.Desired), b.cfg.Name)
		gauge(m.flowsThere, float64(st.OurFlows), b.cfg.Name)
		before := b.book.earlier()
		counter(m.flowMods, float64(before.FlowModsSent+st.Stats.FlowModsSent), b.cfg.Name)
		counter(m.flowsLost, float64(before.LostFlows+st.Stats.LostFlows), b.cfg.Name)
		counter(m.foreignGone, float64(before.ForeignRemoved+st.Stats.ForeignRemoved), b.cfg.Name)
		counter(m.metersLost, float64(before.LostMeters+st.Stats.LostMeters), b.cfg.Name)
		gauge(m.degraded, up(st.MeterErr != ""), b.cfg.Name)
		gauge(m.bypassed, up(b.bypass() != nil), b.cfg.Name)
		if b.cfg.Mode == Owned {
			installed = min(installed, b.installedAt)
		}
	}
	for bridge, k := range v.books {
		for reason, n := range k.drops() {
			counter(m.drops, float64(n), bridge, reason)
		}
		counter(m.unknownCopies, float64(k.lostCopies.Load()), bridge)
		for outcome, n := range k.claims.all() {
			counter(m.claims, float64(n.Load()), bridge, outcome)
		}
		for outcome, n := range k.answers.all() {
			counter(m.answers, float64(n), bridge, outcome)
		}
	}
	v.eachGuarded(func(x *policy.Workload) {
		counter(m.spoofs, float64(v.spoofedPackets(x)), x.Bridge, x.Key)
	})
	for _, b := range v.walls {
		gauge(m.learned, float64(v.learnedOn(b.cfg.Name)), b.cfg.Name)
		counter(m.disagreements, float64(b.disagreements.Load()), b.cfg.Name)
		for _, u := range b.usage {
			gauge(m.limitUsed, float64(u.Used), b.cfg.Name, u.Limit)
			gauge(m.limitMax, float64(u.Max), b.cfg.Name, u.Limit)
		}
	}
	gauge(m.revision, float64(v.revision), "desired")
	gauge(m.revision, float64(installed), "installed")
	gauge(m.unsaved, float64(v.waiting))
	if v.topo == nil {
		return // never reached: no resource has anything to count
	}
	for _, x := range mirrorsByName(v.resources) {
		c := v.mirrorCounters(x)
		counter(m.mirrorPkts, float64(c["selectedPackets"]), x.Name)
		counter(m.mirrorBytes, float64(c["selectedBytes"]), x.Name)
		for label, key := range mirrorStages {
			if n, known := c[key]; known {
				counter(m.mirrorStages, float64(n), x.Name, label)
			}
		}
		if s, ok := v.mirrors[x.Name]; ok && len(s.Hosts) > 0 {
			gauge(m.mirrorPhase, 1, x.Name, string(s.Hosts[0].Phase), string(s.Hosts[0].Reason))
		}
	}
	for _, b := range v.buffers {
		var s capture.Stats
		b.Held(&s)
		gauge(m.bufferPackets, float64(s.Held), b.mirror)
		gauge(m.bufferBytes, float64(s.HeldSize), b.mirror)
		counter(m.bufferEvicted, float64(s.Evicted), b.mirror)
	}
	for of, r := range each(v.resources[policy.KindPolicy]) {
		for _, h := range v.policyStatus(r.(*policy.Policy), &shadows{}).Hosts {
			for _, rule := range h.Rules {
				counter(m.rulePackets, float64(rule.Packets), of, string(rule.Direction), rule.Name)
				counter(m.ruleBytes, float64(rule.Bytes), of, string(rule.Direction), rule.Name)
				counter(m.ruleNew, float64(rule.New+rule.Denied), of, string(rule.Direction), rule.Name)
				if rule.Action == policy.Deny || rule.Action == policy.Reject {
					counter(m.ruleDenied, float64(rule.Denied), of, string(rule.Direction), rule.Name)
				}
				if rule.LastHit != nil {
					gauge(m.ruleHit, float64(rule.LastHit.Unix()), of, string(rule.Direction), rule.Name)
				}
			}
			for _, d := range directions {
				ref := policy.RuleRef{Policy: of, Direction: d.direction}
				ref.Rule = unattributedOf(ref)
				if n := v.total(ref); n.packets > 0 {
					counter(m.rulePackets, float64(n.packets), of, string(d.direction), ref.Rule)
					counter(m.ruleBytes, float64(n.bytes), of, string(d.direction), ref.Rule)
				}
			}
		}
	}
}
