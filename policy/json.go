package policy

import (
	"encoding/json"
	"strings"
)

// fastJSON reads what parseJSON reads, several times as fast, as far as nothing is wrong with it: it gives up on whatever is, and the
// other one, which knows what to say, begins again. The text is valid UTF-8.
type fastJSON struct {
	text   string
	at     int
	line   int
	values int
	keys   map[string]string // each is kept once
}

func (p *fastJSON) stream() (docs []parsed, ok bool) {
	for {
		if p.space(); p.at == len(p.text) {
			return docs, true
		}
		v, ok := p.value(0)
		if !ok || len(docs) >= maxDocs {
			return nil, false
		}
		docs = append(docs, parsed{index: len(docs) + 1, tree: v})
	}
}

// space goes on to what is not white (RFC 8259 §2).
func (p *fastJSON) space() {
	for ; p.at < len(p.text); p.at++ {
		switch p.text[p.at] {
		case '\n':
			p.line++
		case ' ', '\t', '\r':
		default:
			return
		}
	}
}

// is takes a character if it is the next one but for white space.
func (p *fastJSON) is(c byte) bool {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *fastJSON) value(depth int) (v any, ok bool) {
	if p.values++; p.values > maxValues || depth > maxDepth || p.at == len(p.text) {
		return nil, false
	}
	switch c := p.text[p.at]; {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.list(depth)
	case c == '"':
		s, ok := p.str()
		return strings.Clone(s), ok // the text itself is not kept
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	}
	for word, v := range map[string]any{"true": true, "false": false, "null": nil} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return v, p.ended()
		}
	}
	return nil, false
}

// ended reports whether a word or number ends here.
func (p *fastJSON) ended() bool {
	return p.at == len(p.text) || strings.IndexByte(" \t\r\n,]}", p.text[p.at]) >= 0
}

func (p *fastJSON) number() (any, bool) {
	from := p.at
	for p.at < len(p.text) && strings.IndexByte("+-.eE0123456789", p.text[p.at]) >= 0 {
		p.at++
	}
	n := strings.Clone(p.text[from:p.at])
	return number(n), json.Valid([]byte(n)) && p.ended()
}

// str reads a text; most have no escapes.
func (p *fastJSON) str() (string, bool) {
	from := p.at
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return p.text[from+1 : p.at-1], true
		case c < ' ':
			return "", false
		case c == '\\':
			return p.escaped(from)
		}
	}
	return "", false
}

func (p *fastJSON) escaped(from int) (s string, ok bool) {
	for ; p.at < len(p.text); p.at++ {
		switch p.text[p.at] {
		case '\\':
			p.at++
		case '"':
			p.at++
			return s, json.Unmarshal([]byte(p.text[from:p.at]), &s) == nil
		}
	}
	return "", false
}

func (p *fastJSON) object(depth int) (any, bool) {
	o := object{line: p.line}
	p.at++
	if p.is('}') {
		return o, true
	}
	for {
		if p.space(); p.at == len(p.text) || p.text[p.at] != '"' || len(o.members) >= maxKeys {
			return nil, false
		}
		key, ok := p.str()
		if !ok {
			return nil, false
		}
		known, seen := p.keys[key]
		if !seen {
			known = strings.Clone(key)
			p.keys[known] = known
		}
		m := member{key: known, line: p.line}
		if !p.is(':') {
			return nil, false
		}
		p.space()
		if m.value, ok = p.value(depth + 1); !ok {
			return nil, false
		}
		if o.members = append(o.members, m); p.is('}') {
			return o, true
		}
		if !p.is(',') {
			return nil, false
		}
	}
}

func (p *fastJSON) list(depth int) (any, bool) {
	l := list{items: []any{}}
	p.at++
	if p.is(']') {
		return l, true
	}
	for {
		p.space()
		line := p.line
		v, ok := p.value(depth + 1)
		if !ok {
			return nil, false
		}
		if l.items, l.lines = append(l.items, v), append(l.lines, line); p.is(']') {
			return l, true
		}
		if !p.is(',') {
			return nil, false
		}
	}
}
