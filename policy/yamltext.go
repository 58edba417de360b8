package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// flowWidth is up to which length a map or list below spec stands on one line, as in {labels: {app: web}}.
const flowWidth = 88

// writeBlock writes a map in block style at an indentation.
func writeBlock(b *strings.Builder, o object, indent int) {
	for i := range o.members {
		if i > 0 {
			b.WriteString(strings.Repeat(" ", indent))
		}
		m := &o.members[i]
		b.WriteString(yamlText(m.key) + ":")
		writeBelow(b, m.value, indent)
	}
}

// writeBelow writes a value after its key, on the same line if it is short or a scalar.
func writeBelow(b *strings.Builder, v any, indent int) {
	switch v := v.(type) {
	case object:
		if s := flowText(v); len(v.members) == 0 || indent > 0 && len(s) <= flowWidth {
			b.WriteString(" " + s + "\n")
			return
		}
		b.WriteString("\n" + strings.Repeat(" ", indent+2))
		writeBlock(b, v, indent+2)
	case list:
		if s := flowText(v); len(v.items) == 0 || indent > 0 && len(s) <= flowWidth {
			b.WriteString(" " + s + "\n")
			return
		}
		b.WriteString("\n")
		for _, item := range v.items {
			b.WriteString(strings.Repeat(" ", indent) + "-")
			if o, ok := item.(object); ok && len(flowText(o)) > flowWidth {
				b.WriteString(" ")
				writeBlock(b, o, indent+2)
				continue
			}
			b.WriteString(" " + flowText(item) + "\n")
		}
	default:
		b.WriteString(" " + flowText(v) + "\n")
	}
}

// flowText writes a value on one line.
func flowText(v any) string {
	switch v := v.(type) {
	case string:
		return yamlText(v)
	case number:
		return string(v)
	case object:
		parts := make([]string, len(v.members))
		for i := range v.members {
			parts[i] = yamlText(v.members[i].key) + ": " + flowText(v.members[i].value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case list:
		parts := make([]string, len(v.items))
		for i := range v.items {
			parts[i] = flowText(v.items[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case bool:
		return fmt.Sprint(v)
	}
	return "null"
}

// yamlText writes a text plain where every YAML parser reads it back as that text, and else in double quotes, where JSON's escapes are
// YAML's (YAML 1.2 §1.3).
func yamlText(s string) string {
	if isPlainYAML(s) {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return "null" // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func isPlainYAML(s string) bool {
	if s == "" {
		return false
	}
	letters, slashes, dots := 0, 0, 0
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			letters++
		case c == '/':
			slashes++
		case c == '.':
			dots++
		case '0' <= c && c <= '9' || c == '_' || c == '-':
		default:
			return false
		}
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "y", "n", "null":
		return false
	}
	first := s[0]
	if 'a' <= first && first <= 'z' || 'A' <= first && first <= 'Z' {
		return true
	}
	// What begins with a digit is plain only if it cannot be a number or a date: 10.0.0.0/24 and 10.0.0.5, but not 1e3, 80 or 0x10.
	return '0' <= first && first <= '9' && letters == 0 && (slashes == 1 || dots == 3) && !strings.ContainsAny(s, "_-")
}
