package unixctl

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"
)

// Entry is one tracked connection as "dpctl/dump-conntrack" prints it (ct_dpif_format_entry in lib/ct-dpif.c). Fields are found by
// name, unknown ones are skipped, absent ones are zero: the text is not a stable interface.
type Entry struct {
	Proto       uint8 // IP protocol number
	Orig, Reply Tuple
	Zone        uint16
	Mark        uint32
	LabelsHi    uint64 // bits 127…64 of ct_label
	LabelsLo    uint64 // bits 63…0
	// State is the protocol's, "ESTABLISHED" or such; with -m that of the original direction. "" for protocols without one.
	State string
	// StateReply is that of the reply direction, with -m only.
	StateReply string
	// Timeout is the time left in seconds, with -s only.
	Timeout uint32
	ID      uint32 // with -m
	Status  string // with -m: "0" or names joined by "|"
	Helper  string // ALG, "" without
}

// Tuple is one direction of a connection. Ports are for protocols that have them, ICMP fields for ICMP and ICMPv6.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	ICMPID           uint16
	ICMPType         uint8
	ICMPCode         uint8
	Packets, Bytes   uint64 // with -s, where the datapath counts
}

// IP protocol numbers that have a name in the text.
const (
	protoICMP    = 1
	protoIGMP    = 2
	protoTCP     = 6
	protoUDP     = 17
	protoDCCP    = 33
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

func protoName(proto uint8) string {
	switch proto {
	case protoICMP:
		return "icmp"
	case protoIGMP:
		return "igmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoDCCP:
		return "dccp"
	case protoICMPv6:
		return "icmpv6"
	case protoSCTP:
		return "sctp"
	case protoUDPLite:
		return "udplite"
	}
	return strconv.Itoa(int(proto))
}

func protoByName(name string) (uint8, bool) {
	for _, p := range []uint8{protoICMP, protoIGMP, protoTCP, protoUDP, protoDCCP, protoICMPv6, protoSCTP, protoUDPLite} {
		if protoName(p) == name {
			return p, true
		}
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return uint8(n), err == nil
}

// Entries parses the text of a dump. A line that cannot be parsed yields its error and does not end the sequence.
func Entries(text string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			if !yield(ParseEntry(line)) {
				return
			}
		}
	}
}

// ErrEntry says that a line is no conntrack entry.
var ErrEntry = errors.New("unixctl: bad conntrack entry")

// ParseEntry parses one line. Errors match ErrEntry.
func ParseEntry(line string) (Entry, error) {
	var e Entry
	first, rest, _ := strings.Cut(line, ",")
	proto, ok := protoByName(first)
	if !ok {
		return Entry{}, fmt.Errorf("%w: no protocol: %.80q", ErrEntry, line)
	}
	e.Proto = proto
	err := fields(rest, func(key, value string, nested bool) (err error) {
		switch key {
		case "orig":
			e.Orig, err = parseTuple(value, nested)
		case "reply":
			e.Reply, err = parseTuple(value, nested)
		case "zone":
			e.Zone, err = number[uint16](value)
		case "mark":
			e.Mark, err = number[uint32](value)
		case "labels":
			e.LabelsHi, e.LabelsLo, err = ParseLabels(value)
		case "timeout":
			e.Timeout, err = number[uint32](value)
		case "id":
			e.ID, err = number[uint32](value)
		case "status":
			e.Status = value
		case "helper":
			e.Helper = value
		case "protoinfo":
			if !nested {
				return errors.New("want (…)")
			}
			return fields(value, func(key, value string, _ bool) error {
				switch key {
				case "state", "state_orig":
					e.State = value
				case "state_reply":
					e.StateReply = value
				}
				return nil
			})
		}
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w: %.200q", ErrEntry, err, line)
	}
	if !e.Orig.Src.IsValid() || !e.Orig.Dst.IsValid() {
		return Entry{}, fmt.Errorf("%w: no original tuple: %.200q", ErrEntry, line)
	}
	return e, nil
}

func parseTuple(text string, nested bool) (t Tuple, err error) {
	if !nested {
		return t, errors.New("want (…)")
	}
	err = fields(text, func(key, value string, _ bool) (err error) {
		switch key {
		case "src":
			t.Src, err = netip.ParseAddr(value)
		case "dst":
			t.Dst, err = netip.ParseAddr(value)
		case "sport":
			t.SrcPort, err = number[uint16](value)
		case "dport":
			t.DstPort, err = number[uint16](value)
		case "id":
			t.ICMPID, err = number[uint16](value)
		case "type":
			t.ICMPType, err = number[uint8](value)
		case "code":
			t.ICMPCode, err = number[uint8](value)
		case "packets":
			t.Packets, err = number[uint64](value)
		case "bytes":
			t.Bytes, err = number[uint64](value)
		}
		return err
	})
	return t, err
}

// fields calls f for each key=value and key=(…) of a list that is separated by commas. Parentheses nest.
func fields(text string, f func(key, value string, nested bool) error) error {
	for text != "" {
		end := strings.IndexAny(text, "=,")
		if end < 0 || text[end] == ',' {
			// A word without a value: a flag of a later version.
			if end < 0 {
				return nil
			}
			text = text[end+1:]
			continue
		}
		key, value := text[:end], text[end+1:]
		nested := strings.HasPrefix(value, "(")
		if nested {
			n := closing(value)
			if n < 0 {
				return fmt.Errorf("%s: unbalanced parentheses", key)
			}
			value, text = value[1:n], value[n+1:]
			if text != "" && text[0] != ',' {
				return fmt.Errorf("%s: text after the parenthesis", key)
			}
			text = strings.TrimPrefix(text, ",")
		} else {
			value, text, _ = strings.Cut(value, ",")
		}
		if err := f(key, value, nested); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// closing returns the index of the parenthesis that closes the one at the start of text, or -1.
func closing(text string) int {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func number[T uint8 | uint16 | uint32 | uint64](text string) (T, error) {
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	if uint64(T(n)) != n {
		return 0, fmt.Errorf("%s is out of range", text)
	}
	return T(n), nil
}

// ParseLabels reads a ct_label: 0x and up to 32 hexadecimal digits.
func ParseLabels(text string) (hi, lo uint64, err error) {
	digits, ok := strings.CutPrefix(text, "0x")
	if !ok || digits == "" || len(digits) > 32 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return 0, 0, errors.New("want 0x and at most 32 hexadecimal digits")
	}
	split := max(0, len(digits)-16)
	if split > 0 {
		if hi, err = strconv.ParseUint(digits[:split], 16, 64); err != nil {
			return 0, 0, err
		}
	}
	lo, err = strconv.ParseUint(digits[split:], 16, 64)
	return hi, lo, err
}
