package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// following is a stream of packets that somebody reads into a file.
type following struct {
	s     *stage
	file  string
	first chan time.Time // when the first packet had come, behind the section
	done  chan error     // how it ended
}

// stream opens a stream of packets, from the moment on that its head has come.
func (s *stage) stream(query string) (body io.ReadCloser) {
	s.t.Helper()
	resp, err := s.HTTP(0).Get("http://tapwall/v1/captures/" + query)
	must(s.t, err)
	s.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		text, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("%s: %s", resp.Status, text)
	}
	return resp.Body
}

// follow reads a stream into a file until it ends.
func (s *stage) follow(query string) *following {
	s.t.Helper()
	f := &following{s: s, file: filepath.Join(s.t.TempDir(), "stream.pcapng"), first: make(chan time.Time, 1), done: make(chan error, 1)}
	body := s.stream(query)
	head := make([]byte, 1<<16)
	n, err := body.Read(head) // the section comes at once
	must(s.t, err)
	out, err := os.Create(f.file)
	must(s.t, err)
	_, err = out.Write(head[:n])
	must(s.t, err)
	go func() {
		n, err := body.Read(head)
		f.first <- time.Now()
		if err == nil {
			_, _ = out.Write(head[:n])
			_, err = io.Copy(out, body)
		}
		if err == io.EOF {
			err = nil
		}
		out.Close()
		f.done <- err
	}()
	return f
}

// ends waits for the end of a stream, which must be a good one.
func (f *following) ends(within time.Duration) {
	f.s.t.Helper()
	select {
	case err := <-f.done:
		if err != nil {
			f.s.t.Errorf("the stream broke off: %v", err)
		}
	case <-time.After(within):
		f.s.t.Fatalf("the stream did not end within %v", within)
	}
}

// Scenario 12 of mirrors, the live part: packets of a mirror come to who follows it within a second, from a port that the mirror made as
// from one that tapwall reads already, and the stream ends with what it was asked for or with the mirror.
func TestMirrorScenario12Live(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.acquaint(s.vm[1], s.vm[2]) // of a few packets none is ARP
	s.ping3(s.vm[1], s.vm[2])
	s.force(`
kind: Mirror
name: port
spec: {sources: [{port: vm1}], targets: [{port: {name: ids0, create: true}}]}
---
kind: Mirror
name: file
spec: {sources: [{port: vm1}], targets: [{pcap: {file: web}}]}
---
kind: Mirror
name: far
spec: {sources: [{port: vm3}], targets: [{vxlan: {remote: 192.0.2.9}}], enabled: false}
`)
	for _, name := range []string{"port", "file"} {
		s.becomes("mirror", name, policy.PhaseActive, "", "")
	}
	for _, name := range []string{"port", "file"} {
		live := s.follow(name + "?follow=true&packets=4")
		start := time.Now()
		s.ping3(s.vm[1], s.vm[2])
		if took := (<-live.first).Sub(start); took > time.Second {
			t.Errorf("%s: the first packet took %v", name, took)
		}
		live.ends(2 * time.Second)
		lines := tshark(t, live.file, "icmp", "frame.interface_name", "frame.packet_flags_direction", "icmp.type", "ip.src")
		want := []string{"vm1\t0x00000002\t8\t" + s.vm[1].IPv4, "vm1\t0x00000001\t0\t" + s.vm[2].IPv4}
		if len(lines) != 4 || lines[0] != want[0] || lines[1] != want[1] {
			t.Errorf("%s: %q, want 4 packets that begin with %q", name, lines, want)
		}
	}
	timed := s.follow("file?follow=true&duration=1s")
	timed.ends(2 * time.Second)

	// It ends when the mirror does, and what came before is there.
	live := s.follow("port?follow=true")
	s.ping3(s.vm[1], s.vm[2])
	<-live.first
	s.tapwall("mirror", "stop", "port", "--wait")
	live.ends(3 * time.Second)
	if n := len(tshark(t, live.file, "icmp", "ip.src")); n != 6 {
		t.Errorf("%d packets of 6 until the mirror was stopped", n)
	}
	live = s.follow("file?follow=true")
	s.tapwall("delete", "mirror", "file", "--wait")
	live.ends(3 * time.Second)

	for path, want := range map[string]string{
		"/v1/captures/port?follow=true": "tapwall mirror start port",
		"/v1/captures/far?follow=true":  "add the target buffer",
		"/v1/captures/port":             "follow=true",
		"/v1/captures/none?follow=true": "mirror/none",
	} {
		if code, body := s.request("GET", path, ""); code != 409 && code != 404 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	s.tells("captures-read", "packets of mirror port as they came were read by root")
}

// A reader who takes nothing loses packets, which are counted for him, and neither the mirror nor tapwall's memory notices.
func TestMirrorScenario12LiveSlowReader(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: web\nspec: {sources: [{port: vm1}], targets: [{port: {name: ids0, create: true}}]}\n")
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	body := s.stream("web?follow=true")
	before := s.resident()
	if out, err := s.vm[1].Run("ping", "-f", "-c", "20000", "-s", "1400", "-q", s.vm[2].IPv4); err != nil { // 56 MB both ways
		t.Fatalf("%v\n%s", err, out)
	}
	if grown := s.resident() - before; grown > 24<<10 {
		t.Errorf("tapwall grew by %d KiB", grown)
	}
	file := filepath.Join(t.TempDir(), "slow.pcapng")
	out, err := os.Create(file)
	must(t, err)
	defer out.Close()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, body)
		copied <- err
	}()
	time.Sleep(500 * time.Millisecond) // he catches up
	s.ping3(s.vm[1], s.vm[2])
	settle()
	s.tapwall("delete", "mirror", "web", "--wait")
	must(t, <-copied)
	got, lost := 0, 0
	for _, text := range tshark(t, file, "icmp", "frame.drop_count") {
		got++
		n, _ := strconv.Atoi(text)
		lost += n
	}
	t.Logf("%d packets came and %d are told of as lost", got, lost)
	if lost < 10000 || got+lost < 40006 || got+lost > 40026 { // what was lost may be some ARP
		t.Errorf("%d packets came and %d are told of as lost, of 40006", got, lost)
	}
}
