package search

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/opensearch"
	"github.com/tapwall/tapwall/test/lab"
)

// scaled is short in `make test`, and long in `make soak`.
func scaled(short, long time.Duration) time.Duration {
	if os.Getenv("TAPWALL_SOAK") != "" {
		return long
	}
	return short
}

// rss is what the process has of memory.
func rss(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// steadily records events at a rate until stop is called, which says how many.
func (r *rig) steadily(from, perSecond int) (stop func() int) {
	quit, n := make(chan struct{}), make(chan int)
	go func() {
		made := 0
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for begin := time.Now(); ; {
			select {
			case <-quit:
				n <- made
				return
			case <-tick.C:
				want := int(time.Since(begin).Seconds() * float64(perSecond))
				r.record(from+made, want-made)
				made = want
			}
		}
	}()
	return func() int {
		close(quit)
		return <-n
	}
}

// Whatever way the server is away, nothing is lost, doubled or forgotten, and memory does not grow with what waits.
func TestEventsScenario02ServerDown(t *testing.T) {
	r := newRig(t, "s02", func(o *opensearch.Options) { o.Timeout = 3 * time.Second })
	r.record(0, 5000) // fill what is of a constant size
	r.drained(20 * time.Second)
	stop := r.steadily(5000, 2000)
	before := rss(t)
	for _, f := range []lab.Fault{lab.Refuse, lab.Hang, lab.Status503, lab.Garbage} {
		if err := r.proxy.All(f); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 10*time.Second, "the status says that it is away", func() bool {
			st := r.sink.Status()
			return st.Error != "" && !st.Export.FailingSince.IsZero() && st.Export.Lag > 0 && st.Pending > 0
		})
		written := int64(-1)
		lab.Eventually(t, 10*time.Second, "requests that began before are answered", func() bool {
			before := written
			written = r.sink.Status().Written
			time.Sleep(time.Second)
			return written == before
		})
		time.Sleep(scaled(2*time.Second, 20*time.Second))
		if now := r.sink.Status().Written; now != written {
			t.Errorf("fault %d: %d events were delivered to a server that is away", f, now-written)
		}
		if err := r.proxy.All(lab.NoFault); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 20*time.Second, "the status says that it is back", func() bool { return r.sink.Status().Error == "" })
	}
	n := stop()
	st := r.drained(2 * time.Minute)
	if grown := rss(t) - before; grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if x := st.Export; x.DeadLetters+x.Expired+x.Corrupt != 0 || x.Retries == 0 || st.Appended < int64(n+5000) {
		t.Errorf("%d events: %+v", n+5000, x)
	}
	if lost := r.rec.Counters().Lost; len(lost) != 0 {
		t.Errorf("lost: %v", lost)
	}
}

// feederDir names the directory of the process that a test kills.
const feederDir = "FEEDER_DIR"

// feed records and exports until the process is killed.
func feed(t *testing.T, dir, url string) {
	r := &rig{T: t, prefix: "s03", dir: dir, opts: func(o *opensearch.Options) { o.URLs = []string{url} }, proxy: &lab.FaultProxy{}}
	r.start()
	r.steadily(0, 2000)
	select {}
}

// Ended at any time, it goes on where it was: each event is in the index once.
func TestEventsScenario03Killed(t *testing.T) {
	if dir := os.Getenv(feederDir); dir != "" { // the process that is killed
		feed(t, dir, os.Getenv("FEEDER_URL"))
	}
	r := idleRig(t, "s03", nil)
	for range 10 {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), feederDir+"="+r.dir, "FEEDER_URL="+r.proxy.URL)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(scaled(700*time.Millisecond, time.Second) + rand.N(scaled(time.Second, 4*time.Second)))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	before := r.proxy.BulkDocuments()
	begin := time.Now()
	r.start()
	lab.Eventually(t, 5*time.Second, "export after a restart", func() bool { return r.proxy.BulkDocuments() > before })
	t.Logf("exported again after %v", time.Since(begin).Round(time.Millisecond))
	st := r.drained(time.Minute)
	if x := st.Export; x.DeadLetters+x.Expired+x.Corrupt != 0 || st.Appended < 2000 {
		t.Errorf("%d events: %+v", st.Appended, x)
	}
	if n := r.spool.Status().Events; n != st.Appended {
		t.Errorf("the spool has %d events, the sink was to have %d", n, st.Appended)
	}
}

// A server that acts and breaks off before it answers gets the documents again, and has each once.
func TestEventsScenario04Ambiguous(t *testing.T) {
	r := newRig(t, "s04", nil)
	var n atomic.Int64
	if err := r.proxy.Some(lab.ApplyReset, func(q *http.Request) bool { return q.URL.Path == "/_bulk" && n.Add(1)%2 == 1 }); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		r.record(i*500, 500)
		time.Sleep(600 * time.Millisecond)
	}
	st := r.drained(time.Minute)
	if x, broken := st.Export, r.proxy.Broken(); x.Duplicates == 0 || x.Duplicates != int64(broken) || st.Appended != 5000 {
		t.Errorf("%d documents came in requests that broke off: %+v", broken, x)
	}
}

// An event is in the index of its own day, whenever it is sent.
func TestEventsScenario05Midnight(t *testing.T) {
	r := newRig(t, "s05", nil)
	if err := r.proxy.All(lab.Status503); err != nil {
		t.Fatal(err)
	}
	midnight := time.Now().UTC().Truncate(24 * time.Hour)
	for i, at := range []time.Time{midnight.Add(-100 * time.Millisecond), midnight.Add(-time.Nanosecond), midnight} {
		e := newEvent(i)
		e.Timestamp = at
		r.rec.Record(e)
	}
	lab.Eventually(t, 10*time.Second, "the first attempts fail", func() bool { return r.sink.Status().Export.Retries > 1 })
	if err := r.proxy.All(lab.NoFault); err != nil {
		t.Fatal(err)
	}
	r.drained(20 * time.Second)
	for day, want := range map[time.Time]int{midnight.Add(-time.Hour): 2, midnight: 1} {
		if n, err := server.Count("s05-flow-"+day.Format("2006.01.02"), ""); err != nil || n != want {
			t.Errorf("%d documents of %s, want %d (%v)", n, day.Format(time.DateOnly), want, err)
		}
	}
}

// More than can be delivered: memory and disk stay within their bounds, and each event is delivered or counted by where it was lost.
func TestEventsScenario06Overload(t *testing.T) {
	r := idleRig(t, "s06", func(o *opensearch.Options) { o.Timeout = 2 * time.Second })
	r.disk.MaxBytes = 32 << 20
	r.start()
	if err := r.proxy.All(lab.Status429); err != nil { // a server that takes nothing is the slowest of all
		t.Fatal(err)
	}
	injected, most := int64(0), 0
	for begin := time.Now(); time.Since(begin) < scaled(6*time.Second, 5*time.Minute); {
		r.record(0, 500)
		injected += 500
		most = max(most, rss(t))
		time.Sleep(10 * time.Millisecond)
	}
	if most > 512<<20 {
		t.Errorf("memory grew to %d MiB", most>>20)
	}
	if n := r.spool.Status().Bytes; n > r.disk.MaxBytes {
		t.Errorf("%d bytes are on the disk, %d at most", n, r.disk.MaxBytes)
	}
	if err := r.proxy.All(lab.NoFault); err != nil {
		t.Fatal(err)
	}
	took := lab.Eventually(t, 2*time.Minute, "what expired is told of", func() bool { return r.rec.Counters().Lost["expired"] > 0 })
	r.drained(2 * time.Minute)
	lab.Eventually(t, 20*time.Second, "an event tells of what expired", func() bool {
		n, err := server.Count("s06-loss", `{"term":{"tapwall.loss.stage":"expired"}}`)
		return err == nil && n > 0
	})
	time.Sleep(1500 * time.Millisecond) // and of the last of it
	st := r.drained(20 * time.Second)
	c := r.rec.Counters()
	own, err := server.Count("s06-loss", "")
	if err != nil {
		t.Fatal(err)
	}
	if x := st.Export; x.Expired == 0 || x.DeadLetters != 0 ||
		injected != x.Created+x.Duplicates-int64(own)+x.Expired+c.Lost["of_queue"]+c.Lost["spool_io"] {
		t.Errorf("%d injected, %d told of losses, lost %v: %+v", injected, own, c.Lost, x)
	}
	t.Logf("%d events, %d MiB at most, lost %v, told of %v after the server was back", injected, most>>20, c.Lost, took)
	// What expired is told of once, also over a restart.
	r.stop()
	r.start()
	r.record(0, 10)
	time.Sleep(2500 * time.Millisecond) // two checkpoints
	if again := r.rec.Counters().Lost["expired"]; again != 0 {
		t.Errorf("after a restart %d are told of again", again)
	}
	r.drained(20 * time.Second)
}

// Documents have their own fate: those that cannot be taken now come later, what never can be is a dead letter, and is sent again when
// asked.
func TestEventsScenario07Items(t *testing.T) {
	r := newRig(t, "s07", nil)
	var refused atomic.Bool
	refused.Store(true)
	var poison atomic.Pointer[string]
	r.proxy.Items(func(id string) (int, string) {
		switch {
		case poison.CompareAndSwap(nil, &id), *poison.Load() == id:
			if refused.Load() {
				return http.StatusBadRequest, "mapper_parsing_exception"
			}
		case rand.IntN(100) == 0:
			return http.StatusTooManyRequests, "rejected_execution_exception"
		}
		return 0, ""
	})
	long := newEvent(3000)
	long.Tapwall.Source = &event.Endpoint{Name: strings.Repeat("n", 40_000)}
	r.record(0, 3000)
	r.rec.Record(long)
	st := r.drained(time.Minute)
	if x := st.Export; x.DeadLetters != 1 || x.LettersKept != 1 || x.Duplicates != 0 || x.Retries == 0 || x.Created != 3000 {
		t.Errorf("%+v", x)
	}
	if n := r.proxy.BulkDocuments(); n > 3001+200 {
		t.Errorf("%d documents were sent for 3001 events: whole batches again", n)
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "dead", "dead-letters.ndjson"))
	var l struct {
		ID    string
		Error struct{ Type string }
	}
	if err != nil || strings.Count(string(b), "\n") != 1 || json.Unmarshal(b, &l) != nil || l.ID != *poison.Load() ||
		l.Error.Type != "mapper_parsing_exception" {
		t.Errorf("%v: %s", err, b)
	}
	if n, err := server.Count("s07-all", `{"term":{"source.port":3000}}`); err != nil || n != 1 { // the poison is an earlier one
		t.Errorf("%d documents with a name of 40,000 bytes (%v)", n, err)
	}
	// Still refused: a dead letter again, counted once.
	if out, err := r.sink.Replay(t.Context()); err != nil || out.Taken != 0 || out.Refused != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	refused.Store(false)
	if out, err := r.sink.Replay(t.Context()); err != nil || out.Taken != 1 || out.Refused != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	st = r.drained(20 * time.Second)
	if x := st.Export; x.DeadLetters != 0 || x.LettersKept != 0 || x.Created != 3001 {
		t.Errorf("after a replay: %+v", x)
	}
	if out, err := r.sink.Replay(t.Context()); err != nil || out != (event.ExportReplay{}) {
		t.Errorf("a replay of nothing: %+v, %v", out, err)
	}
}

// No document comes before the templates, which are put where they are missing or old, and left alone where they are newer.
func TestEventsScenario08Templates(t *testing.T) {
	r := idleRig(t, "s08", nil)
	puts := func() int {
		return r.proxy.Requests("PUT", "/_index_template/") + r.proxy.Requests("PUT", "/_component_template/")
	}
	// The templates cannot be put.
	if err := r.proxy.Some(lab.Status503, func(q *http.Request) bool { return q.Method == http.MethodPut }); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.record(0, 10)
	lab.Eventually(t, 10*time.Second, "a template is tried", func() bool { return puts() > 1 })
	if n := r.proxy.Requests("POST", "/_bulk"); n != 0 {
		t.Errorf("%d requests with documents before the templates", n)
	}
	if err := r.proxy.All(lab.NoFault); err != nil {
		t.Fatal(err)
	}
	r.drained(20 * time.Second)
	var got map[string]struct {
		Mappings json.RawMessage `json:"mappings"`
		Aliases  map[string]any  `json:"aliases"`
	}
	if err := server.JSON("GET", "/s08-flow", "", &got); err != nil || len(got) != 1 {
		t.Fatal(err, len(got))
	}
	index := ""
	for name, g := range got {
		index = name
		var have, want any
		b, err := json.Marshal(opensearch.Mappings())
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(g.Mappings, &have) != nil || json.Unmarshal(b, &want) != nil {
			t.Fatal("no JSON")
		}
		if a, b := text(t, have), text(t, want); a != b {
			t.Errorf("the mapping of %s is\n%s\nwant\n%s", name, a, b)
		}
		if len(g.Aliases) != 2 {
			t.Errorf("aliases %v", g.Aliases)
		}
	}
	// A field that nobody knows is kept and not mapped.
	if err := server.JSON("PUT", "/"+index+"/_doc/other", `{"@timestamp":"2026-11-29T00:00:00Z","new":{"field":1}}`, nil); err != nil {
		t.Fatal(err)
	}
	if status, b, err := server.Do("GET", "/"+index+"/_mapping/field/new*", ""); err != nil || strings.Contains(string(b), `"new`) {
		t.Errorf("%d %s %v", status, b, err)
	}
	if err := server.JSON("DELETE", "/"+index+"/_doc/other", "", nil); err != nil {
		t.Fatal(err)
	}
	// An older template is replaced, a newer one is not.
	restart := func(schema int) int {
		r.stop()
		body := fmt.Sprintf(`{"index_patterns":["s08-flow-*"],"priority":300,"composed_of":["s08-settings","s08-mappings"],
			"template":{"aliases":{"s08-flow":{},"s08-all":{}}},"_meta":{"tapwall_schema":%d,"tapwall_hash":"other"}}`, schema)
		if err := server.JSON("PUT", "/_index_template/s08-flow", body, nil); err != nil {
			t.Fatal(err)
		}
		before := puts()
		r.start()
		r.record(0, 10)
		r.drained(20 * time.Second)
		return puts() - before
	}
	if n := restart(0); n != 1 {
		t.Errorf("%d templates were put for an older one", n)
	}
	if n := restart(99); n != 0 {
		t.Errorf("%d templates were put beside a newer one", n)
	}
	// An index that may not be written to: it waits, and loses nothing.
	if err := server.JSON("PUT", "/"+index+"/_settings", `{"index.blocks.read_only_allow_delete":true}`, nil); err != nil {
		t.Fatal(err)
	}
	r.record(0, 100)
	lab.Eventually(t, 10*time.Second, "the block is told of", func() bool {
		st := r.sink.Status()
		return strings.Contains(st.Error, "cluster_block_exception") && st.Pending == 100
	})
	if err := server.JSON("PUT", "/"+index+"/_settings", `{"index.blocks.read_only_allow_delete":null}`, nil); err != nil {
		t.Fatal(err)
	}
	if st := r.drained(20 * time.Second); st.Export.DeadLetters != 0 {
		t.Errorf("%+v", st.Export)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	// The server leaves out what is the default of an object, and writes words as texts.
	return strings.NewReplacer(`"false"`, "false", `"true"`, "true").Replace(string(b))
}

// Bits that changed on the disk cost the rest of their segment, and that is counted.
func TestEventsScenario09FlippedBit(t *testing.T) {
	r := idleRig(t, "s09", nil)
	r.disk.SegmentBytes = 64 << 10
	r.start()
	if err := r.proxy.All(lab.Refuse); err != nil {
		t.Fatal(err)
	}
	r.record(0, 1000)
	lab.Eventually(t, 10*time.Second, "all is on the disk", func() bool { return r.spool.Status().Written >= 1000 })
	files, err := filepath.Glob(filepath.Join(r.dir, "spool", "*.events"))
	if err != nil || len(files) < 4 {
		t.Fatal(err, files)
	}
	b, err := os.ReadFile(files[2])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(files[2], b, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := r.proxy.All(lab.NoFault); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 20*time.Second, "the loss is told of", func() bool { return r.rec.Counters().Lost["spool_corrupt"] > 0 })
	st := r.drained(20 * time.Second)
	lost := r.rec.Counters().Lost
	if x := st.Export; x.Corrupt == 0 || x.Corrupt > 100 || x.Expired+x.DeadLetters != 0 || lost["spool_corrupt"] != x.Corrupt {
		t.Errorf("lost %v: %+v", lost, x)
	}
}

// Old days are deleted, no other index is, and an event of a day that is deleted does not bring it back.
func TestEventsRetention(t *testing.T) {
	r := idleRig(t, "sret", func(o *opensearch.Options) {
		o.Retention = opensearch.Retention{"flow": 3 * 24 * time.Hour, "audit": 0}
	})
	day := func(n int) string { return time.Now().UTC().AddDate(0, 0, -n).Format("2006.01.02") }
	kept := []string{"sret-flow-" + day(2), "sret-audit-" + day(900), "sret-flow-notes", "sret-other-" + day(900), "sretx-flow-" + day(900)}
	gone := []string{"sret-flow-" + day(5), "sret-flow-" + day(400)}
	for _, name := range append(kept, gone...) {
		if err := server.JSON("PUT", "/"+name, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	old := newEvent(1)
	old.Timestamp = time.Now().AddDate(0, 0, -5)
	r.rec.Record(old)
	r.record(0, 10)
	there := func(name string) bool {
		status, _, err := server.Do("HEAD", "/"+name, "")
		return err == nil && status == http.StatusOK
	}
	lab.Eventually(t, 20*time.Second, "old days are deleted", func() bool { return !there(gone[0]) && !there(gone[1]) })
	lab.Eventually(t, 20*time.Second, "the old event is counted", func() bool { return r.sink.Status().Export.Expired == 1 })
	for _, name := range kept {
		if !there(name) {
			t.Errorf("%s was deleted", name)
		}
	}
	if there(gone[0]) {
		t.Errorf("%s came back", gone[0])
	}
	for _, name := range []string{kept[3], kept[4]} {
		if err := server.JSON("DELETE", "/"+name, "", nil); err != nil {
			t.Error(err)
		}
	}
}

// A machine whose clock is wrong deletes nothing.
func TestEventsRetentionWrongClock(t *testing.T) {
	var asked atomic.Int64
	r := idleRig(t, "sclk", func(o *opensearch.Options) { o.Now = func() time.Time { return time.Now().AddDate(2, 0, 0) } })
	name := "sclk-flow-" + time.Now().UTC().AddDate(0, 0, -1).Format("2006.01.02")
	if err := server.JSON("PUT", "/"+name, "", nil); err != nil {
		t.Fatal(err)
	}
	if err := r.proxy.Some(lab.NoFault, func(q *http.Request) bool {
		if q.URL.Path == "/_cat/health" {
			asked.Add(1)
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	r.start()
	lab.Eventually(t, 20*time.Second, "the server is asked what time it is", func() bool { return asked.Load() > 0 })
	time.Sleep(time.Second)
	if status, _, err := server.Do("HEAD", "/"+name, ""); err != nil || status != http.StatusOK {
		t.Errorf("the index of yesterday: %d %v", status, err)
	}
}

// An end while the server hangs takes a few seconds, leaves no goroutine, and loses nothing.
func TestEventsEndWhileServerHangs(t *testing.T) {
	r := newRig(t, "send", nil)
	before := runtime.NumGoroutine()
	if err := r.proxy.All(lab.Hang); err != nil {
		t.Fatal(err)
	}
	r.record(0, 1000)
	hangs := func() bool { return r.proxy.Requests("GET", "/_component_template/") > 0 }
	lab.Eventually(t, 10*time.Second, "a request hangs", hangs)
	begin := time.Now()
	r.stop()
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := r.proxy.All(lab.NoFault); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 5*time.Second, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	r.start()
	if st := r.drained(20 * time.Second); st.Appended != 1000 {
		t.Errorf("%+v", st)
	}
}

// What is in memory no more is looked for in the spool, and what is there no more in OpenSearch: one answer, each event once, in order,
// which says where it comes from.
func TestEventsHistoryFromServer(t *testing.T) {
	r := idleRig(t, "shist", nil)
	r.disk.MaxBytes, r.disk.SegmentBytes = 4<<20, 128<<10
	r.start()
	const made = 12_000
	for i := 0; i < made; i += 3000 {
		r.record(i, 3000)
		r.drained(30 * time.Second) // nothing expires before it is delivered
	}
	if st := r.spool.Status(); st.Events >= made-2000 || st.Events < 4500 {
		t.Fatalf("the spool has %d events", st.Events)
	}
	var got []int
	places := map[string]bool{}
	for after := ""; ; {
		p, err := r.rec.Query(t.Context(), event.Filter{First: true, After: after, Limit: 1000, Action: []string{event.ActionVerdict}})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range p.Coverage {
			places[c.Source] = true
			if c.Error != "" || c.Since.IsZero() {
				t.Errorf("%+v", c)
			}
		}
		for _, e := range p.Items {
			got = append(got, e.Source.Port)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	for i, n := range got {
		if n != i {
			t.Fatalf("place %d has event %d", i, n)
		}
	}
	if len(got) != made || len(places) != 3 {
		t.Errorf("%d of %d events from %v", len(got), made, places)
	}
	one := func(port int) event.Page {
		p, err := r.rec.Query(t.Context(), event.Filter{FromPort: []string{strconv.Itoa(port)}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := one(17); len(p.Items) != 1 || p.Items[0].Source.Port != 17 || p.Coverage[len(p.Coverage)-1].Source != "opensearch" {
		t.Errorf("%d items, %+v", len(p.Items), p.Coverage)
	}
	// What lies within the spool asks nobody else.
	before := r.proxy.Requests("POST", "/shist-all/_search")
	if _, err := r.rec.Query(t.Context(), event.Filter{Since: time.Now().Add(-time.Second), Limit: 1000}); err != nil {
		t.Fatal(err)
	}
	if n := r.proxy.Requests("POST", "/shist-all/_search"); n != before || n == 0 {
		t.Errorf("%d searches, then %d", before, n)
	}
	if err := r.proxy.All(lab.Refuse); err != nil {
		t.Fatal(err)
	}
	if p := one(17); len(p.Items) != 0 || !strings.Contains(p.Coverage[len(p.Coverage)-1].Error, "refused") {
		t.Errorf("of a server that is away: %d items, %+v", len(p.Items), p.Coverage)
	}
}
