package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// packetEvents are the events of a mirror's packets in the file that events go to.
func (s *stage) packetEvents(mirror string) (out []event.Event) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.tw.DataDir(), "events", "events.jsonl"))
	must(s.t, err)
	for line := range strings.Lines(string(data)) {
		var e event.Event
		if json.Unmarshal([]byte(line), &e) == nil && e.Event.Dataset == event.DatasetPacket && e.Tapwall.Mirror == mirror {
			if len(line) > 1700 || e.Event.Action == event.ActionPacket && len(line) > 1200 || strings.Contains(line, "GET /") {
				s.t.Fatalf("a document of %d bytes: %s", len(line), line)
			}
			out = append(out, e)
		}
	}
	return out
}

// Scenario 12, the record's part: a request through a tap with the target events is documents, one for each packet that another target of
// the same mirror gets, with who sent it to whom, and is in the file of a third; a sample says what it stands for.
func TestMirrorScenario12Events(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	must(t, s.Serve(s.vm[2], 80))
	s.force("kind: Endpoint\nname: client\nspec: {match: {port: vm1}, labels: {app: client}}\n")
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: all\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: tcp}, {action: accept, " +
		"protocol: udp}]}, targets: [{events: {}}, {port: {name: ids0, create: true}}, {pcap: {file: get}}]}\n---\n" +
		"kind: Mirror\nname: some\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: udp}]}, targets: " +
		"[{events: {sample: 1/10}}]}\n")
	capture := s.capture("ids0")
	c, err := s.vm[1].Dial("tcp", s.vm[2].IPv4, 80, 3*time.Second)
	must(t, err)
	_, err = c.Write([]byte("GET /seen HTTP/1.0\r\n\r\n"))
	must(t, err)
	_, err = c.Read(make([]byte, 8))
	must(t, err)
	_ = c.Close()
	for range 100 {
		s.say(s.vm[1], s.vm[2], 40000, 9, "GET / to the discard service")
	}
	var got []event.Event
	lab.Eventually(t, 10*time.Second, "every packet is a document", func() bool {
		got = s.packetEvents("all")
		return len(got) >= 105 && len(got) == len(capture.Frames(nil))
	})
	if files := s.captured("get"); len(files) != 1 {
		t.Errorf("files %v", files)
	} else if lines := tshark(t, files[0], "http.request", "ip.src", "tcp.dstport", "http.request.uri"); len(lines) != 1 ||
		lines[0] != s.vm[1].IPv4+"\t80\t/seen" {
		t.Errorf("requests in the file: %q", lines)
	}
	request := got[0]
	for _, e := range got {
		if e.Network.Transport == "tcp" {
			request = e
			break
		}
	}
	if x := request; x.Source.IP != s.vm[1].IPv4 || x.Destination.Port != 80 || x.Tapwall.Source.Name != "client" ||
		x.Tapwall.Destination.PortName != "vm2" || x.Network.Direction != "egress" || x.Tapwall.Verdict != event.Mirrored ||
		x.Tapwall.Bridge != "br0" || x.Observer.Ingress.Interface.Name != "vm1" || x.Network.CommunityID == "" {
		t.Errorf("%+v", x)
	}
	sampled := s.packetEvents("some") // the first datagram, and one of ten of the other 99
	if len(sampled) != 10 || sampled[0].Tapwall.Weight != 1 || sampled[1].Tapwall.Weight != 10 || sampled[1].Tapwall.Verdict != event.Sampled {
		t.Errorf("%d documents of 100 datagrams", len(sampled))
	}
	for action, want := range map[string]string{event.ActionPacket: "packet-mirrored:all MIRRORED (TCP Flags: ",
		event.ActionHTTPRequest: "http-request:all MIRRORED (HTTP/1 GET /seen)"} {
		if out := s.tapwall("observe", "--action", action, "--to-port", "80", "--last", "1"); !strings.Contains(out, want) {
			t.Error(out)
		}
	}
}
