package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/pki"
	"github.com/tapwall/tapwall/internal/pki/pkitest"
	"github.com/tapwall/tapwall/test/lab"
)

// rack is a host as docs/hosts.md supposes it: a client and a web server on br0, a port ids0.
func rack(t *testing.T) *stage {
	t.Helper()
	s := &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}
	must(t, s.AddBridge("br0"))
	for i, app := range []string{"client", "web"} {
		vm, err := s.AddVM(fmt.Sprintf("vm%d", i+1), "br0", i+1, "app="+app)
		must(t, err)
		must(t, s.Serve(vm, 80))
		s.vm = append(s.vm, vm)
	}
	must(t, s.AddTargetPort("ids0"))
	return s
}

// put copies a certificate, its key and the CA to where the page says.
func put(t *testing.T, f pki.Files, cert, key, ca string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(cert), 0o700))
	for from, to := range map[string]string{f.Cert: cert, f.Key: key, f.CA: ca} {
		b, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(to, b, 0o600))
	}
}

// The commands of docs/hosts.md and the documents of examples/hosts do what the page says, one host by TCP and one by TLS, from a third
// machine.
func TestHosts_Documented(t *testing.T) {
	t.Parallel()
	config, err := os.ReadFile("../../examples/hosts/tapwall.yaml")
	must(t, err)
	_, body, _ := strings.Cut(string(config), "\n")
	if shown := blocks(t, "hosts.md", "yaml")[0]; shown != "# examples/hosts/tapwall.yaml\n"+body {
		t.Errorf("docs/hosts.md shows another configuration than examples/hosts:\n%s", shown)
	}

	manager, racks := lab.Require(t), map[string]*stage{"rack1": rack(t), "rack2": rack(t)}
	must(t, manager.Link(racks["rack1"].Lab, "192.0.2.1", "192.0.2.11"))
	must(t, manager.Link(racks["rack2"].Lab, "192.0.2.1", "192.0.2.12"))
	etc := filepath.Join(manager.Dir, "etc")
	switches, tapwalls := pkitest.NewAuthority(t, "switchca"), pkitest.NewAuthority(t, "controllerca")
	put(t, switches.Issue("rack2", tapwalls), etc+"/openvswitch/cert.pem", etc+"/openvswitch/key.pem", etc+"/openvswitch/cacert.pem")
	put(t, tapwalls.Issue("tapwall", switches), etc+"/tapwall/ovs-cert.pem", etc+"/tapwall/ovs-key.pem", etc+"/tapwall/ovs-ca.pem")
	placed := func(text string) string { return strings.ReplaceAll(text, "/etc/", etc+"/") }
	file := filepath.Join(manager.Dir, "tapwall.yaml")
	must(t, os.WriteFile(file, []byte(placed(string(config))), 0o600))

	reachable := func(s *stage) bool { return s.vm[1].CanConnect(s.vm[2].IPv4, 80, 3*time.Second) }
	for name, s := range racks { // the control
		if !reachable(s) {
			t.Fatalf("%s: no connection to the web server without tapwall", name)
		}
	}
	var tw *lab.Tapwall
	prompt := regexp.MustCompile(`^(\w+)# (.*)$`)
	ran := 0
	for _, line := range strings.Split(strings.Join(blocks(t, "hosts.md", "console"), ""), "\n") {
		m := prompt.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at, cmd := m[1], placed(m[2])
		ran++
		switch {
		case at != "manager":
			c := exec.Command("sh", "-c", cmd)
			c.Env = append(os.Environ(), "OVS_RUNDIR="+racks[at].Dir)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", line, err, out)
			}
		case strings.HasPrefix(cmd, "tapwall serve "):
			if cmd != "tapwall serve --config examples/hosts/tapwall.yaml &" {
				t.Fatalf("%s is not what this test knows how to start", cmd)
			}
			tw, err = manager.StartTapwall("--config", file)
			must(t, err)
			for _, s := range racks {
				s.tw = tw
			}
		default:
			repair := strings.Contains(cmd, "delete policy repair")
			if repair {
				racks["rack2"].mustNotConnect(racks["rack2"].vm[1], racks["rack2"].vm[2].IPv4, 80)
			}
			f := strings.Fields(strings.ReplaceAll(cmd, " examples/", " ../../examples/"))
			out, err := tw.Run(f[1:]...)
			if err != nil {
				t.Fatalf("%s: %v: %s", line, err, out)
			}
			t.Logf("%s\n%s", line, out)
			if strings.Contains(out, "SHADOWED") {
				t.Errorf("%s: a rule of rack2 is taken for one of rack1", cmd)
			}
			switch {
			case strings.Contains(cmd, "apply"):
				racks["rack1"].mustConnect(racks["rack1"].vm[1], racks["rack1"].vm[2].IPv4, 80)
				capture, err := racks["rack2"].Capture(racks["rack2"].Switch, "ids0")
				must(t, err)
				racks["rack2"].mustNotConnect(racks["rack2"].vm[1], racks["rack2"].vm[2].IPv4, 80)
				sendDatagram(t, racks["rack2"].vm[2], 0, racks["rack2"].vm[1].IPv4, 9)
				lab.Eventually(t, 3*time.Second, "the tap of rack2 has what its web server sends",
					func() bool { return len(capture.Frames(lab.UDPTo(9))) > 0 })
				lab.Eventually(t, 3*time.Second, "both verdicts are recorded", func() bool {
					said := racks["rack1"].tapwall("observe", "--last", "10")
					return strings.Contains(said, "web/from-clients") && strings.Contains(said, "repair/closed")
				})
			case strings.Contains(cmd, "status"), strings.Contains(cmd, "describe"):
				if !strings.Contains(out, "rack1") || !strings.Contains(out, "rack2") {
					t.Errorf("%s does not speak of both hosts:\n%s", cmd, out)
				}
			case repair:
				racks["rack2"].mustConnect(racks["rack2"].vm[1], racks["rack2"].vm[2].IPv4, 80)
			}
		}
	}
	if ran != 11 {
		t.Errorf("%d commands were run; if docs/hosts.md has changed, this test has to follow", ran)
	}
	for name, want := range map[string]string{"rack1": "ptcp:6653:192.0.2.11", "rack2": "pssl:6653:192.0.2.12"} {
		if rows, err := racks[name].Vsctl("--columns=target", "--no-heading", "list", "Controller"); err != nil || !strings.Contains(rows, want) {
			t.Errorf("Controller rows of %s: %s %v", name, rows, err)
		}
	}
}
