package ovsdb

import (
	"bytes"
	"strings"
	"testing"
)

// Whatever a server sends ends in messages or an error.
func FuzzLockMessages(f *testing.F) {
	for _, s := range []string{
		`{"id":"lock","result":{"locked":false},"error":null}{"id":null,"method":"locked","params":["tapwall"]}`,
		`{"id":"hold","result":[{},{"count":1}],"error":null}`,
		`{"id":"hold","result":[{"error":"not owner","details":"x"},null],"error":null}`,
		`{"id":"probe","result":[{"rows":[{"external_ids":["map",[["tapwall-holder","pid 1 on h"],["a","b"]]]}]}],"error":null}`,
		`{"id":"echo","method":"echo","params":[]}`, `{"id":7,"result":[[]],"error":{}}`, `[`, "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDecoder(bytes.NewReader(b), maxLockMessage)
		for range len(b) + 1 {
			m, err := d.next()
			if err != nil {
				return
			}
			_, _, _ = m.id(), m.lock(), m.failed()
			if holder, err := m.operations(); err != nil && holder != "" {
				t.Errorf("holder %q with error %v", holder, err)
			}
		}
		t.Error("more messages than bytes")
	})
}

func TestLockHolder(t *testing.T) {
	for result, want := range map[string]string{
		`[{"rows":[{"external_ids":["map",[["a","b"],["tapwall-holder","pid 1"]]]}]}]`: "pid 1",
		`[{"rows":[{"external_ids":["map",[]]}]}]`:                                     "",
		`[{"rows":[]}]`: "",
		`[{},{}]`:       "",
		`[]`:            "",
	} {
		if have, err := (rpcMessage{Result: []byte(result)}).operations(); err != nil || have != want {
			t.Errorf("%s: %q, %v; want %q", result, have, err, want)
		}
	}
	if s := printable("pid 1 on \x1b[2J"); strings.Contains(s, "\x1b") {
		t.Errorf("%q goes to the terminal", s)
	}
}
