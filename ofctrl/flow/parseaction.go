package flow

import (
	"strings"
)

// ParseActions reads what stands after "actions=", instructions included: what AppendActions writes and the other
// spellings of ovs-actions(7) for the actions of this package. "drop" and "" are no actions. A list that is valid by
// itself may still not fit its flow ([Flow.Validate]). The error is a *[ParseError].
func ParseActions(s string) ([]Action, error) {
	var p actionParser
	return p.list(s, 0, inFlow)
}

// actionParser reads one list; items tells where each action of it stands.
type actionParser struct {
	out   []Action
	items []item
	depth int
}

func (p *actionParser) put(it *item, a Action) {
	p.out = append(p.out, a)
	p.items = append(p.items, *it)
}

// list reads the actions of s, which starts at off of the whole text.
func (p *actionParser) list(s string, off int, where place) ([]Action, error) {
	if p.depth > maxNesting {
		return nil, errorAt(off, s, "actions are nested deeper than %d", maxNesting)
	}
	sc := scanner{s: s, off: off}
	var drop *item
	for {
		it, ok, err := sc.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if strings.EqualFold(it.key, "drop") {
			if err := it.bare(); err != nil {
				return nil, err
			}
			drop = &it
			continue
		}
		if err := p.item(&it); err != nil {
			return nil, err
		}
	}
	if drop != nil && len(p.out) > 0 {
		return nil, drop.errorf("drop stands alone")
	}
	if i, err := validateNested(p.out, where, p.depth); err != nil {
		return nil, invalidAt(&p.items[i], err)
	}
	return p.out, nil
}

// nested reads the list in the parentheses of it.
func (p *actionParser) nested(it *item, where place) ([]Action, error) {
	if it.delim != '(' {
		return nil, it.errorf("parentheses are missing")
	}
	inner := actionParser{depth: p.depth + 1}
	return inner.list(it.value, it.valAt, where)
}

func (p *actionParser) item(it *item) error {
	if it.rest != "" && !strings.EqualFold(it.key, "check_pkt_larger") {
		return it.errorf("-> does not belong here")
	}
	switch key := strings.ToLower(it.key); key {
	case "output":
		return p.output(it)
	case "controller":
		return p.controller(it)
	case "resubmit":
		return p.resubmit(it)
	case "ct":
		return p.ct(it)
	case "set_field":
		return p.setField(it)
	case "load":
		return p.load(it)
	case "move":
		return p.move(it)
	case "push", "pop":
		sf, err := parseSubField(it.value)
		if err != nil {
			return it.errorf("%v", err)
		}
		if key == "push" {
			p.put(it, Push{sf})
		} else {
			p.put(it, Pop{sf})
		}
	case "clone":
		actions, err := p.nested(it, inList)
		if err != nil {
			return err
		}
		p.put(it, Clone{actions})
	case "write_actions":
		actions, err := p.nested(it, inList)
		if err != nil {
			return err
		}
		p.put(it, WriteActions{actions})
	case "sample":
		return p.sample(it)
	case "conjunction":
		return p.conjunction(it)
	case "check_pkt_larger":
		return p.checkPktLarger(it)
	case "multipath":
		return p.multipath(it)
	case "note":
		data, err := parseHexBytes(it.value)
		if err != nil {
			return it.errorf("%v", err)
		}
		p.put(it, Note{data})
	case "write_metadata":
		v, mask, err := parseMasked(it.value, 64)
		if err != nil {
			return it.errorf("%v", err)
		}
		p.put(it, WriteMetadata{v.And(mask).Lo, mask.Lo})
	default:
		return p.simple(it, key)
	}
	return nil
}

// simple reads actions that are a name alone or with one number, ports, and what OpenFlow 1.0 called set_field.
func (p *actionParser) simple(it *item, key string) error {
	if a := bareAction(key); a != nil {
		if it.delim == '(' && strings.TrimSpace(it.value) == "" {
			it.delim = 0
		}
		p.put(it, a)
		return it.bare()
	}
	if width, build := numberAction(key); build != nil {
		v, err := parseUint(it.value, width)
		if err != nil {
			return it.errorf("%v", err)
		}
		p.put(it, build(v))
		return nil
	}
	if f := legacySet(key); f != 0 {
		v, mask, err := parseFieldValue(f, it.value)
		if err != nil {
			return it.errorf("%v", err)
		}
		p.put(it, SetField{f, v, mask})
		return nil
	}
	port, err := parsePort(it.key)
	if err != nil {
		return it.errorf("unknown action")
	}
	p.put(it, outputTo(port))
	return it.bare()
}

func bareAction(key string) Action {
	switch key {
	case "pop_vlan", "strip_vlan":
		return PopVLAN{}
	case "dec_ttl":
		return DecTTL{}
	case "pop_queue":
		return PopQueue{}
	case "ct_clear":
		return CTClear{}
	case "clear_actions":
		return ClearActions{}
	}
	return nil
}

func numberAction(key string) (width int, build func(uint64) Action) {
	switch key {
	case "group":
		return 32, func(v uint64) Action { return Group{uint32(v)} }
	case "meter":
		return 32, func(v uint64) Action { return Meter{uint32(v)} }
	case "set_queue":
		return 32, func(v uint64) Action { return SetQueue{uint32(v)} }
	case "goto_table":
		return 8, func(v uint64) Action { return GotoTable{uint8(v)} }
	case "push_vlan":
		return 16, func(v uint64) Action { return PushVLAN{uint16(v)} }
	}
	return 0, nil
}

// legacySet names the field of an OpenFlow 1.0 action that ovs-ofctl turns into set_field for OpenFlow 1.3.
func legacySet(key string) FieldID {
	switch key {
	case "mod_dl_src":
		return EthSrc
	case "mod_dl_dst":
		return EthDst
	case "mod_nw_src":
		return IPSrc
	case "mod_nw_dst":
		return IPDst
	case "set_tunnel", "set_tunnel64":
		return TunID
	}
	return 0
}

// outputTo is an Output, or for the controller what stands for it everywhere.
func outputTo(port uint32) Action {
	if port == PortController {
		return Controller{MaxLen: WholePacket, Reason: ReasonAction}
	}
	return Output{Port: port}
}

func (p *actionParser) output(it *item) error {
	if it.delim == '(' {
		return p.outputTrunc(it)
	}
	port, err := parsePort(it.value)
	if err == nil {
		p.put(it, outputTo(port))
		return nil
	}
	sf, subErr := parseSubField(it.value)
	if subErr != nil {
		return it.errorf("%v", err)
	}
	p.put(it, OutputReg{Src: sf, MaxLen: WholePacket})
	return nil
}

func (p *actionParser) outputTrunc(it *item) error {
	var a OutputTrunc
	seen := 0
	err := eachItem(it, func(arg *item) (err error) {
		switch arg.key {
		case "port":
			seen |= 1
			a.Port, err = parsePort(arg.value)
		case "max_len":
			seen |= 2
			a.MaxLen, err = parse32(arg.value)
		default:
			return arg.errorf("output has port and max_len only")
		}
		return err
	})
	if err == nil && seen != 3 {
		err = it.errorf("output needs port and max_len")
	}
	p.put(it, a)
	return err
}

// eachItem calls do for each part within the parentheses of it and ties bare errors to that part.
func eachItem(it *item, do func(arg *item) error) error {
	if it.delim != '(' {
		return it.errorf("parentheses are missing")
	}
	sc := scanner{s: it.value, off: it.valAt}
	for {
		arg, ok, err := sc.next()
		if err != nil || !ok {
			return err
		}
		if err := do(&arg); err != nil {
			if _, placed := err.(*ParseError); !placed {
				err = arg.errorf("%v", err)
			}
			return err
		}
	}
}

func parse32(s string) (uint32, error) {
	v, err := parseUint(s, 32)
	return uint32(v), err
}

func parse16(s string) (uint16, error) {
	v, err := parseUint(s, 16)
	return uint16(v), err
}

func parse8(s string) (uint8, error) {
	v, err := parseUint(s, 8)
	return uint8(v), err
}

func (p *actionParser) controller(it *item) error {
	a := Controller{MaxLen: WholePacket, Reason: ReasonAction}
	var err error
	switch it.delim {
	case 0:
	case '(':
		err = eachItem(it, func(arg *item) (err error) {
			switch arg.key {
			case "max_len":
				a.MaxLen, err = parse16(arg.value)
			case "id":
				a.ID, err = parse16(arg.value)
			case "meter_id":
				a.MeterID, err = parse32(arg.value)
			case "userdata":
				a.UserData, err = parseHexBytes(arg.value)
			case "pause":
				a.Pause, err = true, arg.bare()
			case "reason":
				for i, n := range reasonNames() {
					if strings.EqualFold(n, arg.value) {
						a.Reason = uint8(i)
						return nil
					}
				}
				a.Reason, err = parse8(arg.value)
			default:
				return arg.errorf("controller has reason, max_len, id, userdata, pause and meter_id only")
			}
			return err
		})
	default:
		if a.MaxLen, err = parse16(it.value); err != nil {
			err = it.errorf("%v", err)
		}
	}
	p.put(it, a)
	return err
}

// parseHexBytes reads pairs of digits with or without dots between them.
func parseHexBytes(s string) (string, error) {
	out := make([]byte, 0, len(s)/2)
	for s != "" {
		if s[0] == '.' {
			s = s[1:]
			continue
		}
		if len(s) < 2 || hexValue(s[0]) < 0 || hexValue(s[1]) < 0 {
			return "", errHexBytes
		}
		out = append(out, byte(hexValue(s[0])<<4|hexValue(s[1])))
		s = s[2:]
	}
	return string(out), nil
}
