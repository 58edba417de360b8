package l7

import (
	"errors"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// Answer is a resource record of the answer section. Of types that are not read Data and Addr are empty.
type Answer struct {
	Name dnsmessage.Name
	Type dnsmessage.Type
	TTL  uint32 // seconds
	Addr netip.Addr
	Data dnsmessage.Name // of CNAME and PTR
}

// dns reads a DNS message: its header, its first question and its answers.
func (m *Message) dns(payload []byte) {
	defer m.guard()
	m.Kind = DNSQuery
	d := &m.DNS
	d.HasQuestion, d.Answers, d.ID, d.RCode = false, 0, 0, 0
	var p dnsmessage.Parser
	h, err := p.Start(payload)
	if err != nil {
		m.Err = err
		return
	}
	d.ID, d.RCode = h.ID, uint16(h.RCode)
	if h.Response {
		m.Kind = DNSResponse
	}
	switch q, err := p.Question(); {
	case err == nil:
		d.HasQuestion, d.Name, d.Type = true, q.Name, q.Type
	case !errors.Is(err, dnsmessage.ErrSectionDone):
		m.Err = err
		return
	}
	if m.Err = p.SkipAllQuestions(); m.Err != nil {
		return
	}
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return
		}
		if err == nil && d.Answers == MaxAnswers {
			m.Truncated = true
			return
		}
		if err == nil {
			err = d.answer(&p, &h)
		}
		if err != nil {
			m.Err = err
			return
		}
	}
}

// answer reads the record that has the header h. The parser itself does not look whether a record ends in the message.
func (d *DNS) answer(p *dnsmessage.Parser, h *dnsmessage.ResourceHeader) error {
	after := *p
	if err := after.SkipAnswer(); err != nil {
		return err
	}
	a := &d.Answer[d.Answers]
	a.Name, a.Type, a.TTL, a.Addr, a.Data.Length = h.Name, h.Type, h.TTL, netip.Addr{}, 0
	var err error
	switch {
	case h.Class != dnsmessage.ClassINET:
	case h.Type == dnsmessage.TypeA:
		if h.Length != 4 {
			return errFormat
		}
		var r dnsmessage.AResource
		r, err = p.AResource()
		a.Addr = netip.AddrFrom4(r.A)
	case h.Type == dnsmessage.TypeAAAA:
		if h.Length != 16 {
			return errFormat
		}
		var r dnsmessage.AAAAResource
		r, err = p.AAAAResource()
		a.Addr = netip.AddrFrom16(r.AAAA)
	case h.Type == dnsmessage.TypeCNAME:
		var r dnsmessage.CNAMEResource
		r, err = p.CNAMEResource()
		a.Data = r.CNAME
	case h.Type == dnsmessage.TypePTR:
		var r dnsmessage.PTRResource
		r, err = p.PTRResource()
		a.Data = r.PTR
	}
	if err != nil {
		return err
	}
	*p = after
	d.Answers++
	return nil
}

// TypeName is the name of a record type as zone files have it, such as "AAAA", or TYPE and its number (RFC 3597).
func TypeName(t dnsmessage.Type) string {
	switch t {
	case dnsmessage.TypeA:
		return "A"
	case dnsmessage.TypeNS:
		return "NS"
	case dnsmessage.TypeCNAME:
		return "CNAME"
	case dnsmessage.TypeSOA:
		return "SOA"
	case dnsmessage.TypePTR:
		return "PTR"
	case dnsmessage.TypeMX:
		return "MX"
	case dnsmessage.TypeTXT:
		return "TXT"
	case dnsmessage.TypeAAAA:
		return "AAAA"
	case dnsmessage.TypeSRV:
		return "SRV"
	case dnsmessage.TypeSVCB:
		return "SVCB"
	case dnsmessage.TypeHTTPS:
		return "HTTPS"
	case dnsmessage.TypeALL:
		return "ANY"
	}
	return "TYPE" + number(uint16(t))
}

// RCodeName is the name of a response code in the registry of IANA, such as "NXDOMAIN", or RCODE and its number.
func RCodeName(c uint16) string {
	names := [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
		"NOTZONE"}
	if int(c) < len(names) {
		return names[c]
	}
	return "RCODE" + number(c)
}
