package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

const searchName = "twsdemo"

// search shows the record in OpenSearch: a real server, as many documents as there are events, and the connection that was denied. It
// leaves nothing behind.
func search() (err error) {
	step("a real OpenSearch, and a private Open vSwitch with two virtual machines")
	server, err := lab.StartOpenSearch()
	if err != nil {
		return err
	}
	defer server.Close()
	l, err := lab.Start(searchName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	near, err := lab.NewFaultProxy(server.URL, &l.Switch) // the switch is in a network of its own
	if err != nil {
		return err
	}
	defer near.Close()
	d := &demo{Lab: l}
	if err := d.AddBridge("br0"); err != nil {
		return err
	}
	for i, vm := range []**lab.VM{&d.vm1, &d.vm2} {
		if *vm, err = d.AddVM(fmt.Sprintf("vm%d", i+1), "br0", i+1); err != nil {
			return err
		}
	}
	if err := d.Serve(d.vm2, 80, 5432); err != nil {
		return err
	}
	config := filepath.Join(d.Dir, "tapwall.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "sinks: {opensearch: {urls: [%q]}}\n", near.URL), 0o600); err != nil {
		return err
	}
	if d.tw, err = d.StartTapwall("--config", config, "--bridge", "br0=owned", "--log-level", "info"); err != nil {
		return err
	}
	d.tapwall("export", "test")

	step("some connections, and one that a policy denies")
	policy := `kind: Policy
name: db
spec: {appliesTo: [{port: vm2}], ingress: [{name: web, action: allow, services: [{protocol: tcp, ports: ["80"]}]}]}
`
	if err := d.tw.Apply(policy); err != nil {
		return err
	}
	for range 5 {
		d.check(d.vm1.CanConnect(d.vm2.IPv4, 80, 2*time.Second), "vm1 connects to vm2 port 80")
	}
	d.check(!d.vm1.CanConnect(d.vm2.IPv4, 5432, 500*time.Millisecond), "vm1 cannot connect to vm2 port 5432")

	step("as many documents as there are events")
	var c event.Counters
	documents := -1
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		var st struct{ Events event.Counters }
		out, err := d.tw.Run("status", "-o", "json")
		if err != nil {
			return fmt.Errorf("status: %w: %s", err, out)
		}
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return err
		}
		c = st.Events
		if documents, err = server.Count("tapwall-all", ""); err != nil {
			return err
		}
		if c.Pending == 0 && int64(documents) == c.Accepted && documents >= 6 {
			break
		}
	}
	d.tapwall("export", "status")
	d.check(int64(documents) == c.Accepted, "%d events were accepted, %d documents are in the index", c.Accepted, documents)

	step("the connection that was denied, as a search finds it")
	query := `{"size":1,"query":{"bool":{"filter":[{"term":{"tapwall.verdict":"DROPPED"}},{"term":{"destination.port":5432}},` +
		`{"term":{"source.ip":"10.77.0.0/16"}}]}},"_source":["@timestamp","source","destination","rule","tapwall.verdict"]}`
	fmt.Println("$ curl", server.URL+"/tapwall-flow/_search", "-d", query)
	var answer struct {
		Hits struct {
			Hits []struct {
				Source json.RawMessage `json:"_source"`
			}
		}
	}
	if err := server.JSON(http.MethodPost, "/tapwall-flow/_search", query, &answer); err != nil {
		return err
	}
	d.check(len(answer.Hits.Hits) == 1, "the index has the connection to port 5432")
	for _, h := range answer.Hits.Hits {
		var e event.Event
		if err := json.Unmarshal(h.Source, &e); err != nil {
			return err
		}
		fmt.Println("  " + string(h.Source))
		d.check(e.Rule != nil && e.Rule.Ruleset == "db" && e.Source.IP == d.vm1.IPv4, "it says who was denied, and by which policy")
	}
	if len(d.failed) > 0 {
		return fmt.Errorf("%d of the things to show were not seen", len(d.failed))
	}
	fmt.Printf("\nAll %d things to show were seen.\n", d.seen)
	return nil
}
