package flow

import (
	"strconv"
	"strings"
	"time"
)

// ParseFlow reads one line as Flow.String, Installed.String and ovs-ofctl write it, and in the other spellings that
// "ovs-ofctl add-flow" takes for OpenFlow 1.3. Counters and ages are read over. Without a priority it is 32768, without
// a table 0. The flow is valid and its match in normal form. The error is a *[ParseError].
func ParseFlow(line string) (Flow, error) {
	i, err := ParseInstalled(line)
	return i.Flow, err
}

// ParseInstalled is ParseFlow that keeps duration, n_packets and n_bytes where the line has them.
func ParseInstalled(line string) (Installed, error) {
	f := Installed{Flow: Flow{Priority: DefaultPriority}}
	var mp matchParser
	sc := scanner{s: line}
	for {
		sc.skip(len(sc.s) - len(strings.TrimLeft(sc.s, separators)))
		if rest, ok := cutActions(sc.s); ok {
			sc.skip(len(sc.s) - len(rest))
			break
		}
		it, ok, err := sc.next()
		if err != nil {
			return Installed{}, err
		}
		if !ok {
			return Installed{}, errorAt(sc.off, "", "actions= is missing")
		}
		known, err := f.item(&it)
		if err == nil && !known {
			known, err = mp.item(&it)
		}
		if err == nil && !known {
			err = it.errorf("%q is neither a field nor a property of a flow", it.key)
		}
		if err != nil {
			return Installed{}, err
		}
	}
	var err error
	f.Match, err = mp.finish(func(m Match) (FieldID, error) { return Flow{Match: m}.validateMatch() })
	if err != nil {
		return Installed{}, err
	}
	ap := actionParser{}
	if f.Actions, err = ap.list(sc.s, sc.off, inFlow); err != nil {
		return Installed{}, err
	}
	if i, err := f.validateActions(); err != nil {
		return Installed{}, invalidAt(&ap.items[i], err)
	}
	return f, nil
}

func cutActions(s string) (rest string, ok bool) {
	for _, p := range [...]string{"actions=", "action="} {
		if rest, ok := strings.CutPrefix(s, p); ok {
			return rest, true
		}
	}
	return s, false
}

// item takes a property of the flow; known is false if it is none.
func (f *Installed) item(it *item) (known bool, err error) {
	for i, n := range flagNames() {
		if it.key == n {
			f.Flags |= 1 << i
			return true, it.bare()
		}
	}
	number := func(width int) (v uint64) {
		if it.delim != '=' && it.delim != ':' {
			err = it.errorf("a value is missing")
			return 0
		}
		v, e := parseUint(it.value, width)
		if e != nil {
			err = it.errorf("%v", e)
		}
		return v
	}
	switch it.key {
	case "cookie":
		if strings.Contains(it.value, "/") {
			return true, it.errorf("a flow has no cookie mask")
		}
		f.Cookie = Cookie(number(64))
	case "table":
		if f.Table = uint8(number(8)); f.Table == NoTable && err == nil {
			err = it.errorf("there is no table 255")
		}
	case "priority":
		f.Priority = uint16(number(16))
	case "idle_timeout":
		f.IdleTimeout = uint16(number(16))
	case "hard_timeout":
		f.HardTimeout = uint16(number(16))
	case "importance":
		f.Importance = uint16(number(16))
	case "n_packets":
		f.Stats.Packets = number(64)
	case "n_bytes":
		f.Stats.Bytes = number(64)
	case "idle_age", "hard_age":
		number(64)
	case "duration":
		if !f.duration(it.value) {
			err = it.errorf("not a number of seconds such as 1.5s")
		}
	case "no_readonly_table", "allow_hidden_fields": // ovs-ofctl reads over these
	default:
		return false, nil
	}
	return true, err
}

// duration reads 12s, 0.012s, 3.141592653s.
func (f *Installed) duration(s string) bool {
	s, ok := strings.CutSuffix(s, "s")
	whole, frac, _ := strings.Cut(s, ".")
	if !ok || len(frac) > 9 {
		return false
	}
	sec, err := strconv.ParseUint(whole, 10, 32)
	if err != nil {
		return false
	}
	nsec := uint64(0)
	if frac != "" {
		if nsec, err = strconv.ParseUint((frac + "00000000")[:9], 10, 32); err != nil {
			return false
		}
	}
	f.Stats.DurationSec, f.Stats.DurationNsec = uint32(sec), uint32(nsec)
	return true
}

// Duration returns how long the flow has been installed.
func (s Stats) Duration() time.Duration {
	return time.Duration(s.DurationSec)*time.Second + time.Duration(s.DurationNsec)
}

// trimSentinel drops the text of ErrInvalid, which ParseError says in its own way.
func trimSentinel(err error) string {
	return strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": ")
}
