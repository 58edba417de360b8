package ovsdb_test

import (
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
)

// liar passes on what a client and a server say to each other, but for what edit makes of the server's messages, numbered from 0 on each
// connection. It returns its address.
func liar(t *testing.T, server string, edit func(n int, message json.RawMessage) []byte) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "liar.sock")
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	relay := func(conn net.Conn) {
		defer conn.Close()
		up, err := net.Dial("unix", server)
		if err != nil {
			return
		}
		defer up.Close()
		go func() {
			_, _ = io.Copy(up, conn)
			_ = up.Close()
		}()
		dec := json.NewDecoder(up)
		for n := 0; ; n++ {
			var m json.RawMessage
			if dec.Decode(&m) != nil {
				return
			}
			if _, err := conn.Write(edit(n, m)); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go relay(conn)
		}
	}()
	return "unix:" + at
}

// A server that answers nonsense loses its connection, at most: it takes nobody along, and is asked again.
func TestServerLies(t *testing.T) {
	t.Parallel()
	o := ovsdbtest.New(t)
	o.Vsctl("add-br", "br0")
	const row = `"11111111-1111-1111-1111-111111111111"`
	update := func(tables string) string {
		return `{"id":null,"method":"update2","params":["tapwall",` + tables + `]}`
	}
	lies := []string{`{}`, `null`, `{"id":null}`, `{"id":"1"}`, `{"id":{},"result":7}`, `{"method":"update","params":[],"id":null}`,
		`{"method":"update2","params":[],"id":null}`, `{"method":"update2","params":null}`,
		`{"method":"update3","params":["x","y",{}],"id":null}`,
		`{"method":"locked","params":[],"id":null}`, `{"method":"echo","params":null,"id":[]}`, `{"method":7}`, `]`,
		update(`{"Port":{` + row + `:null}}`), update(`{"Port":{` + row + `:{}}}`), update(`{"Port":{` + row + `:{"modify":{"tag":"x"}}}}`),
		update(`{"Port":{` + row + `:{"insert":{"interfaces":["set",["x"]]}}}}`), update(`{"Port":{` + row + `:{"insert":{"interfaces":[]}}}}`),
		update(`{"Bridge":{"x":{"insert":{"flow_tables":["map",[[1]]],"ports":["uuid"],"name":5}}}}`), update(`{"Open_vSwitch":{` + row +
			`:{"insert":{}}}}`),
		update(`{"Nothing":{"x":null}}`), update(`[]`), update(`{"Interface":{` + row +
			`:{"insert":{"ofport":["set",[1e300]],"mtu":["set",[{}]]}}}}`)}
	for at, where := range []string{"instead of the schema", "instead of the rows", "after the rows"} {
		for _, lie := range lies {
			t.Run(where+" "+lie, func(t *testing.T) {
				t.Parallel()
				var lied, probed atomic.Bool
				address := liar(t, o.Socket(), func(n int, m json.RawMessage) []byte {
					switch {
					case n > 2 && lied.Load():
						probed.Store(true)
					case n != min(at, 1) || lied.Swap(true):
					case at < 2: // under the id of the answer that it stands for, where it has one
						return []byte(strings.Replace(lie, `"id":"1"`, `"id":"`+string(rune('1'+at))+`"`, 1))
					default:
						return append(m, lie...)
					}
					return m
				})
				c := run(t, o, func(opts *ovsdb.Options) {
					opts.Address, opts.BackoffMin, opts.Timeout, opts.ProbeInterval = address, time.Millisecond, time.Second, 20*time.Millisecond
				})
				for deadline := time.Now().Add(20 * time.Second); !probed.Load() || c.Topology() == nil || c.Topology().Bridges["br0"] == nil; {
					if time.Now().After(deadline) {
						t.Fatalf("lied %v, probed again %v, status %+v", lied.Load(), probed.Load(), c.Status())
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
}
