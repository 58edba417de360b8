package ofp_test

import (
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// client is a raw OpenFlow connection to a bridge: it writes bytes and decodes every message that comes.
type client struct {
	t    testing.TB
	conn net.Conn
	// raw keeps every message as it came, for corpora.
	raw [][]byte
	xid uint32
	// other holds messages that nobody waited for.
	other []ofp.Message
}

func dial(t testing.TB, o *oftest.OVS, bridge string) *client {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(o.MgmtAddr(bridge), "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{t: t, conn: conn, xid: 100}
	c.send(ofp.AppendHello(nil, c.next()))
	h, ok := c.read().(*ofp.Hello)
	if !ok || !h.Supports(ofp.Version13) {
		t.Fatalf("hello: %+v", h)
	}
	return c
}

func (c *client) next() uint32 { c.xid++; return c.xid }

func (c *client) send(b []byte) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() ofp.Message {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, ofp.HeaderLen)
	if _, err := io.ReadFull(c.conn, b); err != nil {
		c.t.Fatal(err)
	}
	h, err := ofp.ParseHeader(b)
	if err != nil {
		c.t.Fatal(err)
	}
	b = append(b, make([]byte, int(h.Length)-len(b))...)
	if _, err := io.ReadFull(c.conn, b[ofp.HeaderLen:]); err != nil {
		c.t.Fatal(err)
	}
	c.raw = append(c.raw, b)
	m, err := ofp.Decode(b)
	if err != nil {
		c.t.Fatalf("%v\n%x", err, b)
	}
	if e, ok := m.(*ofp.EchoRequest); ok {
		reply, err := ofp.AppendEchoReply(nil, e)
		if err != nil {
			c.t.Fatal(err)
		}
		c.send(reply)
		return c.read()
	}
	return m
}

// barrier returns the errors and other messages that came before the reply to a barrier.
func (c *client) barrier() []ofp.Message {
	c.t.Helper()
	xid := c.next()
	c.send(ofp.AppendBarrierRequest(nil, xid))
	var ms []ofp.Message
	for {
		m := c.read()
		if b, ok := m.(*ofp.BarrierReply); ok && b.XID == xid {
			return ms
		}
		ms = append(ms, m)
	}
}

// must sends a request that has no reply and fails the test on an error.
func (c *client) must(b []byte, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(b)
	for _, m := range c.barrier() {
		if e, ok := m.(*ofp.Error); ok {
			c.t.Fatalf("%v\n%x", e, b)
		}
		c.other = append(c.other, m)
	}
}

// ask sends a request and returns its reply, which may be an error.
func (c *client) ask(b []byte, err error) ofp.Message {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	h, err := ofp.ParseHeader(b)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(b)
	for {
		m := c.read()
		if m.Head().XID == h.XID {
			return m
		}
		c.other = append(c.other, m)
	}
}

// wait returns the next message for which ok holds, also one that came while something else was awaited.
func wait[M ofp.Message](c *client, ok func(M) bool) M {
	c.t.Helper()
	for i, m := range c.other {
		if v, is := m.(M); is && ok(v) {
			c.other = append(c.other[:i], c.other[i+1:]...)
			return v
		}
	}
	for {
		m := c.read()
		if v, is := m.(M); is && ok(v) {
			return v
		}
		c.other = append(c.other, m)
	}
}
