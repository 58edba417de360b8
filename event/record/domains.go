package record

import (
	"container/list"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet/l7"
)

// Bounds of what is remembered of DNS.
const (
	maxDomains = 65_536 // names of addresses
	maxAsked   = 8_192  // questions without an answer yet
	// clientShare is the part of either that one client may have: what a machine asks, and has answered by whom it likes, must not take
	// from the others what they know.
	clientShare = 8

	answerWait = 30 * time.Second // an answer that comes later names nothing
	// A name is good for as long as the answer says, but this long at least, and this long after the last event that had it: connections
	// outlive the answers that they were made by.
	shortestName = time.Minute
	keepUsed     = time.Hour
)

// where is a place in which an address belongs to one station.
type where struct{ host, bridge string }

type clientKey struct {
	where
	client netip.Addr
}

// domainKey: what one client was told says nothing of what others mean by an address.
type domainKey struct {
	clientKey
	addr netip.Addr
}

// asked is a question on its way: only who was asked may answer, and only to this.
type asked struct {
	where
	client, server netip.AddrPort
	id             uint16
	kind           dnsmessage.Type
	name           string // in lower case
}

func (a *asked) by() clientKey { return clientKey{a.where, a.client.Addr()} }

type domain struct {
	key   domainKey
	name  string
	until time.Time
	own   *list.Element // in the list of the client
}

type pending struct {
	asked
	at time.Time
}

// domains says by which names clients asked for addresses, as far as both question and answer were seen. It is for one goroutine, but for
// count.
type domains struct {
	byKey   map[domainKey]*list.Element
	recent  *list.List               // of *domain, the one used last in front
	clients map[clientKey]*list.List // of the elements of recent that each has, likewise
	waiting map[asked]*list.Element
	order   *list.List // of *pending, the oldest in front
	asking  map[clientKey]int
	count   atomic.Int64
}

func newDomains() *domains {
	return &domains{
		byKey: map[domainKey]*list.Element{}, recent: list.New(), clients: map[clientKey]*list.List{},
		waiting: map[asked]*list.Element{}, order: list.New(), asking: map[clientKey]int{},
	}
}

// learn takes what a DNS message says that went from one to the other.
func (d *domains) learn(w where, m *l7.Message, from, to netip.AddrPort, now time.Time) {
	q := &m.DNS
	if !q.HasQuestion || q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA {
		return
	}
	name, ok := hostName(nameOf(&q.Name))
	if !ok {
		return
	}
	if m.Kind == l7.DNSQuery {
		d.ask(asked{w, from, to, q.ID, q.Type, name}, now)
		return
	}
	a := asked{w, to, from, q.ID, q.Type, name}
	e, was := d.waiting[a]
	if !was {
		return
	}
	d.forget(e)
	if now.Sub(e.Value.(*pending).at) > answerWait || m.Err != nil {
		return
	}
	for i := range q.Answers {
		if x := &q.Answer[i]; x.Addr.IsValid() {
			d.put(domainKey{a.by(), x.Addr}, name, now.Add(max(time.Duration(x.TTL)*time.Second, shortestName)))
		}
	}
}

func (d *domains) ask(a asked, now time.Time) {
	if e, was := d.waiting[a]; was {
		d.forget(e)
	}
	for e := d.order.Front(); e != nil && (len(d.waiting) >= maxAsked || now.Sub(e.Value.(*pending).at) > answerWait); e = d.order.Front() {
		d.forget(e)
	}
	if d.asking[a.by()] >= maxAsked/clientShare {
		return
	}
	d.asking[a.by()]++
	d.waiting[a] = d.order.PushBack(&pending{a, now})
}

func (d *domains) forget(e *list.Element) {
	a := &e.Value.(*pending).asked
	if d.asking[a.by()]--; d.asking[a.by()] == 0 {
		delete(d.asking, a.by())
	}
	delete(d.waiting, *a)
	d.order.Remove(e)
}

func (d *domains) put(k domainKey, name string, until time.Time) {
	if e, was := d.byKey[k]; was {
		x := e.Value.(*domain)
		x.name, x.until = name, until
		d.used(e)
		return
	}
	own := d.clients[k.clientKey]
	switch {
	case own != nil && own.Len() >= maxDomains/clientShare:
		d.remove(own.Back().Value.(*list.Element))
	case len(d.byKey) >= maxDomains:
		d.remove(d.recent.Back())
	}
	if own = d.clients[k.clientKey]; own == nil {
		own = list.New()
		d.clients[k.clientKey] = own
	}
	x := &domain{key: k, name: name, until: until}
	e := d.recent.PushFront(x)
	x.own = own.PushFront(e)
	d.byKey[k] = e
	d.count.Store(int64(len(d.byKey)))
}

// used says that a name was used now.
func (d *domains) used(e *list.Element) {
	x := e.Value.(*domain)
	d.recent.MoveToFront(e)
	d.clients[x.key.clientKey].MoveToFront(x.own)
}

func (d *domains) remove(e *list.Element) {
	x := e.Value.(*domain)
	own := d.clients[x.key.clientKey]
	if own.Remove(x.own); own.Len() == 0 {
		delete(d.clients, x.key.clientKey)
	}
	delete(d.byKey, x.key)
	d.recent.Remove(e)
	d.count.Store(int64(len(d.byKey)))
}

// of is the name by which a client asked for an address, or "".
func (d *domains) of(w where, client, addr netip.Addr, now time.Time) string {
	if len(d.byKey) == 0 {
		return ""
	}
	e, ok := d.byKey[domainKey{clientKey{w, client}, addr}]
	if !ok {
		return ""
	}
	x := e.Value.(*domain)
	if now.After(x.until) {
		d.remove(e)
		return ""
	}
	if t := now.Add(keepUsed); t.After(x.until) {
		x.until = t
	}
	d.used(e)
	return x.name
}

// learnDomains takes over what the packet in b.parsed says of names. What was dropped was told to nobody.
func (b *builder) learnDomains(pi *PacketIn) {
	p, m := &b.parsed, &b.message
	if m.Kind != l7.DNSQuery && m.Kind != l7.DNSResponse {
		return
	}
	for i := range pi.Verdicts {
		if pi.Verdicts[i].Drop || pi.Verdicts[i].Reject {
			return
		}
	}
	b.domains.learn(where{pi.Host, pi.Bridge}, m, netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort), pi.Time)
}

// name puts into an event by which names its sides were asked for.
func (d *domains) name(ev *event.Event, w where, src, dst netip.Addr, now time.Time) {
	if s := d.of(w, src, dst, now); s != "" {
		ev.Destination.Domain, ev.Tapwall.Destination = s, fromDNS(ev.Tapwall.Destination)
	}
	if s := d.of(w, dst, src, now); s != "" {
		ev.Source.Domain, ev.Tapwall.Source = s, fromDNS(ev.Tapwall.Source)
	}
}

// fromDNS is a side whose domain comes from DNS; x is shared and stays as it is.
func fromDNS(x *event.Endpoint) *event.Endpoint {
	var out event.Endpoint
	if x != nil {
		out = *x
	}
	out.NamesSource = event.NamesFromDNS
	return &out
}

// hostName is a name in lower case, if it is one that a host may have: letters, digits, hyphens and underscores between dots. Whatever else
// DNS can carry names nothing.
func hostName(s string) (string, bool) {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return "", false
		}
	}
	return strings.ToLower(s), len(s) > 0 && s != "."
}
