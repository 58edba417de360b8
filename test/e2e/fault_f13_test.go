package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// status reads the status of a resource.
func (s *stage) status(kind, name string) policy.Status {
	s.t.Helper()
	var doc struct{ Status policy.Status }
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", kind, name, "-o", "json")), &doc))
	return doc.Status
}

// becomes waits for a phase and a part of the message.
func (s *stage) becomes(kind, name string, phase policy.Phase, reason policy.Reason, message string) {
	s.t.Helper()
	var st policy.Status
	defer func() {
		if s.t.Failed() {
			s.t.Logf("%s %s: %s %s %q", kind, name, st.Phase, st.Reason, st.Message)
		}
	}()
	lab.Eventually(s.t, 15*time.Second, sprintf("%s %s is %s %s: %s", kind, name, phase, reason, message), func() bool {
		st = s.status(kind, name)
		return st.Phase == phase && st.Reason == reason && strings.Contains(st.Message, message)
	})
}

// warned reports whether one of the warnings has the code and the part of a message.
func warned(ws []policy.Warning, code policy.Code, part string) bool {
	for _, w := range ws {
		if w.Code == code && strings.Contains(w.Message, part) {
			return true
		}
	}
	return false
}

// A row whose device was never there, or went, has a living port's iface-id and MAC and comes first in every order. It takes neither the
// port's place nor its name, and is named wherever the port is.
func TestFault_F13_DeadRowClaimsNothing(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	wall := "kind: Endpoint\nname: e1\nspec: {match: {neutronPort: if-vm1}, labels: {app: web}, addresses: [10.77.0.1]}\n---\n" +
		"kind: Group\nname: webs\nspec: {members: [{labels: {app: web}}]}\n---\n" +
		"kind: Policy\nname: vm1\nspec:\n  appliesTo: [{port: vm1}]\n  ingress:\n  - {name: r, action: allow, from: [{port: vm2}], services: " +
		"[{protocol: tcp, ports: [\"5001\"]}]}\n"
	s.apply(wall)
	s.mustConnect(s.vm[2], s.vm[1].IPv4, 5001)
	s.mustNotConnect(s.vm[2], s.vm[1].IPv4, 5002)
	for _, c := range []struct {
		name string
		code policy.Code
		add  func()
	}{
		{"never there, one iface-id", policy.WarnDuplicateIface, func() {
			_, err := s.Vsctl("--", "add-port", "br0", "aaa", "--", "set", "interface", "aaa", "external_ids:iface-id=if-vm1",
				`external_ids:attached-mac="`+s.vm[1].MAC+`"`)
			must(t, err)
		}},
		{"never there, one MAC", policy.WarnDuplicateMAC, func() {
			_, err := s.Vsctl("--", "add-port", "br0", "aaa", "--", "set", "interface", "aaa", `external_ids:attached-mac="`+s.vm[1].MAC+`"`)
			must(t, err)
		}},
		{"gone", policy.WarnDuplicateIface, func() {
			for _, cmd := range []string{"link add aaa type veth peer name aab", "link set aaa up"} {
				_, err := s.Switch.Run("ip", strings.Fields(cmd)...)
				must(t, err)
			}
			_, err := s.Vsctl("--", "add-port", "br0", "aaa")
			must(t, err)
			_, err = s.Switch.Run("ip", "link", "del", "aaa")
			must(t, err)
			lab.Eventually(t, 10*time.Second, "the switch takes the MAC back", func() bool {
				out, err := s.Vsctl("--bare", "get", "interface", "aaa", "mac_in_use")
				return err == nil && strings.TrimSpace(out) == "[]"
			})
			_, err = s.Vsctl("set", "interface", "aaa", "external_ids:iface-id=if-vm1", `external_ids:attached-mac="`+s.vm[1].MAC+`"`)
			must(t, err)
		}},
	} {
		c.add()
		lab.Eventually(t, 10*time.Second, c.name+": the host says so", func() bool {
			return strings.Contains(s.tapwall("status"), "warning: "+string(c.code)+": port row br0/aaa (no device: ")
		})
		for _, r := range [][2]string{{"policy", "vm1"}, {"endpoint", "e1"}, {"group", "webs"}} {
			if st := s.status(r[0], r[1]); !warned(st.Warnings, c.code, "br0/aaa") || st.Phase != policy.PhaseActive {
				t.Errorf("%s: %s %s: %+v", c.name, r[0], r[1], st)
			}
		}
		for _, doc := range strings.Split(strings.Replace(wall, "app: web}", "app: web, round: \""+c.name+"\"}", 1), "---\n") {
			if strings.Contains(doc, "kind: Endpoint") {
				out, err := s.tw.RunInput(doc, "apply", "-f", "-", "--wait")
				if must(t, err); !strings.Contains(out, "warning: "+string(c.code)) || !strings.Contains(out, "br0/aaa") {
					t.Errorf("%s: the answer of apply:\n%s", c.name, out)
				}
			}
		}
		s.mustConnect(s.vm[2], s.vm[1].IPv4, 5001)
		s.mustNotConnect(s.vm[2], s.vm[1].IPv4, 5002)
		s.mustNotConnect(s.vm[3], s.vm[1].IPv4, 5001)
		_, err := s.Vsctl("--", "del-port", "br0", "aaa")
		must(t, err)
		lab.Eventually(t, 10*time.Second, c.name+": nothing is said any more", func() bool {
			return !strings.Contains(s.tapwall("status"),
				"warning")
		})
	}
	// Two that live: both are told.
	_, err := s.Vsctl("set", "interface", "vm3", "external_ids:iface-id=if-vm1", `external_ids:attached-mac="`+s.vm[1].MAC+`"`)
	must(t, err)
	s.apply(allowPorts("vm3", "vm3", "vm2", "5001"))
	for _, name := range []string{"vm1", "vm3"} {
		for _, code := range []policy.Code{policy.WarnDuplicateMAC, policy.WarnDuplicateIface} {
			lab.Eventually(t, 5*time.Second, name+" has "+string(code), func() bool {
				return warned(s.status("policy", name).Warnings, code,
					"vm3")
			})
		}
	}
}

// A mirror that copies from nothing, or to nowhere, does not say that it is active.
func TestFault_F13_MirrorOfDeadDevice(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	must(t, s.AddTargetPort("snk"))
	sw := func(args string) {
		_, err := s.Switch.Run("ip", strings.Fields(args)...)
		must(t, err)
	}
	mirror := func(name, sources, target string) {
		_, err := s.tw.RunInput("kind: Mirror\nname: "+name+"\nspec: {sources: ["+sources+"], targets: [{port: "+target+"}]}\n", "apply", "-f",
			"-")
		must(t, err)
	}
	mirror("a", "{port: vm1}", "{name: snk}")
	s.becomes("mirror", "a", policy.PhaseActive, "", "")
	capture, err := s.Capture(s.Switch, "snk")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	lab.Eventually(t, 5*time.Second, "copies arrive", func() bool { return len(capture.Frames(lab.ICMP)) >= 6 })

	sw("link set vm1 down")
	s.becomes("mirror", "a", policy.PhaseDegraded, policy.ReasonSourceDown, "source vm1 of bridge br0: it is down (admin_state)")
	sw("link set vm1 up")
	s.becomes("mirror", "a", policy.PhaseActive, "", "")
	_, err = s.vm[1].Run("ip", "link", "set", "eth0", "down")
	must(t, err)
	s.becomes("mirror", "a", policy.PhaseDegraded, policy.ReasonSourceDown, "source vm1 of bridge br0: it has no link")
	_, err = s.vm[1].Run("ip", "link", "set", "eth0", "up")
	must(t, err)
	s.becomes("mirror", "a", policy.PhaseActive, "", "")
	sw("link set snk down")
	s.becomes("mirror", "a", policy.PhaseDegraded, policy.ReasonTargetDown, "target snk of bridge br0: it is down (admin_state)")
	sw("link set snk up")
	s.becomes("mirror", "a", policy.PhaseActive, "", "")

	// By a label, of which one machine is left; the whole bridge is not one idle port of it.
	mirror("b", "{vm: uuid-vm1}, {vm: uuid-vm2}", "{name: ids0, create: true}")
	mirror("c", "{bridge: br0}", "{name: ids1, create: true}")
	s.becomes("mirror", "b", policy.PhaseActive, "", "")
	s.becomes("mirror", "c", policy.PhaseActive, "", "")
	sw("link del vm2")
	s.becomes("mirror", "b", policy.PhaseDegraded, policy.ReasonSourceMissing, "source vm2 of bridge br0: its device is gone")
	s.becomes("mirror", "c", policy.PhaseActive, "", "")
	sw("link del snk")
	s.becomes("mirror", "a", policy.PhaseDegraded, policy.ReasonTargetMissing, "target snk of bridge br0: its device is gone")
	// What tapwall made it makes again.
	sw("link del ids1")
	lab.Eventually(t, 15*time.Second, "ids1 is back", func() bool { _, err := s.Switch.Run("ip", "link", "show", "ids1"); return err == nil })
	s.becomes("mirror", "c", policy.PhaseActive, "", "")

	// Never there: Open vSwitch's own words. A bond is there while one of its members is.
	for _, args := range []string{"--may-exist add-port br0 never", "--may-exist add-port br0 nowhere",
		"--may-exist add-port br0 tun0 -- set interface tun0 type=vxlan options:remote_ip=192.0.2.1",
		"--may-exist add-port br0 tun1 -- set interface tun1 type=vxlan options:remote_ip=192.0.2.1",
		"add-bond br0 bond0 nope0 nope1 bond_mode=active-backup"} {
		_, err := s.Vsctl(append([]string{"--"}, strings.Fields(args)...)...)
		must(t, err)
	}
	const noDevice = "could not open network device never (No such device)"
	mirror("d", "{port: never}", "{name: ids2, create: true}")
	mirror("e", "{port: vm1}", "{name: nowhere}")
	mirror("f", "{port: bond0}", "{name: ids3, create: true}")
	tunnels, err := s.Vsctl("--bare", "--columns=name", "find", "interface", "type=vxlan", "ofport=-1")
	must(t, err)
	mirror("g", "{port: "+strings.TrimSpace(tunnels)+"}", "{name: ids4, create: true}")
	s.becomes("mirror", "d", policy.PhaseDegraded, policy.ReasonSourceMissing, noDevice)
	s.becomes("mirror", "e", policy.PhaseDegraded, policy.ReasonTargetMissing, strings.ReplaceAll(noDevice, "never", "nowhere"))
	s.becomes("mirror", "f", policy.PhaseDegraded, policy.ReasonSourceMissing,
		"nope0: could not open network device nope0 (No such device); nope1: ")
	s.becomes("mirror", "g", policy.PhaseDegraded, policy.ReasonSourceMissing, "File exists")
	sw("link add nope1 type veth peer name nope2")
	sw("link set nope2 up")
	sw("link set nope1 up")
	_, err = s.Vsctl("set", "bridge", "br0", "external_ids:look=again") // the switch looks for devices when its configuration changes
	must(t, err)
	s.becomes("mirror", "f", policy.PhaseActive, "", "")
}
