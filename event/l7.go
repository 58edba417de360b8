package event

import (
	"strconv"
	"strings"
)

// What follows is what an application said in the packet, as far as one packet tells it. Texts are at most MaxText long and free of control
// characters (see Escape); names have no dot at the end.

// MaxText bounds a text that comes out of a payload, in bytes.
const MaxText = 256

// DNS is ECS dns.*.
type DNS struct {
	ID           string    `json:"id"`   // of the message
	Type         string    `json:"type"` // query | answer
	Question     *Question `json:"question,omitempty"`
	ResponseCode string    `json:"response_code,omitempty"`       // NOERROR, NXDOMAIN, …; of answers only
	Answers      []Answer  `json:"answers,omitempty"`             // the first few
	ResolvedIP   []string  `json:"resolved_ip,omitempty" es:"ip"` // the addresses in the answers
}

// Question is ECS dns.question.*: the first one.
type Question struct {
	Name string `json:"name"` // that is asked for
	Type string `json:"type"` // A, AAAA, …
}

// Answer is one of ECS dns.answers. Data is an address or a name; types that hold something else have none.
type Answer struct {
	Name string `json:"name"`           // that it is about
	Type string `json:"type"`           // A, AAAA, CNAME, …
	TTL  int64  `json:"ttl"`            // seconds
	Data string `json:"data,omitempty"` // address or name; other types have none
}

// TLS is ECS tls.*, of a client's hello: what it asks for.
type TLS struct {
	Client       *TLSClient `json:"client,omitempty"`
	Version      string     `json:"version,omitempty"`       // the highest that it offers
	NextProtocol string     `json:"next_protocol,omitempty"` // the first that it offers by ALPN
}

// TLSClient is ECS tls.client.*.
type TLSClient struct {
	ServerName string `json:"server_name,omitempty"` // that it asks for (SNI)
}

// HTTP is ECS http.*.
type HTTP struct {
	Request  *HTTPRequest  `json:"request,omitempty"`
	Response *HTTPResponse `json:"response,omitempty"`
}

// HTTPRequest is ECS http.request.*.
type HTTPRequest struct {
	Method string `json:"method"` // GET, …
}

// HTTPResponse is ECS http.response.*.
type HTTPResponse struct {
	StatusCode int `json:"status_code"` // 200, …
}

// URL is ECS url.*, of an HTTP request. The query is not kept: it may hold what is secret.
type URL struct {
	Domain string `json:"domain,omitempty"` // of the Host header
	Path   string `json:"path,omitempty"`   // without the query
}

// UserAgent is ECS user_agent.*.
type UserAgent struct {
	Original string `json:"original"` // as the client sent it
}

// said is what an application said in the packet, for people: DNS Answer "192.0.2.7" TTL: 25 (Query api.example.com. A). "" = nothing that
// could be read.
func said(e *Event) string {
	switch {
	case e.DNS != nil:
		return e.DNS.String()
	case e.TLS != nil:
		out := strings.TrimRight("TLS "+e.TLS.Version, " ") + " ClientHello"
		if c := e.TLS.Client; c != nil {
			out += " SNI: " + c.ServerName
		}
		if p := e.TLS.NextProtocol; p != "" {
			out += " ALPN: " + p
		}
		return out
	case e.HTTP != nil && e.HTTP.Request != nil:
		out := "HTTP/1 " + e.HTTP.Request.Method
		if u := e.URL; u != nil && u.Domain+u.Path != "" {
			out += " "
			if u.Domain != "" {
				out += "http://" + u.Domain
			}
			out += u.Path
		}
		return out
	case e.HTTP != nil && e.HTTP.Response != nil:
		return "HTTP/1 " + strconv.Itoa(e.HTTP.Response.StatusCode)
	}
	return ""
}

// String is d for people.
func (d *DNS) String() string {
	query := "Query"
	if q := d.Question; q != nil {
		query += " " + strings.TrimSuffix(q.Name, ".") + ". " + q.Type
	}
	if d.Type == "query" {
		return "DNS " + query
	}
	var data []string
	ttl := int64(-1)
	for _, a := range d.Answers {
		if a.Data != "" {
			data = append(data, a.Data)
		}
		if ttl < 0 || a.TTL < ttl {
			ttl = a.TTL
		}
	}
	out := "DNS Answer"
	if len(data) > 0 {
		out += ` "` + strings.Join(data, ",") + `"`
	}
	if d.ResponseCode != "NOERROR" {
		out += " " + d.ResponseCode
	}
	if ttl >= 0 {
		out += " TTL: " + strconv.FormatInt(ttl, 10)
	}
	return out + " (" + query + ")"
}
