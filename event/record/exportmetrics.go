package record

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/event"
)

// exportMetrics reads how exports go when they are scraped.
type exportMetrics struct {
	exports                                                          []Export
	docs, pending, lag, success, retries, inFlight, failing, letters *prometheus.Desc
}

func newExportMetrics(exports []Export) *exportMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tapwall_export_"+name, help, append([]string{"sink"}, labels...), nil)
	}
	return &exportMetrics{
		exports:  exports,
		docs:     desc("docs_total", "Events that a sink is done with, over restarts.", "result"),
		pending:  desc("pending_events", "Events that wait in the spool for the sink."),
		lag:      desc("lag_seconds", "Age of the oldest event that is being delivered; 0 = none is."),
		success:  desc("last_success_timestamp_seconds", "When the sink last took events."),
		retries:  desc("retries_total", "Requests that were sent again."),
		inFlight: desc("requests_in_flight", "Requests that are not answered."),
		failing:  desc("failing", "1 = the sink takes nothing now."),
		letters:  desc("dead_letters", "Documents that the sink refused, in their file."),
	}
}

// Describe implements prometheus.Collector.
func (m *exportMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.docs, m.pending, m.lag, m.success, m.retries, m.inFlight, m.failing, m.letters} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *exportMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, x := range m.exports {
		st := x.Status()
		m.collect(ch, &st, &st.Export)
	}
}

func (m *exportMetrics) collect(ch chan<- prometheus.Metric, st *event.SinkStatus, x *event.ExportStatus) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, append([]string{st.Name}, labels...)...)
	}
	for result, n := range map[string]int64{
		"created": x.Created, "duplicate": x.Duplicates, "dead_letter": x.DeadLetters, "expired": x.Expired, "corrupt": x.Corrupt,
	} {
		send(m.docs, prometheus.CounterValue, float64(n), result)
	}
	send(m.pending, prometheus.GaugeValue, float64(st.Pending))
	send(m.lag, prometheus.GaugeValue, x.Lag)
	if !x.LastSuccess.IsZero() {
		send(m.success, prometheus.GaugeValue, float64(x.LastSuccess.UnixMilli())/1000)
	}
	send(m.retries, prometheus.CounterValue, float64(x.Retries))
	send(m.inFlight, prometheus.GaugeValue, float64(x.InFlight))
	failing := 0.0
	if st.Error != "" {
		failing = 1
	}
	send(m.failing, prometheus.GaugeValue, failing)
	send(m.letters, prometheus.GaugeValue, float64(x.LettersKept))
}
