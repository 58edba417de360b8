// Package l7 reads what the first bytes of a payload say of the application: DNS messages, the hello of a TLS client, and the first line
// and some headers of HTTP/1. It reads one packet at a time and puts nothing together. Bytes come from guests: no input panics, loops or
// makes it allocate more than an error.
package l7

import (
	"errors"
	"fmt"

	"golang.org/x/net/dns/dnsmessage"
)

// Kind says what a payload is.
type Kind uint8

// The kinds.
const (
	None Kind = iota
	DNSQuery
	DNSResponse
	ClientHello
	HTTPRequest
	HTTPResponse
)

// Bounds of what is read.
const (
	MaxAnswers = 16  // answers of a DNS message
	maxLine    = 256 // bytes of a text of HTTP
)

// IP protocol numbers.
const (
	protoTCP = 6
	protoUDP = 17

	portDNS = 53
)

var (
	errShort  = errors.New("it goes on behind this packet")
	errFormat = errors.New("the format is not that of the protocol")
)

// Message is what was read of one payload. Its texts are as they were sent, whatever bytes that are; slices lie in the payload and are good
// as long as it is.
type Message struct {
	Kind Kind
	// Err is why not all could be read; what is in front of the fault is valid. nil = all was read.
	Err error
	// Truncated: texts or answers beyond the bounds were left out.
	Truncated bool

	DNS   DNS   // of DNSQuery and DNSResponse
	Hello Hello // of ClientHello
	HTTP  HTTP  // of HTTPRequest and HTTPResponse
}

// Short says that the message goes on behind the payload, in another segment, which is no fault of the sender's.
func (m *Message) Short() bool { return errors.Is(m.Err, errShort) }

// DNS is a DNS message (RFC 1035). Names have a dot at the end.
type DNS struct {
	ID    uint16
	RCode uint16
	// HasQuestion: Name and Type are valid, the first question.
	HasQuestion bool
	Name        dnsmessage.Name
	Type        dnsmessage.Type
	Answers     int // how many of Answer are valid
	Answer      [MaxAnswers]Answer
}

// Hello is what a TLS client asks for (RFC 8446 §4.1.2). Empty = it does not say.
type Hello struct {
	ServerName []byte // SNI
	ALPN       []byte // the first one
	Version    uint16 // the highest that it offers, 0x0303 is TLS 1.2
}

// HTTP is the head of a message (RFC 9112). Empty = it has none. The query of a target is not read: it may hold what is secret.
type HTTP struct {
	Method, Host, Path, UserAgent []byte
	Status                        int
}

// Read reads the payload of a packet between two ports into m, all of which it sets. IP protocols other than TCP and UDP have no
// messages. DNS is what goes from or to port 53; the others are known by their first bytes, whatever the port.
func Read(proto uint8, sport, dport uint16, payload []byte, m *Message) {
	m.Kind, m.Err, m.Truncated = None, nil, false
	if len(payload) == 0 {
		return
	}
	dns := sport == portDNS || dport == portDNS
	switch {
	case proto == protoUDP && dns:
		m.dns(payload)
	case proto != protoTCP:
	case dns && len(payload) > 2:
		// RFC 1035 §4.2.2: the length stands in front.
		length, message := int(payload[0])<<8|int(payload[1]), payload[2:]
		m.dns(message[:min(length, len(message))])
		if m.Err != nil && length > len(message) {
			m.Err = errShort
		}
	case payload[0] == recordHandshake:
		m.hello(payload)
	default:
		m.http(payload)
	}
}

// guard turns a panic of a library into a fault of the message.
func (m *Message) guard() {
	if p := recover(); p != nil {
		m.Err = fmt.Errorf("panic: %v", p)
	}
}
