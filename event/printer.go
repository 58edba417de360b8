package event

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// PrintOptions of Compact and Row. The zero value prints names, local time and no colour.
type PrintOptions struct {
	Numeric    bool           // addresses without names
	Node       bool           // observer.name after the time
	Rule       bool           // policy/direction/rule, and the cookie, instead of policy/rule
	Color      bool           // ANSI colours for the verdict; everything from outside stays escaped
	Location   *time.Location // nil = time.Local
	TimeFormat string         // a layout of package time, or UnixTime; "" = "Jan _2 15:04:05.000"
}

const defaultTimeFormat = "Jan _2 15:04:05.000"

// UnixTime is the TimeFormat of seconds since 1970 with nine decimals.
const UnixTime = "unix"

// TimeFormats are the layouts that people may choose by name.
func TimeFormats() map[string]string {
	return map[string]string{"stampmilli": defaultTimeFormat, "rfc3339": time.RFC3339, "rfc3339milli": "2006-01-02T15:04:05.000Z07:00",
		"rfc3339micro": "2006-01-02T15:04:05.000000Z07:00", "rfc3339nano": "2006-01-02T15:04:05.000000000Z07:00", "rfc1123z": time.RFC1123Z,
		"datetime": time.DateTime, "time": "15:04:05.000", "unix": UnixTime}
}

// TimeText is when it happened.
func (o *PrintOptions) TimeText(t time.Time) string {
	loc, layout := o.Location, o.TimeFormat
	if loc == nil {
		loc = time.Local
	}
	switch layout {
	case "":
		layout = defaultTimeFormat
	case UnixTime:
		return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
	}
	return t.In(loc).Format(layout)
}

// Header is what to print before compact lines, without a line end.
func Header(o PrintOptions) string {
	node := ""
	if o.Node {
		node = " [NODE]"
	}
	return "TIME" + node + ": SOURCE -> DESTINATION policy-verdict:POLICY/RULE DIRECTION VERDICT (SUMMARY)"
}

// Compact is e as one line without its end:
//
//	Nov 20 22:14:05.123: web1(10.0.0.5):47072 -> db1(10.0.0.9):5432 policy-verdict:web/to-db EGRESS ALLOWED (TCP Flags: SYN)
//	Nov 20 22:14:18.000: web1(10.0.0.5):47072 -> db1(10.0.0.9):5432 connection-ended:web/to-db EGRESS ALLOWED (closed after 12.9s)
//	Nov 20 22:14:06.000: EVENTS LOST: packet_in_meter - 1532 (first: 22:14:05.001, last: 22:14:05.998)
//	Nov 20 22:14:07.000: foreign-flows-removed bridge br0: 1 foreign flow was removed; cookie=0x99 table=203 priority=0 actions=NORMAL
//
// The left side is the initiator; the arrow points where the packet went: "<-" for a reply, "<>" when conntrack did not know the
// connection. Whatever comes from packets or names is escaped by Escape, so that it cannot steer a terminal.
func Compact(e *Event, o PrintOptions) string {
	var b strings.Builder
	b.WriteString(o.TimeText(e.Timestamp))
	if o.Node && e.Observer != nil {
		b.WriteString(" [" + Escape(e.Observer.Name) + "]")
	}
	b.WriteString(": ")
	if l := e.Tapwall.Loss; l != nil {
		b.WriteString("EVENTS LOST: " + Escape(l.Stage) + " - " + o.lossText(l))
		return b.String()
	}
	if e.Tapwall.Notice != nil {
		b.WriteString(Escape(e.Event.Action) + " " + noticeText(e))
		return b.String()
	}
	writeEnd(&b, e.Source, e.Tapwall.Source, o)
	b.WriteString(" " + arrow(e) + " ")
	writeEnd(&b, e.Destination, e.Tapwall.Destination, o)
	b.WriteString(" " + typeText(e, o))
	if v := e.Tapwall.Verdict; v != "" {
		b.WriteString(" " + colored(v.Word(), v, o.Color))
	}
	if s := summary(e); s != "" {
		b.WriteString(" (" + Escape(s) + ")")
	}
	return b.String()
}

// typeText is what decided, and on which side: policy-verdict:web/to-db EGRESS.
func typeText(e *Event, o PrintOptions) string {
	text := Escape(e.Event.Action)
	if m := e.Tapwall.Mirror; m != "" {
		text += ":" + Escape(m)
	}
	if r := e.Rule; r != nil {
		switch {
		case o.Rule:
			text += ":" + Escape(r.ID)
		case r.Ruleset != "":
			text += ":" + Escape(r.Ruleset) + "/" + Escape(r.Name)
		default:
			text += ":" + Escape(r.Name)
		}
	}
	if c := e.Tapwall.Cookie; o.Rule && c != "" {
		text += " " + Escape(c)
	}
	if d := e.Tapwall.Direction; d != "" {
		text += " " + strings.ToUpper(Escape(d))
	}
	return text
}

func (o *PrintOptions) lossText(l *Loss) string {
	loc := o.Location
	if loc == nil {
		loc = time.Local
	}
	const clock = "15:04:05.000"
	text := lostCount(l)
	if l.Reason != "" {
		text += " " + Escape(l.Reason)
	}
	return text + fmt.Sprintf(" (first: %s, last: %s)", l.First.In(loc).Format(clock), l.Last.In(loc).Format(clock))
}

func noticeText(e *Event) string {
	n := e.Tapwall.Notice
	text := Escape(n.Message)
	if e.Tapwall.Change != nil { // the message says all
		return text
	}
	for _, object := range n.Objects {
		text += "; " + Escape(object)
	}
	return text
}

// RowHeader names the columns of Row.
func RowHeader(o PrintOptions) []string {
	out := []string{"TIME", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"}
	if o.Node {
		out = append([]string{"TIME", "NODE"}, out[1:]...)
	}
	return out
}

// Row is what Compact says, in columns. All cells are safe for a terminal, and without colours.
func Row(e *Event, o PrintOptions) []string {
	out := []string{o.TimeText(e.Timestamp)}
	if o.Node {
		node := ""
		if e.Observer != nil {
			node = Escape(e.Observer.Name)
		}
		out = append(out, node)
	}
	switch {
	case e.Tapwall.Loss != nil:
		return append(out, "", "", "EVENTS LOST: "+Escape(e.Tapwall.Loss.Stage), "", o.lossText(e.Tapwall.Loss))
	case e.Tapwall.Notice != nil:
		return append(out, "", "", Escape(e.Event.Action), "", noticeText(e))
	}
	var source, destination strings.Builder
	writeEnd(&source, e.Source, e.Tapwall.Source, o)
	writeEnd(&destination, e.Destination, e.Tapwall.Destination, o)
	return append(out, source.String(), arrow(e)+" "+destination.String(), typeText(e, o), e.Tapwall.Verdict.Word(), Escape(summary(e)))
}

func lostCount(l *Loss) string {
	if l.Count == 0 {
		return "unknown number"
	}
	return strconv.FormatInt(l.Count, 10)
}

func arrow(e *Event) string {
	ct := e.Tapwall.CT
	switch {
	case e.Tapwall.Mirror != "": // a packet, from whoever sent it
		return "->"
	case ct == nil:
		return "<>"
	}
	for _, s := range ct.State {
		if s == "rpl" {
			return "<-"
		}
	}
	return "->"
}

// writeEnd writes name(address):port.
func writeEnd(b *strings.Builder, s *Side, ep *Endpoint, o PrintOptions) {
	addr, port := "", 0
	if s != nil {
		addr, port = s.IP, s.Port
		if addr == "" {
			addr = s.MAC
		}
	}
	addr = Escape(addr)
	name := ""
	if ep != nil && !o.Numeric {
		name = Escape(ep.Name)
		if name == "" {
			name = Escape(ep.PortName)
		}
	}
	if name == "" && s != nil && !o.Numeric {
		name = Escape(s.Domain)
	}
	switch {
	case name != "" && addr != "":
		b.WriteString(name + "(" + addr + ")")
	case name != "":
		b.WriteString(name)
	case addr == "":
		b.WriteString("?")
	case port != 0 && strings.Contains(addr, ":"):
		b.WriteString("[" + addr + "]")
	default:
		b.WriteString(addr)
	}
	if port != 0 {
		b.WriteString(":" + strconv.Itoa(port))
	}
}

// Word is what a verdict is called in what people read. It is safe for a terminal.
func (v Verdict) Word() string {
	switch v {
	case Forwarded:
		return "ALLOWED"
	case Dropped:
		return "DENIED"
	case Audit:
		return "AUDITED"
	case Rejected, Mirrored, Sampled, Quarantined, Errored:
	}
	return Escape(string(v))
}

func colored(word string, v Verdict, on bool) string {
	if !on {
		return word
	}
	color := "33" // yellow
	switch v {
	case Forwarded:
		color = "32"
	case Dropped, Rejected, Quarantined, Errored:
		color = "31"
	case Audit, Mirrored, Sampled:
	}
	return "\x1b[" + color + "m" + word + "\x1b[0m"
}

func summary(e *Event) string {
	var parts []string
	switch message := said(e); {
	case e.Tapwall.Ended != nil:
		parts = append(parts, endText(e))
	case message != "":
		parts = append(parts, message)
	case e.Tapwall.Claim != nil:
		c := e.Tapwall.Claim
		parts = append(parts, fmt.Sprintf("%s: %s is at %s", strings.ToUpper(c.Protocol), c.IP, c.MAC))
	case e.Tapwall.TCP != nil:
		flags := strings.Join(e.Tapwall.TCP.Flags, ", ")
		if flags == "" {
			flags = "none"
		}
		parts = append(parts, "TCP Flags: "+flags)
	case e.Tapwall.ICMP != nil:
		kind := "ICMP"
		if e.Network != nil && e.Network.Type == "ipv6" {
			kind = "ICMPv6"
		}
		parts = append(parts, fmt.Sprintf("%s type %d code %d", kind, e.Tapwall.ICMP.Type, e.Tapwall.ICMP.Code))
	case e.Network != nil && e.Network.Transport != "":
		parts = append(parts, strings.ToUpper(e.Network.Transport))
	case e.Network != nil && e.Network.IANANumber != "":
		parts = append(parts, "protocol "+e.Network.IANANumber)
	}
	if r := e.Tapwall.DropReason; r != "" && r != PolicyDenied {
		parts = append(parts, r)
	}
	if d := e.Tapwall.Decode; d != nil && d.Status != "ok" {
		parts = append(parts, "decode "+d.Status+" at "+d.Layer)
	}
	return strings.Join(parts, ", ")
}

// endText says how a connection ended: "cut after 12.3s".
func endText(e *Event) string {
	text := e.Tapwall.Ended.How
	if d := e.Event.Duration; d != nil && *d == 0 { // ends are known to the second
		text += " in less than 1s"
	} else if d != nil {
		after := " after "
		if e.Event.Reason != EndExact {
			after = " after at most "
		}
		text += after + time.Duration(*d).Round(100*time.Millisecond).String()
	}
	if e.Event.Reason == EndRestarted {
		text += ", and tapwall was restarted"
	}
	return text
}

// Escape makes s safe for a terminal: control characters (C0, DEL, C1), line and paragraph separators, characters that turn the
// direction of text or are not seen, and bytes that are not UTF-8 become \n, \r, \t, \x1b, \u202e and the like.
func Escape(s string) string {
	clean := true
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < 0x100 && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
