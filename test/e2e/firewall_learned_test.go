package e2e

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// learnedStage is an entityStage whose vm3 and vm4, on br1, are a client and an evil one by their external_ids alone.
func learnedStage(t *testing.T, config string) *stage {
	t.Helper()
	s, _ := entityStage(t, "--config", configFile(t, config))
	vm4, err := s.AddVM("vm4", "br1", 4, "role=evil")
	must(t, err)
	s.vm = append(s.vm, vm4)
	_, err = s.Vsctl("set", "interface", "vm3", "external_ids:role=client")
	must(t, err)
	s.apply(`
kind: Policy
name: p
spec:
  appliesTo: [{port: vm1}]
  ingress:
  - {name: no, action: deny, from: [{labels: {role: evil}}]}
  - {name: in, action: allow, from: [{labels: {role: client}}]}
`)
	return s
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tapwall.yaml")
	must(t, os.WriteFile(name, []byte("limits: {pickup-window: 0s}\n"+text), 0o600))
	return name
}

// learned are the addresses of a machine as /v1/workloads has them, with their sources.
func (s *stage) learned(vm *lab.VM) (out []string) {
	s.t.Helper()
	var doc struct {
		Items []struct {
			Port    string
			Learned []struct{ Address, Source string }
		}
	}
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", "workloads", "-o", "json")), &doc))
	for _, w := range doc.Items {
		for _, a := range w.Learned {
			if w.Port == vm.Port {
				out = append(out, a.Address+" "+a.Source)
			}
		}
	}
	return out
}

// forget has a machine ask anew for everybody's MAC address.
func (s *stage) forget(vms ...*lab.VM) {
	s.t.Helper()
	for _, vm := range vms {
		_, err := vm.Run("ip", "neigh", "flush", "all")
		must(s.t, err)
	}
}

// acknowledgement is that of a DHCP server which gives a machine an address.
func acknowledgement(t *testing.T, server, client *lab.VM, address string, lease uint32) []byte {
	t.Helper()
	hw := mustMAC(t, client.MAC)
	d := &layers.DHCPv4{Operation: layers.DHCPOpReply, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, ClientHWAddr: hw,
		YourClientIP: net.ParseIP(address).To4(), Options: layers.DHCPOptions{
			layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(layers.DHCPMsgTypeAck)}),
			layers.NewDHCPOption(layers.DHCPOptLeaseTime, binary.BigEndian.AppendUint32(nil, lease))}}
	frame, err := lab.CraftFrame(server.MAC, client.MAC, layers.EthernetTypeIPv4, &layers.IPv4{Version: 4, TTL: 64,
		Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(server.IPv4), DstIP: net.ParseIP(address)}, &layers.UDP{SrcPort: 67, DstPort: 68}, d)
	must(t, err)
	return frame
}

// Labels reach a peer on another bridge without an Endpoint resource, by the addresses that it speaks of itself. What somebody has is not
// another's for the claiming, what is declared goes before, and all of it outlives a restart.
func TestFirewallLearned(t *testing.T) {
	t.Parallel()
	s := learnedStage(t, "learning: {disabled: true}")
	vm1, vm2, vm3, vm4 := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	reaches := func(to string) bool { return vm3.CanConnect(to, 5001, 3*time.Second) }
	s.forget(vm1, vm3)
	if reaches(vm1.IPv4) {
		t.Fatal("a label reaches another bridge although nothing is learned")
	}
	// The control: on its own bridge the label is enough.
	_, err := s.Vsctl("set", "interface", "vm2", "external_ids:role=client")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "a peer of the bridge is known by its port", func() bool {
		return vm2.CanConnect(vm1.IPv4, 5001, time.Second)
	})
	must(t, s.tw.Stop())
	s.tw, err = s.StartTapwall("--bridge", "br0=owned", "--bridge", "br1=owned", "--config", configFile(t, ""))
	must(t, err)

	s.forget(vm1, vm3)
	for _, to := range []string{vm1.IPv4, vm1.IPv6} {
		lab.Eventually(t, 5*time.Second, "a label reaches the other bridge once its endpoint has spoken", func() bool { return reaches(to) })
	}
	lab.Eventually(t, 5*time.Second, "what was learned is told", func() bool {
		return slices.Equal(s.learned(vm3), []string{vm3.IPv4 + " arp", vm3.IPv6 + " nd"})
	})

	// Others claim its address, in every way, and it goes on; what nobody has, they are believed.
	f := forgery{t, vm4}
	must(t, vm4.Send(f.arp(vm4.MAC, vm3.IPv4), f.arp(vm3.MAC, vm3.IPv4), f.nd(136, "fe80::4", vm3.IPv6, vm4.MAC),
		f.arp(vm3.MAC, "10.77.0.201"), f.frame(vm3.MAC, "ff:ff:ff:ff:ff:ff", layers.EthernetTypeARP, arpOf(t, vm3.MAC, "10.77.0.202")),
		acknowledgement(t, vm4, vm4, "10.77.0.203", 600), f.arp(vm4.MAC, "224.0.0.9"), f.arp(vm4.MAC, "127.0.0.9"),
		f.arp(vm4.MAC, "198.51.100.9"), f.nd(136, "fe80::4", "2001:db8::9", vm4.MAC), f.arp(vm4.MAC, "10.77.0.254"),
		f.arp(vm4.MAC, "10.77.0.200")))
	lab.Eventually(t, 5*time.Second, "an address that nobody has is learned", func() bool {
		return slices.Contains(s.learned(vm4), "10.77.0.200 arp")
	})
	for _, a := range s.learned(vm4) {
		if a = strings.Fields(a)[0]; a != "10.77.0.200" && a != vm4.IPv4 && a != vm4.IPv6 {
			t.Errorf("vm4 is believed to have %s", a)
		}
	}
	s.forget(vm1)
	for _, to := range []string{vm1.IPv4, vm1.IPv6} {
		if !reaches(to) {
			t.Errorf("who claims the address of a client has cut it off from %s", to)
		}
	}
	// What it is believed counts: the client's other address is the client's, until the evil one has it.
	uses := func(vm *lab.VM, address string) bool {
		s.forget(vm)
		_, err := vm.Run("ping", "-I", address, "-c", "1", "-W", "1", vm1.IPv4)
		return err == nil
	}
	for address, vms := range map[string][]*lab.VM{"10.77.0.33/24": {vm3}, "10.77.0.200/24": {vm3, vm4}} {
		for _, vm := range vms {
			_, err := vm.Run("ip", "addr", "add", address, "dev", "eth0")
			must(t, err)
		}
	}
	lab.Eventually(t, 8*time.Second, "another address of the client is learned", func() bool { return uses(vm3, "10.77.0.33") })
	if uses(vm3, "10.77.0.200") || uses(vm4, "10.77.0.200") {
		t.Error("an address that is known as an evil one's passes as a client's")
	}
	if out := s.tapwall("get", "hosts", "-o", "json"); !strings.Contains(out, "ADDRESS_REFUSED") || !strings.Contains(out, vm3.IPv4) {
		t.Errorf("nobody tells of the claims that were refused:\n%s", out)
	}

	// What a guard drops is not learned; without the guard the same is.
	s.apply(guarded(vm4, ""))
	s.revalidated()
	must(t, vm4.Send(f.arp(vm4.MAC, "10.77.0.210")))
	time.Sleep(1500 * time.Millisecond)
	if got := s.learned(vm4); len(got) != 0 {
		t.Errorf("of an endpoint that is held to its addresses, these are learned: %v", got)
	}
	s.apply(guarded(vm4, ", antiSpoof: off"))
	s.revalidated()
	lab.Eventually(t, 5*time.Second, "without the guard it is learned", func() bool {
		must(t, vm4.Send(f.arp(vm4.MAC, "10.77.0.210")))
		return slices.Contains(s.learned(vm4), "10.77.0.210 arp")
	})
	s.tapwall("delete", "endpoint", vm4.Name, "--wait")

	// DHCP: servers that are no endpoints are believed, for the time of the lease.
	who := s.VMs["who"]
	must(t, who.Send(acknowledgement(t, who, vm3, "10.77.0.44", 600)))
	lab.Eventually(t, 5*time.Second, "an address is learned of a DHCP server", func() bool {
		return slices.Contains(s.learned(vm3), "10.77.0.44 dhcp")
	})

	// A restart keeps it all, and sends nothing.
	before, had := s.flows(), s.learned(vm3)
	time.Sleep(1500 * time.Millisecond)                            // it is written within a second
	lab.Eventually(t, 5*time.Second, "all is saved", func() bool { // else marks say what is not
		out, err := s.Ofctl("dump-flows", "br0", "table=229")
		must(t, err)
		return !strings.Contains(out, "priority=2,")
	})
	s.tw.Kill()
	must(t, s.tw.Start())
	if after := s.flows(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("a restart changed the flows:\n%s\nnow\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	for _, bridge := range []string{"br0", "br1"} {
		if n := s.metric(sprintf(`tapwall_flow_mods_total{bridge="%s"}`, bridge)); n != 0 {
			t.Errorf("a restart sent %v flow-mods to %s", n, bridge)
		}
	}
	if after := s.learned(vm3); !slices.Equal(had, after) {
		t.Errorf("after a restart %v is known of %v", after, had)
	}
	if !reaches(vm1.IPv4) {
		t.Error("after a restart the label reaches the other bridge no more")
	}

	// What is declared goes before what was learned, with a warning that names both.
	s.apply("kind: Endpoint\nname: four\nspec: {match: {port: vm4}, addresses: [10.77.0.3]}")
	if s.mustNotConnect(vm3, vm1.IPv4, 5001); slices.Contains(s.learned(vm3), vm3.IPv4+" arp") {
		t.Error("an address is learned of one endpoint and declared of another")
	}
	if out := s.tapwall("get", "hosts", "-o", "json"); !strings.Contains(out, "10.77.0.3, which endpoint if-vm4 declares") {
		t.Errorf("nobody tells that what was learned is declared:\n%s", out)
	}
	// Who goes is forgotten.
	must(t, s.Unplug(vm3))
	lab.Eventually(t, 5*time.Second, "who is unplugged is forgotten", func() bool {
		return !strings.Contains(strings.Join(s.flows(), "\n"), "10.77.0.44")
	})
}

func arpOf(t *testing.T, mac, ip string) *layers.ARP {
	return &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation:       2,
		SourceHwAddress: mustMAC(t, mac), SourceProtAddress: net.ParseIP(ip).To4(), DstHwAddress: make([]byte, 6),
		DstProtAddress: net.ParseIP(ip).To4()}
}

// An address that is not heard of is forgotten after its time and learned again when it is; a flood of claims makes no flood of changes,
// and one endpoint has no more than its share.
func TestFirewallLearnedAgesAndIsBounded(t *testing.T) {
	t.Parallel()
	s := learnedStage(t, "learning: {age: 3s, addresses-per-endpoint: 4}")
	vm1, vm3, vm4 := s.vm[1], s.vm[3], s.vm[4]
	reaches := func() bool { return vm3.CanConnect(vm1.IPv4, 5001, 3*time.Second) }
	s.forget(vm1, vm3)
	lab.Eventually(t, 5*time.Second, "the client is known", reaches)
	s.acquaint(vm1, vm3)
	lab.Eventually(t, 15*time.Second, "what is not heard of is forgotten", func() bool {
		return !slices.Contains(s.learned(vm3), vm3.IPv4+" arp")
	})
	s.mustNotConnect(vm3, vm1.IPv4, 5001)
	if out := s.tapwall("observe", "--action", "address-forgotten", "--last", "20", "-o", "json"); !strings.Contains(out, vm3.IPv4) {
		t.Errorf("no event tells of it:\n%s", out)
	}
	for _, x := range [][2]*lab.VM{{vm1, vm3}, {vm3, vm1}} {
		_, err := x[0].Run("ip", "neigh", "del", x[1].IPv4, "dev", "eth0")
		must(t, err)
	}
	lab.Eventually(t, 5*time.Second, "it is known again", reaches)

	var flood [][]byte
	for i := range 2000 {
		flood = append(flood, forgery{t, vm4}.arp(vm4.MAC, sprintf("10.78.%d.%d", i/250, i%250+1)))
	}
	mods := s.metric(`tapwall_flow_mods_total{bridge="br0"}`)
	must(t, vm4.Send(flood...))
	lab.Eventually(t, 5*time.Second, "some of the flood is learned", func() bool { return len(s.learned(vm4)) >= 4 })
	time.Sleep(2 * time.Second)
	if n := len(s.learned(vm4)); n > 4 {
		t.Errorf("%d addresses are learned of an endpoint that may have 4", n)
	}
	if n := s.metric(`tapwall_flow_mods_total{bridge="br0"}`) - mods; n > 60 {
		t.Errorf("a flood of claims sent %v flow-mods", n)
	}
	if n := s.metric(`tapwall_address_claims_total{bridge="br1",outcome="full"}`); n == 0 {
		t.Error("no claim was beyond the bound, so the flood was none")
	}
	lab.Eventually(t, 5*time.Second, "the client is known after the flood", func() bool { s.forget(vm3); return reaches() })
}

// Of two hosts of one process, each knows what the other has learned: labels of machines that nobody describes reach it, also when the
// process begins anew without the other.
func TestFirewallLearnedOfAllHosts(t *testing.T) {
	t.Parallel()
	a, b := entityHosts(t, "")
	reaches := func() bool { return b.vm[1].CanConnect(a.vm[1].IPv4, 5001, 3*time.Second) }
	a.apply(`
kind: Policy
name: p
spec: {appliesTo: [{port: vm1}], ingress: [{name: in, action: allow, from: [{host: two, labels: {app: db}}]}]}
`)
	b.forget(b.vm[1])
	lab.Eventually(t, 8*time.Second, "labels reach the other host", reaches)
	a.apply("kind: Policy\nname: p\nspec: {appliesTo: [{port: vm1}], ingress: [{name: in, action: allow, from: [{labels: {app: other}}]}]}")
	if a.mustNotConnect(b.vm[1], a.vm[1].IPv4, 5001); !slices.Contains(a.learned(b.vm[1]), b.vm[1].IPv4+" arp") {
		t.Error("it was not learned, so who passed was somebody else")
	}
}
