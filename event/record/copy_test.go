package record_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// A packet that a mirror copied is a document about the packet: who sent it to whom, and which mirror it came by, without a rule.
func TestMirrorCopyDocument(t *testing.T) {
	r, _ := start(t, record.Options{Host: "node1"})
	pi := record.PacketIn{Data: syn, TotalLen: 1514, Time: noon, InPortName: "tap1", Copy: &record.MirrorCopy{Mirror: "web-tap", Weight: 100,
		Direction: event.Egress, Source: &event.Endpoint{Name: "web1"}}}
	r.HandleCopy("br0", pi)
	settle(t, r)
	got := r.Recent(event.Filter{}).Items[0]
	copied := *got
	got = &copied
	got.Event.ID, got.Event.Sequence, got.Event.Created = "", 0, time.Time{}
	want := event.Event{
		Timestamp: noon, ECS: event.ECS{Version: "9.4.0"},
		Event: event.Meta{Kind: "event", Category: []string{"network"}, Type: []string{"info"}, Action: event.ActionPacket,
			Dataset: event.DatasetPacket, Module: "tapwall", Provider: "mirror"},
		Source:      &event.Side{IP: "10.0.0.5", Port: 40108, MAC: "02-00-00-00-00-05"},
		Destination: &event.Side{IP: "10.0.0.9", Port: 5432, MAC: "02-00-00-00-00-09"},
		Network: &event.Network{Type: "ipv4", Transport: "tcp", IANANumber: "6", Direction: "egress", Bytes: 1514, Packets: 1,
			CommunityID: got.Network.CommunityID},
		Host:     &event.Host{Name: "node1"},
		Observer: &event.Observer{Name: "node1", Ingress: &event.Port{Interface: event.Interface{Name: "tap1", ID: "0"}}},
		Related:  &event.Related{IP: []string{"10.0.0.5", "10.0.0.9"}},
		Tapwall: event.Tapwall{Schema: 1, Verdict: event.Sampled, Bridge: "br0", Mirror: "web-tap", Weight: 100,
			TCP: &event.TCP{Flags: []string{"SYN"}}, Source: &event.Endpoint{Name: "web1"}, Decode: &event.Decode{Status: "ok"}},
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if line := event.Compact(got, event.PrintOptions{Location: time.UTC}); line !=
		"Nov 20 12:00:00.123: web1(10.0.0.5):40108 -> 10.0.0.9:5432 packet-mirrored:web-tap SAMPLED (TCP Flags: SYN)" {
		t.Error(line)
	}
	if json, err := event.AppendJSON(nil, got); err != nil || len(json) > 1024 {
		t.Errorf("%d bytes: %s", len(json), json)
	}
}

// Copies fill the queue to a half only, what finds no room is counted, and verdicts find theirs.
func TestMirrorCopiesLeaveRoomForVerdicts(t *testing.T) {
	r, err := record.NewRecorder(record.Options{QueueLen: 8}) // does not run: nothing leaves the queue
	if err != nil {
		t.Fatal(err)
	}
	pi := record.PacketIn{Data: syn, Copy: &record.MirrorCopy{Mirror: "m"}}
	for range 10 {
		r.HandleCopy("br0", pi)
	}
	for range 4 {
		r.HandlePacketIn("br0", newSYN(ingressDrop))
	}
	c := r.Counters()
	if c.Observed != 14 || c.Pending != 8 || c.Lost["of_queue"] != 6 || c.PacketIns != 4 {
		t.Errorf("%+v", c)
	}
}
