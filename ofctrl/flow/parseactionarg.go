package flow

import (
	"fmt"
	"net/netip"
	"strings"
)

// resubmit reads resubmit:port, resubmit(port,table) and resubmit(port,table,ct), any part but one left out.
func (p *actionParser) resubmit(it *item) error {
	a := Resubmit{Port: PortInPort, Table: NoTable}
	parts := strings.Split(it.value, ",")
	if it.delim == 0 || len(parts) > 3 {
		return it.errorf("resubmit takes a port, a table and ct")
	}
	for i, part := range parts {
		var err error
		switch part = strings.TrimSpace(part); {
		case part == "":
		case i == 0:
			a.Port, err = parsePort(part)
		case i == 1:
			a.Table, err = parse8(part)
		case part == "ct":
			a.CT = true
		default:
			err = fmt.Errorf("%q is not ct", part)
		}
		if err != nil {
			return it.errorf("%v", err)
		}
	}
	p.put(it, a)
	return nil
}

// cutArrow splits value->destination at the first arrow.
func cutArrow(it *item) (value, dst string, err error) {
	value, dst, ok := strings.Cut(it.value, "->")
	if !ok || it.delim == '(' {
		return "", "", it.errorf("-> is missing")
	}
	return value, dst, nil
}

func (p *actionParser) setField(it *item) error {
	value, dst, err := cutArrow(it)
	if err != nil {
		return err
	}
	f, ok := FieldByName(dst)
	var v, mask U128
	switch {
	case dst == "nw_tos":
		f = IPDSCP
		var tos uint64
		if tos, err = parseUint(value, 8); err == nil && tos&3 != 0 {
			err = fmt.Errorf("the low two bits are those of nw_ecn")
		}
		v, mask = U64(tos>>2), Ones(6)
	case !ok:
		err = fmt.Errorf("%q is not a field", dst)
	default:
		v, mask, err = parseFieldValue(f, value)
	}
	if err != nil {
		return it.errorf("%v", err)
	}
	p.put(it, SetField{f, v, mask})
	return nil
}

// load reads load:value->dst. More than 64 bits become several loads, low bits first, as in ovs-ofctl.
func (p *actionParser) load(it *item) error {
	value, dst, err := cutArrow(it)
	if err != nil {
		return err
	}
	sf, err := parseSubField(dst)
	if err != nil {
		return it.errorf("%v", err)
	}
	v, err := parseNumber(value, int(sf.Bits))
	if err != nil {
		return it.errorf("%v", err)
	}
	for sf.Bits > 64 {
		p.put(it, Load{SubField{sf.Field, sf.Ofs, 64}, v.Lo})
		v, sf.Ofs, sf.Bits = v.Shr(64), sf.Ofs+64, sf.Bits-64
	}
	p.put(it, Load{sf, v.Lo})
	return nil
}

func (p *actionParser) move(it *item) error {
	src, dst, err := cutArrow(it)
	if err != nil {
		return err
	}
	a := Move{}
	if a.Src, err = parseSubField(src); err == nil {
		a.Dst, err = parseSubField(dst)
	}
	if err != nil {
		return it.errorf("%v", err)
	}
	p.put(it, a)
	return nil
}

func (p *actionParser) ct(it *item) error {
	a := CT{Table: NoTable}
	if it.delim != 0 {
		err := eachItem(it, func(arg *item) (err error) {
			switch arg.key {
			case "commit":
				a.Commit, err = true, arg.bare()
			case "force":
				a.Force, err = true, arg.bare()
			case "table":
				if a.Table, err = parse8(arg.value); err == nil && a.Table == NoTable {
					err = fmt.Errorf("there is no table 255")
				}
			case "zone":
				if arg.value == "" || arg.value[0] >= '0' && arg.value[0] <= '9' {
					a.Zone, err = parse16(arg.value)
				} else {
					a.ZoneSrc, err = parseSubField(arg.value)
				}
			case "alg":
				a.Alg, err = parseAlg(arg.value)
			case "nat":
				if a.NAT != nil {
					return arg.errorf("given twice")
				}
				a.NAT, err = parseNAT(arg)
			case "exec":
				if a.Exec != nil {
					return arg.errorf("given twice")
				}
				a.Exec, err = p.nested(arg, inExec)
			default:
				return arg.errorf("ct has commit, force, table, zone, nat, exec and alg only")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	p.put(it, a)
	return nil
}

func parseAlg(s string) (uint16, error) {
	switch s {
	case "ftp":
		return AlgFTP, nil
	case "tftp":
		return AlgTFTP, nil
	}
	v, err := parse16(s)
	if err != nil {
		err = fmt.Errorf("%q is neither ftp nor tftp nor a port", s)
	}
	return v, err
}

func parseNAT(it *item) (*NAT, error) {
	n := &NAT{}
	if it.delim == 0 {
		return n, nil
	}
	err := eachItem(it, func(arg *item) error {
		switch arg.key {
		case "src", "dst":
			if n.Src || n.Dst {
				return arg.errorf("one of src and dst, once")
			}
			n.Src, n.Dst = arg.key == "src", arg.key == "dst"
			return n.setRange(arg.value)
		case "persistent":
			n.Persistent = true
		case "hash":
			n.Hash = true
		case "random":
			n.Random = true
		default:
			return arg.errorf("nat has src, dst, persistent, hash and random only")
		}
		return arg.bare()
	})
	return n, err
}

// setRange reads addr[-addr][:port[-port]], IPv6 addresses in brackets where ports follow. A range of one is written
// as one value, so it is kept as one.
func (n *NAT) setRange(s string) (err error) {
	if s == "" {
		return nil
	}
	if n.AddrMin, s, err = cutNATAddr(s); err != nil {
		return err
	}
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		if n.AddrMax, s, err = cutNATAddr(rest); err != nil {
			return err
		}
		if n.AddrMax == n.AddrMin {
			n.AddrMax = netip.Addr{}
		}
	}
	if s == "" {
		return nil
	}
	ports, ok := strings.CutPrefix(s, ":")
	if !ok {
		return fmt.Errorf("%q is not a range of ports", s)
	}
	lo, hi, two := strings.Cut(ports, "-")
	if n.PortMin, err = parse16(lo); err != nil {
		return err
	}
	if two {
		n.PortMax, err = parse16(hi)
		if n.PortMax == n.PortMin {
			n.PortMax = 0
		}
	}
	return err
}

// cutNATAddr reads the address that s starts with.
func cutNATAddr(s string) (a netip.Addr, rest string, err error) {
	text := s
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if text, rest, ok = strings.Cut(inner, "]"); !ok {
			return a, s, fmt.Errorf("%q lacks its closing bracket", s)
		}
	} else {
		text, _, _ = strings.Cut(s, "-")
		if v4, _, ports := strings.Cut(text, ":"); ports && strings.Contains(v4, ".") {
			text = v4 // in IPv4 a colon starts the ports
		}
		rest = s[len(text):]
	}
	a, err = netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return a, rest, fmt.Errorf("%q is not an address", text)
	}
	return a, rest, nil
}

func (p *actionParser) conjunction(it *item) error {
	id, tail, ok1 := strings.Cut(it.value, ",")
	k, n, ok2 := strings.Cut(tail, "/")
	if it.delim != '(' || !ok1 || !ok2 {
		return it.errorf("conjunction is written (id,k/n)")
	}
	var a Conjunction
	var err error
	if a.ID, err = parse32(strings.TrimSpace(id)); err == nil {
		if a.Clause, err = parse8(strings.TrimSpace(k)); err == nil {
			a.N, err = parse8(strings.TrimSpace(n))
		}
	}
	if err != nil {
		return it.errorf("%v", err)
	}
	p.put(it, a)
	return nil
}

func (p *actionParser) sample(it *item) error {
	a := Sample{SamplingPort: PortAny}
	err := eachItem(it, func(arg *item) (err error) {
		switch arg.key {
		case "probability":
			a.Probability, err = parse16(arg.value)
		case "collector_set_id":
			a.CollectorSet, err = parse32(arg.value)
		case "obs_domain_id":
			a.ObsDomainID, err = parse32(arg.value)
		case "obs_point_id":
			a.ObsPointID, err = parse32(arg.value)
		case "sampling_port":
			a.SamplingPort, err = parsePort(arg.value)
		case "ingress":
			a.Direction, err = SampleIngress, arg.bare()
		case "egress":
			a.Direction, err = SampleEgress, arg.bare()
		default:
			return arg.errorf("sample has probability, collector_set_id, obs_domain_id, obs_point_id, sampling_port, ingress and egress only")
		}
		return err
	})
	p.put(it, a)
	return err
}

func (p *actionParser) checkPktLarger(it *item) error {
	if it.delim != '(' || it.rest == "" {
		return it.errorf("check_pkt_larger is written (bytes)->field[bit]")
	}
	n, err := parse16(it.value)
	if err != nil {
		return it.errorf("%v", err)
	}
	sf, err := parseSubField(it.rest)
	if err != nil {
		return it.errorf("%v", err)
	}
	p.put(it, CheckPktLarger{n, sf})
	return nil
}
