package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/opensearch"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/test/lab"
)

// sampleVerdict is event i of a bridge with some traffic.
func sampleVerdict(i int) *event.Event {
	from, to := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 50)})
	verdict, kind := event.Forwarded, "allowed"
	if i%10 == 0 {
		verdict, kind = event.Dropped, "denied"
	}
	table, rule := 209, uint32(i%100)
	return &event.Event{
		Timestamp: time.Now().UTC(), ECS: event.ECS{Version: "9.4.0"},
		Event: event.Meta{ID: event.ID{Install: 7, Epoch: 1, Sequence: int64(i)}.String(), Sequence: int64(i), Kind: "event",
			Category: []string{"network"}, Type: []string{"connection", kind}, Action: event.ActionVerdict, Dataset: event.DatasetFlow,
			Module: "tapwall", Provider: "packet-in", Outcome: "success", Created: time.Now().UTC()},
		Source:      &event.Side{IP: from.String(), Port: 1024 + i%60000, MAC: "02-00-00-00-00-01"},
		Destination: &event.Side{IP: to.String(), Port: 443, MAC: "02-00-00-00-00-02"},
		Network: &event.Network{Type: "ipv4", Transport: "tcp", IANANumber: "6", Direction: "internal", Bytes: 74, Packets: 1,
			CommunityID: fmt.Sprintf("1:%027d=", i)},
		Observer: &event.Observer{Name: "host1", SerialNumber: "00000242ac110002"},
		Rule:     &event.Rule{ID: "web/ingress/from-clients", Name: "from-clients", Ruleset: "web", Version: "12"},
		Tapwall: event.Tapwall{Schema: 1, Verdict: verdict, Direction: "ingress", Enforcement: "enforce", Bridge: "br0", Table: &table,
			Cookie: "0x7a02000000000007", RuleID: &rule, CT: &event.CT{State: []string{"new", "trk"}, Zone: 57344},
			Source: &event.Endpoint{Name: fmt.Sprintf("vm%d", i%200), PortName: fmt.Sprintf("tap%d", i%200),
				Labels: map[string]string{"app": "web"}},
			Destination: &event.Endpoint{Name: "db", PortName: "tap900", Labels: map[string]string{"app": "db"}}},
		Related: &event.Related{IP: []string{from.String(), to.String()}},
	}
}

// fill has n events in a spool.
func fill(dir string, n int) (*spool.Spool, error) {
	s, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 8 << 30})
	if err != nil {
		return nil, err
	}
	for i := 0; i < n; {
		b := s.Batch()
		for range min(1000, n-i) {
			i++
			if err := b.Add(sampleVerdict(i)); err != nil {
				return nil, errors.Join(err, s.Close())
			}
		}
		s.Append(b)
		for s.Status().Pending > 4000 {
			time.Sleep(time.Millisecond)
		}
	}
	for s.Status().Pending > 0 {
		time.Sleep(time.Millisecond)
	}
	if lost := s.Status().Lost; lost > 0 {
		return nil, errors.Join(fmt.Errorf("%d events did not get onto the disk", lost), s.Close())
	}
	return s, nil
}

// benchQuery looks for a few of a million events on the disk.
func benchQuery() ([]line, error) {
	dir, err := os.MkdirTemp("", "twbench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	n := scale(1_000_000)
	s, err := fill(dir, n)
	if err != nil {
		return nil, err
	}
	r, err := record.NewRecorder(record.Options{Host: "bench", Spool: s, RingLen: 1})
	if err != nil {
		return nil, err
	}
	var took, used []time.Duration
	found := 0
	for i := range 7 {
		begin, cpu := time.Now(), cpuTime()
		page, err := r.Query(context.Background(), event.Filter{IP: []string{fmt.Sprintf("10.0.%d.7", i)}, Limit: 1000})
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		took, used, found = append(took, time.Since(begin)), append(used, cpuTime()-cpu), len(page.Items)
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	l := atMost(fmt.Sprintf("%d spooled events, %d found by an address", n, found), fmt.Sprintf("%v, CPU %v",
		median(took).Round(time.Millisecond), median(used).Round(time.Millisecond)), "", median(took), time.Second)
	return []line{l.and(found > 0)}, nil
}

const exportRounds = 5

// benchExport delivers the same documents to the same server twice, by curl in parallel and from the spool, in turns.
func benchExport() (out []line, err error) {
	server, err := lab.StartOpenSearch()
	if err != nil {
		return nil, err
	}
	defer server.Close()
	dir, err := os.MkdirTemp("", "twbench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	n := scale(60_000)
	s, err := fill(dir, n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	files, err := bulkFiles(s, dir)
	if err != nil {
		return nil, err
	}
	var ratios, shares []float64
	rounds := exportRounds
	if quick {
		rounds = 1
	}
	var last string
	for round := range rounds + 1 { // the first one warms the server up
		ours, cpu, err := exportOnce(server, s, dir, round, n)
		if err != nil {
			return nil, err
		}
		theirs, err := curlOnce(server, files, n)
		if err != nil {
			return nil, err
		}
		if round > 0 {
			ratios, shares = append(ratios, theirs.Seconds()/ours.Seconds()), append(shares, cpu.Seconds()/ours.Seconds())
			last = fmt.Sprintf("%.0f documents/s, curl %.0f", float64(n)/ours.Seconds(), float64(n)/theirs.Seconds())
		}
	}
	ratio, share := middle(ratios), middle(shares)
	return []line{
		{what: "export against 4 parallel curl _bulk of the same bytes", figure: fmt.Sprintf("%.2f x (%s)", ratio, last), budget: ">= 0.95 x",
			ok: ratio >= 0.95},
		{what: "CPU of the export", figure: fmt.Sprintf("%.0f %% of a core", 100*share), budget: "<= 25 %", ok: share <= 0.25},
	}, nil
}

func middle(all []float64) float64 {
	ds := make([]time.Duration, len(all))
	for i, f := range all {
		ds[i] = time.Duration(f * 1e9)
	}
	return median(ds).Seconds()
}

// exportOnce has the sink deliver the whole spool.
func exportOnce(server *lab.OpenSearch, s *spool.Spool, dir string, round, n int) (took, cpu time.Duration, err error) {
	if err := os.Remove(filepath.Join(dir, "opensearch.checkpoint")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, 0, err
	}
	before, begin := cpuTime(), time.Now()
	x, err := opensearch.Open(opensearch.Options{URLs: []string{server.URL}, Prefix: "ours", Dir: filepath.Join(dir, "dead"), Spool: s})
	if err != nil {
		return 0, 0, err
	}
	for x.Status().Pending > 0 && time.Since(begin) < 3*time.Minute {
		time.Sleep(5 * time.Millisecond)
	}
	took, cpu = time.Since(begin), cpuTime()-before
	st := x.Status()
	if err := x.Close(); err != nil {
		return 0, 0, err
	}
	got, err := server.Count("ours-all", "")
	if err != nil {
		return 0, 0, err
	}
	if got != n || st.Pending > 0 {
		return 0, 0, fmt.Errorf("round %d: %d of %d documents were exported: %+v", round, got, n, st.Export)
	}
	return took, cpu, server.JSON("DELETE", "/ours-flow-*", "", nil)
}

// bulkFiles writes the bodies that curl sends, 1,000 documents each: the same actions and documents, for an index of the same template.
func bulkFiles(s *spool.Spool, dir string) (files []string, err error) {
	var buf bytes.Buffer
	inFile := 0
	write := func() error {
		name := filepath.Join(dir, fmt.Sprintf("bulk%05d.ndjson", len(files)))
		files = append(files, name)
		err := os.WriteFile(name, buf.Bytes(), 0o600)
		buf.Reset()
		inFile = 0
		return err
	}
	index := "ours-flow-" + time.Now().UTC().Format("2006.01.02")
	err = s.Scan(context.Background(), spool.Query{}, func(r spool.Record) bool {
		fmt.Fprintf(&buf, "{\"create\":{\"_index\":%q,\"_id\":%q}}\n%s\n", index, event.ID{Install: 7, Epoch: 1, Sequence: r.Sequence}, r.JSON)
		if inFile++; inFile == 1000 {
			err = write()
		}
		return err == nil
	})
	if err == nil && inFile > 0 {
		err = write()
	}
	return files, err
}

// curlOnce posts the files, four at once.
func curlOnce(server *lab.OpenSearch, files []string, n int) (time.Duration, error) {
	var posts sync.WaitGroup
	errs := make([]error, 4)
	begin := time.Now()
	for w := range 4 {
		posts.Go(func() {
			for i := w; i < len(files); i += 4 {
				out, err := exec.Command("curl", "-sS", "-H", "Content-Type: application/x-ndjson", "--data-binary", "@"+files[i],
					server.URL+"/_bulk?filter_path=errors").CombinedOutput()
				if err != nil || !strings.Contains(string(out), `"errors":false`) {
					errs[w] = fmt.Errorf("curl: %w: %.200s", errors.Join(err, errors.New("not taken")), out)
					return
				}
			}
		})
	}
	posts.Wait()
	took := time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	got, err := server.Count("ours-all", "")
	if err != nil || got != n {
		return 0, fmt.Errorf("curl: %d of %d documents: %w", got, n, err)
	}
	return took, server.JSON("DELETE", "/ours-flow-*", "", nil)
}
