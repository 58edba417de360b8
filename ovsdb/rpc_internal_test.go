package ovsdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
)

// fuzzed is a session whose rows are a small database, as far as the schema of the installed Open vSwitch goes.
func fuzzed(t testing.TB, schema []byte) *session {
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far) }() // what is sent
	t.Cleanup(func() { _ = near.Close() })
	log := slog.New(slog.DiscardHandler)
	s := &session{c: &Client{log: log}, peer: newPeer(t.Context(), near, log), dirty: make(chan struct{}, 1)}
	if err := s.makeCache(schema); err != nil {
		t.Fatal(err)
	}
	s.begun = true
	if err := s.populate([]byte(`{"Open_vSwitch":{"11111111-1111-1111-1111-111111111111":{"initial":{
		"bridges":["uuid","22222222-2222-2222-2222-222222222222"],"external_ids":["map",[["system-id","h"]]],"next_cfg":1,"cur_cfg":1}}},
		"Bridge":{"22222222-2222-2222-2222-222222222222":{"initial":{"name":"br0","ports":["uuid","33333333-3333-3333-3333-333333333333"]}}},
		"Port":{"33333333-3333-3333-3333-333333333333":{"initial":{"name":"p","tag":["set",[]],
		"interfaces":["uuid","44444444-4444-4444-4444-444444444444"]}}},
		"Interface":{"44444444-4444-4444-4444-444444444444":{"initial":{"name":"p","ofport":1}}}}`)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever a server says after the rows: it does no worse than end the connection, and what is made of the rows does not panic.
func FuzzServer(f *testing.F) {
	schema, err := os.ReadFile("/usr/share/openvswitch/vswitch.ovsschema")
	if err != nil {
		f.Skip(err)
	}
	for _, s := range []string{
		`{}`, `{"id":"1","result":[]}`, `{"method":"echo","params":[],"id":1}`,
		`{"method":"update2","params":["tapwall",{"Port":{"33333333-3333-3333-3333-333333333333":{"modify":{"tag":5,"trunks":["set",[1,2]]}}}}]}`,
		`{"method":"update2","params":["tapwall",{"Interface":{"44444444-4444-4444-4444-444444444444":{"delete":null}}}]}`,
		`{"method":"update2","params":["tapwall",{"Bridge":{"22222222-2222-2222-2222-222222222222":{"modify":{"external_ids":["map",[["a","b"]]],
		"flow_tables":["map",[[5,["uuid","55555555-5555-5555-5555-555555555555"]]]],"mirrors":["uuid","6"]}}}}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := fuzzed(t, schema)
		in := newDecoder(bytes.NewReader(b), 1<<20)
		for {
			m, err := in.next()
			if err == nil {
				err = s.handle(m, s.notified)
			}
			if err != nil {
				break
			}
			rows, err := readTables(s.cache)
			if err != nil {
				t.Fatalf("rows at rest: %v", err)
			}
			if snap, err := newBuilder("unix:/x").build(rows); err == nil {
				_ = makePlan(snap, Desired{})
			}
		}
	})
}

// Who waits for an answer that makes the library panic is told that nothing came of it.
func TestPanicEndsTheCall(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	log := slog.New(slog.DiscardHandler)
	p := newPeer(context.Background(), near, log)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.read(func(rpcMessage) error { return nil })
	}()
	go func() {
		var m rpcMessage
		_ = json.NewDecoder(far).Decode(&m)
		_ = json.NewEncoder(far).Encode(map[string]any{"id": m.ID, "result": 1, "error": nil})
	}()
	if err := p.call(t.Context(), "x", nil, func(json.RawMessage) error { panic("odd") }); !errors.Is(err, ErrLibrary) {
		t.Errorf("call: %v", err)
	}
	<-ended
	if !errors.Is(context.Cause(p.ctx), ErrLibrary) || !errors.Is(context.Cause(p.ctx), ErrLost) {
		t.Errorf("the connection ended with %v", context.Cause(p.ctx))
	}
	_ = near.Close()
}
