package l7

import "bytes"

var (
	methods = [...]string{"GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "}
	version = []byte("HTTP/1.")
	scheme  = []byte("://")
)

// http reads the head of an HTTP/1 message, as far as the packet holds it. Headers that are missing are no fault.
func (m *Message) http(payload []byte) {
	if bytes.HasPrefix(payload, version) {
		m.response(payload)
		return
	}
	for _, method := range methods {
		if len(payload) > len(method) && string(payload[:len(method)]) == method {
			m.request(payload[:len(method)-1], payload[len(method):])
			return
		}
	}
}

// response reads "HTTP/1.1 200 OK".
func (m *Message) response(payload []byte) {
	m.Kind, m.HTTP = HTTPResponse, HTTP{}
	const at = len("HTTP/1.1 ")
	line, whole := firstLine(payload)
	switch {
	case len(line) < at+3 && !whole:
		m.Err = errShort
	case len(line) < at+3 || line[at-1] != ' ':
		m.Err = errFormat
	default:
		for _, c := range line[at : at+3] {
			if c < '0' || c > '9' {
				m.HTTP.Status, m.Err = 0, errFormat
				return
			}
			m.HTTP.Status = m.HTTP.Status*10 + int(c-'0')
		}
	}
}

// request reads what follows a method and its space. Words that others use, too, are no request without a version.
func (m *Message) request(method, rest []byte) {
	line, whole := firstLine(rest)
	target, protocol, spaced := bytes.Cut(line, []byte(" "))
	if whole && !(spaced && bytes.HasPrefix(protocol, version)) || len(target) == 0 || !whole && target[0] != '/' {
		return
	}
	m.Kind, m.HTTP = HTTPRequest, HTTP{Method: method}
	h := &m.HTTP
	h.Path = target
	switch host, path, absolute := absoluteForm(target); {
	case absolute:
		h.Host, h.Path = host, path
	case string(method) == "CONNECT":
		h.Host, h.Path = hostOf(target), nil
	}
	if i := bytes.IndexAny(h.Path, "?#"); i >= 0 {
		h.Path = h.Path[:i]
	}
	if whole {
		m.headers(rest[len(line):])
	} else {
		m.Err = errShort
	}
	for _, text := range []*[]byte{&h.Host, &h.Path, &h.UserAgent} {
		if len(*text) > maxLine {
			*text, m.Truncated = (*text)[:maxLine], true
		}
	}
}

// absoluteForm takes "http://host/path" apart, which is what proxies are asked for.
func absoluteForm(target []byte) (host, path []byte, ok bool) {
	i := bytes.Index(target, scheme)
	if i <= 0 || target[0] == '/' {
		return nil, nil, false
	}
	rest := target[i+len(scheme):]
	if j := bytes.IndexAny(rest, "/?#"); j >= 0 {
		return hostOf(rest[:j]), rest[j:], true
	}
	return hostOf(rest), nil, true
}

// headers reads Host and User-Agent; b begins with the end of the line before.
func (m *Message) headers(b []byte) {
	h := &m.HTTP
	for {
		_, next, more := bytes.Cut(b, []byte("\n"))
		if !more {
			return
		}
		line, whole := firstLine(next)
		b = next[len(line):]
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case len(line) == 0 || !whole:
			return
		case h.Host == nil && bytes.EqualFold(name, []byte("host")):
			h.Host = hostOf(value)
		case h.UserAgent == nil && bytes.EqualFold(name, []byte("user-agent")):
			h.UserAgent = value
		}
	}
}

// hostOf is the host in front of a port and behind user and password.
func hostOf(b []byte) []byte {
	if i := bytes.LastIndexByte(b, '@'); i >= 0 {
		b = b[i+1:]
	}
	if len(b) > 0 && b[0] == '[' {
		if i := bytes.IndexByte(b, ']'); i > 0 {
			return b[1:i]
		}
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 {
		b = b[:i]
	}
	return b
}

// firstLine is what is in front of the first end of a line, and whether there is one.
func firstLine(b []byte) (line []byte, whole bool) {
	line, _, whole = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), whole
}
