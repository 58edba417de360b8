package app_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/event/opensearch"
	"github.com/tapwall/tapwall/internal/app"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// The reference configuration is read strictly and says what it seems to say.
func TestReferenceConfiguration(t *testing.T) {
	var o app.Options
	if err := o.LoadFile("../../docs/tapwall.yaml"); err != nil {
		t.Fatal(err)
	}
	all := policy.Record{Connections: policy.RecordAll, Denies: policy.RecordAll}
	want := app.Options{
		DataDir: app.DefaultDataDir, OVSDB: app.DefaultOVSDB, LogLevel: "info", LogFormat: "text",
		OVSTLS: app.TLSFiles{Cert: "/etc/tapwall/ovs-cert.pem", Key: "/etc/tapwall/ovs-key.pem", CA: "/etc/tapwall/ovs-ca.pem"},
		Bridges: []host.BridgeConfig{
			{Name: "br0", Mode: host.Owned, FailMode: "secure", Record: all},
			{Name: "br-int", Mode: host.Guest, OpenFlow: "unix:/var/run/openvswitch/br-int.mgmt"},
		},
		Hosts: []app.HostOptions{{
			Name: "rack1", OVSDB: "ssl:192.0.2.11:6640",
			TLS: app.TLSFiles{Cert: "/etc/tapwall/ovs-cert.pem", Key: "/etc/tapwall/ovs-key.pem", CA: "/etc/tapwall/ovs-ca.pem",
				ServerName: "rack1"},
			Bridges: []host.BridgeConfig{
				{Name: "br0", Mode: host.Owned, FailMode: "secure", Record: all, Listen: &vswitch.ControllerSpec{Port: 6653, TLS: true,
					Addr: netip.MustParseAddr("192.0.2.11")}},
				{Name: "br-int", Mode: host.Guest, OpenFlow: "ssl:192.0.2.11:6699"},
			},
		}},
		Listen: []string{app.DefaultListen, "tcp:192.0.2.1:7443"}, TokenFile: "/etc/tapwall/token",
		TLSCert: "/etc/tapwall/cert.pem", TLSKey: "/etc/tapwall/key.pem",
		StoreTLS: app.TLSFiles{Cert: "/etc/tapwall/etcd-cert.pem", Key: "/etc/tapwall/etcd-key.pem", CA: "/etc/tapwall/etcd-ca.pem"},
		OpenSearch: &opensearch.Options{URLs: []string{"https://192.0.2.9:9200"}, Prefix: "tapwall", Username: "tapwall",
			PasswordFile: "/etc/tapwall/opensearch-password", TLS: opensearch.TLS{CA: "/etc/tapwall/opensearch-ca.pem"}, Replicas: "0-1",
			Retention: opensearch.DefaultRetention()},
		EventFile: true, EventDir: "/var/lib/tapwall/events", EventFileBytes: 64 << 20, EventFiles: 10,
		SpoolDir: "/var/lib/tapwall/spool", SpoolBytes: 2 << 30, SpoolAge: 72 * time.Hour,
		EventsPerSecond: 10000, MaxFlows: 500_000, RingLen: 16384, PickupWindow: 10 * time.Second, SpoofGrace: 24 * time.Hour,
		Learning: app.Learning{PerEndpoint: app.DefaultLearnPerEndpoint, PerHost: app.DefaultLearnPerHost, Age: app.DefaultLearnAge,
			Networks: learn.Private()},
		ZoneLimit: 50000, Timeouts: map[string]int{"tcp_syn_sent": 30},
	}
	if diff := cmp.Diff(want, o, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A key that the reference leaves out is a key that nobody finds.
func TestReferenceNamesEveryKey(t *testing.T) {
	text, err := os.ReadFile("../../docs/tapwall.yaml")
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	var walk func(at string, typ reflect.Type)
	walk = func(at string, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("yaml")
			keys++
			if !strings.Contains(string(text), key+":") {
				t.Errorf("%s%s is not in the reference", at, key)
			}
			walk(at+key+".", typ.Field(i).Type)
		}
	}
	walk("", app.FileType)
	if keys < 25 {
		t.Errorf("only %d keys were looked for", keys)
	}
}

func TestBadConfiguration(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "data-dri: /x", "data-dri"},
		{"unknown nested key", "limits:\n  rings: 5", "rings"},
		{"wrong type", "limits: {ring: many}", "[1:16] want a whole number, not a string"},
		{"wrong type of a switch", "sinks: {jsonl: {disabled: 3}}", "want true or false, not a "},
		{"grace is no duration", "limits: {spoof-grace: 1x}", `limits.spoof-grace: "1x": want a duration such as 90s`},
		{"spool too small", "spool: {max-bytes: 1000}", "spool.max-bytes: 1000 is not between 16777216 and"},
		{"spool for ever", "spool: {max-age: 5000d}", `spool.max-age: "5000d" is not a duration between 1m and 366d`},
		{"no node to export to", "sinks: {opensearch: {index-prefix: a}}", "sinks.opensearch.urls: name a node"},
		{"retention of what there is not", "sinks: {opensearch: {urls: [a], retention: {flows: 3d}}}", `there are no indices "flows"`},
		{"retention of hours", "sinks: {opensearch: {urls: [a], retention: {flow: 3h}}}", "sinks.opensearch.retention.flow"},
		{"no YAML", "a: [", ""},
		{"bridge without a name", "bridges: [{mode: owned}]", "bridges[0]: name is missing"},
		{"host: bridge without a name", "hosts: [{name: a, ovsdb: 'tcp:192.0.2.1:6640', bridges: [{mode: owned}]}]",
			"hosts[0]: bridges[0]: name is missing"},
		{"host: no place to listen at", "hosts: [{name: a, bridges: [{name: b, listen: 'tcp:1'}]}]", `hosts[0]: bridges[0]: listen: "tcp:1"`},
		{"host: no address to listen at", "hosts: [{name: a, bridges: [{name: b, listen: 'ptcp:1:h'}]}]", `"h" is no address`},
		{"listen without a host", "bridges: [{name: b, mode: owned, listen: 'ptcp:1'}]", "bridges[0]: listen is for bridges of hosts"},
		{"a bridge records what there is no word for", "bridges: [{name: b, mode: owned, record: {denies: some}}]",
			`bridges[0]: record.denies: "some" is not one of all, logged, none`},
		{"pickup window is no duration", "limits: {pickup-window: soon}", `limits.pickup-window: "soon"`},
		{"learned of no network", "learning: {networks: [10.0.0.1/8]}", "learning.networks[0]"},
		{"learned for ever", "learning: {age: 9999h}", "learning.age"},
		{"learned without bound", "learning: {addresses-per-endpoint: 9999}", "learning.addresses-per-endpoint"},
		{"pickup window is too long", "limits: {pickup-window: 1h}", "10m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tapwall.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var o app.Options
			err := o.LoadFile(path)
			if err == nil {
				t.Fatalf("accepted: %+v", o)
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the message does not name the file or %q: %v", c.want, err)
			}
		})
	}
	var o app.Options
	if err := o.LoadFile(filepath.Join(t.TempDir(), "missing.yaml")); err == nil || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("a missing file: %v", err)
	}
}

// An empty file, or one with comments only, changes nothing; a file leaves alone what it does not mention.
func TestConfigurationAddsUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tapwall.yaml")
	for text, want := range map[string]app.Options{
		"":                    {DataDir: "/kept"},
		"# nothing\n":         {DataDir: "/kept"},
		"log-level: debug\n":  {DataDir: "/kept", LogLevel: "debug"},
		"data-dir: /other\n":  {DataDir: "/other"},
		"limits: {ring: 7}\n": {DataDir: "/kept", RingLen: 7},
		"bridges: [{name: b, mode: owned, record: {dns: false}}]\n": {DataDir: "/kept",
			Bridges: []host.BridgeConfig{{Name: "b", Mode: host.Owned, NoDNS: true}}},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o := app.Options{DataDir: "/kept"}
		if err := o.LoadFile(path); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, o); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", text, diff)
		}
	}
}
