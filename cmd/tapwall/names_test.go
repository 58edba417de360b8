package main

import (
	"slices"
	"testing"

	"github.com/spf13/pflag"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

func TestWorkloadGoesByAnyName(t *testing.T) {
	w := &client.Workload{Key: "9f1c", Bridge: "br0", Port: "tap1", MAC: "fa:16:3e:00:00:01", Endpoint: "db", Addresses: []string{"10.0.0.5",
		"2001:db8::5"},
		Labels: map[string]wire.WorkloadLabel{"vm-uuid": {Value: "u-u"}, "vm-name": {Value: "vm one"}, "iface-id": {Value: "9f1c"},
			"app": {Value: "web"}}}
	for _, name := range []string{"9f1c", "tap1", "br0/tap1", "FA:16:3E:00:00:01", "db", "10.0.0.5", "2001:DB8:0::5", "::ffff:10.0.0.5",
		"u-u", "vm one"} {
		if !goesBy(w, name) {
			t.Errorf("it does not go by %q", name)
		}
	}
	for _, name := range []string{"", "web", "br0", "tap", "10.0.0.6", "elsewhere", "0"} {
		if goesBy(w, name) {
			t.Errorf("it goes by %q", name)
		}
	}
	if goesBy(&client.Workload{Key: "endpoint/x", Remote: true, Endpoint: "x"}, "elsewhere") {
		t.Error("every remote one goes by where it is not")
	}
}

// The record knows endpoints by the labels that policies know them by.
func TestNameLabels(t *testing.T) {
	want := append([]string{policy.LabelNeutronPort}, policy.VMLabels[:]...)
	if got := event.NameLabels(); !slices.Equal(got, want) {
		t.Errorf("events are found by %v, policies choose by %v", got, want)
	}
}

// Every flag with a value offers values, names files, or says that there is nothing to offer.
func TestEveryFlagCompletes(t *testing.T) {
	files := map[string]bool{"ca-file": true, "token-file": true, "tls-cert": true, "tls-key": true, "config": true, "data-dir": true,
		"filename": true, "input-file": true, "write": true, "fifo": true}
	numbers := map[string]bool{"timeout": true, "interval": true}
	for _, c := range commands(newRoot()) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" || files[f.Name] || numbers[f.Name] || f.Name == "server" || f.Name == "token" {
				return
			}
			if _, ok := c.GetFlagCompletionFunc(f.Name); !ok {
				t.Errorf("%s --%s offers nothing, or file names", c.CommandPath(), f.Name)
			}
		})
		if c.Args == nil && c.ValidArgsFunction == nil {
			t.Errorf("%s does not say what its arguments are", c.CommandPath())
		}
	}
}
