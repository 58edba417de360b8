package event

import (
	"slices"
	"strconv"
	"strings"
)

// l7Params are about what applications say, and names that DNS gave.
var l7Params = []Param{
	{Name: "fqdn", Doc: "name by which either side asked DNS for the other; * is any text, as in all of these",
		list: func(f *Filter) *[]string { return &f.FQDN }, compile: either((*compiler).domains), json: having(`"domain":"`)},
	{Name: "from-fqdn", Doc: "such a name of the initiator", list: func(f *Filter) *[]string { return &f.FromFQDN },
		compile: source((*compiler).domains), json: having(`"domain":"`)},
	{Name: "to-fqdn", Doc: "such a name of the other side", list: func(f *Filter) *[]string { return &f.ToFQDN },
		compile: destination((*compiler).domains), json: having(`"domain":"`)},
	{Name: "dns-query", Doc: "name that DNS is asked for, in queries and answers: *.example.com",
		list: func(f *Filter) *[]string { return &f.DNSQuery }, compile: globs(func(e *Event) string {
			if e.DNS == nil || e.DNS.Question == nil {
				return ""
			}
			return e.DNS.Question.Name
		}), json: having(`"question":{"name":"`)},
	{Name: "dns-rcode", Doc: "what DNS answered: NOERROR, NXDOMAIN, SERVFAIL, …",
		Like: []string{"NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED"}, list: func(f *Filter) *[]string { return &f.DNSRcode },
		compile: globs(func(e *Event) string {
			if e.DNS == nil {
				return ""
			}
			return e.DNS.ResponseCode
		}), json: having(`"response_code":"`)},
	{Name: "sni", Doc: "server name in a TLS ClientHello: *.example.com", list: func(f *Filter) *[]string { return &f.SNI },
		compile: globs(func(e *Event) string {
			if e.TLS == nil || e.TLS.Client == nil {
				return ""
			}
			return e.TLS.Client.ServerName
		}), json: having(`"server_name":"`)},
	{Name: "http-method", Doc: "method of an HTTP/1 request", Like: []string{"GET", "POST", "PUT", "DELETE", "HEAD"},
		list: func(f *Filter) *[]string { return &f.HTTPMethod }, compile: globs(func(e *Event) string {
			if e.HTTP == nil || e.HTTP.Request == nil {
				return ""
			}
			return e.HTTP.Request.Method
		}), json: having(`"method":"`)},
	{Name: "http-host", Doc: "host that an HTTP/1 request is for", list: func(f *Filter) *[]string { return &f.HTTPHost },
		compile: globs(func(e *Event) string {
			if e.URL == nil {
				return ""
			}
			return e.URL.Domain
		}), json: having(`"domain":"`)},
	{Name: "http-path", Doc: "path of an HTTP/1 request: /api/*", list: func(f *Filter) *[]string { return &f.HTTPPath },
		compile: globs(func(e *Event) string {
			if e.URL == nil {
				return ""
			}
			return e.URL.Path
		}), json: having(`"path":"`)},
	{Name: "http-status", Doc: "status of an HTTP/1 response, or a range: 500-599", list: func(f *Filter) *[]string { return &f.HTTPStatus },
		compile: (*compiler).statuses, json: number("status_code")},
}

// having is a text of every document that has a field, whatever the pattern of what is in it.
func having(text string) func(string) string { return func(string) string { return text } }

// number is the text of a field with a number, or what it begins with for a range.
func number(key string) func(string) string {
	return func(v string) string {
		text := `"` + key + `":`
		if n, err := strconv.Atoi(v); err == nil {
			text += strconv.Itoa(n)
		}
		return text
	}
}

// glob is a pattern in which * stands for any text, in any case: the texts between the stars, in lower case.
type glob []string

func parseGlob(pattern string) glob { return strings.Split(strings.ToLower(pattern), "*") }

// match reports whether a text in lower case is like the pattern.
func (g glob) match(text string) bool {
	last := len(g) - 1
	if last == 0 {
		return text == g[0]
	}
	if len(text) < len(g[0])+len(g[last]) || !strings.HasPrefix(text, g[0]) || !strings.HasSuffix(text, g[last]) {
		return false
	}
	text = text[len(g[0]) : len(text)-len(g[last])]
	for _, part := range g[1:last] {
		_, behind, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text = behind
	}
	return true
}

// anyGlob is whether a text, which must not be "", is like one of the patterns.
func anyGlob(patterns []string) func(string) bool {
	var want []glob
	for _, p := range patterns {
		want = append(want, parseGlob(p))
	}
	return func(text string) bool {
		if text == "" {
			return false
		}
		text = strings.ToLower(text)
		return slices.ContainsFunc(want, func(g glob) bool { return g.match(text) })
	}
}

// globs compiles patterns of what is in documents.
func globs(of func(*Event) string) func(*compiler, []string) match {
	return func(_ *compiler, values []string) match {
		like := anyGlob(values)
		return func(f *Facts) bool { return f.Event != nil && like(of(f.Event)) }
	}
}

func (c *compiler) domains(values []string) func(side) bool {
	like := anyGlob(values)
	return func(s side) bool { return like(s.domain()) }
}

func (c *compiler) statuses(values []string) match {
	want := c.spans(values, 100, 999, "a status or range")
	return func(f *Facts) bool {
		return f.Event != nil && f.Event.HTTP != nil && f.Event.HTTP.Response != nil && in(want, f.Event.HTTP.Response.StatusCode)
	}
}
