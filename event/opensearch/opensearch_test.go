package opensearch

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEvent(i int) *event.Event {
	return &event.Event{
		Timestamp: time.Date(2026, 11, 29, 23, 59, 59, 999_999_999, time.UTC),
		Event: event.Meta{ID: event.ID{Install: 1, Epoch: 1, Sequence: int64(i)}.String(), Sequence: int64(i), Kind: "event",
			Category: []string{"network"}, Action: event.ActionVerdict, Dataset: event.DatasetFlow},
		Source:  &event.Side{IP: "10.0.0.1", Port: i},
		Tapwall: event.Tapwall{Source: &event.Endpoint{Name: `","dataset":"evil","id":"x`}},
	}
}

func TestQuickKey(t *testing.T) {
	e := newEvent(7)
	b, err := event.AppendJSON(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	if id, set, ok := quickKey(b); !ok || id != e.Event.ID || set != "tapwall.flow" {
		t.Errorf("%q %q %v", id, set, ok)
	}
	d, err := docOf("p", spool.Record{Time: e.Timestamp.UnixNano(), JSON: b})
	if err != nil || d.index != "p-flow-2026.11.29" || d.id != e.Event.ID {
		t.Errorf("%+v, %v", d, err)
	}
	for _, text := range []string{`{}`, `{"event":{}}`, `{`, `[]`, `{"event":{"id":""}}`} {
		if d, err := docOf("p", spool.Record{JSON: []byte(text)}); err == nil {
			t.Errorf("%s is %+v", text, d)
		}
	}
	other := `{"@timestamp":"x","event":{"action":"a","id":"q\"1","dataset":"tapwall.loss"}}` // of another version
	if d, err := docOf("p", spool.Record{JSON: []byte(other)}); err != nil || d.id != `q"1` || d.index != "p-loss-1970.01.01" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestFate(t *testing.T) {
	for _, c := range []struct {
		status int
		kind   string
		want   fate
	}{
		{200, "", created}, {201, "", created}, {409, "version_conflict_engine_exception", duplicate},
		{429, "rejected_execution_exception", again}, {503, "unavailable_shards_exception", again}, {500, "x", again},
		{403, "cluster_block_exception", again}, {404, "index_not_found_exception", again}, {401, "security_exception", again},
		{400, "mapper_parsing_exception", dead}, {400, "illegal_argument_exception", dead}, {400, "", dead},
		{400, "validation_exception", again}, {400, "index_closed_exception", again},
	} {
		if got := (item{c.status, problem{c.kind, ""}}).fate(); got != c.want {
			t.Errorf("%d %s: %d, want %d", c.status, c.kind, got, c.want)
		}
	}
}

// Whatever a server answers, it is understood or refused: no document is taken for delivered that the answer does not name.
func FuzzParseBulk(f *testing.F) {
	f.Add([]byte(`{"items":[{"create":{"status":201}},{"create":{"status":400,"error":{"type":"a","reason":"b"}}}]}`), 2)
	f.Add([]byte(`{"items":[{"create":{"status":201,"error":"old"}}]}`), 1)
	f.Add([]byte(`{"items":[{}]}`), 1)
	f.Add([]byte(`{"items":[null]}`), 1)
	f.Add([]byte(`<html>`), 1)
	f.Add([]byte(`{"errors":false}`), 0)
	f.Fuzz(func(t *testing.T, answer []byte, n int) {
		items, err := parseBulk(answer, n)
		if err != nil {
			if !errors.Is(err, errNotOpenSearch) {
				t.Error(err)
			}
			return
		}
		if len(items) != n {
			t.Errorf("%d items of %d", len(items), n)
		}
		for _, i := range items {
			if i.Status == 0 {
				t.Error("an item without status")
			}
			if f := i.fate(); f == created && i.Status/100 != 2 {
				t.Errorf("status %d is %d", i.Status, f)
			}
		}
	})
}

func FuzzQuickKey(f *testing.F) {
	b, err := event.AppendJSON(nil, newEvent(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"event":{"id":"a","dataset":"b"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := docOf("p", spool.Record{JSON: b})
		if err != nil {
			return
		}
		var line bytes.Buffer
		if err := writeBulk(&line, []doc{d}); err != nil {
			t.Fatal(err)
		}
		var action struct {
			Create struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"create"`
		}
		first, _, _ := bytes.Cut(line.Bytes(), []byte("\n"))
		if err := json.Unmarshal(first, &action); err != nil || action.Create.Index != d.index {
			t.Errorf("%v: %s", err, first)
		}
	})
}

// Every field of a document has a mapping, and none has more than its document: 200 fields at most, so that no index meets its limit.
func TestMappingOfEveryField(t *testing.T) {
	leaves := map[string]string{}
	var walk func(at string, props map[string]any)
	walk = func(at string, props map[string]any) {
		for name, p := range props {
			m := p.(map[string]any)
			if sub, ok := m["properties"].(map[string]any); ok {
				walk(at+name+".", sub)
				continue
			}
			leaves[at+name] = m["type"].(string)
		}
	}
	walk("", Mappings()["properties"].(map[string]any))
	for field, want := range map[string]string{
		"@timestamp": "date_nanos", "event.id": "keyword", "event.sequence": "long", "source.ip": "ip", "source.port": "long",
		"related.ip": "ip", "tapwall.source.labels": "flat_object", "tapwall.loss.first": "date_nanos", "tapwall.verdict": "keyword",
		"tapwall.notice.message": "text", "network.vlan.id": "keyword", "tapwall.rule_id": "long",
	} {
		if leaves[field] != want {
			t.Errorf("%s is %q, want %s", field, leaves[field], want)
		}
	}
	if len(leaves) < 60 || len(leaves) > 200 {
		t.Errorf("%d fields", len(leaves))
	}
}

func TestIndexNames(t *testing.T) {
	at := time.Date(2026, 11, 29, 23, 59, 59, 999_999_999, time.UTC)
	for dataset, want := range map[string]string{
		event.DatasetFlow: "p-flow-2026.11.29", event.DatasetPacket: "p-packet-2026.11.29", event.DatasetLoss: "p-loss-2026.11.29",
		event.DatasetSwitch: "p-audit-2026.11.29", event.DatasetChange: "p-audit-2026.11.29", "../x": "p-audit-2026.11.29",
	} {
		got := indexOf("p", dataset, at.UnixNano())
		if got != want {
			t.Errorf("%s: %s", dataset, got)
		}
		if _, day, ok := partsOf("p", got); !ok || !day.Equal(at.Truncate(24*time.Hour)) {
			t.Errorf("%s: %v %v", got, day, ok)
		}
	}
	for _, name := range []string{"", "p-flow", "p-flow-2026.11.29-x", "p-flow-2026.1.9", "p-other-2026.11.29", "q-flow-2026.11.29",
		"pp-flow-2026.11.29",
		"p-flow-9999.99.99"} {
		if set, day, ok := partsOf("p", name); ok {
			t.Errorf("%s is of %s, %v", name, set, day)
		}
	}
	s := &Sink{o: Options{Prefix: "p", Retention: Retention{"flow": 24 * time.Hour}}}
	day := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	for now, want := range map[time.Time]bool{
		day.Add(47 * time.Hour): false, day.Add(48 * time.Hour): false, day.Add(48*time.Hour + 1): true,
	} {
		if got := s.past("flow", day, now); got != want {
			t.Errorf("after %v: %v", now.Sub(day), got)
		}
	}
	if s.past("loss", day, day.AddDate(100, 0, 0)) {
		t.Error("what is kept for ever is old")
	}
}

// fake is the part of OpenSearch that authenticates, and takes everything.
type fake struct {
	mu        sync.Mutex
	templates map[string]json.RawMessage
	docs      map[string]string
	auth      []string
	want      string // Authorization; "" = none is asked for
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.auth = append(f.auth, r.Header.Get("Authorization"))
	if f.want != "" && r.Header.Get("Authorization") != f.want {
		http.Error(w, `{"error":{"type":"security_exception","reason":"who are you"},"status":401}`, http.StatusUnauthorized)
		return
	}
	switch name := r.URL.Path; {
	case r.Method == http.MethodPut:
		b, _ := io.ReadAll(r.Body)
		f.templates[name] = b
		fmt.Fprint(w, `{"acknowledged":true}`)
	case strings.Contains(name, "_template/"):
		b, ok := f.templates[name]
		if !ok {
			http.Error(w, `{"error":{"type":"resource_not_found_exception","reason":"none"},"status":404}`, http.StatusNotFound)
			return
		}
		list := strings.Split(name, "/")[1][1:]
		fmt.Fprintf(w, `{"%ss":[{"name":%q,%q:%s}]}`, strings.Replace(list, "index_template", "index_template", 1), filepath.Base(name), list, b)
	case name == "/_bulk":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b, _ := io.ReadAll(z)
		var items []string
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			f.docs[lines[i]] = lines[i+1]
			items = append(items, `{"create":{"status":201}}`)
		}
		fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
	case strings.HasPrefix(name, "/_cat/"):
		fmt.Fprint(w, `[]`)
	}
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.docs)
}

// deliver has five events delivered, and returns why they are not.
func deliver(t *testing.T, f *fake, o Options) error {
	t.Helper()
	sp, err := spool.Open(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer sp.Close()
	b := sp.Batch()
	for i := range 5 {
		if err := b.Add(newEvent(i)); err != nil {
			t.Fatal(err)
		}
	}
	sp.Append(b)
	o.Spool, o.Dir, o.Timeout, o.MaxWait = sp, t.TempDir(), 2*time.Second, 100*time.Millisecond
	o.Now = func() time.Time { return newEvent(0).Timestamp }
	s, err := Open(o)
	if err != nil {
		return err
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for range 500 {
		if f.count() == 5 && s.Status().Pending == 0 {
			return nil
		}
		if e := s.Status().Error; e != "" && s.Status().Export.Retries > 3 {
			return errors.New(e)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("nothing happened")
}

func newFake(want string) *fake {
	return &fake{templates: map[string]json.RawMessage{}, docs: map[string]string{}, want: want}
}

// Who it is is said to the server, by name or by key, and over TLS that the operator's authority has signed; secrets are in no message.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	password, key := write("password", "s3cret\n"), write("key", "a2V5OnNlY3JldA==\n")
	for _, c := range []struct {
		name, want string
		tls        bool
		o          Options
		fault      string
	}{
		{name: "nobody", o: Options{}},
		{name: "basic", want: "Basic dHc6czNjcmV0", o: Options{Username: "tw", PasswordFile: password}},
		{name: "key", want: "ApiKey a2V5OnNlY3JldA==", tls: true, o: Options{APIKeyFile: key}},
		{name: "wrong password", want: "Basic other", o: Options{Username: "tw", PasswordFile: password}, fault: "see username and password"},
		{name: "unknown authority", tls: true, fault: "certificate"},
		{name: "both", o: Options{Username: "tw", PasswordFile: password, APIKeyFile: key}, fault: "exclude each other"},
		{name: "name alone", o: Options{Username: "tw"}, fault: "need each other"},
		{name: "no file", o: Options{APIKeyFile: filepath.Join(dir, "none")}, fault: "api-key-file: open"},
		{name: "two lines", o: Options{APIKeyFile: write("two", "a\nb")}, fault: "does not hold one line"},
		{name: "no authority", o: Options{TLS: TLS{CA: password}}, fault: "tls-ca"},
		{name: "password in the URL", o: Options{URLs: []string{"http://a:b@127.0.0.1"}}, fault: "no place in a URL"},
		{name: "no URL", o: Options{URLs: []string{"127.0.0.1:9200"}}, fault: "is not a URL"},
		{name: "prefix", o: Options{Prefix: "Upper"}, fault: "index-prefix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(c.want)
			server := httptest.NewUnstartedServer(f)
			server.Config.ErrorLog = nil
			if c.tls {
				server.StartTLS()
				if c.fault == "" {
					c.o.TLS.CA = write("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
				}
			} else {
				server.Start()
			}
			defer server.Close()
			if c.o.URLs == nil {
				c.o.URLs = []string{server.URL}
			}
			err := deliver(t, f, c.o)
			if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("%v, want %q", err, c.fault)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "a2V5")) {
				t.Errorf("a secret is in %v", err)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if c.fault == "" && c.want == "" && slices.ContainsFunc(f.auth, func(s string) bool { return s != "" }) {
				t.Errorf("Authorization %q", f.auth)
			}
		})
	}
}

// Of several nodes one that is away costs nothing but time.
func TestSeveralNodes(t *testing.T) {
	f := newFake("")
	server, away := httptest.NewServer(f), httptest.NewServer(f)
	defer server.Close()
	away.Close()
	if err := deliver(t, f, Options{URLs: []string{away.URL, server.URL}}); err != nil {
		t.Error(err)
	}
	for action := range f.docs {
		if !strings.HasPrefix(action, `{"create":{"_index":"tapwall-flow-2026.11.29","_id":"00000001-0001-`) {
			t.Error(action)
		}
	}
}

// Dead letters are bounded, the oldest go first, and are counted; a replay that a crash interrupted is not counted twice.
func TestLetters(t *testing.T) {
	dir := t.TempDir()
	l, err := openLetters(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.max = 1 << 20
	big := bytes.Repeat([]byte("x"), 1<<15)
	body, err := json.Marshal(string(big))
	if err != nil {
		t.Fatal(err)
	}
	discarded := int64(0)
	for i := range 100 {
		n, err := l.add(doc{"i", fmt.Sprint(i), body}, problem{"t", "r"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		discarded += n
	}
	kept, size, lost := l.status()
	if kept+discarded != 100 || lost != discarded || discarded == 0 || size > 2*l.max {
		t.Errorf("%d kept, %d discarded, %d bytes", kept, discarded, size)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if l, err = openLetters(dir, 0); err != nil {
		t.Fatal(err)
	}
	if again, bytes, _ := l.status(); again != kept || bytes != size {
		t.Errorf("after a restart %d of %d", again, kept)
	}
	path, err := l.begin(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.begin(1); !errors.Is(err, errReplaying) {
		t.Errorf("a second replay: %v", err)
	}
	var ids []string
	if err := readLetters(path, 7, func(some []letter) error {
		for _, one := range some {
			ids = append(ids, one.ID)
		}
		return nil
	}); err != nil || int64(len(ids)) != kept || ids[len(ids)-1] != "99" {
		t.Errorf("%d letters, %v", len(ids), err)
	}
	if _, err = openLetters(dir, 0); err != nil { // a crash before the end
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("letters of a replay that did not end are gone")
	}
	if _, err = openLetters(dir, 1); err != nil { // a crash after it was counted
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("a replay that ended would be done again")
	}
}

func TestSetsHaveRetention(t *testing.T) {
	keep := DefaultRetention()
	for _, set := range Sets() {
		if keep[set] == 0 {
			t.Errorf("%s has none", set)
		}
	}
	if len(keep) != len(sets) || reflect.DeepEqual(keep, Retention{}) {
		t.Error(keep)
	}
}

// A server that is away is known of without an event, and so is its return.
func TestProbe(t *testing.T) {
	f := newFake("")
	server := httptest.NewUnstartedServer(f)
	address := server.Listener.Addr().String()
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(spool.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer sp.Close()
	s, err := Open(Options{URLs: []string{"http://" + address}, Dir: t.TempDir(), Spool: sp, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	until := func(what string, ok func(string) bool) {
		t.Helper()
		for range 1000 {
			if ok(s.Status().Error) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("not %s: %+v", what, s.Status())
	}
	until("known to be away", func(e string) bool { return strings.Contains(e, "refused") })
	if server.Listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	server.Start()
	defer server.Close()
	until("known to be back", func(e string) bool { return e == "" })
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.templates) == 0 || len(f.docs) != 0 {
		t.Errorf("%d templates, %d documents", len(f.templates), len(f.docs))
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := newClient(&Options{URLs: []string{"http://" + addr}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ask(t.Context(), http.MethodGet, "/", nil)
	if want := "the server cannot be reached: dial tcp " + addr + ": connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}
