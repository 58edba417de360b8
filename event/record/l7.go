package record

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/internal/packet/l7"
)

// maxAnswers bounds the DNS answers of a document, and maxName the names in them: documents are to stay near 1 kB.
const (
	maxAnswers = 4
	maxName    = 64
)

// l7Actions are what events of packets are called that hold a message.
var l7Actions = [...]string{
	l7.None: event.ActionPacket, l7.DNSQuery: event.ActionDNSQuery, l7.DNSResponse: event.ActionDNSResponse,
	l7.ClientHello: event.ActionClientHello, l7.HTTPRequest: event.ActionHTTPRequest, l7.HTTPResponse: event.ActionHTTPResponse,
}

var l7Layers = [...]packet.Layer{
	l7.DNSQuery: packet.LayerDNS, l7.DNSResponse: packet.LayerDNS, l7.ClientHello: packet.LayerTLS, l7.HTTPRequest: packet.LayerHTTP,
	l7.HTTPResponse: packet.LayerHTTP,
}

// readMessage reads what the payload of the packet in b.parsed says, and returns the layer that has a fault, if any. Of a message that goes
// on in another segment, or has a fault, the packet could be read in part; that the packet was cut, or is a part of a larger one, is none.
func (b *builder) readMessage(data []byte) (bad packet.Layer) {
	p, m := &b.parsed, &b.message
	l7.Read(p.Proto, p.SrcPort, p.DstPort, data[p.PayloadAt:p.PayloadAt+p.PayloadLen], m)
	if m.Err == nil {
		return p.Layer
	}
	if p.Truncated || p.Fragment {
		m.Truncated = true
		return packet.LayerNone
	}
	p.Status, p.Layer, p.Err = packet.StatusPartial, l7Layers[m.Kind], m.Err.Error()
	if m.Short() {
		return packet.LayerNone
	}
	return p.Layer
}

// passed is the event of a packet that passed and is told of for its message, which is one of DNS where it cannot be read.
func (b *builder) passed(pi *PacketIn, e *ends, names *Names, now time.Time) entry {
	r, id, transport := b.packet(pi, e, 0, now)
	ev, tw := &r.ev, &r.ev.Tapwall
	ev.Event.Type, ev.Event.Action, ev.Event.Dataset, ev.Event.Provider = b.info, l7Actions[b.message.Kind], event.DatasetPacket, "packet-in"
	switch dns := b.message.Kind == l7.None || b.message.Kind == l7.DNSQuery; {
	case dns && pi.CtState&ctReply != 0:
		ev.Event.Action = event.ActionDNSResponse
	case dns:
		ev.Event.Action = event.ActionDNSQuery
	}
	tw.Verdict, tw.Table = event.Forwarded, &b.tables[pi.Table]
	tw.EgressRule, tw.IngressRule = names.Rule(pi.EgressRule), names.Rule(pi.IngressRule)
	tw.Source, tw.Destination = names.Endpoint(pi.SrcEndpoint), names.Endpoint(pi.DstEndpoint)
	b.track(r, pi)
	return b.entryOf(r, pi, e, id, transport)
}

// describe puts the message of the packet into its event.
func (b *builder) describe(ev *event.Event) {
	m := &b.message
	truncated := m.Truncated
	text := func(s string, most int) string {
		s, cut := clean(s, most)
		truncated = truncated || cut
		return s
	}
	switch m.Kind {
	case l7.None:
		return
	case l7.DNSQuery, l7.DNSResponse:
		ev.DNS = describeDNS(m, text)
		truncated = truncated || len(ev.DNS.Answers) < m.DNS.Answers
	case l7.ClientHello:
		h := &m.Hello
		ev.TLS = &event.TLS{Version: l7.VersionName(h.Version), NextProtocol: text(string(h.ALPN), maxName)}
		if len(h.ServerName) > 0 {
			ev.TLS.Client = &event.TLSClient{ServerName: text(string(h.ServerName), event.MaxText)}
		}
	case l7.HTTPRequest:
		h := &m.HTTP
		ev.HTTP = &event.HTTP{Request: &event.HTTPRequest{Method: string(h.Method)}}
		ev.URL = &event.URL{Domain: text(string(h.Host), event.MaxText), Path: text(string(h.Path), event.MaxText)}
		if len(h.UserAgent) > 0 {
			ev.UserAgent = &event.UserAgent{Original: text(string(h.UserAgent), event.MaxText)}
		}
	case l7.HTTPResponse:
		ev.HTTP = &event.HTTP{Response: &event.HTTPResponse{StatusCode: m.HTTP.Status}}
	}
	ev.Tapwall.Truncated = truncated
}

func describeDNS(m *l7.Message, text func(string, int) string) *event.DNS {
	d := &m.DNS
	out := &event.DNS{ID: strconv.Itoa(int(d.ID)), Type: "query"}
	if d.HasQuestion {
		out.Question = &event.Question{Name: text(nameOf(&d.Name), event.MaxText), Type: l7.TypeName(d.Type)}
	}
	if m.Kind == l7.DNSQuery {
		return out
	}
	out.Type, out.ResponseCode = "answer", l7.RCodeName(d.RCode)
	for i := range min(d.Answers, maxAnswers) {
		a := &d.Answer[i]
		x := event.Answer{Name: text(nameOf(&a.Name), maxName), Type: l7.TypeName(a.Type), TTL: int64(a.TTL)}
		if a.Addr.IsValid() {
			x.Data = a.Addr.String()
			out.ResolvedIP = append(out.ResolvedIP, x.Data)
		} else {
			x.Data = text(nameOf(&a.Data), maxName)
		}
		out.Answers = append(out.Answers, x)
	}
	return out
}

// nameOf is a domain name without the dot at its end; that of the root is a dot.
func nameOf(n *dnsmessage.Name) string {
	s := string(n.Data[:n.Length])
	if len(s) > 1 {
		s = strings.TrimSuffix(s, ".")
	}
	return s
}

// clean is a text of a guest without control characters, of at most so many bytes.
func clean(s string, most int) (string, bool) {
	s = event.Escape(s)
	if len(s) <= most {
		return s, false
	}
	return strings.ToValidUTF8(s[:most], ""), true
}
