package host_test

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/learn"
)

// Addresses are learned by endpoint and MAC address, and told of; they outlive a restart, also one with a file that is no good, and are
// forgotten with the port, and when nothing is learned any more.
func TestLearned(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	conf := settings{learning: &learn.Limits{PerEndpoint: 2, PerHost: 8, Age: time.Hour,
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, learnedFile: filepath.Join(t.TempDir(), "hosts", "h", "learned.json")}
	claim := func(port, ip string) {
		t.Helper()
		mac, err := net.ParseMAC(macOf(port))
		if err != nil {
			t.Fatal(err)
		}
		frame := "ffffffffffff" + hex.EncodeToString(mac) + "0806" + "0001080006040002" + hex.EncodeToString(mac) +
			hex.EncodeToString(net.ParseIP(ip).To4()) + "ffffffffffff" + "0a0000fe"
		b, err := hex.DecodeString(frame)
		if err != nil {
			t.Fatal(err)
		}
		h.ovs.InjectPacket(port, append(b, make([]byte, 18)...))
	}
	knows := func(r *run, key, want string) {
		t.Helper()
		r.eventually("known", func() error {
			got := ""
			for _, a := range r.engine.Learned(key) {
				got += a.Address + " "
			}
			if got != want {
				return fmt.Errorf("%s has %q, want %q", key, got, want)
			}
			return nil
		})
	}
	r := h.ready(conf)
	claim("vm1", "10.0.0.1")
	knows(r, "vm1", "10.0.0.1 ")
	claim("vm2", "10.0.0.1")
	claim("vm2", "192.0.2.1")
	claim("vm2", "10.0.0.2")
	knows(r, "vm2", "10.0.0.2 ")
	r.eventually("told", func() error {
		for _, w := range r.Hosts()[0].Warnings {
			if w.Code == "ADDRESS_REFUSED" && w.Endpoint == "vm2" {
				return nil
			}
		}
		return fmt.Errorf("%+v", r.Hosts()[0].Warnings)
	})
	r.eventually("kept", func() error { _, err := os.Stat(conf.learnedFile); return err })
	r.stop()

	r = h.ready(conf)
	knows(r, "vm1", "10.0.0.1 ")
	knows(r, "vm2", "10.0.0.2 ")
	h.ovs.Vsctl("del-port", "br0", "vm1")
	knows(r, "vm1", "")
	claim("vm2", "10.0.0.1") // it is nobody's now
	knows(r, "vm2", "10.0.0.1 10.0.0.2 ")
	r.stop()

	if err := os.WriteFile(conf.learnedFile, []byte(`{"entries": [{"key": 7}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r = h.ready(conf)
	knows(r, "vm2", "")
	claim("vm2", "10.0.0.3")
	knows(r, "vm2", "10.0.0.3 ")
	r.stop()

	off := conf
	off.learning = nil
	r = h.ready(off)
	claim("vm2", "10.0.0.4")
	knows(r, "vm2", "")
	if _, err := os.Stat(conf.learnedFile); !os.IsNotExist(err) {
		t.Errorf("what was learned is kept although nothing is any more: %v", err)
	}
	r.stop()
}
