package l7

import "strconv"

// Of the TLS protocol (RFC 8446, RFC 6066, RFC 7301).
const (
	recordHandshake  = 22
	handshakeHello   = 1
	recordHeader     = 5
	handshakeHeader  = 4
	extServerName    = 0
	extALPN          = 16
	extVersions      = 43
	versionHighBytes = 3 // of SSL 3.0 and all of TLS
)

// fields reads what has its length in front. Once something is missing, short is set and all that follows is empty.
type fields struct {
	b     []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.b) {
		f.b, f.short = nil, true
		return nil
	}
	out := f.b[:n:n]
	f.b = f.b[n:]
	return out
}

func (f *fields) u8() int {
	if b := f.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (f *fields) u16() int {
	if b := f.take(2); b != nil {
		return int(b[0])<<8 | int(b[1])
	}
	return 0
}

// hello reads a ClientHello, or as much of it as the packet holds: the extensions that are cut are not read, those before them are.
func (m *Message) hello(payload []byte) {
	if len(payload) < recordHeader+1 || payload[1] != versionHighBytes || payload[recordHeader] != handshakeHello {
		return
	}
	m.Kind, m.Hello = ClientHello, Hello{}
	length := int(payload[3])<<8 | int(payload[4])
	record := payload[recordHeader:]
	f := fields{b: record[:min(length, len(record))]}
	f.take(1)
	size := f.u8()<<16 | f.u16()
	whole := !f.short && len(f.b) >= size
	if whole {
		f.b = f.b[:size]
	}
	h := &m.Hello
	h.Version = uint16(f.u16())
	f.take(32)      // random
	f.take(f.u8())  // session
	f.take(f.u16()) // cipher suites
	f.take(f.u8())  // compression
	if len(f.b) > 0 {
		extensions := f.u16()
		if extensions != len(f.b) && whole {
			m.Err = errFormat
			return
		}
		for len(f.b) > 0 && m.Err == nil {
			kind := f.u16()
			body := f.take(f.u16())
			if !f.short {
				m.extension(kind, body)
			}
		}
	}
	switch {
	case m.Err != nil || !f.short && whole:
	case whole:
		m.Err = errFormat
	default:
		m.Err = errShort
	}
}

func (m *Message) extension(kind int, body []byte) {
	h, f := &m.Hello, fields{b: body}
	switch kind {
	case extServerName:
		list := fields{b: f.take(f.u16())}
		for len(list.b) > 0 {
			isHost := list.u8() == 0
			if name := list.take(list.u16()); isHost && h.ServerName == nil {
				h.ServerName = name
			}
		}
		f.short = f.short || list.short
	case extALPN:
		list := fields{b: f.take(f.u16())}
		h.ALPN = list.take(list.u8())
		f.short = f.short || list.short
	case extVersions:
		h.Version = 0
		for list := (fields{b: f.take(f.u8())}); len(list.b) > 0; {
			// RFC 8701: values like 0x4a4a stand for nothing.
			if v := uint16(list.u16()); v>>8 == versionHighBytes {
				h.Version = max(h.Version, v)
			}
		}
	}
	if f.short {
		m.Err = errFormat
	}
}

// VersionName is the version of TLS as ECS writes it, such as "1.3", or "" for what is none.
func VersionName(v uint16) string {
	switch {
	case v == versionHighBytes<<8:
		return "3.0" // of SSL
	case v > versionHighBytes<<8 && v <= versionHighBytes<<8+4:
		return "1." + strconv.Itoa(int(v&0xff)-1)
	}
	return ""
}

func number(n uint16) string { return strconv.Itoa(int(n)) }
